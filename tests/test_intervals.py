"""Intervals over a few models: by hand, and covering what they say they do."""

import numpy as np
import pytest

from softprune import intervals, roc


def test_a_few_models_have_the_t_interval_and_many_the_bootstrap():
    # mean 2, standard deviation 1, so 4.3027 / sqrt 3 either way
    assert intervals.over_models([1, 2, 3]) == pytest.approx((2, -0.48414, 4.48414), abs=1e-4)
    mean, low, high = intervals.over_models([0.5])
    assert mean == 0.5 and np.isnan([low, high]).all()
    many = np.random.default_rng(0).normal(size=40)
    assert intervals.over_models(many) == roc.interval(many)


@pytest.mark.parametrize("count, least", [(4, 0.92), (8, 0.92)])
def test_few_models_cover_the_truth_as_often_as_they_say(count, least):
    rng, held = np.random.default_rng(count), []
    for _ in range(400):
        _, low, high = intervals.over_models(rng.normal(size=count))
        held.append(low < 0 < high)
    assert np.mean(held) > least
    # what it replaces: the bootstrap of four values
    if count == 4:
        narrow = [(lambda t: t[1] < 0 < t[2])(roc.interval(rng.normal(size=4), draws=500))
                  for _ in range(200)]
        assert np.mean(narrow) < 0.88


def test_one_network_has_delongs_interval():
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(0.4, 1, 80), rng.normal(0, 1, 60)
    auc, low, high = intervals.over_networks_and_images(inside[None], outside[None])
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
        _, low, high = intervals.over_networks_and_images(inside, outside)
        held.append(low < 0.5 < high)
        _, low, high = roc.interval([roc.delong(a, b)[0] for a, b in
                                     zip(inside, outside, strict=True)], draws=300)
        narrow.append(low < 0.5 < high)
    assert np.mean(held) > 0.9 and np.mean(narrow) < 0.6


def test_pairs_are_left_out_with_their_model():
    # values are sums of the models' own: leaving out model i leaves twice the mean of the others
    own = np.array([1.0, 2.0, 3.0, 6.0])
    pairs = {(i, j): own[i] + own[j] for i in range(4) for j in range(i + 1, 4)}
    mean, low, high = intervals.over_pairs(pairs)
    assert mean == pytest.approx(2 * own.mean())
    error = 2 * own.std(ddof=1) / 2  # of twice a mean of four
    assert (high - low) / 2 == pytest.approx(3.18245 * error, rel=1e-4)
    assert np.isnan(intervals.over_pairs({(0, 1): 0.5})[1:]).all()
