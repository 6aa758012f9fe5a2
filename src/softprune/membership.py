r"""Membership inference: what an attacker can still tell from a model's outputs.

Question T1, residual membership: given images of the forgotten class, can the ones it was trained
on be told from held-out ones? Positives are training images of the class, negatives its test
images; AUC 1/2 means no. The score's direction is fixed beforehand (higher: more like a member),
never fitted on the data it is reported on.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softprune.errors import UserError, choose

ATTACKS = ("confidence", "entropy", "modified-entropy", "loss")


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """p_y, the probability of the true class, (N,)."""
    return logits.double().softmax(1).gather(1, labels[:, None]).squeeze(1)


def entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative entropy of the prediction, sum p ln p, (N,): a sure model looks like a member."""
    p = logits.double().softmax(1)
    return torch.xlogy(p, p).sum(1)


def modified_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative modified entropy (Song and Mittal, 2021), (N,).

    Mentr = (1 - p_y)(-ln p_y) + sum over k != y of p_k (-ln(1 - p_k)): small only when the model
    is sure and right.
    """
    p = logits.double().softmax(1).clamp(0, 1)
    tiny = torch.finfo(p.dtype).tiny
    p_y = p.gather(1, labels[:, None]).squeeze(1)
    # 1 - p_k is summed from the other probabilities: 1 - p loses every digit when p is near 1
    rest = (p.sum(1, keepdim=True) - p).clamp_min(tiny)
    others = p * -rest.log()
    own = others.gather(1, labels[:, None]).squeeze(1)
    rest_y = rest.gather(1, labels[:, None]).squeeze(1)
    return -(rest_y * -p_y.clamp_min(tiny).log() + others.sum(1) - own)


def modified_entropy_reference(p: list[float], y: int) -> float:
    """Mentr of one probability vector, term by term."""
    import math

    total = (1 - p[y]) * -math.log(p[y])
    for k, p_k in enumerate(p):
        if k != y:
            total += p_k * -math.log(1 - p_k)
    return total


def loss_attack(member_logits: Tensor, other_logits: Tensor, members: Tensor, others: Tensor,
                folds: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cross-validated logistic regression on the loss: out-of-fold scores of both groups.

    Args:
        member_logits, other_logits: (N, C) and (M, C). members, others: their labels.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    losses = [
        torch.nn.functional.cross_entropy(z.double(), y, reduction="none").clamp_max(50).numpy()
        for z, y in ((member_logits, members), (other_logits, others))
    ]
    x = np.concatenate(losses)[:, None]
    y = np.repeat([1, 0], [len(losses[0]), len(losses[1])])
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    # decision_function, so that folds are compared on one scale; fold noise is a part of the attack
    scores = cross_val_predict(model, x, y, cv=split, method="decision_function")
    return scores[y == 1], scores[y == 0]


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """An AUC with its DeLong interval, and the scores it came from."""

    attack: str
    auc: float
    low: float
    high: float
    members: np.ndarray
    others: np.ndarray


def attack(name: str, member_logits: Tensor, members: Tensor, other_logits: Tensor,
           others: Tensor) -> AttackResult:
    """One attack on the outputs for member and held-out images.

    Raises:
        UserError: unknown attack, or fewer than ten images on one side.
    """
    choose("attack", name, ATTACKS)
    if min(len(members), len(others)) < 10:
        raise UserError(
            f"{len(members)} members and {len(others)} held-out images: expected at least 10 each"
        )
    if name == "loss":
        positive, negative = loss_attack(member_logits, other_logits, members, others)
    else:
        rule = {"confidence": confidence, "entropy": entropy,
                "modified-entropy": modified_entropy}[name]
        positive = rule(member_logits, members).numpy()
        negative = rule(other_logits, others).numpy()
    auc, variance = delong(positive, negative)
    reach = 1.959964 * variance**0.5
    return AttackResult(attack=name, auc=auc, low=max(0.0, auc - reach),
                        high=min(1.0, auc + reach), members=positive, others=negative)


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
