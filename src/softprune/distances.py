"""How far an unlearned model is from the one retrained without the class, and from where it began.

Every distance is two-sided. Ranks carry their bootstrap intervals; they are not added up to one
score, which would hide that the criteria disagree.
"""

import dataclasses

import numpy as np
import torch
from torch import nn

from softprune import artifacts, evaluation, membership, training


def ranks(contest, outcomes: list, reference, draws: int = 100, seed: int = 0
          ) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Rank of every method by its distance to the retrained model: median and 90 % interval.

    Three distances, each bootstrapped over images drawn together for all methods: of retained test
    accuracy, of the forgotten class's confusion row (Jensen-Shannon, bits), of the T1 AUC
    (modified entropy). 1 is nearest.

    Args:
        contest: a `headtohead.Contest`. outcomes, reference: judged outcomes of one class.

    Returns:
        criterion -> method -> (median, low, high).
    """
    from scipy.stats import rankdata

    labels = contest.images.test_labels
    held = labels == reference.cls
    everyone, classes = [*outcomes, reference], reference.test.shape[1]
    answers = torch.stack([o.test.argmax(1) for o in everyone])  # (M + 1, N)
    right = (answers == labels)[:, ~held].double().numpy()
    guesses = answers[:, held].numpy()
    attacks = [contest.scores(o, "modified-entropy") for o in everyone]
    generator = np.random.default_rng(seed)

    def draw(n):
        return generator.integers(n, size=n)

    found = {"retained accuracy": [], "confusion row": [], "T1": []}
    for _ in range(draws):
        kept = right[:, draw(right.shape[1])].mean(1)
        row = [np.bincount(g, minlength=classes) / len(g)
               for g in guesses[:, draw(guesses.shape[1])]]
        p, q = draw(len(attacks[0].members)), draw(len(attacks[0].others))
        auc = [membership.delong(a.members[p], a.others[q])[0] for a in attacks]
        far = {"retained accuracy": np.abs(kept[:-1] - kept[-1]),
               "confusion row": [evaluation.jensen_shannon(torch.as_tensor(r), torch.as_tensor(
                   row[-1])) for r in row[:-1]],
               "T1": np.abs(np.array(auc[:-1]) - auc[-1])}
        for name, distance in far.items():
            found[name].append(rankdata(distance))
    return {name: {o.method: tuple(np.quantile([r[i] for r in drawn], (0.5, 0.05, 0.95)))
                   for i, o in enumerate(outcomes)} for name, drawn in found.items()}


def confusion_distance(contest, outcome, reference) -> float:
    """Jensen-Shannon, bits, of the forgotten class's confusion rows."""
    rows = [evaluation.confusion_row(o.test, contest.images.test_labels, outcome.cls)
            for o in (outcome, reference)]
    return evaluation.jensen_shannon(*rows)


def bandwidth(size: int = 2**26) -> float:
    """Bytes a second that this machine reads and writes: a copy of `size` bytes, median."""
    source = torch.zeros(size, dtype=torch.uint8, device=training.pick_device())
    target = torch.empty_like(source)
    return 2 * size / evaluation.median_time(lambda: target.copy_(source), 11)


def memory_limit(model: nn.Module) -> float:
    """Seconds to read and write all of a model's weights once, at the measured bandwidth."""
    return 2 * sum(p.numel() * p.element_size() for p in model.parameters()) / bandwidth()


def seed_floor(config, cls: int, images, reference, seeds=(1, 2, 3, 4)) -> list[float]:
    """Confusion distances (bits) of networks retrained from other seeds: what chance alone makes.

    Args:
        config: the original's training. reference: the judged outcome of its own retrained model.

    Returns:
        One number for each seed whose network was trained; its stored test logits are enough.
    """
    found = []
    for seed in seeds:
        wanted = dataclasses.replace(config, seed=seed, without=(images.class_names[cls],))
        path = training.find_checkpoint(wanted, images.data_hash)
        kept = path and artifacts.companion(path, "logits")
        if kept and kept.exists():
            logits = artifacts.load_tensors(kept)[0]["test"].float()
            rows = [evaluation.confusion_row(z, images.test_labels, cls)
                    for z in (logits, reference.test)]
            found.append(evaluation.jensen_shannon(*rows))
    return found


def moved(original: nn.Module, model: nn.Module) -> tuple[float, float, float]:
    """Share of parameters changed; relative distance moved by the classifier, and by the rest.

    Infinite numbers (a masked bias) count as changed and are left out of the distance.
    """
    before, now = dict(original.named_parameters()), dict(model.named_parameters())
    changed = sum(int((now[k] != p).sum()) for k, p in before.items())
    far = []
    for part in (True, False):
        mine = [k for k in before if k.startswith("fc.") is part]
        gap = torch.cat([(now[k] - before[k]).flatten() for k in mine])
        size = torch.cat([before[k].flatten() for k in mine])
        far.append(float(gap[gap.isfinite()].norm() / size.norm()))
    return changed / sum(p.numel() for p in before.values()), far[0], far[1]
