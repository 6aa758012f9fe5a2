r"""Membership inference: what an attacker can still tell from a model's outputs.

Question T1, residual membership: given images of the forgotten class, can the ones it was trained
on be told from held-out ones? Positives are training images of the class, negatives its test
images; AUC 1/2 means no. The score's direction is fixed beforehand (higher: more like a member),
never fitted on the data it is reported on.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softprune.errors import UserError, choose
from softprune.roc import (  # noqa: F401  the statistics are a part of every attack's result
    delong,
    delong_reference,
    roc,
    smallest_fpr,
)

ATTACKS = ("confidence", "entropy", "modified-entropy", "loss", "neighbour")


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
    z, own = logits.double(), labels[:, None]
    log_p = z.log_softmax(1)
    log_rest = torch.log1p(-log_p.exp().clamp_max(0.5))  # ln(1 - p)
    # of the largest p both come from its lead over all others, since 1 - p loses every digit
    top = z.argmax(1, keepdim=True)
    lead = z.gather(1, top) - z.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    none = torch.zeros_like(lead)
    log_p = log_p.scatter(1, top, -torch.logaddexp(none, -lead))
    log_rest = log_rest.scatter(1, top, -torch.logaddexp(none, lead))
    # a masked logit has p = 0 and an infinite logarithm
    floor = math.log(torch.finfo(z.dtype).tiny)
    log_p, log_rest = log_p.clamp_min(floor), log_rest.clamp_min(floor)
    right = log_rest.gather(1, own).exp() * -log_p.gather(1, own)
    wrong = (log_p.exp() * -log_rest).scatter(1, own, 0.0).sum(1)
    return -(right.squeeze(1) + wrong)


def modified_entropy_reference(p: list[float], y: int) -> float:
    """Mentr of one probability vector, term by term."""
    total = (1 - p[y]) * -math.log(p[y])
    for k, p_k in enumerate(p):
        if k != y:
            total += p_k * -math.log(1 - p_k)
    return total


def cross_validated(features: np.ndarray, member: np.ndarray, folds: int = 5,
                    seed: int = 0) -> np.ndarray:
    """Out-of-fold scores (N,) of a logistic regression that tells members from others.

    Args:
        features: (N, D). member: (N,) 1 for members, 0 for others.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced",
                                                               max_iter=1000))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    # decision_function, so that folds are compared on one scale; fold noise is a part of the attack
    return cross_val_predict(model, features, member, cv=split, method="decision_function")


def losses(logits: Tensor, labels: Tensor) -> np.ndarray:
    """Cross-entropy (N, 1), cut at 50: a masked class's loss is infinite."""
    loss = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    return loss.clamp_max(50).numpy()[:, None]


def other_classes(logits: Tensor, labels: Tensor) -> np.ndarray:
    """Log-probabilities (N, C - 1) among the classes that are not the image's own.

    What a mask on the class's logit leaves untouched.
    """
    own = torch.nn.functional.one_hot(labels, logits.shape[1]).bool()
    rest = logits.double()[~own].view(len(labels), -1)
    return rest.log_softmax(1).clamp_min(-50).numpy()


def loss_attack(member_logits: Tensor, other_logits: Tensor, members: Tensor, others: Tensor,
                features=losses, **options) -> tuple[np.ndarray, np.ndarray]:
    """`cross_validated` on the loss, or on other `features`: scores of both groups.

    Args:
        member_logits, other_logits: (N, C) and (M, C). members, others: their labels.
    """
    x = np.concatenate([features(member_logits, members), features(other_logits, others)])
    y = np.repeat([1, 0], [len(members), len(others)])
    scores = cross_validated(x, y, **options)
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
    if name in ("loss", "neighbour"):
        positive, negative = loss_attack(
            member_logits, other_logits, members, others,
            features=losses if name == "loss" else other_classes)
    else:
        rule = {"confidence": confidence, "entropy": entropy,
                "modified-entropy": modified_entropy}[name]
        positive = rule(member_logits, members).numpy()
        negative = rule(other_logits, others).numpy()
    auc, variance = delong(positive, negative)
    reach = 1.959964 * variance**0.5
    return AttackResult(attack=name, auc=auc, low=max(0.0, auc - reach),
                        high=min(1.0, auc + reach), members=positive, others=negative)


