"""A request "forget these classes", judged: every method's outputs, all classes in turn."""

import copy
import dataclasses
import functools
import itertools
import time
from pathlib import Path

import torch
from torch import Tensor

from softprune import (
    artifacts,
    baselines,
    channels,
    checks,
    datasets,
    devices,
    evaluation,
    ladder,
    models,
    pruning,
)
from softprune.errors import UserError, choose

# to the end of the scale: a best setting at a grid's edge would say the grid was too short
FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)

# what the plain method's own options become: its gates closed, and the control
PLAIN = {"soft": {}, "hard": {"gate": "hard"}, "random-channels": {"score": "random"}}

# `best`, fitted for all classes of a request at once instead of combined from stored gates
TOGETHER = "together"


class Bench:
    """A trained model with its table and data, ready to answer requests.

    Gates at the last site of a model whose classifier reads it act on pooled features, so their
    logits come from one matrix product; gates elsewhere are folded and the images run again.

    The model is on `device` (CUDA where there is one); features, logits, gates and the table are
    on the CPU.
    """

    def __init__(self, checkpoint: Path, images: datasets.ImageSet, device=None):
        if not isinstance(checkpoint, Path):
            raise UserError(f"checkpoint {checkpoint!r}: expected a pathlib.Path")
        self.model, self.sidecar = artifacts.load_checkpoint(checkpoint)
        self.device = torch.device(device) if device else devices.pick_device()
        self.model.to(self.device)
        if self.sidecar["config"]["dataset"] != images.name or tuple(
                self.sidecar["class_names"]) != images.class_names:
            raise UserError(
                f"{checkpoint.name} was trained on other data than the {images.name} that is here"
            )
        checks.same_images(self.sidecar, images)
        self.table = channels.load_table(
            artifacts.check_companion(checkpoint, "table", self.sidecar), self.model)
        self.images, self.checkpoint = images, checkpoint
        self.stored: dict[str, ladder.Stored] = {}
        # gates fitted for several classes together, and the seconds each fit took
        self.fitted: dict[tuple[int, ...], tuple[pruning.Gates, float]] = {}
        self.last = self.model.sites()[-1].name
        self.latest: tuple[str, pruning.Gates, Tensor] | None = None  # of `gated_features`

    @functools.cache  # noqa: B019  a bench lives as long as its notebook
    def outputs(self, split: str) -> tuple[Tensor, Tensor, Tensor]:
        """Features, logits and labels of a split, before any request."""
        pixels, labels = self.images.split(split)
        features, logits = evaluation.predict(self.model, pixels, self.images.mean,
                                              self.images.std)
        return features, logits, labels

    def gates(self, forget, *, sites: str = "last", **options) -> pruning.Gates:
        """`pruning.make_gates` with this model's table."""
        return pruning.make_gates(
            self.table, models.choose_sites(self.model, sites), tuple(forget), **options
        )

    def prepare(self, rung: str, classes, log=None) -> dict[int, float]:
        """Fit (or find) a rung's gates for `classes`; returns the seconds each class took."""
        self.stored[rung], seconds = ladder.prepare(self.checkpoint, self.model, self.images, rung,
                                                    classes, log)
        return seconds

    @functools.cached_property
    def fitter(self) -> ladder.Fitter:
        """Fits `best` gates for several classes together."""
        return ladder.Fitter(self.model, self.images, ladder.options(
            "best", self.images.name, self.sidecar["config"]["profile"]))

    def together(self, forget) -> pruning.Gates:
        """Gates of `best`'s setting, fitted for all classes of a request at once: it needs training
        images at request time, and seconds (`fitted` keeps them)."""
        forget = tuple(sorted(forget))
        if forget not in self.fitted:
            fitter, began = self.fitter, time.perf_counter()
            self.fitted[forget] = fitter.fit(forget), time.perf_counter() - began
        return self.fitted[forget][0]

    def method_gates(self, method: str, forget, **options) -> pruning.Gates:
        """Gates of `soft`, `hard`, `random-channels`, of a prepared rung of the ladder, or of
        `together`.

        Args:
            options: of `gates`; `fraction` may be what `fractions` returns.
        """
        if method in ladder.RUNGS and method not in self.stored:
            raise UserError(f"no edits of {method} are here: call prepare({method!r}, classes) of "
                            "the bench first")
        if method in ladder.RUNGS:
            return ladder.request(self.stored.get(method, {}), forget)
        if method == TOGETHER:
            return self.together(forget)
        choose("method", method, [*PLAIN, *ladder.RUNGS, TOGETHER])
        return self.gates(forget, **plain_options(method, options))

    def gated_outputs(self, gates: pruning.Gates, split: str) -> tuple[Tensor, Tensor]:
        """Features and logits of a split under gates."""
        features = self.gated_features(self.inside(gates), split)
        gate = gates.get(self.last, torch.ones(features.shape[1]))
        with torch.inference_mode():
            return features, self.model.fc((features * gate).to(self.device)).cpu()

    def gated_features(self, inside: pruning.Gates, split: str) -> Tensor:
        """Features of a split under gates that `inside` gave. The latest are kept: the edited
        classifier and the untouched one read the same."""
        if not inside:
            return self.outputs(split)[0]
        if not (self.latest and self.latest[0] == split and _same(self.latest[1], inside)):
            with pruning.folded(self.model, inside):
                parts = models.shifts(self.model)
                where = {pruning.SHIFT + norm: part for norm, part in parts.items()}
                at = [where.get(name, name.removeprefix(pruning.DIRECTION)) for name in inside]
                first = next(i for i, (name, _) in enumerate(self.model.parts())
                             if name and _holds(name, at))
                self.latest = (split, {n: g.clone() for n, g in inside.items()},
                               self._from(split, first))
        return self.latest[2]

    @torch.inference_mode()
    def _from(self, split: str, first: int) -> Tensor:
        """Features from the part `first` on: what lies before is computed once."""
        maps = self._maps(split, first)
        after = self.model.parts()[first:]
        return torch.cat([models.run(after, m) for m in maps.split(500)]).cpu().clone()

    @functools.lru_cache(maxsize=2)  # noqa: B019  a bench lives as long as its notebook
    def _maps(self, split: str, first: int) -> Tensor:
        """Maps in front of the part `first`, channels-last; the normalised images if it is 0."""
        pixels = self.images.split(split)[0]
        before = self.model.parts()[:first]
        with torch.inference_mode():
            return torch.cat([
                models.run(before, x) for x, _ in evaluation.batches(
                    pixels, self.images.mean, self.images.std, self.device)]
            ).contiguous(memory_format=torch.channels_last)

    def fold_into_copy(self, gates: pruning.Gates) -> torch.nn.Module:
        """An unlearned model of its own."""
        model = copy.deepcopy(self.model)
        pruning.fold(model, gates)
        return model

    def method_logits(self, method: str, forget, split: str, **options) -> Tensor:
        """Logits of `original`, `head-mask`, `pour-p`, or of a method of `method_gates`.

        Args:
            options: sites, score, statistic, fraction, gate, alpha, seed of the soft method;
                `hard` closes channels instead, `random-channels` draws as many.
        """
        if method == "original":
            return self.outputs(split)[1]
        if method == "head-mask":
            return evaluation.head_mask(self.outputs(split)[1], forget)
        if method == "pour-p":
            return projected_logits(self.model.fc, self.outputs(split)[0], forget)
        return self.gated_outputs(self.method_gates(method, forget, **options), split)[1]

    def inside(self, gates: pruning.Gates) -> pruning.Gates:
        """The gates that change features: without those that only rescale the classifier."""
        site = self.model.sites()[-1]
        return {s: g for s, g in gates.items() if s != site.name}

    def refit_recall(self, gates: pruning.Gates, forget, total: int = 10_000) -> float:
        """Test accuracy on the forgotten classes of a classifier refitted on gated features.

        Args:
            total: training images it is fitted on, equally many of each class.
        """
        labels = self.images.split("train")[1]
        few = ladder.pick(labels, total, 0)
        inside = self.inside(gates)
        with pruning.folded(self.model, inside):
            train = self._features(few) if inside else self._plain_features(total)
        test = self.gated_outputs(inside, "test")[0]
        gate = gates.get(self.last, torch.ones(train.shape[1]))
        head = evaluation.head_refit(train * gate, labels[few], len(self.images.class_names))
        return retained_and_forgotten(head(test * gate), self.images.test_labels, forget)[1]

    def _features(self, few: Tensor) -> Tensor:
        pixels = self.images.split("train")[0][few]
        return evaluation.predict(self.model, pixels, self.images.mean, self.images.std)[0]

    @functools.cache  # noqa: B019  the same for every gate at the last site
    def _plain_features(self, total: int) -> Tensor:
        return self._features(ladder.pick(self.images.split("train")[1], total, 0))


