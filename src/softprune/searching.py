r"""A rung without gradients: a class's prototype, read and turned as that class needs.

`prototypes` gives all classes of a data set one strength alpha and one spread kappa. Some classes
need less, and cost the others more than they must; a few need more, and stay. Here both are
searched for each class, on lines. For every kappa of `SPREADS` alpha is the least of `STRENGTHS` at
which no more than `STRAYS` of the class's training images are told by less than a margin, that is,
have

    max_{c != f} z_c - z_f < margin,

under the network's own classifier: whole steps first, then the quarters below. Where none is as
strong as that, as where turning the map further makes other images the class's, it is the first
whole step of those that leave fewest. Of the kappas the one is taken that leaves no more than
`STRAYS`, or else fewest, and of these the one that changes what is answered to other images least:

    KL(p || q), the mean over `SAMPLE` training images of the other classes,

p what the original answers with the class masked, q what the edited network does. The maps in front
of the edit are computed once, so a step of the search is a pass of the last layers.

It needs training images beforehand, but no gradient; a request looks its edit up and folds it.

Source: ours.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

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
SPREADS = (0.1, 0.2, 0.5, 1.0, 3.0)
STRAYS = 0.01  # share of a class's training images, such as mislabelled ones, that may stay
MOST = 1000  # images of a class that are looked at
SAMPLE = 1000  # images of all classes on which the others' answers are compared
WORST = 2 * prototypes.LOSS  # that a setting may cost the others in its dearest request

SITES = (1, 2, 3)
MARGINS = (0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Where directions are, and what they are searched for."""

    # as in `PrototypeOptions`
    sites: int = 1
    # by which a class's training images are to lie below the largest other logit
    margin: float = 0.75

    def told(self) -> dict:
        """As a dict for records."""
        return dataclasses.asdict(self)


class Found(NamedTuple):
    """What the search found for a class."""

    spread: float
    strength: float


def options(dataset: str, profile: str = "") -> SearchOptions:
    """The setting for a data set: as `choose` left it in `data/searched.json`, else the base."""
    return SearchOptions(**prototypes.setting_of(prototypes.chosen(FILE), dataset, profile))


