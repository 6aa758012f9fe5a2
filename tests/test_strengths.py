"""The plain method, its strength chosen too: the rules by hand, rows as a request would have."""

import sys

import pytest

from softprune import findings, inturn, paths, requests, runs

sys.path.insert(0, str(paths.root() / "benchmarks"))
import strengths


def point(left, change, kept=0.9):
    return {"forgotten-mean": left, "change-mean": change, "retained-mean": kept}


def test_rules():
    cheap, dear, between = point(0.2, -0.004), point(0.0, -0.02, 0.88), point(0.1, -0.005)
    assert strengths.least_left([cheap, dear, between]) is between
    assert strengths.least_left([dear, point(0.0, -0.03)]) is dear
    assert strengths.largest_difference([cheap, dear, between]) is dear


def test_rows_are_of_what_the_rules_chose(smoke, monkeypatch):
    monkeypatch.setattr(strengths, "ALPHAS", (0.0, 0.5))
    rows, chosen = strengths.rows_of(smoke, lambda line: None)
    assert set(chosen) == set(strengths.RULES)
    for own in chosen.values():
        alpha = float(own["gate"].removeprefix("constant-"))
        expected = requests.judged(smoke, gate="constant", alpha=alpha, fraction=own["fraction"],
                                   score="difference", statistic="mean", sites="last")
        of = {r["metric"]: r["value"] for r in rows if own.items() <= r.items()}
        assert of["all-classes-forgotten-mean"] == pytest.approx(100 * expected["forgotten-mean"])
        assert of["all-classes-change-worst"] == pytest.approx(100 * expected["change-worst"])


def test_a_page_reads_what_each_rule_chose(monkeypatch):
    own = {"dataset": "digits", "width": 16, "penalty": "so", "seed": 0, "profile": "laptop"}
    said = {"score": "difference", "statistic": "mean", "sites": "last", "gate": "constant-0.05",
            "fraction": 0.4}
    turn = {"classes": [0, 1], "retained": [0.9, 0.9], "forgotten": [0.0, 0.1],
            "before": [0.9, 0.95]}
    monkeypatch.setattr(runs, "identity", lambda dataset: own)
    monkeypatch.setattr(runs, "records", lambda: [
        {"stage": "strengths", "parameters": own, "rows": inturn.tell("soft", turn, **said),
         "extra": {"chosen": {"least-left": said}, "alphas": [0.05], "fractions": [0.4]}}])
    monkeypatch.setattr(findings.bar, "met", lambda dataset, told: False)
    row, = findings.strength_too("digits")
    assert row == {"rule": "least-left", "alpha": 0.05, "fraction": 0.4, "forgotten": 5.0,
                   "worst": 10.0, "change": pytest.approx(-2.5),
                   "change-worst": pytest.approx(-5.0), "met": False}
    monkeypatch.setattr(runs, "records", lambda: [])
    assert findings.strength_too("digits") == []
