"""Intervals over a few models: by hand, and covering what they say they do."""

import numpy as np
import pytest

from softprune import intervals, roc


def test_one_network_has_delongs_interval():
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(0.4, 1, 80), rng.normal(0, 1, 60)
    scores = intervals.Scores.of(inside, outside)
    auc, low, high = intervals.over_models_and_images(scores)
    known, variance = roc.delong(inside, outside)
    assert auc == pytest.approx(known)
    assert (high - low) / 2 == pytest.approx(1.95996 * variance**0.5, rel=1e-5)


def test_images_that_networks_share_are_a_part_of_the_interval():
    """Five networks whose scores are the images' own, and a little of each: nothing is a member."""
    rng, held, narrow = np.random.default_rng(2), [], []
    for _ in range(200):
        image = rng.normal(size=150)
        scores = image + 0.3 * rng.normal(size=(5, 150))
        inside, outside = scores[:, :75], scores[:, 75:]
        _, low, high = intervals.over_models_and_images(intervals.Scores.of(inside, outside))
        held.append(low < 0.5 < high)
        _, low, high = roc.interval([roc.delong(a, b)[0] for a, b in
                                     zip(inside, outside, strict=True)], draws=300)
        narrow.append(low < 0.5 < high)
    assert np.mean(held) > 0.9 and np.mean(narrow) < 0.6


def drawn(rng, count=16, images=120, shift=0.0, luck=1.0):
    """Scores of models that have each seen a random half: an image's own, the member's, noise."""
    member = rng.random((count, images)) < 0.5
    values = luck * rng.normal(size=images) + rng.normal(size=(count, images)) + shift * member
    return intervals.Scores(values, member)


def test_images_seen_by_other_halves_are_a_part_too():
    """Where every model has its own members, the truth is in the interval as often as it says."""
    rng = np.random.default_rng(3)
    held = [(lambda t: t[1] < 0.5 < t[2])(intervals.over_models_and_images(drawn(rng)))
            for _ in range(300)]
    assert np.mean(held) > 0.93


def test_two_models_say_next_to_nothing_and_no_more_than_an_auc_can_be():
    made = intervals.Scores.of([[3, 2, 1, 0]] * 2, [[2.5, 1.5, 0.5], [0.5, 0.2, 0.1]])
    assert intervals.over_models_and_images(made)[1:] == (0.0, 1.0)


def test_scores_come_back_from_targets_in_turn():
    rng = np.random.default_rng(4)
    made = drawn(rng, 6, 40, 1.0)
    pairs = [(v[m], v[~m]) for v, m in zip(made.values, made.member, strict=True)][:4]
    again = intervals.Scores.in_turn(pairs, made.member)
    assert (again.values == made.values[:4]).all() and (again.member == made.member[:4]).all()
    known = [roc.delong(a, b)[0] for a, b in pairs]
    assert again.aucs == pytest.approx(known)


def test_what_images_do_to_both_cancels_in_the_gap():
    rng = np.random.default_rng(5)
    first = drawn(rng, shift=1.0)
    gap, low, high = intervals.gap_over_models_and_images(first, first)
    spread = first.aucs.std(ddof=1) / 4 * 2.13145 * 2**0.5  # t of 15, two groups of 16
    assert gap == 0 and (low, high) == pytest.approx((-spread, spread), rel=1e-4)
    gap, low, high = intervals.gap_over_models_and_images(first, drawn(rng))
    assert low > 0.1 and low < gap < high


def test_the_bands_middle_is_the_roc_and_more_images_make_it_narrower():
    # by hand, thresholds downwards: 3 takes one member, 2 two more and a tied other, 1 the rest
    hand = intervals.Scores.of([3, 2, 2, 0], [2, 1, 1, 1])
    rate, _, _ = intervals.roc_band(hand, [0, 0.2, 0.25, 0.99, 1], draws=10)
    assert rate.tolist() == [0.25, 0.25, 0.75, 0.75, 1]
    rng, widths = np.random.default_rng(6), []
    for images in (100, 1600):
        scores = drawn(rng, 4, images, 1.0, 0.0)
        rate, low, high = intervals.roc_band(scores, [0.1, 0.5])
        assert (low <= rate).all() and (rate <= high).all()
        widths.append(high - low)
    assert (widths[1] < widths[0] / 2).all()


@pytest.mark.parametrize("luck", [0.0, 2.0])
def test_the_band_covers_the_true_curve(luck):
    """At one rate, of 16 models; an image's own luck must widen it."""
    from scipy.stats import norm

    rng, scale = np.random.default_rng(7), (1 + luck**2) ** 0.5
    true = norm.cdf(1.0 / scale - norm.ppf(0.8))
    held = []
    for _ in range(60):
        _, low, high = intervals.roc_band(drawn(rng, 16, 120, 1.0, luck), [0.2], draws=100)
        held.append(low[0] < true < high[0])
    assert np.mean(held) > 0.85


def pair_of(auc: float) -> intervals.Scores:
    """Two networks' answers to ten images: the first one's all pass the same of the second's."""
    return intervals.Scores.of(np.full(10, round(10 * auc) - 0.5), np.arange(10), paired=True)


def test_pairs_are_left_out_with_their_model():
    # AUCs are sums of the models' own: leaving out model i leaves twice the mean of the others
    own = np.array([0.1, 0.2, 0.3, 0.4])
    pairs = {(i, j): pair_of(own[i] + own[j]) for i in range(4) for j in range(i + 1, 4)}
    assert pairs[0, 1].aucs == pytest.approx([0.3])
    mean, low, high = intervals.over_pairs(pairs)
    assert mean == pytest.approx(2 * own.mean())
    error = 2 * own.std(ddof=1) / 2  # of twice a mean of four
    images = sum((np.mean([s.moves for s in pairs.values()], 0)) ** 2)
    assert (high - low) / 2 == pytest.approx(
        np.hypot(3.18245 * error, 1.95996 * images**0.5), rel=1e-4)


def test_of_two_networks_the_images_alone_vary():
    rng = np.random.default_rng(3)
    told = intervals.Scores.of(rng.normal(0.5, 1, 80), rng.normal(size=80), paired=True)
    found = intervals.over_pairs({(0, 1): told})
    assert found == pytest.approx(intervals.over_models_and_images(told))
    assert found[1] < found[0] < found[2]


def test_what_two_networks_answer_to_one_image_is_counted_together():
    """Scores are the image's own and a little more: what they share must cancel."""
    rng, held, widths = np.random.default_rng(4), [], []
    for _ in range(300):
        image = rng.normal(size=100)
        first, second = (image + 0.5 * rng.normal(size=100) for _ in range(2))
        reach = {}
        for paired in (True, False):
            _, low, high = intervals.over_models_and_images(
                intervals.Scores.of(first, second, paired=paired))
            reach[paired] = high - low
            if paired:
                held.append(low < 0.5 < high)
        widths.append(reach[True] / reach[False])
    assert 0.92 < np.mean(held) < 0.98
    assert np.mean(widths) == pytest.approx((0.25 / 1.25) ** 0.5, abs=0.05)
