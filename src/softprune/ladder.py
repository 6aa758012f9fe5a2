r"""The rungs above the plain method: gates fitted once for each class, folded at request.

`calibrated`: gates at the last site. Logits are linear in them, z = W diag(g) h + b, so this is a
small problem on stored features. But W diag(g) only rescales the classifier's columns: whoever
holds the features holds the class.

`best`: gates at sites inside the network, fitted through its frozen weights under the original
classifier. What lies before the first gated site is computed once for all classes.

Both need training images beforehand and nothing at request time. Nearest prior art: the memory
matrices of WF-Net (Poppi et al., 2024).
"""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softprune import artifacts, devices, evaluation, models, paths, profiles, pruning
from softprune.errors import UserError, choose

RUNGS = ("calibrated", "best")
Stored = dict[int, pruning.Gates]  # class -> its gates
# raised when `Fitter.fit` gives other gates for the same options: what a page or a search stored
# before is then made anew
FIT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How gates are fitted."""

    # where the gates are, as in `models.choose_sites`
    sites: str = "late"
    # the forgotten class's logit is to lie this far below its largest rival
    margin: float = 1.0
    # what retained images keep: their labels' cross-entropy, or the original's probabilities
    keep: str = "teacher"
    # weight of the forgotten images' loss against that of the retained ones, to begin with
    weight: float = 0.3
    # pull towards 1: a channel that does not matter stays open
    pull: float = 0.002
    steps: int = 80
    rate: float = 0.1
    # retained and forgotten images a step
    retained: int = 128
    forgotten: int = 48
    # retained images whose maps are kept for all steps and classes
    pool: int = 3000
    # while more than `left` of the class's training images are recognised: again, at twice the
    # weight; the validation split is kept for choosing and judging
    rounds: int = 3
    left: float = 0.01
    seed: int = 0
    # the largest gate: above 1 a channel may also be turned up, which makes good what closing
    # others took from classes that share them
    most: float = 1.0
    # with gates at the last site and inside: the class's logit under the untouched classifier is
    # to lie this far below too; -inf asks for nothing
    under: float = -math.inf
    # weight of a hinge under a *reader*: a linear classifier of all classes that learns from the
    # gated features while they are fitted, as an attacker who holds the file would; 0 has none
    reader: float = 0.0
    # rate of shifts, fitted beside the gates: of the beta of each block's last batch norm, from the
    # first gated stage on; pulled towards 0 as gates are towards 1. 0 has none, and neither has a
    # network where gates fold into every batch norm (VGG), or a fit at the last site alone: one
    # setting of a data set serves all its networks
    shift: float = 0.0
    # rate of *directions*: at every site whose map layers alone read (`Site.read`) a pair u, v,
    # and the map h becomes h + u (v . h). Pulled towards nothing by |u|^2 |v|^2. 0 has none; with
    # `rate` 0 there are no gates on channels beside them
    direction: float = 0.0
    # as many *blends* (`blends`) join the retained images: each with another, which counts for at
    # most this much; a blend has no label, so what is kept is the original's probabilities. 0 has
    # none
    blend: float = 0.0

    def __post_init__(self):
        if self.blend and (self.keep != "teacher" or self.reader):
            raise UserError(f"blend={self.blend:g}: expected keep='teacher' and no reader with it, "
                            "since a blend of two images has no label")

    def told(self) -> dict:
        """As a dict for marks and records, with `FIT_VERSION`; `most`, `under`, `reader`, `shift`,
        `direction`, `blend` and a version only where they are used, so that gates stored before
        there were any are still found."""
        unused = {"most": 1.0, "under": -math.inf, "reader": 0.0, "shift": 0.0,
                  "direction": 0.0, "blend": 0.0, "version": 1}
        values = dataclasses.asdict(self) | {"version": FIT_VERSION}
        return {k: v for k, v in values.items() if unused.get(k) != v}

    @classmethod
    def of_told(cls, values: dict) -> "FitOptions | None":
        """The inverse of `told`, whatever else stands there; None if of another version."""
        if values.get("version", 1) != FIT_VERSION:
            return None
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in names})


def base(rung: str, dataset: str) -> FitOptions:
    """Where the search for a rung's setting begins; batches and rates are not searched."""
    choose("rung", rung, RUNGS)
    if rung == "calibrated":  # features alone: large batches cost nothing
        return FitOptions(sites="last", keep="labels", pull=0.02, steps=150, rate=0.05,
                          retained=1000, forgotten=200)
    if dataset == "digits":  # two sites and few images: a gentler push, for longer
        return FitOptions(sites="inner", steps=300, rate=0.05)
    return FitOptions()


