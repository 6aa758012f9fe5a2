"""Baselines that optimise: a few steps of SGD from the trained weights, or all of them from none.

Every step draws its retained and forgotten images from shuffled, augmented passes (the training
recipe's crops and flips); the rate falls linearly to 0. Forgotten images pass beside retained ones,
or alone with the batch-norm statistics left as they are: one class's would spoil them.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softprune import models, training
from softprune.errors import UserError
from softprune.unlearning import Access, logits, method


@dataclass(frozen=True, kw_only=True)
class DescentOptions:
    """What all trained baselines share."""

    rate: float = 0.02
    steps: int = 120
    # images a step
    retained: int = 128
    forgotten: int = 32
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "retained", "forgotten"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a whole number >= 1")


def stream(access: Access, forget, retained: bool, batch: int, seed: int
           ) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented batches of the retained or forgotten training images, without end."""
    pixels, labels = access.part(forget, retained)
    recipe = dataclasses.replace(access.recipe, batch_size=max(2, batch), seed=seed, sides=())
    device = training.pick_device()
    pixels, labels = pixels.to(device), labels.to(device)
    for epoch in itertools.count():
        yield from training.epoch_batches(recipe, pixels, labels, access.images.mean,
                                          access.images.std, epoch)


def logits_alone(model: nn.Module, x: Tensor) -> Tensor:
    """`logits` with the running batch-norm statistics, which stay as they are."""
    was = model.training
    model.eval()
    z = logits(model, x)
    model.train(was)
    return z


def descend(model: nn.Module, loss: Callable[[int], Tensor], options: DescentOptions,
            mask: dict[str, Tensor] | None = None) -> nn.Module:
    """SGD on `loss(step)`.

    Args:
        mask: True where a parameter may move. The others are put back after every step: zeroed
            gradients alone would leave them to weight decay and momentum.
    """
    model.train()
    solver = training.make_optimizer(model, options)
    fixed = {n: p.detach().clone() for n, p in model.named_parameters()} if mask else {}
    for step in range(options.steps):
        for group in solver.param_groups:
            group["lr"] = options.rate * (1 - step / options.steps)
        value = loss(step)
        solver.zero_grad(set_to_none=True)
        value.backward()
        solver.step()
        if mask:
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.copy_(torch.where(mask[name], p, fixed[name]))
    return model.eval()


def retain_loss(z: Tensor, labels: Tensor, access: Access, forget) -> Tensor:
    """Cross-entropy with the recipe's label smoothing over the retained classes."""
    present = torch.ones(z.shape[1], device=z.device)
    present[list(forget)] = 0
    goal = training.smoothed_targets(labels, present, access.recipe.label_smoothing)
    return F.cross_entropy(z, goal)


@method("fine-tune", DescentOptions, needs=("retain",), cite="golatkar2020eternal")
def fine_tune(model, forget, access, options, ledger):
    """Descent on retained images; the class is forgotten by not being seen."""
    with ledger.part("edit"):
        kept = stream(access, forget, True, options.retained, options.seed)

        def loss(_step):
            x, y = next(kept)
            return retain_loss(logits(model, x), y, access, forget)

        return descend(model, loss, options)


@dataclass(frozen=True, kw_only=True)
class NegGradOptions(DescentOptions):
    """The balance of descent and ascent."""

    # weight of the retained loss; 1 - balance is that of the forgotten one
    balance: float = 0.95


def neggrad_loss(retained: Tensor, forgotten: Tensor, balance: float) -> Tensor:
    """β L_r - (1 - β) L_f."""
    return balance * retained - (1 - balance) * forgotten


@method("neggrad+", NegGradOptions, needs=("forget", "retain"), cite="kurmanji2023scrub")
def neggrad_plus(model, forget, access, options, ledger):
    """Descent on the retained, ascent on the forgotten images at once."""
    with ledger.part("edit"):
        both = pairs(access, forget, options)

        def loss(_step):
            x, y, n = next(both)
            z = logits(model, x)
            return neggrad_loss(retain_loss(z[:n], y[:n], access, forget),
                                F.cross_entropy(z[n:], y[n:]), options.balance)

        return descend(model, loss, options)


def pairs(access: Access, forget, options) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Images and labels of a step, retained first, and how many those are."""
    kept = stream(access, forget, True, options.retained, options.seed)
    gone = stream(access, forget, False, options.forgotten, options.seed + 1)
    for (x, y), (x_f, y_f) in zip(kept, gone, strict=False):
        yield torch.cat([x, x_f]), torch.cat([y, y_f]), len(y)


# --- labels changed ------------------------------------------------------------------------------


def other_labels(n: int, classes: int, forget, generator: torch.Generator) -> Tensor:
    """(n,) labels drawn evenly from the retained classes."""
    kept = torch.tensor([c for c in range(classes) if c not in forget])
    return kept[torch.randint(len(kept), (n,), generator=generator)]


def relabelled(model, forget, access, options, mask=None) -> nn.Module:
    """Descent on retained images and on forgotten ones under random other labels."""
    both = pairs(access, forget, options)
    generator = torch.Generator().manual_seed(options.seed)
    classes = len(access.images.class_names)

    def loss(_step):
        x, y, n = next(both)
        y = y.clone()
        y[n:] = other_labels(len(y) - n, classes, forget, generator).to(y.device)
        return retain_loss(logits(model, x), y, access, forget)

    return descend(model, loss, options, mask)


@method("random-label", DescentOptions, needs=("forget", "retain"), cite="golatkar2020eternal")
def random_label(model, forget, access, options, ledger):
    """The class's images under random other labels, beside the retained ones."""
    with ledger.part("edit"):
        return relabelled(model, forget, access, options)