def projected_logits(fc: torch.nn.Linear, features: Tensor, forget) -> Tensor:
    """What `baselines.pour_p` answers (N, C), from features (N, d) of the original."""
    with torch.inference_mode():
        return fc(features.to(fc.weight) @ baselines.complement(fc, forget)).cpu()


def _holds(part: str, gates) -> bool:
    return any(site == part or site.startswith(f"{part}.") for site in gates)


def _same(one: pruning.Gates, other: pruning.Gates) -> bool:
    return one.keys() == other.keys() and all(torch.equal(g, other[n]) for n, g in one.items())


def retained_and_forgotten(logits: Tensor, labels: Tensor, forget) -> tuple[float, float]:
    """Accuracy on the retained and on the forgotten classes."""
    return shares(logits.argmax(1) == labels, labels, forget)


def shares(right: Tensor, labels: Tensor, forget) -> tuple[float, float]:
    """Share of retained and of forgotten images that are `right`, bool (N,)."""
    gone = evaluation.is_forgotten(labels, forget)
    return right[~gone].double().mean().item(), right[gone].double().mean().item()


def in_turn(bench: Bench, logits_of, split: str = "test", classes=None) -> dict[str, list]:
    """Each class forgotten in turn.

    Args:
        logits_of: class index -> logits of the split.

    Returns:
        Lists over classes: `classes`, and in [0, 1] `retained`, `forgotten`, `before` (retained
        accuracy of the original).
    """
    checks.several("classes", classes)
    _, base, labels = bench.outputs(split)
    right = base.argmax(1) == labels
    turn = {"classes": [], "retained": [], "forgotten": [], "before": []}
    for cls in range(len(bench.images.class_names)) if classes is None else classes:
        retained, forgotten = retained_and_forgotten(logits_of(cls), labels, (cls,))
        before = shares(right, labels, (cls,))[0]
        for key, value in zip(turn, (cls, retained, forgotten, before), strict=True):
            turn[key].append(value)
    return turn