def options(rung: str, dataset: str, profile: str = "") -> FitOptions:
    """The setting of a rung, one for all classes of a data set: as `choosing` left it.

    `data/ladder.json` holds what `softprune fit --choose` chose on the validation split; a profile
    that has no entry of its own takes the set's, and a set that is not in it the base.
    """
    path = paths.root() / "data" / "ladder.json"
    chosen = json.loads(path.read_text()) if path.exists() else {}
    own = chosen.get(profiles.chosen_under(dataset, profile), {})
    changed = (own.get(rung) or chosen.get(dataset, {}).get(rung, {})).get("set", {})
    return dataclasses.replace(base(rung, dataset), **changed)


def pick(labels: Tensor, total: int, seed: int) -> Tensor:
    """Indices (n,) of about `total` images, equally many of each class, seeded."""
    generator = torch.Generator().manual_seed(seed)
    present = labels.unique()
    each = max(1, total // len(present))
    chosen = []
    for c in present:
        members = (labels == c).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:each]])
    return torch.cat(chosen)


def blends(pixels: Tensor, labels: Tensor, most: float, seed: int) -> tuple[Tensor, Tensor]:
    """Images each blended with another of them, (1 - a) x + a x', a uniform in [0, `most`].

    A network that knows its training images by heart is sure of them, and less of a blend; where
    it is unsure gates change predictions. Blends as in mixup (Zhang et al., 2018).

    Args:
        pixels: uint8 (N, c, h, w). labels: (N,).

    Returns:
        uint8 (N, c, h, w), and the other images' labels (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    other = torch.randperm(len(pixels), generator=generator)
    a = most * torch.rand(len(pixels), generator=generator).view(-1, 1, 1, 1)
    mixed = [(1 - w) * x.float() + w * pixels[j].float() for x, j, w in zip(
        pixels.split(1000), other.split(1000), a.split(1000), strict=True)]
    return torch.cat([m.round().to(torch.uint8) for m in mixed]), labels[other]


def hinge(logits: Tensor, forget: tuple[int, ...], margin: float) -> Tensor:
    """max(0, margin + z_f - largest other logit), (N,): how far images are from leaving the
    forgotten classes, z_f being the largest logit of those.

    Example:
        >>> hinge(torch.tensor([3.0, 1, 2])[None], (0,), 2.0).tolist()
        [3.0]
    """
    rival = logits.clone()
    rival[:, list(forget)] = -torch.inf
    return F.relu(margin + logits[:, list(forget)].amax(1) - rival.amax(1))


def masked_divergence(logits: Tensor, teacher: Tensor, forget: tuple[int, ...]) -> Tensor:
    """KL (N,) from the original's probabilities with the classes masked to those of `logits`.

    The target is what a head mask would answer; unlike a label it says how sure to be.
    """
    others = [c for c in range(logits.shape[1]) if c not in forget]
    goal = teacher[:, others].log_softmax(1)
    here = logits.log_softmax(1)[:, others]
    return (goal.exp() * (goal - here)).sum(1)


class Reader:
    """A linear classifier of all classes, taught on gated features while the gates are fitted.

    It begins as the network's own classifier and counts every class the same, however many images
    of it a step has.
    """

    def __init__(self, fc: nn.Linear, forget: tuple[int, ...], rate: float = 0.01):
        self.head = copy.deepcopy(fc).requires_grad_(True)
        self.solver = torch.optim.Adam(self.head.parameters(), lr=rate)
        self.forget, self.share = forget, len(forget) / fc.out_features

    def learn(self, features: Tensor, labels: Tensor, steps: int = 3) -> None:
        """A few steps on features (N, d) as they are now."""
        own = evaluation.is_forgotten(labels, self.forget)
        weights = torch.where(own, self.share / own.sum(), (1 - self.share) / (~own).sum())
        weights, labels = weights.to(features), labels.to(features.device)
        for _ in range(steps):
            losses = F.cross_entropy(self.head(features.detach()), labels, reduction="none")
            self.solver.zero_grad()
            (weights * losses).sum().backward()
            self.solver.step()

    def finds(self, features: Tensor) -> Tensor:
        """Hinge (N,) of images of the class: 0 where it takes them for another."""
        head = self.head
        z = F.linear(features, head.weight.detach(), head.bias.detach())
        return hinge(z, self.forget, 0.0)


class Fitter:
    """A trained model with the maps in front of its gates, ready to fit one class after another."""

    def __init__(self, model: nn.Module, images, options: FitOptions):
        self.model, self.images, self.options = model.eval().requires_grad_(False), images, options
        self.sites = models.choose_sites(model, options.sites)
        self.device = next(model.parameters()).device
        self.fast = devices.has_fast_bfloat16(self.device)
        self.last = model.sites()[-1].name
        self.at_head = [s.name for s in self.sites] == [self.last]
        parts = model.parts()
        self.prefix, self.suffix = (parts, []) if self.at_head else models.split_at(
            model, self.sites)
        later = [name for name, _ in self.suffix]
        self.shifts = {norm: model.get_submodule(norm).num_features
                       for norm, part in models.shifts(model).items() if part in later}
        self.pixels, self.labels = images.split("train")
        few = pick(self.labels, options.pool, options.seed)
        kept, self.pool_labels = self.pixels[few], self.labels[few]
        self.blended = self.pool_labels  # labels of what is blended in
        if options.blend:
            mixed, other = blends(kept, self.pool_labels, options.blend, options.seed)
            kept, self.blended = torch.cat([kept, mixed]), torch.cat([self.pool_labels, other])
            self.pool_labels = self.pool_labels.repeat(2)
        self.pool = self.before(kept)
        self.teacher = self.teacher_of(self.pool)
        self.kept: dict[int, Tensor] = {}

    def turned(self, options: FitOptions) -> "Fitter":
        """A fitter with other options, which shares the maps where they are the same."""
        sites = models.choose_sites(self.model, options.sites)
        at_head = [s.name for s in sites] == [self.last]
        first = len(self.prefix) if at_head else len(models.split_at(self.model, sites)[0])
        now = (at_head, first, options.pool, options.seed, options.blend)
        had = self.options
        if now != (self.at_head, len(self.prefix), had.pool, had.seed, had.blend):
            return Fitter(self.model, self.images, options)
        other = copy.copy(self)
        other.options, other.sites = options, sites
        return other

    def own(self, cls: int) -> Tensor:
        """Maps of the class's training images; a few classes' are kept for the next options."""
        if cls not in self.kept:
            if len(self.kept) > 8:
                self.kept.clear()
            self.kept[cls] = self.before(
                self.pixels[self.labels == cls][: self.options.pool // 4])
        return self.kept[cls]

    @torch.no_grad()
    def teacher_of(self, maps: Tensor) -> Tensor:
        """The original's logits (N, C), from the maps in front of its gates."""
        ones = {s.name: torch.ones(s.channels, device=self.device) for s in self.sites}
        return torch.cat([self.answer(ones, m) for m in maps.split(500)])

    @torch.no_grad()
    def recognised(self, gates: pruning.Gates, maps: Tensor, forget: tuple[int, ...]) -> float:
        """Share of images that are still put into one of the classes under gates."""
        told = [evaluation.is_forgotten(self.answer(gates, m).argmax(1), forget)
                for m in maps.split(500)]
        return torch.cat(told).double().mean().item()

    @torch.inference_mode()
    def before(self, pixels: Tensor) -> Tensor:
        """Maps in front of the first gate, in half precision: memory is what limits the pool."""
        batches = evaluation.batches(pixels, self.images.mean, self.images.std, self.device, 250)
        return torch.cat([models.run(self.prefix, batch).half() for batch, _ in batches]).clone()

    def answer(self, gates: pruning.Gates, maps: Tensor) -> Tensor:
        """Logits (N, C) under gates, from the maps in front of them."""
        return self.read(self.features(gates, maps), gates)

    def features(self, gates: pruning.Gates, maps: Tensor) -> Tensor:
        """Pooled features (N, d) under the gates inside: the last one only scales them."""
        if self.at_head:
            return maps.float()
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast)
        inside = {name: g for name, g in gates.items() if name != self.last}
        with autocast, pruning.gated(self.model, inside):
            return models.run(self.suffix, maps.float()).float()

    def read(self, features: Tensor, gates: pruning.Gates) -> Tensor:
        """Logits (N, C) from features, through the last gate if there is one."""
        return self.model.fc(features * gates[self.last] if self.last in gates else features)

    def fit(self, forget: tuple[int, ...]) -> pruning.Gates:
        """Gates of one class, or of several together: float32 (J,) in [0, `most`] at every site,
        with shifts and directions where the options have them; no gates where their `rate` is 0.

        Retained images keep their cross-entropy, or the original's probabilities, images of the
        classes get a hinge on its margin.
        """
        o, device = self.options, self.device
        generator = torch.Generator().manual_seed(o.seed * 1009 + forget[0])
        gates = {s.name: torch.ones(s.channels, device=device, requires_grad=True)
                 for s in self.sites if o.rate}
        directions = {
            pruning.DIRECTION + s.name: _unwritten(len(forget), s.channels, generator, device)
            for s in self.sites if o.direction and s.read}
        shifts = {pruning.SHIFT + n: torch.zeros(j, device=device, requires_grad=True)
                  for n, j in self.shifts.items() if o.shift}
        kept = ~(evaluation.is_forgotten(self.pool_labels, forget)
                 | evaluation.is_forgotten(self.blended, forget))
        kept = kept.nonzero().squeeze(1)
        maps = [self.own(c) for c in forget]
        own = torch.cat(maps)
        sizes = torch.tensor([len(m) for m in maps])
        own_labels = torch.tensor(forget).repeat_interleave(sizes)
        reader = Reader(self.model.fc, forget) if o.reader else None
        added = shifts | directions
        weight = o.weight
        for _ in range(o.rounds):
            rates = [(list(gates.values()), o.rate), (list(shifts.values()), o.shift),
                     (list(directions.values()), o.direction)]
            solver = torch.optim.Adam([{"params": p, "peak": rate} for p, rate in rates if p])
            for step in range(o.steps):
                for group in solver.param_groups:  # settles: the last gates are the ones kept
                    group["lr"] = group["peak"] * (1 - step / o.steps)
                r = kept[torch.randint(len(kept), (o.retained,), generator=generator)]
                f = torch.randint(len(own), (o.forgotten,), generator=generator)
                features = self.features(gates | added, torch.cat([self.pool[r], own[f]]))
                z = self.read(features, gates)
                if o.keep == "labels":
                    loss = F.cross_entropy(z[: o.retained], self.pool_labels[r].to(device))
                else:
                    loss = masked_divergence(z[: o.retained], self.teacher[r], forget).mean()
                loss = loss + weight * hinge(z[o.retained :], forget, o.margin).mean()
                if o.under > -math.inf:
                    under = self.model.fc(features[o.retained :])
                    loss = loss + weight * hinge(under, forget, o.under).mean()
                if reader:
                    reader.learn(features, torch.cat([self.pool_labels[r], own_labels[f]]))
                    loss = loss + o.reader * reader.finds(features[o.retained :]).mean()
                loss = loss + o.pull * sum((1 - g).square().sum() for g in gates.values())
                if shifts:
                    loss = loss + o.pull * sum(s.square().sum() for s in shifts.values())
                if directions:
                    loss = loss + o.pull * sum(d.square().sum(2).prod(1).sum()
                                               for d in directions.values())
                solver.zero_grad()
                loss.backward()
                solver.step()
                with torch.no_grad():
                    for g in gates.values():
                        g.clamp_(0, o.most)
            if self.recognised(gates | added, own, forget) <= o.left:
                break
            weight *= 2
        return {name: g.detach().cpu() for name, g in (gates | added).items()}


