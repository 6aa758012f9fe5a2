"""The scores that stage 3 leaves out: rows as its own candidates have them."""

import sys

import pytest

from softprune import channels, paths, requests

sys.path.insert(0, str(paths.root() / "benchmarks"))
import scores


def test_every_score_is_tried_by_stage_3_or_here():
    assert set(scores.LEFT_OUT) == {"margin", "standardized", "ratio", "tfidf"}
    assert set(scores.LEFT_OUT) | {"difference", "contribution", "random"} == set(channels.SCORES)


def test_rows_are_those_of_the_candidates(smoke):
    rows = scores.rows_of(smoke, ("ratio",), lambda line: None)
    found = requests.candidates(smoke, scores=("ratio",), classes=range(10))
    assert len(rows) == 4 * len(found)
    for c in found:
        own = [r for r in rows if all(r[k] == c[k] for k in ("statistic", "gate", "fraction"))]
        told = {r["metric"]: r["value"] for r in own}
        assert told["candidate-change-worst"] == pytest.approx(100 * c["change-worst"])
        assert {r["n"] for r in own} == {10}