def threshold_accuracy(scores, member, groups=None, seed: int = 0) -> float:
    """Balanced accuracy of a threshold on `scores`, fitted on one half and judged on the other.

    Args:
        scores: (N,), higher for members. member: (N,) bool.
        groups: (N,) classes: a threshold for each of them (Song and Mittal); None is one for all.

    Both halves take each part in turn, so no threshold is judged on what it was fitted on.
    """
    scores, member = np.asarray(scores, float), np.asarray(member, bool)
    groups = np.zeros(len(scores), int) if groups is None else np.asarray(groups)
    half = np.random.default_rng(seed).permutation(len(scores)) % 2
    said = np.zeros(len(scores), bool)
    for group in np.unique(groups):
        for fit in (0, 1):
            known, judged = (groups == group) & (half == fit), (groups == group) & (half != fit)
            said[judged] = scores[judged] >= best_threshold(scores[known], member[known])
    return float((said[member].mean() + (~said[~member]).mean()) / 2)


def best_threshold(scores, member) -> float:
    """The value at or above which to say `member`: the largest balanced accuracy here."""
    if len(set(member.tolist())) < 2:
        return float("inf")
    false, true = roc(scores[member], scores[~member])
    steps = np.unique(scores)[::-1]
    thresholds = np.concatenate([[np.inf], steps])
    return float(thresholds[np.argmax(true - false)])


# --- the literature's, for comparison only -------------------------------------------------------

FEATURES = ("correctness", "confidence", "entropy", "modified-entropy", "probabilities")


def attack_features(name: str, logits: Tensor, labels: Tensor) -> np.ndarray:
    """One of `FEATURES`, (N, D)."""
    choose("feature", name, FEATURES)
    if name == "probabilities":
        return logits.double().softmax(1).numpy()
    if name == "correctness":
        return (logits.argmax(1) == labels).double().numpy()[:, None]
    rule = {"confidence": confidence, "entropy": entropy, "modified-entropy": modified_entropy}
    return rule[name](logits, labels).numpy()[:, None]


def efficacy(feature: str, shown: tuple, hidden: tuple, asked: tuple, seed: int = 0,
             most: int = 1000) -> float:
    """"MIA efficacy" (T3): share of forgotten training images that an SVC calls *non-members*.

    Higher is called better in the literature; a retrained model gives about 1, and so does a mask
    on one logit: it says that the class is absent, not that its images were forgotten.

    Args:
        shown: (logits, labels) of retained training images, the members. hidden: of retained
            test images, the non-members; as many of each, at most `most`. asked: of the
            forgotten training images.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    generator = torch.Generator().manual_seed(seed)
    n = min(len(shown[1]), len(hidden[1]), most)

    def some(logits, labels):
        few = torch.randperm(len(labels), generator=generator)[:n]
        return attack_features(feature, logits[few], labels[few])

    x = np.concatenate([some(*shown), some(*hidden)])
    judge = make_pipeline(StandardScaler(), SVC(C=3, kernel="rbf", gamma="auto"))
    judge.fit(x, np.repeat([1, 0], n))
    return float((judge.predict(attack_features(feature, *asked)) == 0).mean())


def entropy_regression(shown: tuple, hidden: tuple, asked: tuple) -> float:
    """Share of forgotten training images that a regression on the entropy calls *members*.

    The direction is the opposite of `efficacy`'s: lower is called better (Golatkar et al.;
    Chundawat et al.). Arguments as there.
    """
    from sklearn.linear_model import LogisticRegression

    def feature(logits, labels):
        return entropy(logits, labels).numpy()[:, None]

    x = np.concatenate([feature(*shown), feature(*hidden)])
    y = np.repeat([1, 0], [len(shown[1]), len(hidden[1])])
    judge = LogisticRegression(class_weight="balanced").fit(x, y)
    return float(judge.predict(feature(*asked)).mean())


def told_apart(first: Tensor, second: Tensor, classes=None, seed: int = 0
               ) -> tuple[np.ndarray, np.ndarray]:
    """How much each answer looks like the first model's, (N,) and (N,): whose AUC is T2.

    A random forest on the log-probabilities; an image's two outputs stay in one
    fold, so nothing is recognised by the image itself. Never compared with 1/2 but with the value
    for two retrained models.

    Args:
        first, second: (N, C) logits of two models on the same images.
        classes: compare within these classes alone.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GroupKFold, cross_val_predict

    def feature(logits):
        picked = logits.double() if classes is None else logits.double()[:, list(classes)]
        return picked.log_softmax(1).clamp_min(-30).numpy()

    n = len(first)
    x = np.concatenate([feature(first), feature(second)])
    y = np.repeat([1, 0], n)
    image = np.random.default_rng(seed).permutation(n)
    judge = RandomForestClassifier(50, min_samples_leaf=5, random_state=seed)
    score = cross_val_predict(judge, x, y, groups=np.tile(image, 2), cv=GroupKFold(5),
                              method="predict_proba")[:, 1]
    return score[:n], score[n:]
