r"""Directions guarded at every depth: a reader at the end of each stage, not at the last alone.

`guarding` has one reader, of the last features. What it forces out is forced out behind the edited
sites, and a linear classifier one stage earlier still finds the class. Here each depth has a reader
of its own, a linear classifier of all classes on the map pooled over space, and the edit may begin
in front of the first of them. It has the form of `guarded`, and folds as it does.

With no depth it is `guarding.Guard`, which the pages that ran it know by its code.

Source: ours. A linear classifier a depth is the probe of Alain and Bengio (2016), which `audit` has
as a reader afterwards.
"""

import collections
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from softprune import artifacts, audit, evaluation, guarding, ladder, models, pruning, requests
from softprune.errors import choose

RUNG = "deep"
END = ""  # the reader of the last features


@dataclass(frozen=True, kw_only=True)
class DepthOptions(guarding.GuardOptions):
    """How directions guarded at depths are fitted.

    `depths` are names of sites by commas, each with a reader of weight `deep`; `reader` stays the
    weight of the one at the end. `sites` are where the edit acts: one that is to hide the class
    from a depth begins in front of it.
    """

    depths: str = "layer3"
    deep: float = 0.005
    sites: str = "layer2,late"


def options(bench: requests.Bench) -> DepthOptions:
    """`guarded`'s setting of a data set, with a reader of a quarter of the weight at the last depth
    but one of those that `audit` probes; the edit begins at the one before."""
    own = guarding.options(bench.images.name, bench.sidecar["config"]["profile"])
    same = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
    *_, first, depth, _ = audit.depths(bench.model)
    names = [s.name for s in bench.model.sites()]
    where = {"depths": depth, "sites": ",".join(names[names.index(first):-1])}
    return DepthOptions(**same | {"deep": own.reader / 4} | where)


class DeepGuard(guarding.Guard):
    """A trained model with the maps in front of its edit, and a reader ready for every depth.

    Options are `DepthOptions`.

    Raises:
        UserError: a depth is no site of the network, or lies in front of the edit.
    """

    def __init__(self, model: nn.Module, images, options: DepthOptions):
        self.seen: dict[str, Tensor] = {}
        super().__init__(model, images, options)  # its teacher has been run: sites behind the edit
        self.depths = [d for d in options.depths.split(",") if d]
        for depth in self.depths:
            choose("depth", depth, self.seen)
        count = len(self.pool) // (2 if options.blend else 1)  # blends have no label
        self.scales, self.heads = {}, {}
        for depth, maps in self._unedited(count).items():
            self.scales[depth] = maps.mean(0), maps.std(0).clamp_min(1e-6)
            self.heads[depth] = evaluation.head_refit(
                self._scaled(depth, maps), self.pool_labels[:count], model.fc.out_features)

    @torch.no_grad()
    def _unedited(self, count: int) -> dict[str, Tensor]:
        """Pooled maps (N, J) of every depth, of the pool's first `count` images."""
        found: dict[str, list[Tensor]] = {d: [] for d in self.depths}
        for maps in self.pool[:count].split(500):
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
        with models.site_maps(self.model, lambda m: m.mean((2, 3)).float()) as self.seen:
            return super().features(gates, maps)

    def fit(self, forget: tuple[int, ...]) -> pruning.Gates:
        """Directions (pairs, 2, J) at every site whose map layers alone read, and shifts (J,):
        as `guarding.Guard.fit`, with one more reader a depth."""
        o, own = self.options, torch.cat([self.own(c) for c in forget])
        labels = torch.cat([torch.full((len(self.own(c)),), c) for c in forget])
        kept = ~(evaluation.is_forgotten(self.pool_labels, forget)
                 | evaluation.is_forgotten(self.blended, forget))
        kept = kept.nonzero().squeeze(1)
        labelled = len(self.pool) // (2 if o.blend else 1)
        generator = torch.Generator().manual_seed(o.seed * 1009 + forget[0])
        pairs, shifts = self.unwritten(len(forget), generator)
        last = ladder.Reader(self.model.fc, forget)
        deep = {d: ladder.Reader(head, forget) for d, head in self.heads.items()}
        memory = collections.deque(maxlen=o.recent)
        weight = o.weight
        for _ in range(o.rounds):
            solver = torch.optim.Adam([{"params": list(pairs.values()), "lr": o.direction},
                                       {"params": list(shifts.values()), "lr": o.shift}])
            settle = torch.optim.lr_scheduler.LinearLR(solver, 1.0, 1 / o.steps, o.steps)
            for _ in range(o.steps):
                r = kept[torch.randint(len(kept), (o.retained,), generator=generator)]
                f = torch.randint(len(own), (o.forgotten,), generator=generator)
                features = self.features(shifts | pairs, torch.cat([self.pool[r], own[f]]))
                seen = {d: self._scaled(d, self.seen[d]) for d in self.depths}
                sharp = torch.cat([r < labelled, torch.ones(o.forgotten, dtype=torch.bool)])
                answers = torch.cat([self.pool_labels[r], labels[f]])[sharp]
                memory.append(({END: features.detach()[sharp]}
                               | {d: x.detach()[sharp] for d, x in seen.items()}, answers))
                for d, reader in ({END: last} | deep).items():
                    reader.learn(torch.cat([x[d] for x, _ in memory]),
                                 torch.cat([y for _, y in memory]))
                loss = self.loss(features, self.teacher[r], last, weight)
                for d, reader in deep.items():
                    loss = loss + o.deep * reader.finds(seen[d][len(r):]).mean()
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


def prepare(bench: requests.Bench, classes, log: Callable[[str], None] | None = None
            ) -> tuple[ladder.Stored, dict[int, float]]:
    """Directions guarded at a depth, and the seconds each took, as `guarding.prepare`: stored
    beside the checkpoint, class by class, so what is stopped resumes."""
    wanted = options(bench)
    path = artifacts.companion(bench.checkpoint, f"gates-{RUNG}")
    mark = {"options": json.dumps(wanted.told(), sort_keys=True),
            "weights": bench.sidecar["sha256"]}
    stored, seconds = ladder.load_gates(path, mark) if path.exists() else ({}, {})
    missing = [c for c in classes if c not in stored]
    guard = DeepGuard(bench.model, bench.images, wanted) if missing else None
    for cls in missing:
        began = time.perf_counter()
        stored[cls] = guard.fit((cls,))
        seconds[cls] = time.perf_counter() - began
        ladder.save_gates(path, stored, seconds, mark)
        if log:
            log(f"{RUNG}: {bench.images.class_names[cls]} fitted in {seconds[cls]:.1f} s")
    return stored, seconds
