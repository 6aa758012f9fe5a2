r"""Soft pruning: a gate g_j in [0, 1] multiplies the post-activation map of channel j.

Gates are folded into the weights exactly. Before a ReLU that follows a batch norm, gamma and beta
are both scaled: relu(g z) = g relu(z). At the end of a residual stage the shortcut bypasses the
batch norm, so the gate goes into the input columns of every layer that reads the map.

Fitted gates may come with *shifts*, added to the beta of a block's last batch norm
(`models.shifts`): what closing channels took from the others' mean can be given back there, in
front of the next non-linearity, and the edit stays a handful of multiplications and additions.

A *direction* is a gate in other axes: of the map's channels at one place, h (J,), the part along v
is changed by u, h + u (v . h). With v = w of length 1 and u = -(1 - g) w that is a gate g on the
direction w, as a gate on a channel is one on an axis. It folds into the input columns of every
layer that reads the map, W (I + u v^T), exactly.
"""

import weakref
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from softprune import channels, checks, models
from softprune.errors import UserError, choose
from softprune.models import Site

GATES = ("rank", "constant", "proportional", "hard")
Gates = dict[str, Tensor]  # site -> float32 (J,), 1 where nothing is attenuated
SHIFT = "shift:"  # before a batch norm's name: values added to its beta, 0 where nothing is
DIRECTION = "direction:"  # before a site's name: pairs (k, 2, J) of u and v


def is_shift(name: str) -> bool:
    """Whether an entry of `Gates` is added, not multiplied.

    Example:
        >>> is_shift("shift:layer4.0.bn2"), is_shift("layer4")
        (True, False)
    """
    return name.startswith(SHIFT)


def is_direction(name: str) -> bool:
    """Whether an entry of `Gates` acts along directions of its site's channels."""
    return name.startswith(DIRECTION)


def multiplied(gates: Gates) -> Gates:
    """The gates proper, without shifts and directions."""
    return {name: g for name, g in gates.items() if not is_shift(name) and not is_direction(name)}


def directed(h: Tensor, pairs: Tensor) -> Tensor:
    """h + sum_k u_k (v_k . h) of maps (N, J, ...) by `pairs` (k, 2, J).

    Example:
        >>> v = torch.tensor([1.0, 0.0])  # closed: the first axis, gate 0
        >>> directed(torch.tensor([3.0, 4.0])[None], torch.stack([-v, v])[None])[0].tolist()
        [0.0, 4.0]
    """
    u, v = pairs.to(h).unbind(1)  # (k, J)
    last = h.movedim(1, -1)  # a view, and contiguous where the maps are in `channels_last`
    flat = last.reshape(-1, h.shape[1])
    return torch.addmm(flat, flat @ v.T, u).view(last.shape).movedim(-1, 1)


def undirected(pairs: Tensor) -> Tensor:
    """The pairs that undo `pairs` (k, 2, J): those of (I + U V^T)^-1, by Woodbury's identity.

    Raises:
        UserError: a closed direction, along which nothing is left to scale.
    """
    if is_closed(pairs):
        raise UserError("a closed direction cannot be divided out: load the original checkpoint")
    u, v = pairs.double().unbind(1)  # (k, J)
    return torch.stack([-torch.linalg.solve(_inner(pairs).T, u), v], 1).to(pairs)


def is_closed(pairs: Tensor) -> bool:
    """Whether I + U V^T of `pairs` (k, 2, J) has (about) nothing left along some direction."""
    return torch.linalg.svdvals(_inner(pairs))[-1].item() < 1e-3


def _inner(pairs: Tensor) -> Tensor:
    """I + V^T U (k, k) in double precision: as singular as I + U V^T, and far smaller."""
    u, v = pairs.double().unbind(1)
    return torch.eye(len(u), dtype=u.dtype, device=u.device) + v @ u.T


