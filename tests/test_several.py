"""The record of several classes at once, from a small model."""

import sys

import pytest

from softprune import artifacts, guarding, ladder, paths, requests, training

sys.path.insert(0, str(paths.root() / "benchmarks"))
import several


def test_requests_are_the_first_of_the_pages(smoke, monkeypatch):
    asked = []
    monkeypatch.setattr(smoke, "method_logits", lambda method, forget, split: (
        asked.append(forget), smoke.outputs(split)[1])[1])
    requests.several(smoke, "best", 3)
    assert several.drawn(10, 3) == asked[:several.DRAWS]
    assert all(list(f) == sorted(set(f)) for f in asked)


def test_what_is_stored_and_what_is_fitted_for_all_stand_side_by_side(smoke, monkeypatch):
    chosen = guarding.GuardOptions(steps=60, rounds=1, pairs=4, pool=400)
    monkeypatch.setattr(guarding, "options", lambda dataset, profile: chosen)
    first, = several.drawn(10, 2, 1)
    names = tuple(smoke.images.class_names[c] for c in first)
    assert several.retrained(smoke, first) is None
    training.train(training.configure("digits", "smoke", without=names))
    rows = several.rows_of(smoke, [2], 1, lambda text: None)
    value = {(r["method"], r["metric"]): r["value"] for r in rows}
    assert {r["forget"] for r in rows} == {"+".join(names)} and len(value) == len(rows)
    fitted = {requests.TOGETHER, several.TOGETHER}
    assert {m for m, k in value if k == "time-edit"} == fitted
    assert {m for m, _ in value} == fitted | {"best", "guarded", "original", "retrained"}
    assert value["original", "change"] == 0 and value["retrained", "accuracy"] == 0
    # both classes are of what is counted, and the classifier in between is the page's
    labels = smoke.images.test_labels
    gone = ladder.request(smoke.stored["best"], first)
    logits = smoke.gated_outputs(gone, "test")[1]
    assert value["best", "accuracy"] == pytest.approx(
        requests.retained_and_forgotten(logits, labels, first)[1], abs=1e-6)
    assert value["original", "accuracy-head-refit"] == pytest.approx(
        smoke.refit_recall({}, first), abs=1e-6)
    artifacts.companion(smoke.checkpoint, f"gates-{guarding.RUNG}").unlink()


def test_wrong_words_are_told_in_a_line(smoke):
    for sizes in ("1", "2,ten", "10"):
        with pytest.raises(SystemExit, match="expected numbers of classes from 2 to 9"):
            several.main("digits", str(smoke.checkpoint), sizes)
