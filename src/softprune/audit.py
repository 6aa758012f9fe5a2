"""Is the class gone or only hidden (T4)? Probes, relearning, and attempts to undo an edit.

Every row is a network as `checks.PROTOCOL` asks for: what an attacker who holds the file can do
with it. Nothing here knows how a model was edited, except `divide`, which is told the gates. Read
every value beside the retrained model's: a network that never saw the class recognises much of it,
too.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softprune import baselines, checks, datasets, devices, evaluation, ladder, models, pruning


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The images an audit uses, normalised and in float32: drawn once, the same for every row."""

    forget: int
    classes: int
    train: Tensor  # (N, C, H, W), equally many of each class
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    @property
    def own(self) -> Tensor:
        """Where the test images are of the forgotten class."""
        return self.test_labels == self.forget


def gather(images: datasets.ImageSet, forget: int, train: int = 5000, test: int = 2000) -> Evidence:
    """About `train` and `test` images; of the test images half are of the class, if there are.

    Args:
        forget: the number of one class.
    """
    checks.one_class(forget, len(images.class_names))
    pixels, labels = images.split("train")
    few = ladder.pick(labels, train, 0)
    held, held_labels = images.split("test")
    own = (held_labels == forget).nonzero().squeeze(1)[: test // 2]
    rest = (held_labels != forget).nonzero().squeeze(1)
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))
    both = torch.cat([own, rest[order[: test // 2]]])

    device = devices.pick_device()

    def floats(p):
        return datasets.normalise(p.to(device), images.mean, images.std)

    return Evidence(forget=forget, classes=len(images.class_names), train=floats(pixels[few]),
                    train_labels=labels[few].to(device), test=floats(held[both]),
                    test_labels=held_labels[both].to(device))


@torch.no_grad()
def answer(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (N, C) in evaluation mode."""
    model.eval()
    return torch.cat([model(b) for b in x.split(500)])


def recall(model: nn.Module, evidence: Evidence) -> float:
    """Share of the forgotten class's test images that are still called by its name."""
    z = answer(model, evidence.test[evidence.own])
    return (z.argmax(1) == evidence.forget).double().mean().item()


def retained(model: nn.Module, evidence: Evidence) -> float:
    """Accuracy on the test images of the other classes."""
    z = answer(model, evidence.test[~evidence.own])
    return evaluation.accuracy(z, evidence.test_labels[~evidence.own])


def mask_head(model: nn.Module, forget: int) -> nn.Module:
    """The fake as a file: a copy whose classifier can no longer name the class."""
    fake = copy.deepcopy(model)
    with torch.no_grad():
        fake.fc.weight[forget] = 0
        fake.fc.bias[forget] = -1e4
    return fake


# --- probes --------------------------------------------------------------------------------------


def depths(model: nn.Module, most: int = 4) -> list[str]:
    """Sites whose maps are probed: ends of stages where there are some, else evenly spaced."""
    sites = model.sites()
    ends = [s.name for s in sites if s.readers]
    names = ends if len(ends) > 1 else [s.name for s in sites]
    if len(names) <= most:
        return names
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]


@torch.no_grad()
def pooled(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Mean over space of the maps at every depth, (N, J) each; the last is what is classified."""
    model.eval()
    names, found = depths(model), {}
    with models.site_maps(model, lambda m: m.mean((2, 3))) as kept:
        for batch in x.split(500):
            model(batch)
            for name in names:
                found.setdefault(name, []).append(kept[name].float())
    return {name: torch.cat(parts) for name, parts in found.items()}


def probe(train: Tensor, labels: Tensor, test: Tensor, forget: int, classes: int) -> float:
    """Recall of the class by a linear classifier of all classes, fitted on `train` (N, J)."""
    head = evaluation.head_refit(train, labels, classes)
    return (head(test).argmax(1) == forget).double().mean().item()


def nearest(train: Tensor, labels: Tensor, test: Tensor, k: int = 10) -> Tensor:
    """Labels (M,) by vote of the k nearest in cosine similarity; ties go to the nearer."""
    near = F.normalize(test, dim=1) @ F.normalize(train, dim=1).T
    top = near.topk(min(k, len(train)), dim=1)
    votes = torch.zeros(len(test), int(labels.max()) + 1, device=test.device)
    # a vote's weight falls so slowly with rank that it only decides ties
    weights = 1 - 1e-3 * torch.arange(top.indices.shape[1], device=test.device)
    votes.scatter_add_(1, labels[top.indices], weights.expand(len(test), -1).contiguous())
    return votes.argmax(1)


def cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA of two representations (N, J), (N, K) of the same images (Kornblith et al., 2019).

    1 under rotation and scaling, about 0 for unrelated ones.
    """
    x, y = (a.double() - a.double().mean(0) for a in (x, y))
    cross = (x.T @ y).square().sum()
    return float(cross / ((x.T @ x).norm() * (y.T @ y).norm()).clamp_min(1e-300))


# --- relearning ----------------------------------------------------------------------------------

CHECKPOINTS = (0, 1, 2, 5, 10, 20, 40)


def relearn(model: nn.Module, evidence: Evidence, shots: int, *, rate: float = 0.01,
            checkpoints=CHECKPOINTS, seed: int = 0) -> list[float]:
    """Recall after 0, 1, 2, … steps of fine-tuning.

    Args:
        shots: images of the forgotten class that the attacker has, beside as many of each other
            class; 0 fine-tunes on the retained classes alone.

    With shots, the class's row of the classifier starts anew in every model alike (weights 0, the
    mean bias): whoever wants the class back does not keep a masked row. Features are brought to one
    size first (`level`), or an edit that makes them larger would be learned back faster by as much.
    """
    attacked = level(model, evidence).eval().requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    per_class = shots or 64
    few = torch.cat([
        (evidence.train_labels == c).nonzero().squeeze(1)[:per_class]
        for c in range(evidence.classes) if shots or c != evidence.forget
    ])
    if shots:
        reset_row(attacked, evidence.forget)
    solver = torch.optim.SGD(attacked.parameters(), lr=rate, momentum=0.9)
    curve = []
    for step in range(max(checkpoints) + 1):
        if step in checkpoints:
            curve.append(recall(attacked, evidence))
        batch = few[torch.randint(len(few), (128,), generator=generator)]
        solver.zero_grad()
        F.cross_entropy(attacked(evidence.train[batch]), evidence.train_labels[batch]).backward()
        solver.step()
    return curve


class Scaled(nn.Module):
    """A constant times pooled maps, whatever their shape."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, pooled: Tensor) -> Tensor:
        """The same shape."""
        return pooled * self.factor


@torch.no_grad()
def level(model: nn.Module, evidence: Evidence) -> nn.Module:
    """A copy that answers the same from features of mean square 1 over the evidence's training
    images: the classifier's weights take what the features give. A step of one rate then means the
    same in every network. Features that are all 0 stay.
    """
    copied, squares = copy.deepcopy(model).eval(), []
    handle = copied.fc.register_forward_pre_hook(lambda _, x: squares.append(x[0].square().mean(1)))
    answer(copied, evidence.train)
    handle.remove()
    size = torch.cat(squares).mean().sqrt().item()
    if size > 0:
        behind_pooling(copied, Scaled(1 / size))
        copied.fc.weight.mul_(size)
    return copied


def behind_pooling(model: nn.Module, module: nn.Module) -> None:
    """Put a module between a network's pooling and what flattens for its classifier."""
    if hasattr(model, "avgpool"):
        model.avgpool = nn.Sequential(model.avgpool, module)
    else:  # a VGG's features end in pooling and flattening
        model.features[-2] = nn.Sequential(model.features[-2], module)


@torch.no_grad()
def reset_row(model: nn.Module, forget: int) -> None:
    """The class's row of the classifier as if it had never been trained."""
    model.fc.weight[forget] = 0
    others = [c for c in range(len(model.fc.bias)) if c != forget]
    model.fc.bias[forget] = model.fc.bias[others].mean()


def area_between(curve: list[float], reference: list[float], checkpoints=CHECKPOINTS) -> float:
    """Mean height of one relearning curve above another, over steps; 0 if they are alike."""
    gap = torch.tensor(curve, dtype=torch.float64) - torch.tensor(reference, dtype=torch.float64)
    x = torch.tensor(checkpoints, dtype=torch.float64)
    return float(torch.trapezoid(gap, x) / (x[-1] - x[0]))


# --- undoing -------------------------------------------------------------------------------------


def divide(model: nn.Module, gates: pruning.Gates) -> nn.Module:
    """U1: divide by the known gates, and leave out a projection. What is closed has nothing left
    to divide: it stays."""
    undone = copy.deepcopy(model)
    for parent in list(undone.modules()):
        for name, child in parent.named_children():
            if isinstance(child, baselines.Projection):
                setattr(parent, name, nn.Identity())
    opened = {s: torch.where(g > 0, g, 1.0) for s, g in pruning.multiplied(gates).items()}
    closed = {n for n, g in gates.items() if pruning.is_direction(n) and pruning.is_closed(g)}
    pruning.unfold(undone, {n: g for n, g in (gates | opened).items() if n not in closed})
    return undone


@torch.no_grad()
def renormalise(model: nn.Module, below: float = 0.7) -> nn.Module:
    """U2: find attenuated channels by their norm and bring them to their site's median.

    Nothing is known of the gates: a channel whose weights are below `below` of the median is
    taken for attenuated. The more alike the norms of a layer are, the better a gate shows.
    """
    undone = copy.deepcopy(model)
    for name, targets in pruning.plan(undone).items():
        if pruning.is_shift(name) or pruning.is_direction(name):
            continue  # a beta or columns to which something is added; no gate scales them
        strength = sum(channel_norms(w, shape).square() for w, shape in targets).sqrt()
        usual = strength.median()
        low = (strength < below * usual) & (strength > 1e-6 * usual)
        factor = torch.where(low, usual / strength.clamp_min(1e-12), 1.0)
        for weight, shape in targets:
            weight.mul_(factor.view(shape))
    return undone


def channel_norms(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Norm (J,) of each channel's share of a parameter; `shape` says which axis is the channel's.

    Example:
        >>> channel_norms(torch.ones(4, 2), (1, -1)).tolist()
        [2.0, 2.0]
    """
    axis = shape.index(-1)
    return weight.detach().transpose(0, axis).flatten(1).norm(dim=1) if weight.dim() > 1 else (
        weight.detach().abs())


@torch.no_grad()
def restatistic(model: nn.Module, evidence: Evidence) -> nn.Module:
    """U3: estimate batch norm's statistics anew, from images of the retained classes alone."""
    undone = copy.deepcopy(model)
    norms = [m for m in undone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
    undone.train()
    for batch in evidence.train[evidence.train_labels != evidence.forget].split(250):
        undone(batch)
    return undone.eval()


def fine_tune(model: nn.Module, evidence: Evidence, rate: float = 0.02, seed: int = 0) -> nn.Module:
    """U4: one epoch over the retained classes' images."""
    undone = copy.deepcopy(model).train().requires_grad_(True)
    kept = (evidence.train_labels != evidence.forget).nonzero().squeeze(1)
    order = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))]
    solver = torch.optim.SGD(undone.parameters(), lr=rate, momentum=0.9)
    for batch in order.split(128):
        if len(batch) < 2:
            continue  # batch norm needs two
        solver.zero_grad()
        F.cross_entropy(undone(evidence.train[batch]), evidence.train_labels[batch]).backward()
        solver.step()
    return undone.eval()


def refit(model: nn.Module, evidence: Evidence) -> nn.Module:
    """U5: a new classifier on the features, fitted on images of all classes."""
    checks.network(model, "features", "fc")
    undone = copy.deepcopy(model).eval()
    with torch.no_grad():
        features = torch.cat([undone.features(b) for b in evidence.train.split(500)])
    undone.fc = evaluation.head_refit(features, evidence.train_labels, evidence.classes)
    return undone


@torch.no_grad()
def quantize(model: nn.Module, bits: int = 8) -> nn.Module:
    """Weights of every kernel and of the classifier rounded to `bits`, a scale for each tensor.

    A small change of the weights can bring back what a small change took away.
    """
    rounded = copy.deepcopy(model)
    top = 2 ** (bits - 1) - 1
    for module in rounded.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            scale = module.weight.abs().max() / top
            module.weight.copy_((module.weight / scale).round().clamp(-top, top) * scale)
    return rounded


@torch.no_grad()
def noisy_recall(model: nn.Module, evidence: Evidence, scale: float = 0.2, draws: int = 5) -> float:
    """Recall of the class where any of `draws` noisy copies of an image is recognised.

    Args:
        scale: deviation of the noise, in deviations of the images.
    """
    x = evidence.test[evidence.own]
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw)
        z = answer(model, x + scale * torch.randn(x.shape, generator=generator).to(x))
        found |= z.argmax(1) == evidence.forget
    return found.double().mean().item()


def undo_all(model: nn.Module, evidence: Evidence,
             gates: pruning.Gates | None = None) -> dict[str, tuple[float, float]]:
    """Every attempt on one model: name -> (recall of the class, accuracy on the others)."""
    checks.network(model)
    attempts: dict[str, Callable[[], nn.Module]] = {
        "as it is": lambda: model,
        "U1 divide": lambda: divide(model, gates or {}),
        "U2 renormalise": lambda: renormalise(model),
        "U3 statistics": lambda: restatistic(model, evidence),
        "U4 fine-tune": lambda: fine_tune(model, evidence),
        "U5 refit": lambda: refit(model, evidence),
        "int8": lambda: quantize(model, 8),
        "int4": lambda: quantize(model, 4),
    }
    results = {}
    for name, attempt in attempts.items():
        undone = attempt()
        results[name] = (recall(undone, evidence), retained(undone, evidence))
    return results