def add(turn: dict[str, list], bench: Bench, cls: int, gates: pruning.Gates, split: str) -> None:
    """One more class to what `in_turn` gives, `turn`: {} at first."""
    one = in_turn(bench, lambda _: bench.gated_outputs(gates, split)[1], split, [cls])
    for key, values in one.items():
        turn.setdefault(key, []).extend(values)


def summarise(turn: dict[str, list]) -> dict[str, float]:
    """Means and worst cases of `in_turn`, as shares; `change` is retained after - before."""
    change = [r - b for r, b in zip(turn["retained"], turn["before"], strict=True)]
    n = len(change)
    return {"forgotten-mean": sum(turn["forgotten"]) / n, "forgotten-worst": max(turn["forgotten"]),
            "retained-mean": sum(turn["retained"]) / n,
            "change-mean": sum(change) / n, "change-worst": min(change), "n": n}


def forgets(summary: dict, images: int) -> bool:
    """The bar's first half: nothing left on average, at most one percent of any class.

    Args:
        summary: of `summarise`. images: test images a class; where they are fewer than a hundred
            the worst class may keep one.
    """
    worst = max(0.01, 1 / images) + 1e-9
    return summary["forgotten-mean"] < 0.0005 and summary["forgotten-worst"] <= worst


def spares(summary: dict) -> bool:
    """The bar's other half: half a point lost on average, a whole one by the worst request."""
    return summary["change-mean"] >= -0.005 and summary["change-worst"] >= -0.01


def judged(bench: Bench, method: str = "soft", split: str = "test", classes=None, **choice) -> dict:
    """One setting of a method for all classes in turn: the choice and its `summarise` numbers."""
    turn = in_turn(bench, lambda c: bench.method_logits(method, (c,), split, **choice), split,
                   classes)
    return choice | summarise(turn)


def calibrate(bench: Bench, fractions=FRACTIONS, classes=None,
              **options) -> tuple[float, list[dict]]:
    """The fraction to prune, chosen on the validation split alone; and every point tried.

    Rule: the largest mean over classes in turn (all where none are named) of (retained -
    forgotten accuracy); of equals the smallest fraction. One fraction serves every class.
    """
    checks.several("classes", classes)
    points = [judged(bench, split="validation", classes=classes, fraction=f, **options)
              for f in fractions]
    best = max(points, key=lambda p: p["retained-mean"] - p["forgotten-mean"])
    return best["fraction"], points


def fractions(bench: Bench, fraction: float = 0.0, **options) -> dict[str, float]:
    """The fraction of each of `PLAIN`: the one named, or what `calibrate` gives for its gates.

    Attenuated channels and closed ones are two methods: closed ones need fewer. The control draws
    as many as are attenuated.
    """
    if fraction:
        return dict.fromkeys(PLAIN, fraction)
    found = {m: calibrate(bench, **options | PLAIN[m])[0] for m in ("soft", "hard")}
    return found | {"random-channels": found["soft"]}


def plain_options(method: str, options: dict) -> dict:
    """The options of one of `PLAIN`, its own fraction among them where there are several.

    Example:
        >>> plain_options("hard", {"gate": "rank", "fraction": {"soft": 0.8, "hard": 0.25}})
        {'gate': 'hard', 'fraction': 0.25}
    """
    several = isinstance(options.get("fraction"), dict)
    own = {"fraction": options["fraction"][method]} if several else {}
    return options | own | PLAIN[method]


