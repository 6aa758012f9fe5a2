"""The record of every class forgotten in turn by guarded directions, from a small model."""

import sys

import pytest

from softprune import artifacts, guarding, paths

sys.path.insert(0, str(paths.root() / "benchmarks"))
import guarded


def test_each_class_stands_with_what_a_refit_finds_before_and_after(smoke, monkeypatch):
    chosen = guarding.GuardOptions(steps=60, rounds=1, pairs=4, pool=400)
    monkeypatch.setattr(guarding, "options", lambda dataset, profile: chosen)
    stored = artifacts.companion(smoke.checkpoint, f"gates-{guarding.RUNG}")
    said = []
    rows = guarded.rows_of(smoke, [3, 5], said.append)
    value = {(r["method"], r["metric"], r.get("forget")): r["value"] for r in rows}
    assert len(value) == len(rows) and {f for *_, f in value} == {"three", "five", None}
    for cls, name in ((3, "three"), (5, "five")):
        assert value["guarded", "accuracy", name] < 0.2
        assert value["guarded", "change", name] > -10
        # the same measure as everywhere else in the book
        assert value["original", "accuracy-head-refit", name] == pytest.approx(
            smoke.refit_recall({}, (cls,)), abs=1e-6)
        assert value["guarded", "time-prepare", name] > 0
    assert value["guarded", "size-stored", None] == 2 * (4 * 2 * 16 + 32)
    made, fits = stored.stat().st_mtime_ns, [s for s in said if "fitted in" in s]
    assert len(fits) == 2
    guarded.rows_of(smoke, [3, 5], said.append)
    assert stored.stat().st_mtime_ns == made, "what is stored is not fitted again"
    stored.unlink()


def test_wrong_words_are_told_in_a_line():
    with pytest.raises(SystemExit, match="expected one of"):
        guarded.main("mnist", "x.safetensors")
    with pytest.raises(SystemExit, match="expected a number from 1"):
        guarded.main("digits", "x.safetensors", "none")
