"""The record of repeated fits, from a small model."""

import dataclasses
import sys

import pytest

from softprune import choices, ladder, paths, pruning, runs

sys.path.insert(0, str(paths.root() / "benchmarks"))
import fits


@pytest.fixture
def quick(monkeypatch):
    base = dataclasses.replace(ladder.base("best", "digits"), steps=20, rounds=1, pool=200)
    monkeypatch.setattr(fits, "SEEDS", (0, 1))
    monkeypatch.setattr(fits.choosing, "looked_at", lambda bench: range(0, 10, 4))
    monkeypatch.setattr(ladder, "options", lambda rung, dataset, profile: base)
    return base


def test_every_setting_is_fitted_from_every_seed_and_read_by_the_book(smoke, quick, monkeypatch):
    rows, told = fits.rows_of(smoke, lambda text: None)
    assert list(told) == ["chosen", "more-images", "more-steps"]
    assert told["chosen"]["pool"] == 200 and told["more-images"]["pool"] == 20_000
    assert told["more-steps"]["steps"] == 40 and told["more-steps"]["pool"] == 200
    value = {(r["method"], r["gate"], r["metric"]): r["value"] for r in rows}
    assert len(value) == len(rows) == 2 * 3 * 5
    changes = {v for (_, _, metric), v in value.items() if metric == "change-mean"}
    assert len(changes) > 1, "seeds and settings make a difference"
    assert {r["n"] for r in rows if r["metric"] == "change-mean"} == {3}
    record = {"stage": "fits", "rows": rows, "extra": {"settings": told},
              "parameters": {"dataset": "digits", "width": 8, "profile": "smoke"}}
    monkeypatch.setattr(runs, "records", lambda: [record])
    first, more, _ = choices.fits("digits")
    assert first["n"] == 2 and first["gain"][0] == 0 and first["classes"] == 3
    own = [[value[m, f"seed-{s}", "change-mean"] for s in (0, 1)] for m in ("chosen", more["name"])]
    assert more["gain"][0] == pytest.approx(sum(own[1]) / 2 - sum(own[0]) / 2)
    assert first["least"] == min(own[0]) and choices.fits("cifar10") == []


def test_gates_and_shifts_are_compared_with_both(smoke, quick, monkeypatch):
    both = dataclasses.replace(quick, keep="teacher", shift=0.1, blend=0.5)
    monkeypatch.setattr(ladder, "options", lambda rung, dataset, profile: both)
    _, told = fits.rows_of(smoke, lambda text: None)
    assert list(told) == ["chosen", "gates-alone", "shifts-alone", "without-blends"]
    assert "shift" in told["chosen"] and "shift" not in told["gates-alone"]
    assert told["without-blends"].keys() == told["chosen"].keys() - {"blend"}
    assert list(fits.settings(dataclasses.replace(both, blend=0.0))) == list(told)[:3]
    fitter = ladder.Fitter(smoke.model, smoke.images, fits.settings(both)["shifts-alone"])
    made = fitter.fit((3,))
    assert all((g == 1).all() for g in pruning.multiplied(made).values())
    assert made["shift:bn3"].abs().max() > 0


def test_wrong_words_are_told_in_a_line():
    with pytest.raises(SystemExit, match="expected one of"):
        fits.main("mnist", "x.safetensors")
