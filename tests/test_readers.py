"""The record of gates fitted against a reader, from a small model."""

import sys

import pytest

from softprune import paths, training

sys.path.insert(0, str(paths.root() / "benchmarks"))
import readers


def test_every_weight_stands_beside_the_original_and_the_retrained_network(smoke, monkeypatch):
    monkeypatch.setattr(readers, "WEIGHTS", (0.0, 0.1))
    monkeypatch.setattr(readers, "LONGER", {"steps": 60, "most": 3.0})
    retrained = training.train(training.configure("digits", "smoke", without=("three",)))
    rows = readers.rows_of(smoke, {3: retrained}, lambda text: None)
    value = {(r["method"], r["metric"]): r["value"] for r in rows}
    assert {m for m, _ in value} == {"original", "retrained", "reader-0", "reader-0.1"}
    assert {r["forget"] for r in rows} == {"three"} and len(value) == len(rows) == 16
    assert value["original", "change"] == 0 and value["retrained", "accuracy"] == 0
    assert value["original", "accuracy-head-refit"] > 0.8
    assert value["reader-0.1", "accuracy"] < 0.2 < value["original", "accuracy"]


def test_wrong_words_are_told_in_a_line():
    with pytest.raises(SystemExit, match="expected one of"):
        readers.main("mnist", "x.safetensors")