def gate_values(
    name: str, k: int, alpha: float = 0.25, top: float = 0.5, scores: Tensor | None = None
) -> Tensor:
    """Gates of the channels of rank 1 … k, float32 (k,).

    Args:
        name: `rank`, min(top, r / k): the first is nearly closed, the last attenuated to `top`
            (second-hand formula of the paper); `constant`, alpha for all; `proportional`,
            1 - s_r / s_1 of the `scores` (k,), best first; `hard`, 0.

    Example:
        >>> gate_values("rank", 4).tolist()
        [0.25, 0.5, 0.5, 0.5]
    """
    choose("gate", name, GATES)
    for label, value in (("alpha", alpha), ("top", top)):
        if not 0 <= value <= 1:
            raise UserError(f"{label}={value}: expected a number from 0 to 1")
    if name == "rank":
        return (torch.arange(1, k + 1) / k).clamp_max(top)
    if name == "proportional":
        best = scores[0].clamp_min(1e-12)  # where even the first speaks against, all stay open
        return (1 - scores / best).clamp(0, 1)
    return torch.full((k,), alpha if name == "constant" else 0.0)


def make_gates(
    table: channels.ClassChannelTable, sites: list[Site], forget: tuple[int, ...], *,
    score: str = "difference", statistic: str = "mean", fraction: float = 0.25,
    gate: str = "rank", alpha: float = 0.25, seed: int = 0,
) -> Gates:
    """Gates for a request "forget these classes": a table look-up, no data, no gradient.

    A request of several classes is the elementwise minimum of the single ones, so {a} then {b}
    gives the same gates as {a, b}.
    """
    checks.classes(forget, len(table.counts))
    single = []
    for cls in forget:
        single.append({})
        for site in sites:
            s = channels.score(table, site.name, (cls,), score, statistic, seed)
            chosen = channels.select(s, fraction)
            g = torch.ones(site.channels)
            g[chosen] = gate_values(gate, len(chosen), alpha, scores=s[chosen])
            single[-1][site.name] = g
    return combine(*single)


def combine(*requests: Gates, join=torch.minimum) -> Gates:
    """The gates of several requests together: the elementwise minimum at every site, or what else
    `join` makes of two; shifts are added, and so is what directions do."""
    combined: Gates = {}
    for gates in requests:
        for site, g in gates.items():
            here = torch.add if is_shift(site) else _beside if is_direction(site) else join
            combined[site] = here(combined[site], g) if site in combined else g
    return combined


def _beside(one: Tensor, other: Tensor) -> Tensor:
    """Pairs of directions of two requests: what they do is added."""
    return torch.cat([one, other])


@contextmanager
def gated(model: nn.Module, gates: Gates):
    """Explicit gates by hooks on the maps: the reference that folding is compared with."""
    at = {s.name: s.module for s in model.sites()} | {SHIFT + n: n for n in models.shifts(model)}
    at |= {DIRECTION + s.name: s.read for s in model.sites() if s.read}
    checks.gates(gates)
    handles = []
    for name, g in sorted(gates.items(), key=lambda item: is_direction(item[0])):  # gates first
        choose("site", name, at)

        def hook(_module, _inputs, out, name=name, g=g):
            if is_direction(name):
                return directed(out, g)
            values = g.to(out).view(1, -1, 1, 1)
            return out + values if is_shift(name) else out * values

        handles.append(model.get_submodule(at[name]).register_forward_hook(hook))
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


# a model's weights by site, looked up once: names cost more than the arithmetic of a small site
_PLANS: "weakref.WeakKeyDictionary[nn.Module, dict]" = weakref.WeakKeyDictionary()


def plan(model: nn.Module) -> dict[str, list[tuple[Tensor, tuple[int, ...]]]]:
    """For each site the parameters that a fold changes, and the gate's shape for each.

    Part of a request's preparation, once a model; a parameter is changed in place, so a plan
    stays right as long as the model's parameters are not replaced.
    """
    if model not in _PLANS:
        made = {}
        for site in model.sites():
            norms = [model.get_submodule(site.norm)] if site.norm else []
            made[site.name] = [(t, (-1,)) for n in norms for t in (n.weight, n.bias)]
            for reader in site.readers:
                weight = model.get_submodule(reader).weight  # (o, J) or (o, J, k, k)
                made[site.name].append((weight, (1, -1, *[1] * (weight.dim() - 2))))
            if site.read:
                made[DIRECTION + site.name] = [(model.get_submodule(name).weight, (1, -1))
                                               for name in site.consumers]
        for norm in models.shifts(model):
            made[SHIFT + norm] = [(model.get_submodule(norm).bias, (-1,))]
        _PLANS[model] = made
    return _PLANS[model]


