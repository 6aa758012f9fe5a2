r"""A rung without gradients: the direction of a class's prototype, as strong as the class needs.

`prototypes` gives all classes of a data set one strength alpha. Some classes need less, and cost
the others more than they must; a few need more, and stay. Here alpha is searched for each class, on
a line: the least of `STRENGTHS` at which no more than `STRAYS` of the class's training images are
told by less than a margin, that is, have

    max_{c != f} z_c - z_f < margin,

under the network's own classifier. Where none is as strong as that, as where turning the map
further makes other images the class's, it is the first of those that leave fewest. The maps in
front of the edit are computed once a class, so a step of the search is a pass of the last layers.

It needs images of the class alone, no gradient and no image of the others, beforehand; a request
looks its edit up and folds it.

Source: ours.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from softprune import (
    choosing,
    evaluation,
    ladder,
    models,
    prototypes,
    pruning,
    requests,
    stored,
)

RUNG = "searched"
FILE = "searched.json"
STRENGTHS = tuple(1 + step / 4 for step in range(29))  # 1 takes the direction out; to 8
STRAYS = 0.01  # share of a class's training images, such as mislabelled ones, that may stay
MOST = 1000  # images of a class that are looked at
WORST = 2 * prototypes.LOSS  # that a setting may cost the others in its dearest request

SITES = (1, 2, 3)
SPREADS = (0.2, 0.5, 1.0, 3.0)
MARGINS = (0.0, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Where directions are, and what their strength is searched for."""

    # as in `PrototypeOptions`
    sites: int = 1
    spread: float = 0.5
    # by which a class's training images are to lie below the largest other logit
    margin: float = 0.5

    def told(self) -> dict:
        """As a dict for records."""
        return dataclasses.asdict(self)


def options(dataset: str, profile: str = "") -> SearchOptions:
    """The setting for a data set: as `choose` left it in `data/searched.json`, else the base."""
    return SearchOptions(**prototypes.setting_of(prototypes.chosen(FILE), dataset, profile))


class Search:
    """A checkpoint with its classes' directions at the last sites inside, of strength 1.

    Args:
        sites, spread: of `SearchOptions`.
    """

    def __init__(self, bench: requests.Bench, sites: int, spread: float):
        self.bench = bench
        self.unit = prototypes.of_model(bench.model, bench.table, prototypes.PrototypeOptions(
            sites=sites, alpha=1.0, spread=spread))
        self.before, self.after = models.split_at(
            bench.model, prototypes.where(bench.model, sites))

    def edit(self, cls: int, strength: float) -> pruning.Gates:
        """Directions of a class, (1, 2, J) at every site: what they write is times `strength`."""
        return {name: pairs * pairs.new_tensor([strength, 1.0])[:, None]
                for name, pairs in prototypes.request(self.unit, (cls,)).items()}

    def strength(self, cls: int, margin: float) -> float:
        """The least strength at which the class is gone by the margin, or the first of those that
        leave fewest of its images."""
        least, taken = torch.inf, STRENGTHS[0]
        for strength in STRENGTHS:
            left = (self.lead(cls, strength) > -margin).double().mean().item()
            if left < least:
                least, taken = left, strength
            if left <= STRAYS:
                break
        return taken

    @functools.cache  # noqa: B019  a search lives as long as its settings are tried
    def lead(self, cls: int, strength: float) -> Tensor:
        """`prototypes.lead` of a class's training images under its edit."""
        after, maps = self.after, self.maps(cls)
        with pruning.gated(self.bench.model, self.edit(cls, strength)), torch.inference_mode():
            z = torch.cat([self.bench.model.fc(models.run(after, m)) for m in maps.split(500)])
        return prototypes.lead(z, cls).cpu()

    @functools.lru_cache(maxsize=1)  # noqa: B019
    @torch.inference_mode()
    def maps(self, cls: int) -> Tensor:
        """In front of the edit, of the class's training images: the first `MOST`."""
        images = self.bench.images
        pixels, labels = images.split("train")
        own = pixels[(labels == cls).nonzero().squeeze(1)[:MOST]]
        return torch.cat([models.run(self.before, x) for x, _ in evaluation.batches(
            own, images.mean, images.std, self.bench.device)])


def prepare(bench: requests.Bench, classes, log: Callable[[str], None] | None = None,
            setting: SearchOptions | None = None) -> tuple[ladder.Stored, dict[int, float]]:
    """Edits of `classes`, by the data set's setting or another, and the seconds that each took:
    stored beside the checkpoint."""
    own = setting or options(bench.images.name, bench.sidecar["config"]["profile"])

    def ready():
        search = Search(bench, own.sites, own.spread)
        return lambda cls: search.edit(cls, search.strength(cls, own.margin))

    return stored.prepare(bench, RUNG, own.told(), ready, classes, log)


def choose(bench: requests.Bench, log: Callable[[dict], None] | None = None) -> SearchOptions:
    """Try every setting on the validation split, write a run record (stage `searched-choice`), and
    put the one that `prototypes.prefer` takes into `data/searched.json`."""
    began, tried = time.perf_counter(), []
    for sites in prototypes.counts(bench.model, SITES):
        for spread in SPREADS:
            search = Search(bench, sites, spread)
            for margin in MARGINS:
                tried.append(prototypes.judge(
                    bench, SearchOptions(sites=sites, spread=spread, margin=margin),
                    lambda cls, s=search, m=margin: s.edit(cls, s.strength(cls, m)),
                    choosing.looked_at(bench)))
                if log:
                    log(tried[-1])
    taken = prototypes.prefer(tried, WORST)["options"]
    return prototypes.remember(bench, (RUNG, FILE), tried, taken, began)
