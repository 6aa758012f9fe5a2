"""Areas under the ROC curve with their intervals: the statistics under every attack.

Scores are higher for members. An interval comes from DeLong's variance (one target, many images)
or from a bootstrap over models (many targets): images of one model are not independent of its luck.
"""

import numpy as np


def delong(positive, negative) -> tuple[float, float]:
    """AUC and its variance (DeLong et al., 1988), by midranks (Sun and Xu, 2014): O(n log n)."""
    from scipy.stats import rankdata

    positive, negative = np.asarray(positive, float), np.asarray(negative, float)
    m, n = len(positive), len(negative)
    together = rankdata(np.concatenate([positive, negative]))
    v10 = (together[:m] - rankdata(positive)) / n  # share of negatives below each positive
    v01 = 1 - (together[m:] - rankdata(negative)) / m
    auc = float(v10.mean())
    variance = v10.var(ddof=1) / m + v01.var(ddof=1) / n
    return auc, float(variance)


def delong_reference(positive, negative) -> tuple[float, float]:
    """`delong` from the definition: every pair compared, ties count one half."""
    psi = np.array([[float(p > q) + 0.5 * float(p == q) for q in negative] for p in positive])
    v10, v01 = psi.mean(1), psi.mean(0)
    return psi.mean(), v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)


def roc(positive, negative) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates, by scikit-learn, every threshold kept."""
    from sklearn.metrics import roc_curve

    y = np.repeat([1, 0], [len(positive), len(negative)])
    fpr, tpr, _ = roc_curve(y, np.concatenate([positive, negative]), drop_intermediate=False)
    return fpr, tpr


def smallest_fpr(negatives: int) -> float:
    """The false positive rate below which a true positive rate is not reported: 10 / n."""
    return 10 / negatives


def tpr_at(positive, negative, fpr: float) -> float:
    """True positive rate at the largest false positive rate <= `fpr`; NaN below 10 / negatives.

    Where fewer than ten negatives decide, there is no number to report.
    """
    if fpr < smallest_fpr(len(negative)) - 1e-12:
        return float("nan")
    false, true = roc(positive, negative)
    return float(true[false <= fpr + 1e-12].max())


def interval(values, level: float = 0.95, draws: int = 10_000, seed: int = 0):
    """Mean of `values`, one a model, with its bootstrap percentile interval over models.

    One value has no spread: its interval is (NaN, NaN).
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)
