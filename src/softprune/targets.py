"""Every shadow model as a target once: what it answers before and after forgetting, and what an
attacker with the other models makes of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softprune import (
    channels,
    checks,
    evaluation,
    intervals,
    ladder,
    likelihood,
    models,
    pruning,
    requests,
)
from softprune.errors import choose
from softprune.shadows import Shadows, part

# a rung with the class's output closed as well: `best-masked`
MASKED = "-masked"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Logits of every model of a set on the pool and on held-out images, by method."""

    forget: int
    labels: Tensor  # (N,) of the pool's images that were asked
    member: np.ndarray  # (count, N)
    held_labels: Tensor  # (M,) of held-out images
    pool: dict[str, Tensor]  # method -> (count, N, C); `retrained` has fewer models
    held: dict[str, Tensor]  # method -> (count, M, C)


def ask(shadows: Shadows, forget: int, methods, *, retained: int = 1000, held: int = 1000,
        log: Callable[[str], None] | None = None, **options) -> Answers:
    """Every model's logits before and after forgetting one class.

    Args:
        methods: `original`, `head-mask`, `pour-p`, those of `requests.PLAIN`, rungs of the ladder,
            also with `MASKED` at the end; `retrained` where the set has twins without the class.
        retained: pool images of other classes that are asked too, for the retained data.
        held: test images of the class and as many of the others, seen by no model.
        options: of `pruning.make_gates` for the plain methods; `fraction` may be what
            `requests.fractions` returns.
    """
    checks.several("methods", methods)
    checks.one_class(forget, len(shadows.images.class_names))
    asked = torch.cat([(shadows.labels == forget).nonzero().squeeze(1),
                       _some(shadows.labels != forget, retained)])
    test_pixels, test_labels = shadows.images.split("test")
    others = torch.cat([_some(test_labels == forget, held), _some(test_labels != forget, held)])
    pixels = torch.cat([shadows.pixels[asked], test_pixels[others]])
    made = {m: [] for m in methods}
    for k in range(shadows.plan.count):
        for method, logits in _answers(shadows, k, forget, methods, pixels, options):
            made[method].append(logits)
        if log:
            log(f"answers of model {k + 1} of {shadows.plan.count}")
    stacked = {m: torch.stack(rows) for m, rows in made.items() if rows}
    n = len(asked)
    return Answers(forget=forget, labels=shadows.labels[asked], held_labels=test_labels[others],
                   member=shadows.member[:, asked.numpy()],
                   pool={m: z[:, :n] for m, z in stacked.items()},
                   held={m: z[:, n:] for m, z in stacked.items()})


def _some(which: Tensor, most: int) -> Tensor:
    found = which.nonzero().squeeze(1)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    return found[order[:most].sort().values]


def _answers(shadows: Shadows, k: int, forget: int, methods, pixels: Tensor, options):
    """(method, logits (N, C)) of one model."""
    images = shadows.images
    model = shadows.model(k)
    features, logits = evaluation.predict(model, pixels, images.mean, images.std)
    seen = shadows.seen(k)
    own = part(images, shadows.pixels[seen], shadows.labels[seen])
    table, fitted = None, {}
    for method in methods:
        if method == "original":
            yield method, logits
        elif method == "head-mask":
            yield method, evaluation.head_mask(logits, (forget,))
        elif method == "pour-p":
            yield method, requests.projected_logits(model.fc, features, (forget,))
        elif method == "retrained":
            if k < shadows.plan.retrained and shadows.path(k, forget).exists():
                twin = shadows.model(k, forget)
                yield method, evaluation.predict(twin, pixels, images.mean, images.std)[1]
        else:
            rung = method.removesuffix(MASKED)
            if rung in ladder.RUNGS:
                if rung not in fitted:
                    options_ = ladder.options(rung, images.name, shadows.config.profile)
                    fitted[rung] = ladder.Fitter(model, own, options_).fit((forget,))
                gates = fitted[rung]
            else:
                table = table or channels.class_channel_table(model, own)
                gates = plain_gates(model, table, forget, method, options)
            z = gated_logits(model, gates, features, pixels, images)
            yield method, evaluation.head_mask(z, (forget,)) if method.endswith(MASKED) else z


