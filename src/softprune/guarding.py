r"""A rung against an opponent: directions that a classifier fitted anew cannot read past.

`best` is fitted under the network's own classifier, and one that is fitted afterwards finds more of
the class than in a network that never saw it: in part the class is hidden, not gone. `guarded` has
a *reader* as its opponent while it is fitted (`ladder.Reader`), a linear classifier of all classes
that learns along, on the features of the last steps.

The edit has the form of `best`, directions and shifts: it folds exactly, W (I + U V^T), and needs
nothing at request time. It may have many pairs u, v a site, which spares the others; with as many
as here it is no pruning any more, but a fine-tuning of low rank, made beforehand.

Source: features guarded against linear predictors by a game (Ravfogel et al., 2022), here inside a
network; updates of low rank (Hu et al., 2022).
"""

import collections
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from softprune import artifacts, evaluation, ladder, paths, profiles, pruning, requests

RUNG = "guarded"


@dataclass(frozen=True, kw_only=True)
class GuardOptions(ladder.FitOptions):
    """How guarded directions are fitted; `options` has the setting of a data set."""

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

    def __post_init__(self):
        """Blends may be kept here: the reader learns on the other images alone."""


# sets without a choice of their own that take another's than CIFAR-10's, which the defaults are:
# of many classes a gentler reader takes as much
LIKE = {"tiny-imagenet-200": "cifar100"}


def options(dataset: str, profile: str = "") -> GuardOptions:
    """The setting for a data set, with the blends that its `best` has.

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


def chosen() -> dict[str, dict]:
    """`data/guarded.json`: data set -> `set` (pairs, reader) and `record` (its key)."""
    path = paths.root() / "data" / "guarded.json"
    return json.loads(path.read_text()) if path.exists() else {}


def remember(entry: str, taken: GuardOptions, key: str) -> None:
    """Write a choice into `data/guarded.json`, beside those of other sets.

    Args:
        entry: of `profiles.chosen_under`.
        key: of the run record that it was chosen from.
    """
    now = {"set": {"pairs": taken.pairs, "reader": taken.reader}, "record": key}
    artifacts.write_json(paths.root() / "data" / "guarded.json", chosen() | {entry: now})


class Guard(ladder.Fitter):
    """A trained model with the maps in front of its edit, ready to guard one class after another.

    Options are `GuardOptions`.
    """

    def fit(self, forget: tuple[int, ...]) -> pruning.Gates:
        """Directions (pairs, 2, J) at every site whose map layers alone read, and shifts (J,).

        Retained images keep the original's probabilities, with the classes masked; images of the
        classes are to leave them by a margin under the network's own classifier, and at all under
        the reader's.
        """
        o, own = self.options, torch.cat([self.own(c) for c in forget])
        labels = torch.cat([torch.full((len(self.own(c)),), c) for c in forget])
        kept = ~(evaluation.is_forgotten(self.pool_labels, forget)
                 | evaluation.is_forgotten(self.blended, forget))
        kept = kept.nonzero().squeeze(1)
        labelled = len(self.pool) // (2 if o.blend else 1)  # blends come behind, and have no label
        generator = torch.Generator().manual_seed(o.seed * 1009 + forget[0])
        pairs, shifts = self.unwritten(len(forget), generator)
        reader, seen = ladder.Reader(self.model.fc, forget), collections.deque(maxlen=o.recent)
        weight = o.weight
        for _ in range(o.rounds):
            solver = torch.optim.Adam([{"params": list(pairs.values()), "lr": o.direction},
                                       {"params": list(shifts.values()), "lr": o.shift}])
            settle = torch.optim.lr_scheduler.LinearLR(solver, 1.0, 1 / o.steps, o.steps)
            for _ in range(o.steps):
                r = kept[torch.randint(len(kept), (o.retained,), generator=generator)]
                f = torch.randint(len(own), (o.forgotten,), generator=generator)
                features = self.features(shifts | pairs, torch.cat([self.pool[r], own[f]]))
                sharp = torch.cat([r < labelled, torch.ones(o.forgotten, dtype=torch.bool)])
                answers = torch.cat([self.pool_labels[r], labels[f]])
                seen.append((features.detach()[sharp], answers[sharp]))
                reader.learn(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
                loss = self.loss(features, self.teacher[r], reader, weight)
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

    def loss(self, features: Tensor, teacher: Tensor, reader: ladder.Reader,
             weight: float) -> Tensor:
        """What an edit costs, from features (N, d) of retained images and then of the classes',
        and the original's logits of the retained ones."""
        o, forget, count = self.options, reader.forget, len(teacher)
        z = self.model.fc(features)
        return (ladder.masked_divergence(z[:count], teacher, forget).mean()
                + weight * ladder.hinge(z[count:], forget, o.margin).mean()
                + o.reader * reader.finds(features[count:]).mean())


def prepare(bench: requests.Bench, classes, log: Callable[[str], None] | None = None
            ) -> tuple[ladder.Stored, dict[int, float]]:
    """Guarded directions of `classes`, and the seconds each took: stored beside the checkpoint.

    Each class is written as soon as it is fitted, so what is stopped resumes.
    """
    wanted = options(bench.images.name, bench.sidecar["config"]["profile"])
    path = artifacts.companion(bench.checkpoint, f"gates-{RUNG}")
    mark = {"options": json.dumps(wanted.told(), sort_keys=True),
            "weights": bench.sidecar["sha256"]}
    stored, seconds = ladder.load_gates(path, mark) if path.exists() else ({}, {})
    guard = None
    for cls in (c for c in classes if c not in stored):
        guard = guard or Guard(bench.model, bench.images, wanted)
        began = time.perf_counter()
        stored[cls] = guard.fit((cls,))
        seconds[cls] = time.perf_counter() - began
        ladder.save_gates(path, stored, seconds, mark)
        if log:
            log(f"{RUNG}: {bench.images.class_names[cls]} fitted in {seconds[cls]:.1f} s")
    return stored, seconds