@dataclass(frozen=True, kw_only=True)
class SalunOptions(DescentOptions):
    """The saliency mask."""

    # share of all weights that may move
    share: float = 0.5


def saliency_mask(model: nn.Module, batches, share: float) -> dict[str, Tensor]:
    """True for the `share` of all weights with the largest absolute gradient over the batches."""
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    model.eval()
    for x, y in batches:
        loss = F.cross_entropy(logits(model, x), y)
        for t, g in zip(total.values(), torch.autograd.grad(loss, list(model.parameters())),
                        strict=True):
            t += g
    size = torch.cat([t.abs().flatten() for t in total.values()])
    keep = torch.zeros_like(size, dtype=torch.bool)
    keep[size.topk(round(share * len(size))).indices] = True
    parts = keep.split([t.numel() for t in total.values()])
    return {n: k.view_as(t) for (n, t), k in zip(total.items(), parts, strict=True)}


@method("salun", SalunOptions, needs=("forget", "retain"), cite="fan2024salun")
def salun(model, forget, access, options, ledger):
    """`random-label` on the weights that the class's loss depends on most."""
    with ledger.part("select"):
        gone = stream(access, forget, False, 4 * options.forgotten, options.seed)
        count = max(1, len(access.part(forget, False)[1]) // (4 * options.forgotten))
        mask = saliency_mask(model, itertools.islice(gone, count), options.share)
    with ledger.part("edit"):
        return relabelled(model, forget, access, options, mask)


# --- teacher and student -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ScrubOptions(DescentOptions):
    """SCRUB: a step away has no bound, so the rate is small."""

    rate: float = 0.001
    # steps away from the teacher, in turn with as many steps back; then only steps back
    away: int = 20
    temperature: float = 4.0
    # weights of the teacher's divergence and of the labels on retained images
    teacher: float = 0.001
    labels: float = 0.99


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher || student) of probabilities at temperature T, mean over images."""
    goal, here = (teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1)
    return temperature**2 * (goal.exp() * (goal - here)).sum(1).mean()


@method("scrub", ScrubOptions, needs=("forget", "retain"), cite="kurmanji2023scrub")
def scrub(model, forget, access, options, ledger):
    """Away from the teacher on forgotten images, back to it on retained ones."""
    import copy

    with ledger.part("edit"):
        teacher = copy.deepcopy(model).eval().requires_grad_(False)
        both = pairs(access, forget, options)

        def loss(step):
            x, y, n = next(both)
            if step < 2 * options.away and step % 2 == 0:
                # among retained images: with fixed statistics nothing bounds the scale
                return -divergence(logits(model, x)[n:], logits(teacher, x[n:]),
                                   options.temperature)
            z, goal = logits(model, x[:n]), logits(teacher, x[:n])
            return (options.teacher * divergence(z, goal, options.temperature)
                    + options.labels * retain_loss(z, y[:n], access, forget))

        return descend(model, loss, options)


def delete_loss(z: Tensor, teacher: Tensor, forget) -> Tensor:
    """KL from the teacher's probabilities with the forgotten logits masked, mean over images."""
    others = [c for c in range(z.shape[1]) if c not in forget]
    goal, here = teacher[:, others].log_softmax(1), z.log_softmax(1)[:, others]
    return (goal.exp() * (goal - here)).sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class DeleteOptions(DescentOptions):
    """No retained image holds it back, so the rate is small."""

    rate: float = 0.002


@method("delete", DeleteOptions, needs=("forget",), cite="zhou2025delete")
def delete(model, forget, access, options, ledger):
    """Forgotten images towards what the masked teacher says of them; no retained image is read."""
    import copy

    with ledger.part("edit"):
        teacher = copy.deepcopy(model).eval().requires_grad_(False)
        gone = stream(access, forget, False, options.forgotten, options.seed)

        def loss(_step):
            x, _ = next(gone)
            return delete_loss(logits_alone(model, x), logits(teacher, x), forget)

        return descend(model, loss, options)


# --- the reference -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RetrainOptions:
    """From scratch."""

    # 0 is the recipe's
    epochs: int = 0


@method("retrain", RetrainOptions, needs=("retain",))
def retrain(model, forget, access, options, ledger):
    """All weights fresh, the recipe of the original, the class left out: row `retrained`."""
    images, epochs = access.images, options.epochs or access.recipe.epochs
    recipe = dataclasses.replace(access.recipe, epochs=epochs, without=tuple(
        images.class_names[c] for c in forget))
    with ledger.part("edit"):
        device = training.pick_device()
        pixels, labels = (t.to(device) for t in access.part(forget, True))
        present = torch.ones(len(images.class_names), device=device)
        present[list(forget)] = 0
        torch.manual_seed(recipe.seed)
        fresh = models.build(recipe.architecture, classes=len(images.class_names),
                             channels=pixels.shape[1], width=recipe.width,
                             side=pixels.shape[-1]).to(device)
        solver = training.make_optimizer(fresh, recipe)
        for epoch in range(epochs):
            training.train_epoch(recipe, fresh, solver, pixels, labels, present, images, epoch)
    return fresh
