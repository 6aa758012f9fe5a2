"""The method where all of it can be seen: points in the plane, a handful of channels.

Channel j of the one hidden layer is a_j(x) = relu(k_j . x + b_j): its kernel k_j is an arrow in the
plane. The classifier reads the gated channels, z = W diag(g) a + c.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softprune import orthogonality

CLASSES = ("north", "west", "east")
ANGLES = (90, 210, 330)  # degrees


def points(each: int, spread: float = 0.7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`each` points a class around three centres at distance 2: (3 each, 2) and labels."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.deg2rad(torch.tensor(ANGLES, dtype=torch.float32))
    centres = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    labels = torch.arange(len(CLASSES)).repeat_interleave(each)
    noise = torch.randn(len(labels), 2, generator=generator)
    return centres[labels] + spread * noise, labels


class ToyNet(nn.Module):
    """2 -> `channels` -> 3 with a ReLU, and a gate for each channel."""

    def __init__(self, channels: int, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.kernel = nn.Parameter(0.7 * torch.randn(channels, 2, generator=generator))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.weight = nn.Parameter(0.3 * torch.randn(len(CLASSES), channels, generator=generator))
        self.offset = nn.Parameter(torch.zeros(len(CLASSES)))

    def activations(self, x: Tensor) -> Tensor:
        """(N, 2) -> (N, J)."""
        return F.relu(x @ self.kernel.T + self.bias)

    def forward(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """Logits (N, 3); gates (J,)."""
        a = self.activations(x)
        return (a if gates is None else a * gates) @ self.weight.T + self.offset


def train(x: Tensor, labels: Tensor, channels: int = 6, strength: float = 0.05, steps: int = 400,
          decay: float = 1e-3, seed: int = 0) -> ToyNet:
    """Full-batch Adam on cross-entropy plus `strength` times the penalty `so`."""
    net = ToyNet(channels, seed)
    solver = torch.optim.Adam(net.parameters(), lr=0.03, weight_decay=decay)
    for _ in range(steps):
        loss = F.cross_entropy(net(x), labels) + strength * orthogonality.so(net.kernel)
        solver.zero_grad()
        loss.backward()
        solver.step()
    return net.requires_grad_(False)


def table(net: ToyNet, x: Tensor, labels: Tensor) -> Tensor:
    """Class-by-channel means, (3, J)."""
    a = net.activations(x)
    return torch.stack([a[labels == c].mean(0) for c in range(len(CLASSES))])


def difference(means: Tensor, cls: int) -> Tensor:
    """Score of each channel for classes of one size, (J,)."""
    others = [c for c in range(len(means)) if c != cls]
    return means[cls] - means[others].mean(0)


def gates(scores: Tensor, k: int, value: float) -> Tensor:
    """Gates (J,): `value` at the k highest scores, 1 elsewhere."""
    made = torch.ones(len(scores))
    made[scores.argsort(descending=True)[:k]] = value
    return made


def accuracies(logits: Tensor, labels: Tensor, cls: int) -> tuple[float, float]:
    """Shares of the class's and of the others' points that are right."""
    right = (logits.argmax(1) == labels).double()
    return right[labels == cls].mean().item(), right[labels != cls].mean().item()


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """p_y, (N,)."""
    return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