def _unwritten(count: int, channels: int, generator: torch.Generator, device) -> Tensor:
    """Directions (count, 2, J) that do nothing yet: each reads along a random v, and u is 0."""
    v = F.normalize(torch.randn(count, channels, generator=generator))
    return torch.stack([torch.zeros_like(v), v], 1).to(device).requires_grad_(True)


# --- stored gates --------------------------------------------------------------------------------


def request(stored: Stored, forget) -> pruning.Gates:
    """Gates of a request for several classes, the same in whatever order they come.

    Gates that only close: the elementwise minimum, since closing a channel twice takes more from
    the others than it needs. Where one turns a channel up: the product, which is what folding
    one request after another gives; a minimum would lose what one class's gates give back. Shifts
    and directions are added in either case.

    Raises:
        UserError: gates of a class were never fitted.
    """
    for cls in forget:
        if cls not in stored:
            raise UserError(f"no gates stored for class {cls}: expected one of {sorted(stored)}")
    single = [stored[c] for c in sorted(forget)]  # sums round by their order
    closing = all((g <= 1).all() for gates in single for g in pruning.multiplied(gates).values())
    return pruning.combine(*single, join=torch.minimum if closing else torch.mul)


def prepare(
    checkpoint: Path, model: nn.Module, images, rung: str, classes,
    log: Callable[[str], None] | None = None,
) -> tuple[Stored, dict[int, float]]:
    """Gates of `classes` on one rung, and the seconds each took: stored beside the checkpoint.

    Each class is written as soon as it is fitted, so what is stopped resumes.
    """
    wanted = options(rung, images.name, artifacts.read_sidecar(checkpoint)["config"]["profile"])
    path = artifacts.companion(checkpoint, f"gates-{rung}")
    mark = {"options": json.dumps(wanted.told(), sort_keys=True),
            "weights": artifacts.sha256(checkpoint)}
    stored, seconds = load_gates(path, mark) if path.exists() else ({}, {})
    fitter = None
    for cls in classes:
        if cls in stored:
            continue
        fitter = fitter or Fitter(model, images, wanted)
        began = time.perf_counter()
        stored[cls] = fitter.fit((cls,))
        seconds[cls] = time.perf_counter() - began
        save_gates(path, stored, seconds, mark)
        if log:
            log(f"{rung}: {images.class_names[cls]} fitted in {seconds[cls]:.1f} s")
    return stored, seconds


