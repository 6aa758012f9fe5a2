"""Intervals where a few trained models are what varies: too few for a bootstrap over them.

A bootstrap of four or five values covers much less than it says, since it cannot draw what the few
do not have. These take Student's t with one degree less than there are models.
"""

import itertools
import math

import numpy as np

from softprune import roc

FEW = 10  # below so many models a bootstrap over them is too narrow


def over_models(values, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of `values`, one a model, and its interval: by bootstrap, of fewer than `FEW` by t.

    One value has no spread: its interval is (NaN, NaN).
    """
    values = np.asarray(values, float)
    if len(values) >= FEW or len(values) < 2:
        return roc.interval(values, level)
    return _by_t(values.mean(), values.std(ddof=1) / math.sqrt(len(values)), len(values), level)


def over_networks_and_images(inside, outside, level: float = 0.95) -> tuple[float, float, float]:
    """Mean AUC of several networks on the same images, with an interval over both.

    Args:
        inside: (R, m) scores of members by each network, and outside: (R, n) of the others.

    The images are shared, so their luck does not average out over networks: DeLong's variance of
    the placements' means over networks, plus the spread of the networks' AUCs.
    """
    from scipy.stats import rankdata

    inside, outside = np.asarray(inside, float), np.asarray(outside, float)
    (count, m), n = inside.shape, outside.shape[1]
    above = np.stack([(rankdata(np.concatenate([a, b]))[:m] - rankdata(a)) / n
                      for a, b in zip(inside, outside, strict=True)])
    below = np.stack([1 - (rankdata(np.concatenate([a, b]))[m:] - rankdata(b)) / m
                      for a, b in zip(inside, outside, strict=True)])
    images = above.mean(0).var(ddof=1) / m + below.mean(0).var(ddof=1) / n
    aucs = above.mean(1)
    networks = aucs.var(ddof=1) / count if count > 1 else 0.0
    # the images are many: normal; the networks few: t
    half = math.hypot(_quantile(None, level) * math.sqrt(images),
                      _quantile(count - 1, level) * math.sqrt(networks) if count > 1 else 0.0)
    return float(aucs.mean()), float(aucs.mean() - half), float(aucs.mean() + half)


def over_pairs(values: dict[tuple[int, int], float], level: float = 0.95
               ) -> tuple[float, float, float]:
    """Mean over pairs of models of a value each, with a jackknife interval over the models.

    Pairs that share a model are not independent: leaving a model out leaves out all of its pairs.
    Of fewer than three models it is (NaN, NaN).
    """
    models = sorted(set(itertools.chain(*values)))
    mean = float(np.mean(list(values.values())))
    if len(models) < 3:
        return mean, float("nan"), float("nan")
    without = np.array([np.mean([v for pair, v in values.items() if m not in pair])
                        for m in models])
    count = len(models)
    error = math.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    return _by_t(mean, error, count, level)


def _by_t(mean: float, error: float, count: int, level: float) -> tuple[float, float, float]:
    half = _quantile(count - 1, level) * error
    return float(mean), float(mean - half), float(mean + half)


def _quantile(freedom: int | None, level: float) -> float:
    """Of Student's t, or of the normal distribution."""
    from scipy.stats import norm, t

    at = (1 + level) / 2
    return float(norm.ppf(at) if freedom is None else t.ppf(at, freedom))
