"""Intervals of attacks on a few trained models, which are asked about the same images.

Both vary. Of the models there are few: a bootstrap of four or five values covers much less than it
says, since it cannot draw what the few do not have; Student's t with one degree less than there are
models does not. Of the images there are many, and all models share them.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """What an attack gives every image in every model, and which of them the model has seen.

    Images are shared by the models, so an interval over models alone takes an image that is easy
    to name everywhere for evidence as often as there are models.
    """

    values: np.ndarray  # (K, N), higher for members
    member: np.ndarray  # (K, N), true where the model was trained on the image
    paired: bool = False  # every image stands there twice: its first answer, then its second

    @staticmethod
    def of(inside, outside, paired: bool = False) -> "Scores":
        """Of models with the same members: `inside` (K, m), of the others `outside` (K, n).

        Args:
            paired: both are of the same images, which two networks have answered.
        """
        both = [np.atleast_2d(np.asarray(part, float)) for part in (inside, outside)]
        member = np.repeat([True, False], [part.shape[1] for part in both])
        return Scores(np.concatenate(both, 1), np.tile(member, (len(both[0]), 1)), paired)

    @staticmethod
    def in_turn(pairs, member) -> "Scores":
        """Of what `likelihood.each_in_turn` returns, and who was a member (K, N) of whom."""
        member = np.asarray(member, bool)[: len(pairs)]
        values = np.empty(member.shape)
        for row, seen, (inside, outside) in zip(values, member, pairs, strict=True):
            row[seen], row[~seen] = inside, outside
        return Scores(values, member)

    @functools.cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        """AUC of each model (K,), and how each image moves their mean (N,)."""
        from scipy.stats import rankdata

        aucs, moves = [], np.zeros(self.values.shape[1])
        for values, seen in zip(self.values, self.member, strict=True):
            m, n = seen.sum(), (~seen).sum()
            ranks = rankdata(values)
            # DeLong's placements: the share of the other side that an image passes, ties half
            above = (ranks[seen] - rankdata(values[seen])) / n
            below = 1 - (ranks[~seen] - rankdata(values[~seen])) / m
            aucs.append(above.mean())
            # m (m - 1), not m squared: of one model it is DeLong's unbiased variance
            moves[seen] += (above - above.mean()) / math.sqrt(m * (m - 1))
            moves[~seen] += (below - below.mean()) / math.sqrt(n * (n - 1))
        if self.paired:  # an odd image moves both of its answers: what cancels must cancel
            moves = moves.reshape(2, -1).sum(0)
        return np.array(aucs), moves / len(aucs)

    @property
    def aucs(self) -> np.ndarray:
        """AUC of each model (K,)."""
        return self._parts[0]

    @property
    def moves(self) -> np.ndarray:
        """First-order change (N,) of the models' mean AUC by each image: squares sum to DeLong's
        variance where there is one model."""
        return self._parts[1]


def over_models_and_images(scores: Scores, level: float = 0.95) -> tuple[float, float, float]:
    """Mean AUC over models, with an interval over the models and over the images they share.

    The images' part is the variance of their `moves`, normal since they are many; the models' the
    spread of their AUCs, by t since they are few. That spread holds some of the images' luck too,
    so the interval errs to the wide side.
    """
    auc, low, high = _both(float(scores.aucs.mean()), (scores.moves**2).sum(), [scores.aucs], level)
    return auc, max(low, 0.0), min(high, 1.0)  # of two models t reaches further than any AUC


def gap_over_models_and_images(first: Scores, second: Scores, level: float = 0.95
                               ) -> tuple[float, float, float]:
    """`first`'s mean AUC minus `second`'s, on the same images, with its interval.

    What an image does to both cancels; models are taken as if the two had nothing in common.
    """
    gap = float(first.aucs.mean() - second.aucs.mean())
    return _both(gap, ((first.moves - second.moves) ** 2).sum(), [first.aucs, second.aucs], level)


def _both(value: float, images: float, groups, level: float) -> tuple[float, float, float]:
    """Half widths over images (their variance) and over each group's models, added in squares."""
    widths = [_quantile(None, level) * math.sqrt(images)]
    widths += [_quantile(len(g) - 1, level) * g.std(ddof=1) / math.sqrt(len(g))
               for g in groups if len(g) > 1]
    half = math.hypot(*widths)
    return value, value - half, value + half


def roc_band(scores: Scores, at, level: float = 0.95, draws: int = 500, seed: int = 0):
    """The pooled ROC's true positive rates at the false positive rates `at`, (F,), and its band.

    Returns:
        (rate, low, high), each (F,). The band is pointwise: a percentile bootstrap that draws
        models and images anew, each with all that is theirs. Few models make it too narrow.
    """
    values, member = scores.values, scores.member
    order = np.argsort(-values, axis=None, kind="stable")
    models, images = np.unravel_index(order, values.shape)
    inside = member.ravel()[order]
    ends = np.append(np.diff(values.ravel()[order]) != 0, True)  # ties are passed together

    def rates(weights):
        hit, miss = np.cumsum(weights * inside)[ends], np.cumsum(weights * ~inside)[ends]
        if not hit[-1] or not miss[-1]:
            return np.full(len(at), np.nan)
        # a step function: the largest rate that is reached at no more than the asked one
        steps = np.searchsorted(miss / miss[-1], np.asarray(at) + 1e-12, side="right")
        return np.concatenate([[0.0], hit / hit[-1]])[steps]

    rng, (count, n) = np.random.default_rng(seed), values.shape
    drawn = [rates(rng.multinomial(count, np.full(count, 1 / count))[models]
                   * rng.multinomial(n, np.full(n, 1 / n))[images]) for _ in range(draws)]
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return rates(np.ones(values.size)), low, high


def over_pairs(scores: dict[tuple[int, int], Scores], level: float = 0.95
               ) -> tuple[float, float, float]:
    """Mean AUC over pairs of models, with an interval over the models and over the images.

    Pairs that share a model are not independent: leaving a model out leaves out all of its pairs
    (the jackknife). Fewer than three models leave the images alone to vary.

    Args:
        scores: of one row for every pair, all of the same images.
    """
    aucs = {pair: float(s.aucs.mean()) for pair, s in scores.items()}
    models = sorted(set(itertools.chain(*scores)))
    images = (np.mean([s.moves for s in scores.values()], 0) ** 2).sum()
    mean, count, half = float(np.mean(list(aucs.values()))), len(models), 0.0
    if count > 2:
        without = np.array([np.mean([v for pair, v in aucs.items() if m not in pair])
                            for m in models])
        error = math.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
        half = _quantile(count - 1, level) * error
    half = math.hypot(half, _quantile(None, level) * math.sqrt(images))
    return mean, max(mean - half, 0.0), min(mean + half, 1.0)


def _quantile(freedom: int | None, level: float) -> float:
    """Of Student's t, or of the normal distribution."""
    from scipy.stats import norm, t

    at = (1 + level) / 2
    return float(norm.ppf(at) if freedom is None else t.ppf(at, freedom))
