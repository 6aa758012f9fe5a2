import copy

import pytest
import torch

from softprune import pruning, removal
from softprune.errors import UserError


def closed(model, sites):
    """Half of the channels of some sites closed, folded and erased; (edited, gates)."""
    gates = {}
    for site in model.sites():
        if site.name in sites:
            gates[site.name] = torch.ones(site.channels)
            gates[site.name][: max(1, site.channels // 2)] = 0
    edited = copy.deepcopy(model)
    pruning.fold(edited, gates)
    pruning.erase_closed(edited, gates)
    return edited, gates


def holds_any(state, values) -> bool:
    """Whether any of the rows `values` (K, D) still stands, up to sign and scale, in a tensor."""
    wanted = torch.nn.functional.normalize(values.flatten(1).double(), dim=1)
    for tensor in state.values():
        if tensor.dim() < 2 or tensor.flatten(1).shape[1] != wanted.shape[1]:
            continue
        rows = torch.nn.functional.normalize(tensor.flatten(1).double(), dim=1)
        if (wanted @ rows.T).abs().max() > 1 - 1e-6:
            return True
    return False


def test_outputs_are_the_same_and_the_file_no_longer_holds_the_kernels(lively):
    model, images = lively
    edited, gates = closed(model, removal.removable(model))
    smaller = removal.remove_closed(edited, gates, images[:1])
    assert torch.allclose(smaller(images), edited(images), atol=1e-5)
    assert removal.size(smaller) < 0.75 * removal.size(model)
    site = next(s for s in model.sites() if s.name in gates)
    rows = model.get_submodule(site.kernel).weight[gates[site.name] == 0]
    assert holds_any(model.state_dict(), rows)
    assert not holds_any(smaller.state_dict(), rows)


def test_the_model_given_stays_and_so_do_open_channels(lively):
    model, images = lively
    name = removal.removable(model)[0]
    edited, gates = closed(model, [name])
    before = {k: v.clone() for k, v in edited.state_dict().items()}
    smaller = removal.remove_closed(edited, gates, images[:1])
    assert all(torch.equal(v, before[k]) for k, v in edited.state_dict().items())
    kernel = model.get_submodule(next(s for s in model.sites() if s.name == name).kernel)
    left = smaller.get_submodule(name)
    assert left.weight.shape[0] == (gates[name] > 0).sum()
    assert torch.equal(left.weight, kernel.weight[gates[name] > 0])


def test_where_a_shortcut_passes_the_gate_nothing_is_cut(lively):
    model, images = lively
    with_shortcut = hasattr(model, "layer1")
    last = model.sites()[-1].name
    assert (last in removal.removable(model)) is not with_shortcut
    if with_shortcut:
        edited, gates = closed(model, [last])
        with pytest.raises(UserError, match="no channel to remove"):
            removal.remove_closed(edited, gates, images[:1])


def test_soft_gates_leave_nothing_to_remove_and_a_site_cannot_vanish(lively):
    model, images = lively
    site = next(s for s in model.sites() if s.name in removal.removable(model))
    half = {site.name: torch.full((site.channels,), 0.5)}
    with pytest.raises(UserError, match="no channel to remove"):
        removal.remove_closed(model, half, images[:1])
    with pytest.raises(UserError, match="at least one to stay"):
        removal.remove_closed(model, {site.name: torch.zeros(site.channels)}, images[:1])
