r"""Rungs against opponents: directions that classifiers fitted anew cannot read past.

`best` is fitted under the network's own classifier, and one that is fitted afterwards finds more of
the class than in a network that never saw it: in part the class is hidden, not gone. `guarded` has
a *reader* as its opponent while it is fitted (`ladder.Reader`), a linear classifier of all classes
that learns along, on the features of the last steps. What it forces out is forced out behind the
edited sites, and a linear classifier one stage earlier still finds the class: `deep` has a reader
there too, on the map pooled over space, and its edit begins in front of it.

The edit has the form of `best`, directions and shifts: it folds exactly, W (I + U V^T), and needs
nothing at request time. It may have many pairs u, v a site, which spares the others; with as many
as here it is no pruning any more, but a fine-tuning of low rank, made beforehand.

Source: features guarded against linear predictors by a game (Ravfogel et al., 2022), here inside a
network; updates of low rank (Hu et al., 2022); a linear classifier a depth is the probe of Alain
and Bengio (2016), which `audit` has as a reader afterwards.
"""

import collections
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softprune import (
    artifacts,
    audit,
    evaluation,
    ladder,
    models,
    paths,
    profiles,
    pruning,
    requests,
    stored,
)
from softprune.errors import choose

RUNGS = RUNG, DEEP = "guarded", "deep"
END = ""  # the reader of the last features; others go by the name of their site


@dataclass(frozen=True, kw_only=True)
class GuardOptions(ladder.FitOptions):
    """How guarded directions are fitted; `setting` has that of a rung on a data set.

    `depths` are names of sites by commas, each with a reader of weight `deep`; `reader` is the
    weight of the one at the end. An edit that is to hide the class from a depth begins, by `sites`,
    in front of it.
    """

    # u, v a site and class
    pairs: int = 32
    # the reader learns on the features of so many steps, as they were then: one that has only the
    # images of the present step is so poor that what it misses can still be read
    recent: int = 30
    direction: float = 0.01
    rate: float = 0.0
    shift: float = 0.1
    pull: float = 0.0003
    reader: float = 0.02
    margin: float = 3.0
    steps: int = 600
    pool: int = 20000
    depths: str = ""
    deep: float = 0.0

    def __post_init__(self):
        """Blends may be kept here: readers learn on the other images alone."""

    def told(self) -> dict:
        """As `FitOptions.told`; what is said of depths only where there are any."""
        unused = () if self.depths else ("depths", "deep")
        return {k: v for k, v in super().told().items() if k not in unused}


# sets without a choice of their own that take another's than CIFAR-10's, which the defaults are:
# of many classes a gentler reader takes as much
LIKE = {"tiny-imagenet-200": "cifar100"}


def options(dataset: str, profile: str = "") -> GuardOptions:
    """`guarded`'s setting for a data set, with the blends that its `best` has.

    `data/guarded.json` holds the pairs and the reader's weight that `benchmarks/readers.py` chose
    on the validation split, for sets that have retrained networks to choose by.
    """
    found = chosen()
    entries = (profiles.chosen_under(dataset, profile), dataset, LIKE.get(dataset))
    changed = next((found[e]["set"] for e in entries if e in found), {})
    if profile == "smoke":  # a test run: that it works, not how well
        changed = changed | {"pairs": 4, "steps": 20, "rounds": 1}
    own = ladder.options("best", dataset, profile)
    return dataclasses.replace(GuardOptions(), blend=own.blend, **changed)


def setting(bench: requests.Bench, rung: str) -> GuardOptions:
    """The setting of one of `RUNGS` for a checkpoint.

    `deep` is `guarded` with a reader of a quarter of the weight at the last depth but one of those
    that `audit` probes; the edit begins at the one before.
    """
    own = options(bench.images.name, bench.sidecar["config"]["profile"])
    choose("rung", rung, RUNGS)
    if rung == RUNG:
        return own
    *_, first, depth, _ = audit.depths(bench.model)
    names = [s.name for s in bench.model.sites()]
    return dataclasses.replace(own, depths=depth, deep=own.reader / 4,
                               sites=",".join(names[names.index(first):-1]))


