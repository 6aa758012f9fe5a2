r"""Baselines in closed form or from statistics of the gradient: nothing is optimised.

Each in our own words from its paper's definition; `W`, `b` are the classifier's weights and bias,
`z` pooled features, `f` the class to forget. Registered in `unlearning`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softprune import datasets, ladder, models, pruning
from softprune.unlearning import logits, method

# --- the classifier alone ------------------------------------------------------------------------


@method("head-mask")
def head_mask(model, forget, access, options, ledger):
    """The fake: b_f = −∞, so the class is never answered."""
    with ledger.part("edit"), torch.no_grad():
        model.fc.bias[list(forget)] = -torch.inf
    return model


@method("head-zero", cite="zheng2026head")
def head_zero(model, forget, access, options, ledger):
    """The class's row of the classifier, and its bias, set to zero."""
    with ledger.part("edit"), torch.no_grad():
        model.fc.weight[list(forget)] = 0
        model.fc.bias[list(forget)] = 0
    return model


@dataclass(frozen=True, kw_only=True)
class BiasShiftOptions:
    """How far."""

    # subtracted from the class's bias
    shift: float = 5.0


@method("bias-shift", BiasShiftOptions, cite="zheng2026head")
def bias_shift(model, forget, access, options, ledger):
    """One number: b_f lowered by `shift`."""
    with ledger.part("edit"), torch.no_grad():
        model.fc.bias[list(forget)] -= options.shift
    return model


@torch.no_grad()
def complement(fc: nn.Linear, forget) -> Tensor:
    """P (J, J), the projection onto what is orthogonal to the classes' rows of W."""
    rows = fc.weight[list(forget)]  # (|f|, J)
    basis = torch.linalg.qr(rows.T.double()).Q  # (J, |f|), orthonormal
    eye = torch.eye(rows.shape[1], dtype=basis.dtype, device=basis.device)
    return (eye - basis @ basis.T).to(rows)


class Projection(nn.Module):
    """z' = P z on pooled maps (N, J, 1, 1)."""

    def __init__(self, matrix: Tensor):
        super().__init__()
        self.register_buffer("matrix", matrix)  # (J, J), symmetric

    def forward(self, pooled: Tensor) -> Tensor:
        return (pooled.flatten(1) @ self.matrix)[:, :, None, None]


@method("pour-p", cite="le2026pour")
def pour_p(model, forget, access, options, ledger):
    r"""h' = (I − w wᵀ / wᵀw) h with w the class's row of W, placed after the pooling.

    Several classes: what is left of h outside the span of their rows.
    """
    with ledger.part("edit"), torch.no_grad():
        project = Projection(complement(model.fc, forget))
        if hasattr(model, "avgpool"):
            model.avgpool = nn.Sequential(model.avgpool, project)
        else:  # a VGG's features end in pooling and flattening
            model.features[-2] = nn.Sequential(model.features[-2], project)
    return model


# --- channels ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CdpOptions:
    """Which channels go."""

    # share of the channels of each site that is removed
    fraction: float = 0.1
    sites: str = "all"


@method("cdp", CdpOptions, needs=("table",), cite="wang2022federated")
def cdp(model, forget, access, options, ledger):
    """Channels strong for the class and weak for most others (TF-IDF) cut; no training after."""
    with ledger.part("select"):
        gates = pruning.make_gates(
            access.table, models.choose_sites(model, options.sites), forget, score="tfidf",
            gate="hard", fraction=options.fraction)
    with ledger.part("edit"):
        pruning.fold(model, gates)
        pruning.erase_closed(model, gates)
    return model


@dataclass(frozen=True, kw_only=True)
class CseOptions:
    """Which channels are attenuated, and how far."""

    fraction: float = 0.25
    # m_j of the attenuated channels
    alpha: float = 0.0
    score: str = "difference"


@method("cse", CseOptions, needs=("table",))
def cse(model, forget, access, options, ledger):
    r"""h' = M h + (I − M) μ at the last site, folded: W M, and b + W (I − M) μ.

    μ: mean over the retained classes' training images, so their mean output stays as it was.
    After Pramanik et al. (CVPR 2026), at one site and without training of their kind.
    """
    site = models.choose_sites(model, "last")[0]
    table = access.table
    with ledger.part("select"):
        gates = pruning.make_gates(table, [site], forget, score=options.score, gate="constant",
                                   fraction=options.fraction, alpha=options.alpha)
        weight = table.counts.double().clone()
        weight[list(forget)] = 0
        mean = (weight / weight.sum()) @ table.mean["mean"][site.name].double()  # (J,)
    with ledger.part("edit"), torch.no_grad():
        m = gates[site.name].to(model.fc.weight)
        model.fc.bias += model.fc.weight @ ((1 - m) * mean.to(m))
        model.fc.weight *= m
    return model


# --- statistics of activations -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SvdOptions:
    """Scales of the two spaces, and the size of the sample they are estimated from."""

    alpha_r: float = 100.0
    alpha_f: float = 3.0
    # images of the retained classes together, and of the forgotten ones
    images: int = 900
    # input patches of a layer that a group of images gives at most
    patches: int = 20_000
    seed: int = 0


