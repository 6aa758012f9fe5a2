"""The record of the plain method at every place, from a small model, and what pages read of it."""

import sys

import pytest

from softprune import findings, inturn, paths, requests, runs

sys.path.insert(0, str(paths.root() / "benchmarks"))
import sites


def test_every_place_is_judged_as_a_request_there_is(smoke, monkeypatch):
    monkeypatch.setattr(sites, "FRACTIONS", (0.1, 0.5))
    rows = sites.rows_of(smoke, lambda text: None)
    at = {(r["sites"], r["gate"], r["metric"]): r for r in rows}
    assert len(at) == len(rows) and {r["score"] for r in rows} == {"difference"}
    assert {(s, g) for s, g, _ in at} == {(s, g) for g in ("rank", "hard") for s in (
        "last", "inner", "late", "all", "conv1", "conv2")}
    for place in ("last", "conv2"):
        row = at[place, "hard", "all-classes-forgotten-mean"]
        assert row["method"] == "hard" and row["fraction"] in (0.1, 0.5)
        said = {k: row[k] for k in ("score", "statistic", "gate", "sites", "fraction")}
        expected = requests.judged(smoke, **said)
        assert row["value"] == pytest.approx(100 * expected["forgotten-mean"])
        assert at[place, "hard", "all-classes-change-worst"]["value"] == pytest.approx(
            100 * expected["change-worst"])
    # of this network's sites the second half but the last is one
    assert at["late", "rank", "all-classes-change-mean"]["value"] == at[
        "conv2", "rank", "all-classes-change-mean"]["value"]


def test_a_page_reads_each_place_once(monkeypatch):
    said = {"sites": "inner", "gate": "hard", "fraction": 0.1}
    turn = {"classes": [0, 1], "retained": [0.9, 0.9], "forgotten": [0.0, 0.1],
            "before": [0.9, 0.95]}
    rows = inturn.tell("hard", turn, **said)
    own = {"dataset": "digits", "width": 16, "penalty": "so", "seed": 0, "profile": "laptop"}
    monkeypatch.setattr(runs, "identity", lambda dataset: own)
    monkeypatch.setattr(runs, "records", lambda: [
        {"stage": "sites", "parameters": own | {"width": 8}, "rows": []},
        {"stage": "sites", "parameters": own | {"epochs": 30}, "rows": rows}])
    monkeypatch.setattr(findings.bar, "met", lambda dataset, told: told["worst"] < 1)
    place, = findings.places("digits")
    assert place == said | {"forgotten": 5.0, "worst": 10.0, "change": pytest.approx(-2.5),
                            "change-worst": pytest.approx(-5.0), "met": False}
    monkeypatch.setattr(runs, "records", lambda: [])
    assert findings.places("digits") == []