def _targets(model: nn.Module, gates: Gates) -> list[tuple[Tensor, Tensor, str]]:
    """(weight, values, entry) that a fold touches, all checked first; values of gates and shifts
    in the weight's shape. Directions come first: explicit ones act behind the gates."""
    known, found = plan(model), []
    for name, g in sorted(gates.items(), key=lambda item: not is_direction(item[0])):
        choose("site", name, known)
        if not isinstance(g, Tensor):
            raise UserError(f"gates at {name}: {type(g).__name__}: expected a tensor")
        weight, shape = known[name][0]
        channels_here = weight.shape[shape.index(-1)]
        if g.shape[-1] != channels_here:
            raise UserError(f"{g.shape[-1]} gates at {name}: expected {channels_here}")
        if not (is_direction(name) or is_shift(name) or g.min().item() >= 0):
            raise UserError(f"gates at {name}: expected numbers of 0 or more")  # NaN is neither
        if g.device != weight.device or g.dtype != weight.dtype:
            g = g.to(weight)
        found += [(w, g if is_direction(name) else g.view(s), name) for w, s in known[name]]
    return found


def _direct(weight: Tensor, pairs: Tensor) -> None:
    """weight (o, J, ...) times I + U V^T over its input columns, in place."""
    last = weight.movedim(1, -1)  # (o, ..., J): a kernel in `channels_last` is contiguous so,
    flat = last.reshape(-1, weight.shape[1])  # and this a view, which is what takes the time
    flat.addmm_(flat @ pairs[:, 0].T, pairs[:, 1])
    if flat.data_ptr() != weight.data_ptr():
        last.copy_(flat.view(last.shape))


@torch.no_grad()
def fold(model: nn.Module, gates: Gates) -> None:
    """Multiply the gates into the weights, and add the shifts, in place, exactly."""
    for weight, g, name in _targets(model, gates):
        if is_direction(name):
            _direct(weight, g)
        elif is_shift(name):
            weight.add_(g)
        else:
            weight.mul_(g)


@torch.no_grad()
def unfold(model: nn.Module, gates: Gates) -> None:
    """Divide by the gates, take shifts off: exact up to rounding, and only where nothing is closed.

    Raises:
        UserError: a closed gate or direction, whose share of the map is gone for good.
    """
    if any((g == 0).any() for g in multiplied(gates).values()):
        raise UserError("a closed gate (0) cannot be divided out: load the original checkpoint")
    inverse = {n: undirected(g) if is_direction(n) else g for n, g in gates.items()}
    for weight, g, name in reversed(_targets(model, inverse)):
        if is_direction(name):
            _direct(weight, g)
        elif is_shift(name):
            weight.sub_(g)
        else:
            weight.div_(g)


@contextmanager
def folded(model: nn.Module, gates: Gates):
    """Fold for the length of a block; the touched weights come back bit for bit."""
    kept = [(weight, weight.detach().clone()) for weight, *_ in _targets(model, gates)]
    fold(model, gates)
    try:
        yield model
    finally:
        with torch.no_grad():
            for weight, before in kept:
                weight.copy_(before)


@torch.no_grad()
def erase_closed(model: nn.Module, gates: Gates) -> int:
    """Zero every parameter whose only path runs through a closed gate; returns how many values.

    gamma = beta = 0 alone leaves the kernel's row, from which the channel could be revived, and the
    input columns of the layers that read the map, from which it could be told what it did. Where
    the site folds forwards (end of a stage), the last convolution's row of that channel feeds
    only the closed map, but the shortcut's path is shared inside the stage and stays.
    """
    erased = 0
    for site in model.sites():
        if site.name not in gates or not (gates[site.name] == 0).any():
            continue
        closed = (gates[site.name] == 0).nonzero().squeeze(1)
        kernel = model.get_submodule(site.kernel)
        norm = model.get_submodule(site.norm or site.feeds)
        for tensor in (kernel.weight, norm.weight, norm.bias, norm.running_mean):
            tensor[closed] = 0
            erased += tensor[closed].numel()
        norm.running_var[closed] = 1
        erased += len(closed)
        for name in site.consumers:
            columns = model.get_submodule(name).weight
            columns[:, closed] = 0
            erased += columns[:, closed].numel()
    return erased