def save_gates(path: Path, stored: Stored, seconds: dict[int, float], mark: dict) -> None:
    """Gates as safetensors, `<site>` (classes, J) in half precision, with `classes`."""
    order = sorted(stored)
    tensors = {site: torch.stack([stored[c][site] for c in order]).half()
               for site in stored[order[0]]}
    tensors["classes"] = torch.tensor(order)
    tensors["seconds"] = torch.tensor([seconds[c] for c in order])
    for c in order:  # what is measured is what is stored
        stored[c] = {site: g.half().float() for site, g in stored[c].items()}
    artifacts.save_tensors(path, tensors, mark)


def load_gates(path: Path, mark: dict | None = None) -> tuple[Stored, dict[int, float]]:
    """What `save_gates` wrote; nothing if it was fitted otherwise than `mark` says."""
    tensors, metadata = artifacts.load_tensors(path)
    if "classes" not in tensors:
        raise UserError(f"{Path(path).name} holds no gates: expected a file that "
                        "`softprune fit` wrote")
    if mark is not None and metadata != mark:
        return {}, {}
    order, seconds = tensors.pop("classes").tolist(), tensors.pop("seconds").tolist()
    stored = {c: {site: g[i].float() for site, g in tensors.items()} for i, c in enumerate(order)}
    return stored, dict(zip(order, seconds, strict=True))
