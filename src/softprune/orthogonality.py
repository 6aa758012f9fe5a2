r"""Orthogonality of convolution kernels: the penalties, and the measures of what they did.

The kernel matrix of a layer, K in R^{o x i k^2}, has one output channel a row. A penalty is added
to the loss, cross-entropy + strength * sum over layers of Omega(K). Everything here is float32,
outside autocast: an exactly orthogonal kernel gives 1.5e-4 in bfloat16, 2e-11 in float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softprune.errors import choose
from softprune.models import kernels

PENALTIES = ("none", "so", "srip", "ocnn", "feature", "tied", "hard")
TIE = 30.0  # weight of the tie against `so`: at the usual strength of .01, .3 of a share


def penalty(model: nn.Module, name: str, pooled: dict[str, Tensor] | None = None,
            labels: Tensor | None = None) -> Tensor:
    """Sum of Omega over all convolutions, a float32 scalar with gradient.

    Args:
        name: `none`; `so`, squared Frobenius norm of K K^T - I, on the smaller Gram matrix
            (Bansal et al., 2018); `srip`, its spectral norm; `ocnn`, the squared norm of
            conv(K, K) - I_0 (Wang et al., 2020); `feature`, the correlation of pooled
            activations (control); `tied`, `so` and `TIE` times `straying` at the last site (ours);
            `hard`, 0: kernels are projected after each step instead.
        pooled: for `feature` and `tied`, the batch's pooled activations (N, J) of every site.
        labels: for `tied`, the batch's classes (N,).
    """
    choose("penalty", name, PENALTIES)
    layers = list(kernels(model).values())
    if name in ("none", "hard"):
        return layers[0].weight.new_zeros(())
    with torch.autocast(layers[0].weight.device.type, enabled=False):
        if name == "feature":
            return torch.stack([decorrelation(a.float()) for a in pooled.values()]).sum()
        if name == "tied":
            classes = model.get_submodule("fc").out_features
            stray = straying(pooled[model.sites()[-1].name].float(), labels, classes)
            return so_batched([m.weight.float() for m in layers]) + TIE * stray
        if name == "srip":
            return torch.cat([spectral(g) for g in residuals([m.weight.float() for m in layers])
                              ]).sum()
        if name == "ocnn":
            return torch.stack([ocnn(m.weight.float(), m.stride[0]) for m in layers]).sum()
        return so_batched([m.weight.float() for m in layers])


def straying(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean share of an image's activation outside its class's own channels, c, c + C, c + 2C, ….

    Args:
        features: (N, J), >= 0. labels: (N,) in [0, C).

    Example:
        >>> straying(torch.tensor([3.0, 1, 0, 0])[None], torch.tensor([0]), 2)
        tensor(0.2500)
    """
    own = torch.arange(features.shape[1], device=features.device) % classes == labels[:, None]
    return ((features * ~own).sum(1) / features.sum(1).clamp_min(1e-6)).mean()


def so(weight: Tensor) -> Tensor:
    r"""\|K K^T - I\|_F^2, or K^T K where there are more rows than columns.

    The two differ by the constant o - i k^2, so gradients agree; only the smaller Gram matrix
    can be the identity, so only its penalty can reach 0.
    """
    kernel = weight.flatten(1)  # (o, i k^2)
    if kernel.shape[0] > kernel.shape[1]:
        kernel = kernel.T
    gram = kernel @ kernel.T
    return (gram - torch.eye(len(gram), device=gram.device)).square().sum()


def by_shape(weights: list[Tensor]) -> list[tuple[list[int], Tensor]]:
    """Kernel matrices of one shape stacked, (layers, rows, columns), rows the smaller side.

    Each stack comes with the positions of its layers in `weights`.
    """
    shapes: dict[torch.Size, list[tuple[int, Tensor]]] = {}
    for i, weight in enumerate(weights):
        kernel = weight.flatten(1)
        kernel = kernel.T if kernel.shape[0] > kernel.shape[1] else kernel
        shapes.setdefault(kernel.shape, []).append((i, kernel))
    return [([i for i, _ in group], torch.stack([k for _, k in group]))
            for group in shapes.values()]


def residuals(weights: list[Tensor]) -> list[Tensor]:
    """K K^T - I of all layers, one `bmm` for all of one shape: (layers, rows, rows) each."""
    return [torch.bmm(k, k.transpose(1, 2)) - torch.eye(k.shape[1], device=k.device)
            for _, k in by_shape(weights)]


class _SquaredResidual(torch.autograd.Function):
    """Sum of ||K K^T - I||_F^2 over stacked kernels (layers, rows, columns).

    Its gradient, 4 (K K^T - I) K, is one product; the generic one is two, and the penalty is paid
    in every step.
    """

    @staticmethod
    def forward(ctx, kernels: Tensor) -> Tensor:
        residual = torch.bmm(kernels, kernels.transpose(1, 2))
        residual.diagonal(dim1=1, dim2=2).sub_(1)
        ctx.save_for_backward(kernels, residual)
        return residual.square().sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        kernels, residual = ctx.saved_tensors
        return torch.bmm(residual, kernels).mul_(4 * grad)


def so_batched(weights: list[Tensor]) -> Tensor:
    """Sum of `so` over layers, one pair of products for all of one shape."""
    return torch.stack([_SquaredResidual.apply(k) for _, k in by_shape(weights)]).sum()


