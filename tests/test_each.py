"""Class by class: what the benchmark says of an edit is what other code says of it."""

import sys
import types

import pytest

from softprune import evaluation, paths, requests

sys.path.insert(0, str(paths.root() / "benchmarks"))
import each
from readers import read_anew


def test_a_class_is_told_as_elsewhere(smoke):
    smoke.prepare("best", [3])
    gates = smoke.method_gates("best", (3,))
    before, labels = smoke.outputs("test")[1], smoke.images.test_labels
    found = {r["metric"]: r for r in each.edited_rows(smoke, "best", 3, gates, before)}
    assert all((r["method"], r["forget"]) == ("best", "three") for r in found.values())
    turn = requests.in_turn(smoke, lambda c: smoke.gated_outputs(gates, "test")[1], classes=[3])
    assert found["accuracy"]["value"] == pytest.approx(turn["forgotten"][0])
    assert found["change"]["value"] == pytest.approx(
        100 * (turn["retained"][0] - turn["before"][0]))
    assert found["accuracy"]["n"] == int((labels == 3).sum())
    copied = smoke.fold_into_copy(smoke.inside(gates))
    z = evaluation.predict(copied, smoke.images.test_images, smoke.images.mean,
                           smoke.images.std)[1]
    assert found["accuracy-inside-only"]["value"] == pytest.approx(
        requests.retained_and_forgotten(z, labels, (3,))[1])
    _, _, anew = read_anew(copied, smoke.images, splits=("test",))["test"]
    assert found["accuracy-head-refit"]["value"] == pytest.approx(
        requests.retained_and_forgotten(anew, labels, (3,))[1], abs=0.05)


@pytest.mark.parametrize("rung", ["best", "guarded"])
def test_what_is_not_stored_is_a_line(smoke, tmp_path, monkeypatch, rung):
    bare = types.SimpleNamespace(checkpoint=tmp_path / "net.safetensors")
    monkeypatch.setattr(each, "opened", lambda dataset, path: bare)
    monkeypatch.setattr(sys, "argv", ["each.py", "digits", "net.safetensors", "--rungs", rung])
    with pytest.raises(SystemExit, match=f"softprune fit --rung {rung}"):
        each.main()


def test_every_nth_class_is_asked(smoke, monkeypatch):
    smoke.prepare("best", [0, 3, 4])
    made = []
    monkeypatch.setattr(each, "opened", lambda dataset, path: smoke)
    monkeypatch.setattr(each, "record", lambda stage, bench, rows, began, extra: made.append(rows))
    monkeypatch.setattr(each, "edited_rows", lambda bench, rung, cls, gates, before: [
        {"value": 0.0, "method": rung, "forget": cls}] * 4)
    monkeypatch.setattr(sys, "argv", ["each.py", "digits", str(smoke.checkpoint), "--every", "2"])
    each.main()
    asked = {r["forget"] for r in made[-1] if r["method"] == "best"}
    assert {0, 4} <= asked and not any(c % 2 for c in asked)
    monkeypatch.setattr(sys, "argv", ["each.py", "digits", str(smoke.checkpoint), "--every", "x"])
    with pytest.raises(SystemExit, match="expected a number from 1"):
        each.main()
