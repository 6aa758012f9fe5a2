r"""Which channels belong to a class: one table for all classes, scores, selection.

a_j(x): activation of channel j at a site for image x, after the non-linearity, pooled over space
by mean or maximum. The table holds, for every class c, the count n_c, the mean of a_j and of its
square over the training images of c: everything a request needs, so no data is needed then.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from softprune import artifacts
from softprune.errors import UserError, choose
from softprune.models import site_maps

STATISTICS = ("mean", "max")
SCORES = ("difference", "margin", "standardized", "ratio", "tfidf", "contribution", "random")


@dataclass(frozen=True, kw_only=True)
class ClassChannelTable:
    """Class-by-channel moments of every site, from training images in evaluation mode.

    `mean[statistic][site]` and `square[statistic][site]` are float32 (C, J); `counts` is (C,).
    """

    counts: Tensor
    mean: dict[str, dict[str, Tensor]]
    square: dict[str, dict[str, Tensor]]
    head: tuple[str, Tensor] | None = None  # the last site and the classifier's weights there

    @property
    def sites(self) -> list[str]:
        return list(self.mean["mean"])


def class_channel_table(model: nn.Module, images, batch_size: int = 500) -> ClassChannelTable:
    """One pass over the training split for all classes, sites and statistics.

    A batch's contribution to every class at once is a product with its one-hot labels, (C, N) by
    (N, J): a segment sum. Sums are float64, so the order of batches does not show.
    """
    from softprune import evaluation

    pixels, labels = images.split("train")
    classes = len(images.class_names)
    device = next(model.parameters()).device
    sites = model.sites()
    sums = {s.name: torch.zeros(2, 2, classes, s.channels, dtype=torch.float64, device=device)
            for s in sites}
    with site_maps(model, lambda m: (m.mean((2, 3)), m.amax((2, 3)))) as pooled:
        for batch, index in evaluation.batches(pixels, images.mean, images.std, device, batch_size):
            with torch.inference_mode():
                model.eval()(batch)
                onehot = torch.nn.functional.one_hot(labels[index], classes).T.double().to(device)
                for name, values in pooled.items():
                    for i, a in enumerate(values):
                        a = a.double()
                        sums[name][i, 0] += onehot @ a
                        sums[name][i, 1] += onehot @ a.square()
    counts = torch.bincount(labels, minlength=classes)
    divisor = counts.clamp_min(1).double()[:, None].to(device)
    parts = [
        {stat: {s.name: (sums[s.name][i, m] / divisor).float().cpu() for s in sites}
         for i, stat in enumerate(STATISTICS)}
        for m in (0, 1)
    ]
    return ClassChannelTable(counts=counts, mean=parts[0], square=parts[1], head=head_of(model))


def head_of(model: nn.Module) -> tuple[str, Tensor]:
    """The last site's name and the classifier's weights (C, J) there: what `contribution` reads."""
    return model.sites()[-1].name, model.fc.weight.detach().float().cpu()


def class_channel_table_reference(model, images, site, statistic: str) -> tuple[Tensor, Tensor]:
    """Mean and mean square of one site, image by image and class by class, (C, J) each."""
    from softprune import datasets

    pixels, labels = images.split("train")
    seen = []
    handle = model.get_submodule(site.module).register_forward_hook(lambda m, i, o: seen.append(o))
    with torch.no_grad():
        for image in pixels:
            model.eval()(datasets.normalise(image[None], images.mean, images.std))
    handle.remove()
    maps = torch.cat(seen)  # (N, J, H, W)
    a = maps.mean((2, 3)) if statistic == "mean" else maps.amax((2, 3))
    per_class = [a[labels == c] for c in range(len(images.class_names))]
    return (torch.stack([p.mean(0) for p in per_class]),
            torch.stack([p.square().mean(0) for p in per_class]))


def save_table(path: Path, table: ClassChannelTable) -> None:
    """As safetensors, `mean/<statistic>/<site>` and `square/<statistic>/<site>`."""
    tensors = {"counts": table.counts}
    for moment in ("mean", "square"):
        for statistic, by_site in getattr(table, moment).items():
            tensors |= {f"{moment}/{statistic}/{site}": t for site, t in by_site.items()}
    artifacts.save_tensors(path, tensors)


def load_table(path: Path, model: nn.Module | None = None) -> ClassChannelTable:
    """The table beside a checkpoint, its sites in the model's order where one is given.

    Raises:
        UserError: missing, not safetensors, or of another model.
    """
    tensors, _ = artifacts.load_tensors(path)
    if "counts" not in tensors:
        raise UserError(f"{Path(path).name} is not a class-by-channel table")
    parts = {"mean": {}, "square": {}}
    for key, value in tensors.items():
        if key != "counts":
            moment, statistic, site = key.split("/")
            parts[moment].setdefault(statistic, {})[site] = value
    if model is not None:
        shapes = {s.name: s.channels for s in model.sites()}
        found = {site: t.shape[1] for site, t in parts["mean"]["mean"].items()}
        if shapes != found:
            raise UserError(f"{Path(path).name} was made from another model: train it again")
        for moment in parts.values():
            for statistic in moment:
                moment[statistic] = {site: moment[statistic][site] for site in shapes}
    head = head_of(model) if model is not None else None
    return ClassChannelTable(counts=tensors["counts"], **parts, head=head)


# --- scores --------------------------------------------------------------------------------------


def score(
    table: ClassChannelTable, site: str, forget: tuple[int, ...], name: str = "difference",
    statistic: str = "mean", seed: int = 0,
) -> Tensor:
    """How much channel j speaks for the classes to forget: s_j, float32 (J,), higher is more.

    Args:
        name: `difference`, mean over forgotten samples - mean over retained samples (the
            paper's); `margin`, mean over forgotten samples - largest mean of a retained class;
            `standardized`, difference / pooled within-group deviation (d'); `ratio`, mean over
            forgotten / mean over retained samples (Pochinkov & Schoots, 2024); `tfidf`, the
            class's share of activation times the log of how few classes exceed the average
            share (after Wang et al., 2022); `contribution`, difference times the classifier's
            weight for the class less its mean weight for the retained, at the last site;
            `random`, a seeded permutation (control).

    Raises:
        UserError: unknown name, or `contribution` where no classifier reads the map.
    """
    choose("score", name, SCORES)
    choose("statistic", statistic, STATISTICS)
    mean, square = table.mean[statistic][site], table.square[statistic][site]  # (C, J)
    if name == "random":
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(mean.shape[1], generator=generator).float()
    inside = torch.zeros(len(mean), dtype=torch.bool)
    inside[list(forget)] = True
    n = table.counts.float()
    if not n[inside].all():
        raise UserError(f"the table knows nothing of class {min(forget)}: it was left out of the "
                        "training, or forgotten before")
    retained = ~inside & (n > 0)  # a class left out of training has no mean

    def pooled(moment, which):
        weight = (n * which / (n * which).sum())[:, None]
        return (weight * moment).sum(0)

    mean_f, mean_r = pooled(mean, inside), pooled(mean, retained)
    if name == "difference":
        return mean_f - mean_r
    if name == "margin":
        return mean_f - mean[retained].max(0).values
    if name == "ratio":  # a channel that is silent for all must not win by 0 / 0
        return mean_f / (mean_r + 1e-2 * mean_r.mean().clamp_min(1e-12))
    if name == "tfidf":
        return tfidf(mean[inside | retained], n[inside | retained], inside[inside | retained])
    if name == "contribution":
        if table.head is None or table.head[0] != site:
            raise UserError(f"score contribution is defined at the last site, not at {site}: "
                            "expected sites=last, or another score")
        weight = table.head[1]
        pull = weight[inside].mean(0) - weight[retained].mean(0)
        return (mean_f - mean_r) * pull
    if name != "standardized":
        raise AssertionError(f"score {name} has a name in SCORES and no branch")
    var_f = pooled(square, inside) - mean_f.square()
    var_r = pooled(square, retained) - mean_r.square()
    n_f, n_r = (n * inside).sum(), (n * retained).sum()
    deviation = ((n_f * var_f + n_r * var_r) / (n_f + n_r)).clamp_min(0).sqrt()
    return (mean_f - mean_r) / deviation.clamp_min(1e-8)


def tfidf(mean: Tensor, counts: Tensor, inside: Tensor) -> Tensor:
    """Term frequency x inverse document frequency, (J,): classes are documents, channels terms.

    Term frequency is the channel's share of the forgotten classes' activation; the document
    frequency counts the classes in which the channel is above the average share 1 / J.
    """
    share = mean / mean.sum(1, keepdim=True).clamp_min(1e-12)  # (C, J)
    weight = (counts * inside / (counts * inside).sum())[:, None]
    documents = (share > 1 / mean.shape[1]).sum(0)
    return (weight * share).sum(0) * torch.log((1 + len(mean)) / (1 + documents))


def score_reference(activations: Tensor, labels: Tensor, forget, name: str) -> Tensor:
    """`score` from the activations themselves, (N, J), by the definitions."""
    inside = torch.isin(labels, torch.tensor(list(forget)))
    a_f, a_r = activations[inside], activations[~inside]
    if name == "difference":
        return a_f.mean(0) - a_r.mean(0)
    if name == "ratio":
        return a_f.mean(0) / (a_r.mean(0) + 0.01 * a_r.mean())
    if name == "tfidf":
        out = []
        for j in range(activations.shape[1]):
            documents = sum(
                float(activations[labels == c, j].mean() > activations[labels == c].mean())
                for c in labels.unique())
            share = torch.stack([
                activations[labels == c, j].mean() / activations[labels == c].mean(0).sum()
                for c in forget]).mean()  # classes of one size
            out.append(share * math.log((1 + len(labels.unique())) / (1 + documents)))
        return torch.stack(out)
    if name == "margin":
        rest = [activations[labels == c].mean(0) for c in labels.unique() if c not in forget]
        return a_f.mean(0) - torch.stack(rest).max(0).values
    if name != "standardized":
        raise AssertionError(f"score {name} has no reference")
    variance_f, variance_r = a_f.var(0, correction=0), a_r.var(0, correction=0)
    pooled = (len(a_f) * variance_f + len(a_r) * variance_r) / len(activations)
    return (a_f.mean(0) - a_r.mean(0)) / pooled.sqrt()


def select(scores: Tensor, fraction: float) -> Tensor:
    """Indices of the top `fraction` of channels (rounded, at least one), best first.

    Example:
        >>> select(torch.tensor([5.0, 6, 0, 1, 7]), 0.4).tolist()
        [4, 1]
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction={fraction}: expected a number above 0, at most 1")
    k = max(1, round(fraction * len(scores)))
    return torch.argsort(scores, descending=True, stable=True)[:k]