def spectral(residual: Tensor, steps: int = 6) -> Tensor:
    """Largest absolute eigenvalue of symmetric matrices (layers, r, r), (layers,).

    By power iteration. The vector is found without gradient; the norm of A v then has the right
    one. Not v^T A v: two eigenvalues of opposite sign and like size would cancel in it.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(residual.shape[0], residual.shape[1], 1, generator=generator)
    with torch.no_grad():
        v = torch.nn.functional.normalize(start.to(residual), dim=1)
        for _ in range(steps):
            v = torch.nn.functional.normalize(residual @ v, dim=1)
    return (residual @ v).norm(dim=(1, 2))


def decorrelation(pooled: Tensor) -> Tensor:
    """Sum over pairs i != j of the squared correlation, divided by J; pooled (N, J)."""
    centred = pooled - pooled.mean(0)
    unit = centred / centred.norm(dim=0).clamp_min(1e-6)
    correlation = unit.T @ unit
    return (correlation.square().sum() - correlation.diagonal().square().sum()) / len(correlation)


@torch.no_grad()
def project(model: nn.Module) -> None:
    """Replace every kernel matrix by the nearest orthonormal one, in place: (K K^T)^-1/2 K.

    The polar factor: the projection of `hard`, the limit of an infinite strength. Through `eigh`
    of the smaller Gram matrix, batched over layers of one shape.
    """
    weights = [m.weight for m in kernels(model).values()]
    for places, stack in by_shape([w.float() for w in weights]):
        values, vectors = torch.linalg.eigh(stack @ stack.transpose(1, 2))
        root = vectors * values.clamp_min(1e-12).rsqrt()[:, None, :]
        polar = root @ vectors.transpose(1, 2) @ stack  # (layers, rows, columns)
        for place, kernel in zip(places, polar, strict=True):
            weight = weights[place]
            flat = kernel if kernel.shape[0] == len(weight) else kernel.T
            weight.copy_(flat.reshape(weight.shape))


def ocnn(weight: Tensor, stride: int) -> Tensor:
    r"""\|conv(K, K; stride S, padding P) - I_0\|_F^2 with P = floor((k-1)/S) S.

    With that P the offset 0 is sampled at every stride; padding 1 at stride 2 (as in the published
    code) never sees it, and puts the identity on a shifted correlation.
    """
    out, k = weight.shape[0], weight.shape[-1]
    pad = (k - 1) // stride * stride
    correlation = F.conv2d(weight, weight, stride=stride, padding=pad)  # (o, o, s, s)
    middle = correlation.shape[-1] // 2
    target = torch.zeros_like(correlation)
    target[:, :, middle, middle] = torch.eye(out, device=weight.device)
    return (correlation - target).square().sum()


def ocnn_reference(weight: Tensor, stride: int) -> Tensor:
    """`ocnn` from its definition: every pair of filters, every shift that is a multiple of S."""
    out, _, k, _ = weight.shape
    total = weight.new_zeros(())
    shifts = [d for d in range(-(k - 1), k) if d % stride == 0]
    for a in range(out):
        for b in range(out):
            for dy in shifts:
                for dx in shifts:
                    moved = torch.zeros_like(weight[b])
                    for y in range(k):
                        for x in range(k):
                            if 0 <= y + dy < k and 0 <= x + dx < k:
                                moved[:, y + dy, x + dx] = weight[b, :, y, x]
                    inner = (weight[a] * moved).sum()
                    total = total + (inner - float(a == b and dy == dx == 0)) ** 2
    return total


# --- measures ------------------------------------------------------------------------------------


@torch.no_grad()
def kernel_measures(model: nn.Module) -> dict[str, float]:
    """How orthonormal the kernels are, norms and angles apart, averaged over all layers.

    A dict: `norm`, the mean distance of a row's length from 1; `coherence`, the mean absolute
    cosine of different rows, which cannot be 0 where a layer has more rows than columns; `so`, the
    penalty's sum.
    """
    norms, cosines, total = [], [], 0.0
    for conv in kernels(model).values():
        kernel = conv.weight.float().flatten(1)
        length = kernel.norm(dim=1)
        unit = kernel / length.clamp_min(1e-12)[:, None]
        rows = len(kernel)
        off = (unit @ unit.T).abs().sum() - (unit.square().sum(1)).sum()
        norms.append((length - 1).abs().mean().item())
        cosines.append((off / max(1, rows * (rows - 1))).item())
        total += so(conv.weight.float()).item()
    return {
        "norm": sum(norms) / len(norms),
        "coherence": sum(cosines) / len(cosines),
        "so": total,
    }


def gram(weight: Tensor) -> Tensor:
    """K K^T of one layer, (o, o): what the Gram-matrix figures show."""
    kernel = weight.detach().float().flatten(1)
    return kernel @ kernel.T


def feature_correlation(features: Tensor) -> float:
    """Mean absolute Pearson correlation of different channels; features (N, J).

    Orthogonal kernels need not lower it: the channels' covariance is K S K^T for inputs of
    covariance S, so only isotropic inputs keep K's orthogonality.
    """
    centred = features.double() - features.double().mean(0)
    deviation = centred.norm(dim=0)
    live = deviation > 1e-9  # a channel that never fires correlates with nothing
    unit = centred[:, live] / deviation[live]
    count = unit.shape[1]
    if count < 2:
        return 0.0
    return float(((unit.T @ unit).abs().sum() - count) / (count * (count - 1)))


def class_selectivity(means: Tensor) -> Tensor:
    """(largest class mean - mean of the others) / (their sum), per channel; means (C, J) -> (J,).

    0: all classes alike; 1: one class only (Morcos et al., 2018).
    """
    top = means.max(0).values
    rest = (means.sum(0) - top) / (len(means) - 1)
    return (top - rest) / (top + rest).clamp_min(1e-12)
