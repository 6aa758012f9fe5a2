"""Closed channels cut out of the network: the same outputs, nothing left in the file to revive.

A channel closed at a batch norm (gamma = beta = 0 after `pruning.erase_closed`) is 0 in every map,
so its kernel's row and its readers' columns can go; which tensors hang together is found by
Torch-Pruning's dependency graph (Fang et al., 2023). Where a shortcut carries a channel past its
gate (a residual net's stem and the ends of its stages), other layers still read it, and it stays.
"""

import copy

from torch import Tensor, nn

from softprune import models, pruning
from softprune.errors import UserError


def removable(model: nn.Module) -> list[str]:
    """Sites whose closed channels can be cut out: no shortcut carries them past their gate."""
    residual = any(isinstance(m, models.BasicBlock) for m in model.modules())
    # of a residual net the maps inside its blocks: the stem and the ends of stages are passed on
    return [s.name for s in model.sites() if not residual or (s.norm and "." in s.name)]


def remove_closed(model: nn.Module, gates: pruning.Gates, example: Tensor) -> nn.Module:
    """A smaller copy of a model whose `gates` are folded, without their closed channels.

    Args:
        example: one image (1, C, H, W), to trace the network with.

    Returns:
        A model of the same class; its outputs are those of the folded one.

    Raises:
        UserError: no closed gate at a site that can lose channels, or all of a site's are closed.
    """
    import torch_pruning

    cut = {s: (g == 0).nonzero().squeeze(1).tolist() for s, g in gates.items()
           if s in removable(model) and (g == 0).any()}
    if not cut:
        raise UserError("no channel to remove: expected closed gates (gate=hard) at one of "
                        f"{', '.join(removable(model))}")
    smaller = copy.deepcopy(model).eval().requires_grad_(True)  # the graph is traced by autograd
    kernels = {s.name: s.kernel for s in smaller.sites()}
    for site, closed in cut.items():
        kernel = smaller.get_submodule(kernels[site])
        if len(closed) == kernel.out_channels:
            raise UserError(f"every channel of {site} is closed: expected at least one to stay")
        graph = torch_pruning.DependencyGraph().build_dependency(smaller, example)
        graph.get_pruning_group(
            kernel, torch_pruning.prune_conv_out_channels, idxs=closed).prune()
    return smaller.requires_grad_(False)


def size(model: nn.Module) -> int:
    """How many parameters there are."""
    return sum(p.numel() for p in model.parameters())
