"""The record of what directions read, from a small model."""

import dataclasses
import sys

import pytest
import torch

from softprune import findings, ladder, paths, runs

sys.path.insert(0, str(paths.root() / "benchmarks"))
import directions


def test_a_direction_by_hand():
    h = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 1.0], [1.0, 0.0]])
    own = torch.tensor([True, True, False, False])
    pair = torch.tensor([[2.0, 0.0], [-0.5, 0.0]])  # turned: it leans along the first axis
    told = directions.read(h, own, pair, torch.tensor([1.0, 0.0]))
    assert told == pytest.approx({"auc": 1.0, "share-own": 0.36, "share-others": 0.5,
                                  "against": 1.0, "strength": 1.0})
    assert directions.read(h, own, pair, torch.tensor([-1.0, 0.0]))["auc"] == 0


def test_every_site_has_a_row_and_the_book_reads_them(smoke, monkeypatch):
    options = dataclasses.replace(ladder.base("best", "digits"), steps=20, rounds=1, pool=200,
                                  rate=0.0, direction=0.02, sites="inner")
    gates = ladder.Fitter(smoke.model, smoke.images, options).fit((3,))
    rows = directions.rows_of(smoke, {3: gates})
    assert {r["sites"] for r in rows} == {"conv1", "conv2"} and {r["n"] for r in rows} == {1}
    assert all(0 <= r["value"] <= 1 for r in rows if "share" in r["metric"] or "auc" in r["metric"])
    record = {"stage": "directions", "rows": rows, "parameters": {"dataset": "digits", "width": 8}}
    monkeypatch.setattr(runs, "records", lambda: [record])
    monkeypatch.setattr(runs, "identity", lambda d: {"width": 8})
    first, second = findings.directions("digits")
    assert (first["site"], second["site"]) == ("conv1", "conv2") and 0 <= first["auc"] <= 1
    monkeypatch.setattr(runs, "identity", lambda d: {"width": 16})
    assert findings.directions("digits") == []
    assert directions.rows_of(smoke, {3: {"conv2": torch.ones(16)}}) == []
