"""Requests that arrive one after another."""

import dataclasses

import pytest

from softprune import ladder, plots, requests


def test_a_sequence_is_one_request_for_all_so_far(smoke):
    told = requests.one_after_another(smoke, "hard", 3, classes=(1, 4, 7, 8), fraction=0.2)
    assert [t["classes"] for t in told] == [1, 2, 3]
    joint = [requests.one_after_another(smoke, "hard", 3, classes=(1, 4, 7, 8), fraction=0.2,
                                        seed=s)[-1] for s in range(20)]
    _, base, labels = smoke.outputs("test")
    for forget in ((1, 4, 7), (1, 4, 8), (1, 7, 8), (4, 7, 8)):
        kept, gone = requests.retained_and_forgotten(
            smoke.method_logits("hard", forget, "test", fraction=0.2), labels, forget)
        before = requests.retained_and_forgotten(base, labels, forget)[0]
        wanted = {"classes": 3, "forgotten": gone, "change": pytest.approx(kept - before)}
        assert any(j == wanted for j in joint), "the order does not matter, only who was in it"


def test_classes_fitted_together_go_in_any_order(smoke, monkeypatch):
    quick = dataclasses.replace(ladder.options("best", "digits"), steps=60, rate=0.1, pool=400)
    monkeypatch.setattr(smoke, "fitter", ladder.Fitter(smoke.model, smoke.images, quick),
                        raising=False)
    gates = smoke.method_gates("together", (7, 3))
    assert smoke.method_gates("together", (3, 7)) is gates, "fitted twice"
    _, before, labels = smoke.outputs("test")
    kept, gone = requests.retained_and_forgotten(smoke.gated_outputs(gates, "test")[1], labels,
                                                 (3, 7))
    was, there = requests.retained_and_forgotten(before, labels, (3, 7))
    assert gone < 0.2 < there and kept > was - 0.1
    made = requests.several(smoke, "together", 2, draws=1, classes=(3, 7))
    assert made["seconds"] > 0 and made["forgotten-mean"] == pytest.approx(gone)
    assert "seconds" not in requests.several(smoke, "head-mask", 2, draws=1, classes=(3, 7))


def test_a_head_mask_leaves_nothing_of_any(smoke):
    told = requests.one_after_another(smoke, "head-mask", 5)
    assert [t["forgotten"] for t in told] == [0.0] * 5
    assert all(t["change"] >= 0 for t in told), "a rival less costs the others nothing"


def test_the_picture_says_where_it_ends():
    told = [{"classes": k, "forgotten": 0.1 * k, "change": -0.01 * k} for k in (1, 2)]
    figure, alt = plots.requests_in_time({"soft": told})
    assert "After 2: soft leaves 20.0 percent at -2.0 points" in alt
    assert len(figure.axes) == 2
