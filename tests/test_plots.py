"""Figures that choose what they show: the rest is counted, not dropped."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from softprune import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_of_many_classes_the_row_shows_the_likeliest_and_the_rest_together():
    names = [f"class_{k}" for k in range(50)]
    original, best = np.zeros(50), np.full(50, 0.01)
    original[7], best[7], best[31] = 1.0, 0.0, 0.52
    figure, alt = plots.confusion_rows({"original": original, "best": best}, names, "class_7")
    (axis,) = figure.axes
    shown = [t.get_text() for t in axis.get_xticklabels()]
    assert len(shown) == plots.MOST and {"class 7", "class 31"} < set(shown)
    assert shown[-1] == f"{50 - (plots.MOST - 1)} others"
    cells = np.array([float(t.get_text()) for t in axis.texts]).reshape(2, -1)
    assert cells[0].sum() == 100 and cells[0, shown.index("class 7")] == 100
    assert cells[1].sum() == pytest.approx(100, abs=6)  # each cell is rounded
    assert "best: most often class_31, 52 percent" in alt


def test_of_few_classes_all_are_shown():
    figure, _ = plots.confusion_rows({"soft": np.array([0.5, 0.25, 0.25])}, ["a", "b", "c"], "a")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]


def test_a_curve_says_of_how_many_networks_it_is_and_four_have_a_band():
    at = np.geomspace(0.02, 1, 20)
    curve = {"rate": at, "low": at / 2, "high": np.minimum(1, 2 * at), "auc": 0.5, "images": 90}
    figure, alt = plots.roc_curves(at, {"original": curve | {"networks": 16},
                                        "hard": curve | {"networks": 16},
                                        "retrained": curve | {"networks": 4}})
    axis = figure.axes[0]
    assert len(axis.collections) == 2  # of `hard` there is none
    said = [t.get_text() for t in axis.get_legend().get_texts()]
    assert said[2].endswith("(4 networks)") and said[1] == "hard, AUC 0.500"
    assert axis.get_legend().get_title().get_text() == "16 networks, 90 images"
    assert "bands of original, retrained" in alt


def test_bars_reach_as_far_as_the_least_forgotten_class():
    rows = [{"cls": "cat", "forgotten": 40.0, "change": -0.1},
            {"cls": "dog", "forgotten": 0.0, "change": -2.0}]
    figure, alt = plots.per_class_bars(rows)
    assert figure.axes[0].get_xlim()[1] == pytest.approx(44)
    assert "Least forgotten: cat" in alt and "when dog is forgotten" in alt
