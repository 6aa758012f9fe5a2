r"""Attacks that know other models: LiRA (Carlini et al., 2022) and RMIA (Zarifzadeh et al., 2024).

K shadow models are trained on random halves of one pool, so for each image some have seen it
("in") and some have not ("out"). A target's output is compared with what the shadows do in either
case. The target is never inside its own shadow fit. Everything here works on arrays: phi (K, N) a
statistic of model k on image n, member (K, N) whether k was trained on n.
"""

import numpy as np
import torch
from torch import Tensor

from softprune.errors import UserError, choose

MODES = ("online", "offline")
VARIANCES = ("fixed", "each")


def scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """phi = ln p_y - ln(1 - p_y), (…, N), from the logits: nearly normal over models.

    1 - p_y is summed from the others' logits, since 1 - p loses every digit where p is near 1.
    """
    logits = logits.double()
    labels = labels.expand(logits.shape[:-1])
    own = torch.nn.functional.one_hot(labels, logits.shape[-1]).bool()
    rest = logits.masked_fill(own, -torch.inf).logsumexp(-1)
    own_logit = logits.gather(-1, labels[..., None]).squeeze(-1)
    return (own_logit - rest).clamp(-60, 60)  # a masked class: the same for every image


def centred(phi: Tensor) -> Tensor:
    """phi (…, N) less its median over the images that are asked about: an edit may shift all of
    them by an amount of its own in each model, which an attacker sees and takes off."""
    return phi - phi.median(-1, keepdim=True).values


def neighbour_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """phi of the likeliest class among the others, the image's own left out, (…, N).

    After a mask on the class's logit p_y is 0 for every image; the others still tell.
    """
    logits = logits.double()
    labels = labels.expand(logits.shape[:-1])
    own = torch.nn.functional.one_hot(labels, logits.shape[-1]).bool()
    rest = logits.masked_fill(own, -torch.inf)
    return scaled_confidence(rest, rest.argmax(-1))


def moments(phi: np.ndarray, which: np.ndarray, variance: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (N,) of phi over the models marked in `which` (K, N).

    Args:
        variance: `each` image its own; `fixed`, one for all images: steadier with few models.
    """
    count = which.sum(0)
    if count.min() < (2 if variance == "each" else 1):
        raise UserError(f"an image has only {count.min()} shadow models on one side: "
                        "train more of them")
    mean = np.where(which, phi, 0).sum(0) / count
    square = np.where(which, (phi - mean) ** 2, 0)
    if variance == "each":
        return mean, np.sqrt(square.sum(0) / (count - 1))
    spread = np.sqrt(square.sum() / max(1, (count - 1).sum()))
    return mean, np.full(phi.shape[1], spread)


def lira(target: np.ndarray, phi: np.ndarray, member: np.ndarray, mode: str = "online",
         variance: str = "fixed") -> np.ndarray:
    """Scores (N,) of a target model's statistic, higher for members.

    Args:
        target: (N,) the target's phi. phi, member: (K, N) of the shadows, the target not among
            them.
        mode: `online`, ln N(target; in) - ln N(target; out); `offline`, one-sided,
            (target - mean out) / deviation out: a member is *above* what others give, and never
            below.

    Raises:
        UserError: too few shadows for an image.
    """
    if member.dtype != bool:
        raise UserError(f"member {member.dtype}: expected True and False")
    choose("mode", mode, MODES)
    choose("variance", variance, VARIANCES)
    tiny = 1e-6  # saturated outputs that are all the same
    out_mean, out_sd = moments(phi, ~member, variance)
    out_z = (target - out_mean) / np.maximum(out_sd, tiny)
    if mode == "offline":
        return out_z
    in_mean, in_sd = moments(phi, member, variance)
    in_z = (target - in_mean) / np.maximum(in_sd, tiny)
    return (out_z**2 - in_z**2) / 2 + np.log(np.maximum(out_sd, tiny) / np.maximum(in_sd, tiny))


def other_confidences(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities among the classes that are not the image's own, (…, N, C - 1).

    All that a mask on the class's logit leaves to be read.
    """
    own = torch.nn.functional.one_hot(labels, logits.shape[-1]).bool().expand(logits.shape)
    rest = logits.double()[~own].view(*logits.shape[:-1], -1)
    return rest.log_softmax(-1).clamp_min(-60)


def lira_vector(target: np.ndarray, phi: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Online LiRA on several numbers an image at once: Gaussians with one covariance, (N,).

    score = (m_in - m_out)' S^-1 (target - (m_in + m_out) / 2), with S pooled over all images and
    both sides, a little of its diagonal added.

    Args:
        target: (N, D). phi: (K, N, D) of the shadows. member: (K, N).
    """
    seen = member[..., None]
    sides = []
    for which in (seen, ~seen):
        mean = np.where(which, phi, 0).sum(0) / which.sum(0)
        sides.append((mean, np.where(which, phi - mean, 0).reshape(-1, phi.shape[-1])))
    (inside, rest_in), (outside, rest_out) = sides
    residual = np.concatenate([rest_in, rest_out])
    covariance = residual.T @ residual / member.size
    ridge = 1e-3 * np.trace(covariance) / len(covariance) + 1e-12
    solved = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), (inside - outside).T).T
    return (solved * (target - (inside + outside) / 2)).sum(1)


def rmia(target: np.ndarray, p: np.ndarray, member: np.ndarray, target_population: np.ndarray,
         population: np.ndarray, mode: str = "online", offline_a: float = 0.3,
         gamma: float = 1.0) -> np.ndarray:
    """Share (N,) of population images z with (p(x) / p̄(x)) / (p(z) / p̄(z)) >= gamma.

    p̄ is what a model that may or may not have seen the image gives on average: `online` the mean of
    in and out for x, and of all for z, which no shadow has seen. `offline` the in part of both is
    guessed, ((1 + a) out + 1 - a) / 2: that takes a member's probability to be near 1, which it is
    no more once its class is forgotten.

    Args:
        target: (N,) the target's probability of the true class. p, member: (K, N) of the shadows.
        target_population: (M,), and population: (K, M): the same for held-out images of the class.
    """
    choose("mode", mode, MODES)
    tiny = 1e-12

    def guessed(out):
        return ((1 + offline_a) * out + 1 - offline_a) / 2

    out, others = moments(p, ~member, "fixed")[0], population.mean(0)
    if mode == "offline":
        average, others = guessed(out), guessed(others)
    else:
        average = (out + moments(p, member, "fixed")[0]) / 2
    ratio = target / np.maximum(average, tiny)
    against = np.sort(target_population / np.maximum(others, tiny))
    return np.searchsorted(against, ratio / gamma, side="right") / len(against)


def each_in_turn(count: int, member: np.ndarray, score) -> list[tuple[np.ndarray, np.ndarray]]:
    """Models 0 to `count` - 1 as the target: (scores of members, scores of others) of each.

    Where models come in pairs that have seen each what the other has not (`shadows.halves`), the
    target's opposite stays out as well: of what the target has seen there would be one model fewer
    than of what it has not, and scores that lean to the side of more models would tell members by
    that alone.

    Args:
        score: (target's index, mask (K,) of the models that are asked) -> (N,) scores.
    """
    results = []
    for k in range(count):
        rest, opposite = np.arange(len(member)) != k, k ^ 1
        if len(member) > max(2, opposite) and (member[opposite] == ~member[k]).all():
            rest[opposite] = False
        made = score(k, rest)
        results.append((made[member[k]], made[~member[k]]))
    return results