def plain_gates(model, table, forget: int, method: str, options: dict) -> pruning.Gates:
    """Gates of one of `requests.PLAIN`, at the sites that `options` name."""
    values = requests.plain_options(method, options)
    sites = models.choose_sites(model, values.pop("sites", "last"))
    return pruning.make_gates(table, sites, (forget,), **values)


def gated_logits(model, gates: pruning.Gates, features: Tensor, pixels: Tensor, images) -> Tensor:
    """Logits (N, C) under gates; at the last site alone from the features that are there."""
    last = model.sites()[-1].name
    if set(gates) == {last}:
        with torch.no_grad():
            return model.fc(features * gates[last])
    with pruning.folded(model, gates):
        return evaluation.predict(model, pixels, images.mean, images.std)[1]


# --- the attacks ---------------------------------------------------------------------------------

ATTACKS = ("lira-online", "lira-centred", "lira-offline", "rmia", "lira-neighbour", "lira-others")
# the same question without shadows: what knowing other models is worth
ALONE = "threshold"


@dataclass(frozen=True, kw_only=True)
class Leak:
    """What one attack finds on all targets."""

    attack: str
    method: str
    scores: intervals.Scores  # of every image in every target
    auc: float  # mean over targets, with its interval over these and over the images they share
    low: float
    high: float

    @property
    def members(self) -> np.ndarray:
        """Scores of what the targets have seen, of all targets together."""
        return self.scores.values[self.scores.member]

    @property
    def others(self) -> np.ndarray:
        """Scores of what they have not seen."""
        return self.scores.values[~self.scores.member]


def attack(answers: Answers, method: str, name: str, *, retained: bool = False,
           against: str = "", variance: str = "fixed") -> Leak:
    """One attack on every target of a method.

    Args:
        name: of `ATTACKS`; `lira-centred` is online LiRA on `likelihood.centred` confidences,
            `lira-neighbour` reads the likeliest class among the others, `lira-others` all of them.
            `ALONE` reads the target's own confidence and no shadow's.
        retained: ask about images of the other classes (T5), not of the forgotten one (T1).
        against: the shadows that retrained targets are compared with. Of the forgotten class they
            have no "in" of their own: an unlearned method, by default `soft`. Of the others they
            have what the `original` has, which is the default there.

    Raises:
        UserError: unknown attack; too few shadows for an image.
    """
    choose("attack", name, [*ATTACKS, ALONE])
    which = ((answers.labels == answers.forget) != retained).numpy()
    held = ((answers.held_labels == answers.forget) != retained).numpy()
    statistic = {
        "rmia": probability, "lira-neighbour": likelihood.neighbour_confidence,
        "lira-others": likelihood.other_confidences,
        "lira-centred": lambda z, y: likelihood.centred(likelihood.scaled_confidence(z, y)),
    }.get(name, likelihood.scaled_confidence)
    against = against or ("original" if retained else "soft")
    reference = against if method == "retrained" else method
    labels = answers.labels[which]
    target = statistic(answers.pool[method][:, which], labels).numpy()
    shadow = statistic(answers.pool[reference][:, which], labels).numpy()
    member = answers.member[:, which]
    if name == "rmia":
        held_labels = answers.held_labels[held]
        target_population = statistic(answers.held[method][:, held], held_labels).numpy()
        population = statistic(answers.held[reference][:, held], held_labels).numpy()

    def score(k: int, rest: np.ndarray) -> np.ndarray:
        if name == "rmia":
            return likelihood.rmia(target[k], shadow[rest], member[rest], target_population[k],
                                   population[rest])
        if name == ALONE:
            return target[k]
        if name == "lira-others":
            return likelihood.lira_vector(target[k], shadow[rest], member[rest])
        mode = "offline" if name == "lira-offline" else "online"
        return likelihood.lira(target[k], shadow[rest], member[rest], mode, variance)

    # the target stays out of its own fit, and so does the model a retrained one is the twin of
    pairs = likelihood.each_in_turn(len(target), member, score)
    scores = intervals.Scores.in_turn(pairs, member)
    auc, low, high = intervals.over_models_and_images(scores)
    return Leak(attack=name, method=method, scores=scores, auc=auc, low=low, high=high)


def probability(logits: Tensor, labels: Tensor) -> Tensor:
    """p_y, (…, N)."""
    p = logits.double().softmax(-1)
    return p.gather(-1, labels.expand(p.shape[:-1])[..., None]).squeeze(-1)