class Search:
    """A checkpoint with its classes' directions at the last sites inside, of strength 1.

    Args:
        sites: of `SearchOptions`.
    """

    def __init__(self, bench: requests.Bench, sites: int):
        self.bench = bench
        self.unit = {spread: prototypes.of_model(
            bench.model, bench.table, prototypes.PrototypeOptions(
                sites=sites, alpha=1.0, spread=spread)) for spread in SPREADS}
        self.before, self.after = models.split_at(
            bench.model, prototypes.where(bench.model, sites))
        # of this search alone, and gone with it
        self.lead = functools.cache(self._lead)
        self.cost = functools.cache(self._cost)
        self.maps = functools.lru_cache(maxsize=1)(self._maps)

    def edit(self, cls: int, found: Found) -> pruning.Gates:
        """Directions of a class, (1, 2, J) at every site: what they write is times the strength."""
        return {name: pairs * pairs.new_tensor([found.strength, 1.0])[:, None]
                for name, pairs in prototypes.request(self.unit[found.spread], (cls,)).items()}

    def find(self, cls: int, margin: float) -> Found:
        """The spread that costs the others least, of those that leave least, at its strength."""
        tried = [self.strength(cls, spread, margin) for spread in SPREADS]
        least = max(STRAYS, min(left for _, left in tried))
        return min((found for found, left in tried if left <= least),
                   key=lambda found: self.cost(cls, found))

    def strength(self, cls: int, spread: float, margin: float) -> tuple[Found, float]:
        """The least strength at which the class is gone by the margin, or the first whole step of
        those that leave fewest of its images; and the share of them that is left."""
        tried: dict[Found, float] = {}

        def left(strength: float) -> float:
            found = Found(spread, strength)
            # what is no number is not gone
            tried[found] = (~(self.lead(cls, found) <= -margin)).double().mean().item()
            return tried[found]

        whole = next((s for s in STRENGTHS[::4] if left(s) <= STRAYS), None)
        if whole is not None:
            next((s for s in STRENGTHS if s > whole - 1 and left(s) <= STRAYS), None)
            return min((f, share) for f, share in tried.items() if share <= STRAYS)
        return min(tried.items(), key=lambda item: item[1])

    def _lead(self, cls: int, found: Found) -> Tensor:
        """`prototypes.lead` of a class's training images under its edit."""
        return prototypes.lead(self.logits(self.maps(cls), self.edit(cls, found)), cls)

    def _cost(self, cls: int, found: Found) -> float:
        """What an edit changes in the answers to images of the other classes, in nats."""
        maps, labels, before = self.others
        masked = before.clone()
        masked[:, cls] = -torch.inf
        p, kept = masked.softmax(1), labels != cls
        log_q = self.logits(maps, self.edit(cls, found)).log_softmax(1)
        each = (torch.special.xlogy(p, p) - p * log_q).sum(1)
        return each[kept].mean().item()

    @functools.cached_property
    def others(self) -> tuple[Tensor, Tensor, Tensor]:
        """Maps in front of the edit, labels, and the original's logits of training images of all
        classes."""
        pixels, labels = self.bench.images.split("train")
        few = ladder.pick(labels, SAMPLE, 0)
        maps = self.in_front(pixels[few])
        return maps, labels[few], self.logits(maps, {})

    def _maps(self, cls: int) -> Tensor:
        """In front of the edit, of the class's training images: the first `MOST`."""
        pixels, labels = self.bench.images.split("train")
        return self.in_front(pixels[(labels == cls).nonzero().squeeze(1)[:MOST]])

    @torch.inference_mode()
    def in_front(self, pixels: Tensor) -> Tensor:
        """Maps (N, J, H, W) in front of the edit."""
        images = self.bench.images
        return torch.cat([models.run(self.before, x) for x, _ in evaluation.batches(
            pixels, images.mean, images.std, self.bench.device)])

    @torch.inference_mode()
    def logits(self, maps: Tensor, edit: pruning.Gates) -> Tensor:
        """Logits (N, C), on the CPU, from the maps in front of an edit."""
        model = self.bench.model
        with pruning.gated(model, edit):
            return torch.cat([model.fc(models.run(self.after, m)) for m in maps.split(500)]).cpu()


def prepare(bench: requests.Bench, classes, log: Callable[[str], None] | None = None,
            setting: SearchOptions | None = None) -> tuple[ladder.Stored, dict[int, float]]:
    """Edits of `classes`, by the data set's setting or another, and the seconds that each took:
    stored beside the checkpoint."""
    own = setting or options(bench.images.name, bench.sidecar["config"]["profile"])

    def ready():
        search = Search(bench, own.sites)
        return lambda cls: search.edit(cls, search.find(cls, own.margin))

    return stored.prepare(bench, RUNG, own.told(), ready, classes, log)


def choose(bench: requests.Bench, log: Callable[[dict], None] | None = None) -> SearchOptions:
    """Try every setting on the validation split, write a run record (stage `searched-choice`), and
    put the one that `prototypes.prefer` takes into `data/searched.json`."""
    began, tried = time.perf_counter(), []
    for sites in prototypes.counts(bench.model, SITES):
        search = Search(bench, sites)
        for margin in MARGINS:
            tried.append(prototypes.judge(
                bench, SearchOptions(sites=sites, margin=margin),
                lambda cls, s=search, m=margin: s.edit(cls, s.find(cls, m)),
                choosing.looked_at(bench)))
            if log:
                log(tried[-1])
    taken = prototypes.prefer(tried, WORST)["options"]
    return prototypes.remember(bench, (RUNG, FILE), tried, taken, began)
