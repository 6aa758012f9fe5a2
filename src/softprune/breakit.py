"""Known mistakes with a switch each, so that a class sees which check notices them.

Every function does the thing rightly, or with one published mistake if `broken` is true.
"""

import copy

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor, nn

from softprune import channels, evaluation, membership, pruning

# --- gate before batch norm ----------------------------------------------------------------------


@torch.no_grad()
def fold(model: nn.Module, gates: pruning.Gates, *, broken: bool) -> nn.Module:
    """A copy with the gates folded.

    Args:
        broken: scale the convolution in front of the batch norm, and not gamma and beta behind it.
    """
    made = copy.deepcopy(model)
    if not broken:
        pruning.fold(made, gates)
        return made
    for site in made.sites():
        if site.name in gates:
            made.get_submodule(site.kernel).weight.mul_(gates[site.name].view(-1, 1, 1, 1))
    return made


@torch.no_grad()
def fold_error(model: nn.Module, gates: pruning.Gates, pixels: Tensor, images, *,
               broken: bool) -> float:
    """Largest difference of a logit between folded and explicit gates: 0 up to rounding."""
    made = fold(model, gates, broken=broken)
    with pruning.gated(model, gates):
        wanted = evaluation.predict(model, pixels, images.mean, images.std)[1]
    found = evaluation.predict(made, pixels, images.mean, images.std)[1]
    return (found - wanted).abs().max().item()


@torch.no_grad()
def recalibrated(model: nn.Module, pixels: Tensor, images) -> nn.Module:
    """A copy whose batch norms took their statistics anew from unlabelled images."""
    made = copy.deepcopy(model)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over batches
    made.train()
    for batch, _ in evaluation.batches(pixels, images.mean, images.std, "cpu"):
        made(batch)
    return made.eval()


# --- offline LiRA --------------------------------------------------------------------------------


def lira_offline(d: float, shadows: int, targets: int = 20_000, *, broken: bool,
                 seed: int = 0) -> float:
    """AUC of the offline attack where a score is N(0, 1) without a target, N(d, 1) with it.

    Each target has `shadows` scores of models without it, from which a mean is taken; a score far
    **above** that mean speaks for membership.

    Args:
        broken: two-sided, the distance from the mean in either direction.
    """
    generator = np.random.default_rng(seed)
    mean = generator.standard_normal((targets, shadows)).mean(1)
    member = generator.standard_normal(targets) + d - mean
    other = generator.standard_normal(targets) - mean
    if broken:
        member, other = np.abs(member), np.abs(other)
    return membership.delong(member, other)[0]


def lira_expected(d: float, shadows: int) -> float:
    """The one-sided attack's AUC in closed form: Phi(d / sqrt(2 (1 + 1 / shadows)))."""
    return float(norm.cdf(d / np.sqrt(2 * (1 + 1 / shadows))))


# --- statistics from test data -------------------------------------------------------------------


class _TestAsTrain:
    """An image set whose training split is its test split."""

    def __init__(self, images):
        self.mean, self.std, self.class_names = images.mean, images.std, images.class_names
        self.split = lambda name: images.split("test" if name == "train" else name)


def statistics(model: nn.Module, images, *, broken: bool) -> channels.ClassChannelTable:
    """The class-by-channel table.

    Args:
        broken: from the test images.
    """
    return channels.class_channel_table(model, _TestAsTrain(images) if broken else images)


# --- a threshold fitted on the data it is reported on --------------------------------------------


def threshold_accuracy(members, others, *, broken: bool, seed: int = 0) -> float:
    """Balanced accuracy of "score at or above a threshold: a member".

    The threshold is fitted on one half of the images and applied to the other, and the other way
    round.

    Args:
        broken: fit and report on the same images.
    """
    scores = np.concatenate([np.asarray(members, float), np.asarray(others, float)])
    member = np.arange(len(scores)) < len(members)
    if not broken:
        return membership.threshold_accuracy(scores, member, seed=seed)
    said = scores >= membership.best_threshold(scores, member)
    return float((said[member].mean() + (~said[~member]).mean()) / 2)


def shuffled(members, others, rule, rounds: int = 100, seed: int = 0) -> float:
    """Mean of `rule(members, others)` with membership drawn anew: an honest rule gives 1/2."""
    generator = np.random.default_rng(seed)
    both, size = np.concatenate([members, others]), len(members)
    values = []
    for _ in range(rounds):
        both = generator.permutation(both)
        values.append(rule(both[:size], both[size:]))
    return float(np.mean(values))


# --- modified entropy ----------------------------------------------------------------------------


def modified_entropy(logits: Tensor, labels: Tensor, *, broken: bool) -> Tensor:
    """Mentr, (N,), small for a member.

    Args:
        broken: as in published code: for classes other than the true one the logarithm of p and
            not of 1 - p, and `[:, labels]`, which reaches the columns of all labels in every row.
    """
    if not broken:
        return -membership.modified_entropy(logits, labels)
    p = logits.double().softmax(1).clamp(1e-30, 1)
    weight = p.clone()
    weight[:, labels] = 1 - p[:, labels]
    return -(weight * p.log()).sum(1)