@contextmanager
def layer_inputs(model: nn.Module, keep) -> Iterator[None]:
    """Call `keep(name, module, input)` for every convolution and linear layer at each pass."""
    handles = [
        module.register_forward_hook(lambda m, i, _o, name=name: keep(name, m, i[0]))
        for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def patches(module: nn.Module, x: Tensor, limit: int) -> Tensor:
    """Rows that a layer's flattened kernels are multiplied with, (n, d), about `limit` at most.

    Positions are drawn once for all images, before patches are copied: most are never made.
    """
    if not isinstance(module, nn.Conv2d):
        return x[:: -(-len(x) // limit)]
    (size, _), (stride, _), (pad, _) = module.kernel_size, module.stride, module.padding
    view = F.pad(x, (pad,) * 4).unfold(2, size, stride).unfold(3, size, stride)
    height, width = view.shape[2:4]  # (N, C, H, W, k, k)
    drawn = torch.randperm(height * width, generator=torch.Generator().manual_seed(0))
    at = drawn[: max(1, limit // len(x))].sort().values.to(x.device)
    return view[:, :, at // width, at % width].transpose(1, 2).flatten(0, 1).flatten(1)


@torch.no_grad()
def grams(model: nn.Module, pixels: Tensor, mean, std, limit: int) -> dict[str, Tensor]:
    """X^T X of every layer's inputs, (d, d): its eigenvalues are the squared singular values."""
    size = 300
    share = max(1, limit * min(size, len(pixels)) // len(pixels))
    total: dict[str, Tensor] = {}

    def keep(name, module, x):
        rows = patches(module, x, share)
        total[name] = total.get(name, 0) + rows.T @ rows

    device = next(model.parameters()).device
    with layer_inputs(model.eval(), keep):
        for chunk in pixels.split(size):
            model(datasets.normalise(chunk.to(device), mean, std))
    return total


def scaled_space(gram: Tensor, alpha: float) -> Tensor:
    """M = U Λ U^T with Λ_i = α s_i / ((α - 1) s_i + 1), s_i = σ_i^2 / Σ σ^2, (d, d)."""
    values, vectors = torch.linalg.eigh(gram)
    share = values.clamp_min(0)
    share = share / share.sum().clamp_min(torch.finfo(share.dtype).tiny)
    return (vectors * (alpha * share / ((alpha - 1) * share + 1))) @ vectors.T


def svd_projection(gram_f: Tensor, gram_r: Tensor, alpha_f: float, alpha_r: float) -> Tensor:
    """P = I - (M_f - M_f M_r), (d, d): what the forgotten class uses and the others do not, out."""
    m_f, m_r = scaled_space(gram_f, alpha_f), scaled_space(gram_r, alpha_r)
    return torch.eye(len(m_f), dtype=m_f.dtype, device=m_f.device) - (m_f - m_f @ m_r)


@method("svd", SvdOptions, needs=("forget", "retain"), cite="kodge2024deep")
def svd(model, forget, access, options, ledger):
    """W ← W Pᵀ in every layer; Gram matrices and `eigh` stand for the SVD of activations."""
    with ledger.part("select"):
        projections = {}
        spaces = []
        for retained in (False, True):
            pixels, labels = access.part(forget, retained)
            few = ladder.pick(labels, options.images, options.seed)
            spaces.append(grams(model, pixels[few], access.images.mean, access.images.std,
                                options.patches))
        for name in spaces[0]:
            projections[name] = svd_projection(spaces[0][name], spaces[1][name], options.alpha_f,
                                               options.alpha_r)
    with ledger.part("edit"), torch.no_grad():
        for name, p in projections.items():
            weight = model.get_submodule(name).weight
            weight.copy_((weight.flatten(1) @ p.T).view_as(weight))
    return model


# --- statistics of gradients ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SsdOptions:
    """Selective synaptic dampening."""

    # a weight is selected where its importance for the forgotten exceeds alpha times the others'
    alpha: float = 10.0
    # how much of it is left: lambda F_D / F_f, at most 1
    strength: float = 1.0
    batch: int = 64
    # training images that F_D is estimated from, equally many of a class (the paper: all)
    images: int = 10_000
    seed: int = 0


def importances(model: nn.Module, pixels: Tensor, labels: Tensor, mean, std, batch: int,
                seed: int = 0) -> dict[str, Tensor]:
    """F: mean over shuffled batches of the squared gradient of their mean cross-entropy."""
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    device = next(model.parameters()).device
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    groups = order.split(batch)
    model.eval()
    for index in groups:
        x = datasets.normalise(pixels[index].to(device), mean, std)
        loss = F.cross_entropy(logits(model, x), labels[index].to(device))
        for t, g in zip(total.values(), torch.autograd.grad(loss, list(parameters.values())),
                        strict=True):
            t += g.square()
    return {name: t / len(groups) for name, t in total.items()}


@torch.no_grad()
def dampen(weight: Tensor, own: Tensor, whole: Tensor, alpha: float, strength: float) -> None:
    """θ <- θ min(1, λ F_D / F_f) where F_f > α F_D, in place."""
    chosen = own > alpha * whole
    factor = (strength * whole / own.clamp_min(torch.finfo(own.dtype).tiny)).clamp_max(1)
    weight.mul_(torch.where(chosen, factor, torch.ones_like(factor)))


@method("ssd", SsdOptions, needs=("forget", "retain"), cite="foster2024ssd")
def ssd(model, forget, access, options, ledger):
    """Weights that matter more for the class than for all are dampened; "for all" is kept ready."""
    mean, std = access.images.mean, access.images.std

    def whole():
        pixels, labels = access.train
        few = ladder.pick(labels, options.images, options.seed)
        return importances(model, pixels[few], labels[few], mean, std, options.batch, options.seed)

    known = access.once(f"ssd {options.images} {options.batch} {options.seed}", whole, ledger)
    with ledger.part("select"):
        own = importances(model, *access.part(forget, False), mean, std, options.batch,
                          options.seed)
    with ledger.part("edit"):
        for name, weight in model.named_parameters():
            dampen(weight, own[name], known[name], options.alpha, options.strength)
    return model
