"""What was forgotten, what was kept, and how far it is from a model retrained without the class.

The reference is always the retrained model: 0 % on the forgotten class is not a target by itself,
since a mask on one logit reaches it too.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softprune import artifacts, checks, datasets


def batches(images: Tensor, mean, std, device, size: int = 500) -> Iterator[tuple[Tensor, slice]]:
    """Normalised batches in order, without augmentation, each with the slice it came from."""
    for start in range(0, len(images), size):
        index = slice(start, min(start + size, len(images)))
        yield datasets.normalise(images[index].to(device), mean, std), index


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, mean, std) -> tuple[Tensor, Tensor]:
    """Pooled features (N, J) and logits (N, C) in evaluation mode, float32, on the CPU.

    Args:
        images: uint8 (N, C, H, W), normalised here by `mean` and `std`, a number a colour.

    Raises:
        UserError: images that are floats, or normalised already.
    """
    checks.pixels(images)
    device = next(model.parameters()).device
    model.eval()
    features, logits = [], []
    for batch, _ in batches(images, mean, std, device):
        pooled = model.features(batch)
        features.append(pooled.float().cpu())
        logits.append(model.fc(pooled).float().cpu())
    return torch.cat(features), torch.cat(logits)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is their label; in [0, 1]."""
    return (logits.argmax(1) == labels).double().mean().item()


def is_forgotten(labels: Tensor, forget) -> Tensor:
    """True (N,) where the label is one of the classes to forget."""
    return torch.isin(labels, torch.tensor(list(forget), dtype=labels.dtype, device=labels.device))


def accuracy_rows(
    method: str, logits: Tensor, labels: Tensor, classes, split: str, **more
) -> list[dict]:
    """Accuracy rows of one split: retained and forgotten `classes` apart, or all if none."""
    if not classes:
        return [artifacts.row(method, "accuracy", accuracy(logits, labels), split=split,
                              n=len(labels), **more)]
    gone = is_forgotten(labels, classes)
    return [
        artifacts.row(method, "accuracy", accuracy(logits[part], labels[part]),
                      split=f"{name}-{split}", n=int(part.sum()), **more)
        for name, part in (("retained", ~gone), ("forgotten", gone))
    ]


def confusion_row(logits: Tensor, labels: Tensor, cls: int) -> Tensor:
    """Where the images of one class go: shares of predictions, (C,), sum 1."""
    counts = torch.bincount(logits[labels == cls].argmax(1), minlength=logits.shape[1])
    return counts.double() / counts.sum()


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """Jensen-Shannon divergence in bits of two distributions (C,): 0 alike, 1 disjoint."""
    p, q = p.double(), q.double()
    middle = (p + q) / 2

    def kl(a):
        return torch.where(a > 0, a * (a / middle).clamp_min(1e-300).log2(), 0.0).sum()

    return float((kl(p) + kl(q)) / 2)


def head_mask(logits: Tensor, forget) -> Tensor:
    """The fake: the logits of the classes to forget set to -inf. Nothing inside is touched."""
    masked = logits.clone()
    masked[:, list(forget)] = -torch.inf
    return masked


def head_refit(features: Tensor, labels: Tensor, classes: int, steps: int = 50) -> nn.Linear:
    """A linear classifier fitted on features (N, J) of all classes: does the network still know?

    Features are standardized, the loss is cross-entropy with a small ridge, the solver L-BFGS; so
    the answer does not depend on how strongly the channels were attenuated, only on whether the
    class can be told from what is left.
    """
    mean, std = features.mean(0), features.std(0)
    live = std > 1e-6 * std.max()
    scale = torch.where(live, 1 / std.clamp_min(1e-12), 0.0)
    x = (features - mean) * scale
    head = nn.Linear(features.shape[1], classes, device=features.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    solver = torch.optim.LBFGS(head.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        loss = F.cross_entropy(head(x), labels) + 1e-4 * head.weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    with torch.no_grad():  # absorb the standardization, so that the head reads plain features
        head.weight.mul_(scale)
        head.bias.sub_(head.weight @ mean)
    return head.requires_grad_(False)


# --- time ----------------------------------------------------------------------------------------


def median_time(action: Callable[[], object], repeats: int = 21, undo=None) -> float:
    """Median seconds of `action` over repetitions, device synchronized; `undo` is not timed."""
    seconds = []
    for _ in range(repeats):
        synchronize()
        began = time.perf_counter()
        action()
        synchronize()
        seconds.append(time.perf_counter() - began)
        if undo:
            undo()
    return sorted(seconds)[len(seconds) // 2]


def synchronize() -> None:
    """Wait for the GPU where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass
class TimeLedger:
    """Seconds of a request, told apart: prepare, select, edit, save, verify."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str):
        """Time the block as `name`."""
        synchronize()
        began = time.perf_counter()
        yield
        synchronize()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def rows(self, method: str, **more) -> list[dict]:
        """`time-<part>` rows."""
        return [artifacts.row(method, f"time-{k}", v, "s", **more) for k, v in
                self.seconds.items()]
