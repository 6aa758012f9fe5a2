"""The record of directions guarded against a reader, from a small model."""

import dataclasses
import sys

import pytest

from softprune import guarding, paths, training

sys.path.insert(0, str(paths.root() / "benchmarks"))
import readers


def test_every_trial_stands_beside_the_original_and_the_retrained_network(smoke, monkeypatch):
    chosen = guarding.GuardOptions(steps=60, rounds=1, pairs=4, pool=400)
    monkeypatch.setattr(readers, "CHOSEN", chosen)
    monkeypatch.setattr(readers, "TRIALS", ((1, 0.0),))
    retrained = training.train(training.configure("digits", "smoke", without=("three",)))
    rows = readers.rows_of(smoke, [3], {3: retrained}, lambda text: None)
    value = {(r["method"], r.get("split"), r["metric"]): r["value"] for r in rows}
    own = readers.name_of(4, chosen.reader)
    assert {m for m, *_ in value} == {"original", "retrained", "best", "guarded-1-0", own}
    assert {r["forget"] for r in rows} == {"three"} and len(value) == len(rows)
    assert value["original", "retained-test", "change"] == 0
    assert value["retrained", "forgotten-test", "accuracy"] == 0
    assert value[own, "forgotten-test", "accuracy"] < 0.2
    # the same measure as everywhere else in the book
    assert value["original", "forgotten-test", "accuracy-head-refit"] == pytest.approx(
        smoke.refit_recall({}, (3,)), abs=1e-6)
    others = {k for m, _, k in value if m == own and "recall" in k}
    assert others == {k for m, _, k in value if m == "retrained" and "recall" in k}
    assert {"recall-t4-10-nn", "recall-t4-mlp", "recall-t4-probe-conv1",
            "recall-t4-relearn-40"} <= others
    assert not [k for m, _, k in value if m == "guarded-1-0" and "recall" in k]
    alone = readers.rows_of(smoke, [3], {}, lambda text: None)
    assert {m for m, *_ in value} - {r["method"] for r in alone} == {"retrained"}


def test_many_classes_have_the_chosen_setting_alone():
    assert list(readers.trials(100).values()) == [readers.CHOSEN]
    ten = readers.trials(10)
    assert readers.CHOSEN in ten.values() and len(ten) == len(set(readers.TRIALS))
    assert ten["guarded-8-0.05"] == dataclasses.replace(readers.CHOSEN, pairs=8, reader=0.05)


def test_wrong_words_are_told_in_a_line():
    with pytest.raises(SystemExit, match="expected one of"):
        readers.main("mnist", "x.safetensors")
    with pytest.raises(SystemExit, match="expected a number from 1"):
        readers.main("digits", "x.safetensors", "0")