def candidates(bench: Bench, fractions=FRACTIONS, scores=channels.SCORES,
               classes=None) -> list[dict]:
    """What the paper leaves open at the last site: every score, statistic and gate.

    Each combination gets its own fraction on the validation split, and is judged on the test split
    for `classes` in turn (all). Values in [0, 1], means over classes and the worst class.
    """
    return [
        judged(bench, fraction=calibrate(bench, fractions, classes, **choice)[0], classes=classes,
               **choice)
        for choice in (
            {"score": score, "statistic": statistic, "gate": gate, "sites": "last"}
            for score in scores for statistic in channels.STATISTICS for gate in pruning.GATES
        )
        if not (choice["score"] == "random" and choice["statistic"] == "max")  # the same draw
    ]


def several(bench: Bench, method: str, size: int, draws: int = 5, classes=None,
            **options) -> dict[str, float]:
    """Requests for `size` classes at once, seeded draws: the same numbers as `summarise`, and of
    `together` the `seconds` a fit took, mean."""
    pool = list(range(len(bench.images.class_names)) if classes is None else classes)
    generator = torch.Generator().manual_seed(size)
    _, base, labels = bench.outputs("test")
    turn, seconds = {"retained": [], "forgotten": [], "before": []}, []
    for _ in range(draws):
        chosen = torch.randperm(len(pool), generator=generator)[:size].tolist()
        forget = tuple(sorted(pool[i] for i in chosen))
        logits = bench.method_logits(method, forget, "test", **options)
        retained, forgotten = retained_and_forgotten(logits, labels, forget)
        turn["retained"].append(retained)
        turn["forgotten"].append(forgotten)
        turn["before"].append(retained_and_forgotten(base, labels, forget)[0])
        if method == TOGETHER:
            seconds.append(bench.fitted[forget][1])
    return summarise(turn) | ({"seconds": sum(seconds) / len(seconds)} if seconds else {})


def one_after_another(bench: Bench, method: str, length: int, classes=None, seed: int = 0,
                      **options) -> list[dict[str, float]]:
    """Requests that arrive one after another, each for one more class, in a seeded order.

    Gates of a request do not depend on the order of its classes, so the network after the third
    request is that of one for all three.

    Returns:
        A dict a request: `classes` forgotten so far, `forgotten`, the share of all their test
        images that is still recognised, `change` of the accuracy on the classes that stay.
    """
    pool = list(range(len(bench.images.class_names)) if classes is None else classes)
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:length]
    _, base, labels = bench.outputs("test")
    told = []
    for count in range(1, len(order) + 1):
        forget = tuple(sorted(pool[i] for i in order[:count]))
        kept, gone = retained_and_forgotten(
            bench.method_logits(method, forget, "test", **options), labels, forget)
        told.append({"classes": count, "forgotten": gone,
                     "change": kept - retained_and_forgotten(base, labels, forget)[0]})
    return told


# --- the ablation --------------------------------------------------------------------------------

SWEEP_FRACTIONS = tuple(i / 20 for i in range(1, 21))
SWEEP_MARGINS = (1.0, 3.0)


def sweep(bench: Bench, scores=channels.SCORES, gates=("rank", "hard")) -> list[dict]:
    """Forgetting against retention at the last site, every class in turn on the test split.

    A point a (score, gate, fraction), pooled by mean; then the rung `calibrated`, a point a
    margin, which stands in the column `gate`: there is no fraction.
    """
    rows = []

    def add(method, made, **said):
        rows.extend(
            artifacts.row(method, f"all-classes-{k}", 100 * made[k], "points", split="test",
                          sites="last", n=made["n"], **said)
            for k in ("forgotten-mean", "forgotten-worst", "change-mean", "change-worst"))

    for score, gate, fraction in itertools.product(scores, gates, SWEEP_FRACTIONS):
        said = {"score": score, "gate": gate, "fraction": fraction, "statistic": "mean"}
        add("hard" if gate == "hard" else "soft", judged(bench, sites="last", **said), **said)
    mask = in_turn(bench, lambda c: evaluation.head_mask(bench.outputs("test")[1], (c,)))
    add("head-mask", summarise(mask))
    for margin in SWEEP_MARGINS:
        wanted = dataclasses.replace(ladder.base("calibrated", bench.images.name),
                                     margin=margin)
        fitter = ladder.Fitter(bench.model, bench.images, wanted)
        turn = in_turn(bench, lambda c, f=fitter: bench.gated_outputs(f.fit((c,)), "test")[1])
        add("calibrated", summarise(turn), gate=f"fitted, margin {margin:g}")
    return rows
