"""Readers that learn by steps get features of one size from every network."""

import sys

import pytest
import torch

from softprune import audit, guarding, paths, training

sys.path.insert(0, str(paths.root() / "benchmarks"))
import again


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(again, "STATES", 2)
    monkeypatch.setattr(again, "EPOCHS", 8)
    monkeypatch.setattr(again, "STEPS", (0, 2, 6))
    monkeypatch.setattr(again, "ORDERS", 2)


def test_every_network_is_asked_alike(smoke, short, monkeypatch):
    options = guarding.GuardOptions(steps=30, rounds=1, pairs=4, pool=400)
    monkeypatch.setattr(guarding, "setting", lambda bench, rung: options)
    retrained = training.train(training.configure("digits", "smoke", without=("three",)))
    rows = again.rows_of(smoke, {3: retrained}, ["guarded"], lambda text: None)
    value = {(r["method"], r["metric"]): r for r in rows}
    assert value.pop(("original", "relearn-rate"))["value"] in again.RATES
    methods = {"original", "prototype", "searched", "best", "guarded", "retrained"}
    assert {m for m, _ in value} == methods and len(value) == len(rows) - 1 == 3 * len(methods)
    assert {r["forget"] for r in rows[1:]} == {"three"}
    for method in methods:
        for reader, least in (("hidden", 0), ("relearned", -1)):
            found = value[method, f"recall-t4-{reader}"]
            assert least <= found["low"] <= found["value"] <= found["high"] <= 1
    assert value["original", "recall-t4-hidden"]["value"] > 0.8


def test_a_hidden_layer_does_not_see_the_size_of_features(smoke, short):
    """Without scaling it learns large features sooner."""
    evidence = audit.gather(smoke.images, 3, train=300, test=100)
    larger = smoke.fold_into_copy({})
    with torch.no_grad():
        larger.bn3.weight.mul_(8)
        larger.bn3.bias.mul_(8)
    assert again.hidden(larger, evidence) == pytest.approx(again.hidden(smoke.model, evidence))


def test_a_network_that_names_the_class_always_has_learned_nothing(smoke, monkeypatch):
    """And where nothing moves, nothing is found: the class's row begins anew."""
    monkeypatch.setattr(again, "STEPS", (0, 1, 2))
    evidence = audit.gather(smoke.images, 3, train=300, test=100)
    assert again.relearned(smoke.model, evidence, 0.0, 0)[0] < 0.05
    monkeypatch.setattr(audit, "reset_row", lambda model, cls: model.fc.bias.data[cls].fill_(1e4))
    found, others = again.relearned(smoke.model, evidence, 0.0, 0)
    assert found == 0 and others == 0


def test_the_rate_is_the_one_that_the_original_learns_by(smoke, monkeypatch):
    told = {0.03: 0.2, 0.01: 0.6, 0.003: 0.5, 0.001: 0.1}
    monkeypatch.setattr(again, "relearned", lambda model, evidence, rate, order: (told[rate], 1.0))
    assert again.rate_of(smoke.model, smoke.images, [3], lambda text: None) == 0.01


def test_wrong_words_are_told_in_a_line(smoke, monkeypatch):
    with pytest.raises(SystemExit, match="'best': expected guarded or deep"):
        again.main("digits", str(smoke.checkpoint), "best")
    monkeypatch.setattr(again.inturn, "references", lambda bench, config: {})
    with pytest.raises(SystemExit, match="--without CLASS"):
        again.main("digits", str(smoke.checkpoint))
