"""The record over training seeds: made from a checkpoint, and read by the book."""

import pytest
import torch

from softprune import artifacts, inturn, ladder, requests, training


@pytest.fixture
def quick(smoke, monkeypatch, own_results):
    """A quick fit, one retrained reference; the gates stored are not left for other tests."""
    monkeypatch.setattr(ladder.Fitter, "fit", lambda self, c: {
        s.name: smoke.gates(c, sites=s.name, fraction=0.3, gate="hard")[s.name]
        for s in self.sites})
    training.train(training.configure("digits", "smoke", without=("three",)))
    paths_ = [artifacts.companion(smoke.checkpoint, f"gates-{rung}") for rung in ladder.RUNGS]
    kept = {p: p.read_bytes() for p in paths_ if p.exists()}
    for p in kept:  # fitted by other tests, and these gates have other sites
        p.unlink()
    smoke.stored.clear()
    yield
    smoke.stored.clear()
    for p in paths_:
        p.unlink(missing_ok=True)
        if p in kept:
            p.write_bytes(kept[p])


def test_a_seed_gives_a_record_that_agrees_with_the_requests(smoke, quick):
    inturn.measure(smoke)
    record, = artifacts.read_records("digits", "smoke", "seeds")
    value = {(r["method"], r["metric"], r.get("forget")): r["value"] for r in record["rows"]
             if r.get("sites") != "inside" and r.get("split") != "forgotten-test"}
    gone = {(r["method"], r["metric"], r["forget"]): r["value"] for r in record["rows"]
            if r.get("split") == "forgotten-test"}
    bench = requests.Bench(smoke.checkpoint, smoke.images)
    fraction = requests.calibrate(bench)[0]
    turn = requests.in_turn(bench, lambda c: bench.method_logits("soft", (c,), "test",
                                                                 fraction=fraction))
    expected = requests.summarise(turn)
    for name in ("forgotten-mean", "change-worst"):
        assert value["soft", f"all-classes-{name}", None] == pytest.approx(100 * expected[name])
    assert value["soft", "accuracy", "three"] == pytest.approx(turn["retained"][3])
    assert value["original", "accuracy", "three"] == pytest.approx(turn["before"][3])
    assert 0 < value["retrained", "accuracy", "three"] <= 1
    names = smoke.images.class_names
    assert [gone["soft", "accuracy", n] for n in names] == turn["forgotten"]
    assert [value["soft", "accuracy", n] for n in names] == turn["retained"]
    fraction = requests.calibrate(bench, gate="hard")[0]
    closed = requests.summarise(requests.in_turn(bench, lambda c: bench.method_logits(
        "hard", (c,), "test", fraction=fraction)))
    assert value["hard", "all-classes-change-mean", None] == pytest.approx(
        100 * closed["change-mean"])
    under = [r for r in record["rows"] if r.get("sites") == "inside"]
    assert {r["metric"] for r in under} == {f"all-classes-{k}" for k in inturn.TURN}
    mean, = (r["value"] for r in under if r["metric"] == "all-classes-forgotten-mean")
    inside = [gone["best", "accuracy-inside-only", n] for n in names]
    assert sum(inside) / len(inside) == pytest.approx(mean / 100)
    assert gone["original", "accuracy-head-refit", "three"] > 0.5
    assert value["best", "time-edit", None] > 0
    assert record["extra"]["rungs"]["best"] == ladder.options("best", "digits").told()
    logits, labels = bench.outputs("test")[1:]
    assert value["original", "accuracy", None] == (logits.argmax(1) == labels).double().mean()
    assert {m for m, *_ in value} == {"soft", "hard", *ladder.RUNGS, "retrained", "original"}


def test_gates_are_fitted_for_some_classes_and_those_with_a_reference(
        smoke, quick):
    inturn.measure(smoke, every=5)
    assert sorted(smoke.stored["best"]) == [0, 3, 5]
    record, = artifacts.read_records("digits", "smoke", "seeds")
    n = {r["method"]: r["n"] for r in record["rows"] if r["metric"] == "all-classes-change-mean"}
    assert n == {"soft": 10, "hard": 10, "calibrated": 3, "best": 3}
    kept, = (r["value"] for r in record["rows"] if r["method"] == "best"
             and (r.get("split"), r.get("forget")) == ("retained-test", "three"))
    logits, labels = smoke.method_logits("best", (3,), "test"), smoke.images.test_labels
    assert kept == pytest.approx(requests.retained_and_forgotten(logits, labels, (3,))[0])


def test_what_was_measured_beside_an_absent_reference_stays_for_the_same_weights_alone(
        smoke, quick, monkeypatch):
    def beside():
        record, = artifacts.read_records("digits", "smoke", "seeds")
        return [r for r in record["rows"] if r.get("forget") == "three" and (
            r["method"] == "retrained" or r["metric"] == "accuracy-head-refit"
            or (r["method"] in ("best", "original") and r["split"] == "retained-test"))]

    inturn.measure(smoke, every=5)
    first = beside()
    monkeypatch.setattr(inturn, "references", lambda *_: {})
    inturn.measure(smoke, every=5)
    assert first and beside() == first
    # gates with another setting: the request's numbers are made anew, the reference's stay
    monkeypatch.setattr(inturn, "rungs", lambda *_: {"best": "another"})
    monkeypatch.setattr(ladder.Fitter, "fit", lambda self, c: {
        s.name: torch.ones(s.channels) for s in self.sites})
    for rung in ladder.RUNGS:
        artifacts.companion(smoke.checkpoint, f"gates-{rung}").unlink()
    smoke.stored.clear()
    inturn.measure(smoke, every=5)
    value = {(r["method"], r["metric"]): r["value"] for r in beside()}
    assert {k: v for k, v in value.items() if k[0] == "retrained"} == {
        (r["method"], r["metric"]): r["value"] for r in first if r["method"] == "retrained"}
    assert value["best", "accuracy"] == value["original", "accuracy"], "open gates change nothing"
    monkeypatch.setitem(smoke.sidecar, "sha256", "of other weights")
    inturn.measure(smoke, every=5)
    assert {r["metric"] for r in beside()} == {"accuracy"}
    assert not any(r["method"] == "retrained" for r in beside())
