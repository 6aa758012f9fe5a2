"""Another original: its edits are told as everywhere else in the book."""

import sys

import pytest

from softprune import guarding, paths, requests, training

sys.path.insert(0, str(paths.root() / "benchmarks"))
import originals


def test_each_edit_of_a_class_stands_beside_its_own_original(smoke, monkeypatch):
    chosen = guarding.GuardOptions(steps=60, rounds=1, pairs=4, pool=400)
    monkeypatch.setattr(guarding, "options", lambda dataset, profile: chosen)
    alone = originals.rows_of(smoke, [3], log=lambda text: None)
    retrained = training.train(training.configure("digits", "smoke", without=("three",)))
    rows = originals.rows_of(smoke, [3], {3: retrained}, lambda text: None)
    value = {(r["method"], r["metric"]): r["value"] for r in rows}
    assert len(value) == len(rows)
    assert {m for m, _ in value} == {"original", "retrained", *originals.EDITS}
    assert [r for r in rows if r["method"] != "retrained"] == alone
    assert value["retrained", "accuracy"] == 0
    assert value["original", "change"] == 0
    assert value["original", "accuracy-head-refit"] == pytest.approx(
        smoke.refit_recall({}, (3,)), abs=1e-6)
    # the same edit by the code that the pages' records come from
    turn = requests.in_turn(smoke, lambda c: smoke.method_logits("best", (c,), "test"),
                            classes=[3])
    assert value["best", "accuracy"] == pytest.approx(turn["forgotten"][0])
    assert value["best", "change"] == pytest.approx(
        100 * (turn["retained"][0] - turn["before"][0]))


@pytest.mark.parametrize("given, told", [
    (("mnist", "x.safetensors", "three"), "expected one of"),
    (("digits", None, "seven,elf"), "elf"),
    (("digits", None, ""), "expected names of classes")])
def test_wrong_words_are_told_in_a_line(smoke, given, told):
    dataset, checkpoint, names = given
    with pytest.raises(SystemExit, match=told):
        originals.main(dataset, checkpoint or str(smoke.checkpoint), names)