def chosen() -> dict[str, dict]:
    """`data/guarded.json`: data set -> `set` (pairs, reader) and `record` (its key)."""
    path = paths.root() / "data" / "guarded.json"
    return artifacts.read_json(path, "the settings that `softprune fit --choose` wrote", {})


def remember(entry: str, taken: GuardOptions, key: str) -> None:
    """Write a choice into `data/guarded.json`, beside those of other sets.

    Args:
        entry: of `profiles.chosen_under`.
        key: of the run record that it was chosen from.
    """
    now = {"set": {"pairs": taken.pairs, "reader": taken.reader}, "record": key}
    artifacts.write_json(paths.root() / "data" / "guarded.json", chosen() | {entry: now})


def depths_of(options: GuardOptions) -> list[str]:
    """The depths that an option names."""
    return [d for d in options.depths.split(",") if d]


class Guard(ladder.Fitter):
    """A trained model with the maps in front of its edit, ready to guard one class after another.

    Options are `GuardOptions`.

    Raises:
        UserError: a depth is no site of the network, or lies in front of the edit.
    """

    def __init__(self, model: nn.Module, images, options: GuardOptions):
        self.depths = depths_of(options)
        self.seen: dict[str, Tensor] = {}
        super().__init__(model, images, options)  # its teacher has been run: sites behind the edit
        for depth in self.depths:
            choose("depth", depth, self.seen)
        self.labelled = len(self.pool) // (2 if options.blend else 1)  # blends come behind
        self.scales, self.heads = {}, {}
        for depth, maps in self._unedited().items():
            self.scales[depth] = maps.mean(0), maps.std(0).clamp_min(1e-6)
            self.heads[depth] = evaluation.head_refit(
                self._scaled(depth, maps), self.pool_labels[:self.labelled],
                model.fc.out_features)

    def turned(self, options: GuardOptions) -> "Guard":
        """As the fitter's; a guard, whatever it shares."""
        if depths_of(options) == self.depths:
            other = super().turned(options)
            if isinstance(other, Guard):
                return other
        return Guard(self.model, self.images, options)

    @torch.no_grad()
    def _unedited(self) -> dict[str, Tensor]:
        """Pooled maps (N, J) of every depth, of the images of the pool that have a label."""
        found: dict[str, list[Tensor]] = {d: [] for d in self.depths}
        for maps in self.pool[:self.labelled].split(500) if found else ():
            self.features({}, maps)
            for depth, parts in found.items():
                parts.append(self.seen[depth])
        return {d: torch.cat(parts) for d, parts in found.items()}

    def _scaled(self, depth: str, maps: Tensor) -> Tensor:
        mean, spread = self.scales[depth]
        return (maps - mean) / spread

    def features(self, gates: pruning.Gates, maps: Tensor) -> Tensor:
        """As the fitter's; `seen` keeps the pooled maps of the sites behind, as they are before the
        edit at that very site, which is folded into what reads them."""
        if not self.depths:
            return super().features(gates, maps)
        with models.site_maps(self.model, lambda m: m.mean((2, 3)).float()) as self.seen:
            return super().features(gates, maps)

    def views(self, gates: pruning.Gates, maps: Tensor) -> dict[str, Tensor]:
        """What each reader reads: the features (N, d), and of every depth the map (N, J), pooled
        and scaled to mean 0 and spread 1 in the unedited network."""
        return {END: self.features(gates, maps)} | {
            d: self._scaled(d, self.seen[d]) for d in self.depths}

    def readers(self, forget: tuple[int, ...]) -> dict[str, ladder.Reader]:
        """One for each of `views`, which begins as a classifier of the unedited network."""
        return {name: ladder.Reader(head, forget)
                for name, head in ({END: self.model.fc} | self.heads).items()}

    def fit(self, forget: tuple[int, ...]) -> pruning.Gates:
        """Directions (pairs, 2, J) at every site whose map layers alone read, and shifts (J,).

        Retained images keep the original's probabilities, with the classes masked; images of the
        classes are to leave them by a margin under the network's own classifier, and at all under
        the readers'.
        """
        o, own = self.options, torch.cat([self.own(c) for c in forget])
        labels = torch.cat([torch.full((len(self.own(c)),), c) for c in forget])
        kept = ~(evaluation.is_forgotten(self.pool_labels, forget)
                 | evaluation.is_forgotten(self.blended, forget))
        kept = kept.nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(o.seed * 1009 + forget[0])
        pairs, shifts = self.unwritten(len(forget), generator)
        readers, recent = self.readers(forget), collections.deque(maxlen=o.recent)
        weight = o.weight
        for _ in range(o.rounds):
            solver = torch.optim.Adam([{"params": list(pairs.values()), "lr": o.direction},
                                       {"params": list(shifts.values()), "lr": o.shift}])
            settle = torch.optim.lr_scheduler.LinearLR(solver, 1.0, 1 / o.steps, o.steps)
            for _ in range(o.steps):
                r = kept[torch.randint(len(kept), (o.retained,), generator=generator)]
                f = torch.randint(len(own), (o.forgotten,), generator=generator)
                views = self.views(shifts | pairs, torch.cat([self.pool[r], own[f]]))
                sharp = torch.cat([r < self.labelled, torch.ones(o.forgotten, dtype=torch.bool)])
                answers = torch.cat([self.pool_labels[r], labels[f]])
                recent.append(({d: v.detach()[sharp] for d, v in views.items()}, answers[sharp]))
                for depth, reader in readers.items():
                    reader.learn(torch.cat([v[depth] for v, _ in recent]),
                                 torch.cat([told for _, told in recent]))
                loss = self.loss(views, self.teacher[r], readers, weight)
                loss = loss + o.pull * sum(p.square().sum(2).prod(1).sum() for p in pairs.values())
                loss = loss + o.pull * sum(s.square().sum() for s in shifts.values())
                solver.zero_grad()
                loss.backward()
                solver.step()
                settle.step()
            if self.recognised(shifts | pairs, own, forget) <= o.left:
                break
            weight *= 2
        return {name: value.detach().cpu() for name, value in (shifts | pairs).items()}

    def unwritten(self, classes: int, generator) -> tuple[pruning.Gates, pruning.Gates]:
        """Pairs and shifts that do nothing yet: every v is random, of length 1, and every u 0."""
        pairs = {}
        for site in (s for s in self.sites if s.read):
            v = F.normalize(torch.randn(classes * self.options.pairs, site.channels,
                                        generator=generator))
            pairs[pruning.DIRECTION + site.name] = torch.stack([torch.zeros_like(v), v], 1)
        shifts = {pruning.SHIFT + norm: torch.zeros(j) for norm, j in self.shifts.items()}
        return tuple({name: value.to(self.device).requires_grad_(True)
                      for name, value in entries.items()} for entries in (pairs, shifts))

    def loss(self, views: dict[str, Tensor], teacher: Tensor, readers: dict[str, ladder.Reader],
             weight: float) -> Tensor:
        """What an edit costs, from `views` of retained images and then of the classes', and the
        original's logits (n, C) of the retained ones."""
        o, forget, count = self.options, readers[END].forget, len(teacher)
        z = self.model.fc(views[END])
        loss = (ladder.masked_divergence(z[:count], teacher, forget).mean()
                + weight * ladder.hinge(z[count:], forget, o.margin).mean())
        for depth, reader in readers.items():
            pushed = reader.finds(views[depth][count:]).mean()
            loss = loss + (o.reader if depth == END else o.deep) * pushed
        return loss


def prepare(bench: requests.Bench, rung: str, classes, log: Callable[[str], None] | None = None
            ) -> tuple[ladder.Stored, dict[int, float]]:
    """Directions of `classes` by one of `RUNGS`, and the seconds each took: stored beside the
    checkpoint."""
    wanted = setting(bench, rung)

    def ready():
        guard = Guard(bench.model, bench.images, wanted)
        return lambda cls: guard.fit((cls,))

    return stored.prepare(bench, rung, wanted.told(), ready, classes, log)
