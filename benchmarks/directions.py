"""What do fitted directions read, and what do they write? The page quotes these records.

    python benchmarks/directions.py cifar100 data/checkpoints/cifar100/laptop/NAME.safetensors

Of every class whose directions are stored, at every site, on validation images and the original's
maps, pooled over space: how well v tells the class from the others, how much of h lies along v for
either, and how far u points against v.
"""

import sys
import time

import torch
import torch.nn.functional as F
from one_checkpoint import config_of, opened, record
from torch import Tensor

from softprune import artifacts, evaluation, ladder, models, pruning, requests, roc
from softprune.errors import UserError


def pooled(bench: requests.Bench, split: str = "validation") -> tuple[dict[str, Tensor], Tensor]:
    """Maps (N, J) of every site, pooled over space, and labels (N,)."""
    pixels, labels = bench.images.split(split)
    found: dict[str, list[Tensor]] = {}
    with (torch.inference_mode(),
          models.site_maps(bench.model, lambda m: m.float().mean((2, 3)).cpu()) as kept):
        for batch, _ in evaluation.batches(pixels, bench.images.mean, bench.images.std,
                                           bench.device):
            bench.model(batch)
            for site, map_ in kept.items():
                found.setdefault(site, []).append(map_)
    return {site: torch.cat(parts) for site, parts in found.items()}, labels


def read(h: Tensor, own: Tensor, pair: Tensor, lean: Tensor) -> dict[str, float]:
    """Numbers of one direction (2, J) on maps h (N, J), `own` (N,) being the class's images.

    Args:
        lean: (J,), the class's mean of training images less the others': v has no sign of its own
            and is turned so that it leans this way.

    Returns:
        `auc` of v . h, the class against the others; `share-own`, `share-others`: mean share of
        |h|^2 along v; `against`, the cosine of u and -v; `strength`, |u| |v|.
    """
    u, v = pair
    along = h @ F.normalize(v, dim=0) * torch.sign(lean @ v)
    share = along.square() / h.square().sum(1).clamp_min(1e-12)
    return {"auc": roc.delong(along[own].numpy(), along[~own].numpy())[0],
            "share-own": share[own].mean().item(), "share-others": share[~own].mean().item(),
            "against": F.cosine_similarity(-u, v, dim=0).item(),
            "strength": (u.norm() * v.norm()).item()}


def rows_of(bench: requests.Bench, stored: ladder.Stored) -> list[dict]:
    """A row a site and number, in the network's order: the mean over classes."""
    maps, labels = pooled(bench)
    found: dict[tuple[str, str], list[float]] = {}
    for cls, gates in stored.items():
        for name, pairs in gates.items():
            if pruning.is_direction(name):
                site = name.removeprefix(pruning.DIRECTION)
                means = bench.table.mean["mean"][site]  # (C, J)
                lean = means[cls] - (means.sum(0) - means[cls]) / (len(means) - 1)
                told = read(maps[site], labels == cls, pairs[0], lean)
                for metric, value in told.items():
                    found.setdefault((site, metric), []).append(value)
    return [artifacts.row("best", f"direction-{metric}", sum(values) / len(values),
                          split="validation", sites=site, n=len(values))
            for place in bench.model.sites()
            for (site, metric), values in found.items() if site == place.name]


def main(dataset: str, checkpoint: str) -> None:
    """Read the stored directions, measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    wanted = ladder.options("best", dataset, config_of(bench).profile)
    try:
        stored, _ = ladder.load_gates(artifacts.companion(bench.checkpoint, "gates-best"))
    except UserError as error:
        sys.exit(str(error))
    rows = rows_of(bench, stored)
    if not rows:
        sys.exit(f"the gates of `best` have no directions: expected a setting with `direction`, "
                 f"not {wanted.told()}")
    for r in rows:
        print(f"{r['sites']:16} {r['metric']:24} {r['value']:8.3f}  {r['n']} classes")
    record("directions", bench, rows, began, {"setting": wanted.told()})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("expected: python benchmarks/directions.py DATASET CHECKPOINT.safetensors")
    main(*sys.argv[1:])
