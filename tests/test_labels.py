"""Labels of a scatter lie on nothing else, however close its points."""

import itertools

import matplotlib.pyplot as plt
from matplotlib.text import Text

from softprune import plots


def test_labels_lie_on_no_other_label_and_no_other_marker():
    named = [("hard", 1.0e-4, 0.30), ("soft", 1.1e-4, 0.30), ("retrained", 1.0, 0.0),
             ("best", 1.05e-4, 0.32), ("head-mask", 0.5e-4, 0.0),
             ("pour-p", 6.0e-5, 0.15), ("cse", 8.5e-5, 0.17), ("random-channels", 0.5e-4, 1.0)]
    points = [{"method": m, "seconds": s, "distance": d} for m, s, d in named]
    figure, _ = plots.quality_against_time(points, limit=2e-4, floor=0.03)
    axis, (methods, *_) = figure.axes[0], zip(*named, strict=True)
    boxes = {t.get_text(): t.get_window_extent() for t in axis.texts}
    assert set(methods) < set(boxes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes.values(), 2))
    for method, seconds, distance in named:
        at = axis.transData.transform((seconds, distance))
        assert not any(box.contains(*at) for text, box in boxes.items() if text != method)
    plt.close(figure)


def test_words_of_a_crowded_corner_stay_inside_the_axes_and_apart():
    # as on the digits page: five of them within a quarter of a decade, near the floor
    named = [("calibrated", 4.2e-5, 0.096), ("head-mask", 5.1e-5, 0.081),
             ("head-zero", 6.6e-5, 0.081), ("best", 7.3e-5, 0.087), ("bias-shift", 8.0e-5, 0.081),
             ("retrained", 3.7, 0.0), ("scrub", 1.7, 0.26), ("salun", 1.8, 0.29),
             ("random-label", 1.6, 0.25), ("random-channels", 1.3e-4, 1.0)]
    points = [{"method": m, "seconds": s, "distance": d} for m, s, d in named]
    figure, _ = plots.quality_against_time(points, limit=3e-5, floor=0.053)
    axis = figure.axes[0]
    frame, words = axis.get_window_extent(), {
        t.get_text(): Text.get_window_extent(t) for t in axis.texts}
    assert not any(a.overlaps(b) for a, b in itertools.combinations(words.values(), 2))
    assert all(words[m].y0 > frame.y0 and words[m].x0 > frame.x0 for m, *_ in named)
    plt.close(figure)


def test_every_method_is_drawn_as_its_own_mark():
    """A mark that is a tuple is not taken for data: one point a method, at its place."""
    points = [{"method": m, "seconds": 10.0 ** -i, "distance": 0.1 * i}
              for i, m in enumerate(plots.MARKERS)]
    figure, _ = plots.quality_against_time(points, limit=1e-3)
    marks = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None)]
    assert [line.get_marker() for line in marks] == list(plots.MARKERS.values())
    for line, p in zip(marks, points, strict=True):
        assert line.get_xydata().tolist() == [[p["seconds"], p["distance"]]]
        assert line.get_linestyle() == "None"
    plt.close(figure)


def test_a_label_stands_nearest_to_its_own_point():
    points = [{"method": m, "seconds": s, "distance": d} for m, s, d in (
        ("ssd", 5.4, 0.165), ("svd", 5.2, 0.150), ("salun", 14.0, 0.2), ("best", 3e-4, 0.01))]
    figure, _ = plots.quality_against_time(points, 1e-3)
    (axis,) = figure.axes
    at = {p["method"]: axis.transData.transform((p["seconds"], p["distance"])) for p in points}
    boxes = {t.get_text(): Text.get_window_extent(t) for t in axis.texts if t.get_text() in at}
    assert set(boxes) == set(at)
    for method, box in boxes.items():
        assert min(at, key=lambda m, box=box: plots._apart(box, at[m])) == method
