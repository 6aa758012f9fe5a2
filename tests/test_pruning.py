import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softprune import models, pruning, requests
from softprune.errors import UserError


def logits(model, batch):
    with torch.no_grad():
        return model(batch)


def test_gate_values_by_hand():
    assert pruning.gate_values("rank", 4).tolist() == [0.25, 0.5, 0.5, 0.5]
    assert pruning.gate_values("rank", 1).tolist() == [0.5]
    assert pruning.gate_values("constant", 2, alpha=0.3).tolist() == pytest.approx([0.3, 0.3])
    assert pruning.gate_values("hard", 3).tolist() == [0, 0, 0]
    scores = torch.tensor([4.0, 3, 1, -2])
    assert pruning.gate_values("proportional", 4, scores=scores).tolist() == [0, 0.25, 0.75, 1]
    with pytest.raises(UserError, match="0 to 1"):
        pruning.gate_values("constant", 2, alpha=1.5)


@given(st.integers(1, 300))
@settings(deadline=None)
def test_rank_gates_rise_and_stay_in_the_unit_interval(k):
    g = pruning.gate_values("rank", k)
    assert len(g) == k and (g > 0).all() and (g <= 0.5).all() and (g.diff() >= 0).all()


@pytest.mark.parametrize("gate", pruning.GATES)
def test_folding_is_exact_at_every_site(lively, gate):
    model, batch = lively
    before = logits(model, batch)
    for site in model.sites():
        g = torch.ones(site.channels)
        chosen = torch.randperm(site.channels)  # all: one of them may be silent on this batch
        scores = torch.rand(len(chosen)).sort(descending=True).values
        g[chosen] = pruning.gate_values(gate, len(chosen), scores=scores)
        with pruning.gated(model, {site.name: g}):
            explicit = logits(model, batch)
        with pruning.folded(model, {site.name: g}):
            torch.testing.assert_close(logits(model, batch), explicit, rtol=1e-4, atol=1e-5)
        assert not torch.equal(explicit, before), f"the gate at {site.name} does nothing"
        assert torch.equal(logits(model, batch), before), "the fold was not undone"


def test_all_sites_together(lively):
    model, batch = lively
    gates = {s.name: torch.rand(s.channels) for s in model.sites()}
    with pruning.gated(model, gates):
        explicit = logits(model, batch)
    pruning.fold(model, gates)
    torch.testing.assert_close(logits(model, batch), explicit, rtol=1e-4, atol=1e-5)


def assert_each_folds_exactly(model, batch, entries):
    """Folded is as explicit, changes something, and comes back bit for bit; one entry at a time."""
    before = logits(model, batch)
    for one in ({name: values} for name, values in entries.items()):
        with pruning.gated(model, one):
            explicit = logits(model, batch)
        with pruning.folded(model, one):
            torch.testing.assert_close(logits(model, batch), explicit, rtol=1e-4, atol=1e-5)
        assert not torch.equal(explicit, before), f"{one.keys()} does nothing"
        assert torch.equal(logits(model, batch), before)


def assert_comes_off_again(model, batch, gates):
    """All together: folded is as explicit, and unfolded as it was."""
    before = logits(model, batch)
    with pruning.gated(model, gates):
        explicit = logits(model, batch)
    pruning.fold(model, gates)
    torch.testing.assert_close(logits(model, batch), explicit, rtol=1e-3, atol=1e-4)
    assert (explicit - before).abs().max() > 0.1
    pruning.unfold(model, gates)
    torch.testing.assert_close(logits(model, batch), before, rtol=1e-3, atol=1e-4)


def open_gates_of(model):
    return {s.name: torch.rand(s.channels) + 0.5 for s in model.sites()}


def shifts_of(model):
    return {pruning.SHIFT + n: torch.randn(model.get_submodule(n).num_features)
            for n in models.shifts(model)}


def test_shifts_fold_exactly_and_come_off_again(lively):
    model, batch = lively
    shifts = shifts_of(model)
    assert bool(shifts) != isinstance(model, models.VGG)
    assert_each_folds_exactly(model, batch, shifts)
    assert_comes_off_again(model, batch, shifts | open_gates_of(model))


def test_requests_with_shifts_commute(lively):
    """One folded after another, in either order, is both at once: no gate reaches a shift."""
    model, batch = lively
    one, two = ({s.name: 2 * torch.rand(s.channels) for s in model.sites()} | shifts_of(model)
                for _ in range(2))
    told = []
    for order in ((one, two), (two, one), (pruning.combine(one, two, join=torch.mul),)):
        edited = copy.deepcopy(model)
        for gates in order:
            pruning.fold(edited, gates)
        told.append(logits(edited, batch))
    torch.testing.assert_close(told[0], told[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(told[0], told[2], rtol=1e-3, atol=1e-4)


def directions_of(model, pairs=1):
    return {pruning.DIRECTION + s.name: 0.5 * torch.randn(pairs, 2, s.channels) / s.channels**0.5
            for s in model.sites() if s.read}


def test_directions_fold_exactly_and_come_off_again(lively):
    model, batch = lively
    directions = directions_of(model, pairs=2)
    assert len(directions) >= len(model.sites()) - 1  # all but a ResNet's stem
    assert_each_folds_exactly(model, batch, {name: 4 * d for name, d in directions.items()})
    assert_comes_off_again(model, batch, directions | shifts_of(model) | open_gates_of(model))


@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
def test_directions_fold_in_either_memory_format(format_):
    conv = torch.nn.Conv2d(6, 4, 3, bias=False).to(memory_format=format_)
    pairs, before = torch.randn(2, 2, 6), conv.weight.detach().clone()
    with torch.no_grad():
        pruning._direct(conv.weight, pairs)
    matrix = torch.eye(6) + pairs[:, 0].T @ pairs[:, 1]
    torch.testing.assert_close(conv.weight.detach(), torch.einsum("ojxy,jk->okxy", before, matrix),
                               rtol=1e-4, atol=1e-5)


def test_a_direction_along_an_axis_is_the_gate_of_its_channel(lively):
    model, batch = lively
    for site in (s for s in model.sites() if s.read and s.module == s.read):
        gate = torch.ones(site.channels)
        gate[1] = 0.25
        axis = torch.zeros(site.channels)
        axis[1] = 1
        with pruning.folded(model, {site.name: gate}):
            by_gate = logits(model, batch)
        with pruning.folded(model, {pruning.DIRECTION + site.name:
                                    torch.stack([-0.75 * axis, axis])[None]}):
            torch.testing.assert_close(logits(model, batch), by_gate, rtol=1e-4, atol=1e-5)


def test_a_closed_direction_is_gone_for_good(lively):
    model, _ = lively
    site = next(s for s in model.sites() if s.read)
    v = torch.nn.functional.normalize(torch.randn(site.channels), dim=0)
    closed = torch.stack([-v, v])[None]
    assert pruning.is_closed(closed) and not pruning.is_closed(closed * 0.9)
    with pytest.raises(UserError, match="cannot be divided out"):
        pruning.unfold(model, {pruning.DIRECTION + site.name: closed})
    pruning.fold(model, {pruning.DIRECTION + site.name: closed})
    for name in site.consumers:  # no column of any reader has a part along v
        weight = model.get_submodule(name).weight
        assert torch.einsum("oj...,j->o...", weight, v).abs().max() < 1e-5


def test_requests_with_directions_are_the_same_in_any_order():
    one, two = ({"direction:a": torch.randn(1, 2, 6)} for _ in range(2))
    h = torch.randn(3, 6, 2, 2)
    both = pruning.combine(one, two)["direction:a"]
    assert both.shape == (2, 2, 6)
    u, v = both.unbind(1)
    by_hand = h + torch.einsum("kj,kl,nlxy->njxy", u, v, h)
    torch.testing.assert_close(pruning.directed(h, both), by_hand)
    torch.testing.assert_close(pruning.directed(h, pruning.combine(two, one)["direction:a"]),
                               by_hand)
    matrix = torch.eye(6) + u.T @ v
    u, v = pruning.undirected(both).unbind(1)
    torch.testing.assert_close(torch.eye(6) + u.T @ v, matrix.inverse(), rtol=1e-3, atol=1e-3)


def test_a_shift_of_another_size_or_place_is_refused_before_anything_is_touched(lively):
    model, batch = lively
    before = logits(model, batch)
    site = model.sites()[0]
    for wrong in ({pruning.SHIFT + "fc": torch.ones(5)},
                  {pruning.SHIFT + n: torch.ones(3) for n in list(models.shifts(model))[:1]}):
        if wrong:
            with pytest.raises(UserError):
                pruning.fold(model, {site.name: torch.zeros(site.channels)} | wrong)
    assert torch.equal(logits(model, batch), before)


def test_unfold_divides_out_and_refuses_closed_gates(lively):
    model, batch = lively
    before = logits(model, batch)
    gates = {s.name: torch.rand(s.channels) * 0.8 + 0.2 for s in model.sites()}
    pruning.fold(model, gates)
    pruning.unfold(model, gates)
    torch.testing.assert_close(logits(model, batch), before, rtol=1e-3, atol=1e-4)
    gates[model.sites()[0].name][0] = 0
    with pytest.raises(UserError, match="cannot be divided out"):
        pruning.unfold(model, gates)


def test_erasing_closed_channels_changes_no_output(lively):
    model, batch = lively
    gates = {}
    for site in model.sites():
        gates[site.name] = torch.ones(site.channels)
        gates[site.name][0] = 0
    pruning.fold(model, gates)
    folded = logits(model, batch)
    assert pruning.erase_closed(model, gates) > 0
    assert torch.equal(logits(model, batch), folded)
    for site in model.sites():
        assert (model.get_submodule(site.kernel).weight[0] == 0).all(), site.name


def test_what_only_a_closed_channel_used_is_gone_and_the_rest_is_untouched(lively):
    """By search, not by the list of readers: a weight whose change no output shows is erased."""
    model, batch = lively
    before = {k: v.clone() for k, v in model.state_dict().items()}
    site = model.sites()[1]  # folds backwards in every architecture
    assert site.norm and not site.readers
    gates = {site.name: torch.ones(site.channels)}
    gates[site.name][2] = 0
    pruning.fold(model, gates)
    folded = logits(model, batch)
    pruning.erase_closed(model, gates)
    assert torch.equal(logits(model, batch), folded)
    moved = model.get_submodule(site.module)
    seen = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda m, given, name=name: seen.append((name, given[0])))
    out = []
    moved.register_forward_hook(lambda m, i, o: out.append(o))
    logits(model, batch)
    readers = [n for n, x in seen if x is out[0] or (x.shape[1] == site.channels and torch.equal(
        x, torch.nn.functional.max_pool2d(out[0], 2)))]
    assert readers, "nobody reads the map"
    for name in readers:
        weight = model.get_submodule(name).weight
        assert (weight[:, 2] == 0).all() and not (before[f"{name}.weight"][:, 2] == 0).all(), name
    rest = torch.arange(site.channels) != 2
    for name in readers:
        assert torch.equal(model.get_submodule(name).weight[:, rest],
                           before[f"{name}.weight"][:, rest])


def test_requests_compose(smoke):
    both = smoke.gates((2, 5), fraction=0.3)
    one, other = smoke.gates((2,), fraction=0.3), smoke.gates((5,), fraction=0.3)
    for site in both:
        assert torch.equal(both[site], torch.minimum(one[site], other[site]))


def test_head_shortcut_agrees_with_running_the_folded_model(smoke, digits):
    gates = smoke.gates((3,), fraction=0.3)
    fast = smoke.gated_outputs(gates, "test")[1]
    from softprune import evaluation

    model = smoke.fold_into_copy(gates)
    slow = evaluation.predict(model, digits.test_images, digits.mean, digits.std)[1]
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)


def test_each_plain_method_gets_its_own_fraction_on_validation(smoke):
    found = requests.fractions(smoke)
    assert found.keys() == requests.PLAIN.keys()
    assert found["soft"] == requests.calibrate(smoke)[0] == found["random-channels"]
    assert found["hard"] == requests.calibrate(smoke, gate="hard")[0]
    assert set(requests.fractions(smoke, 0.3).values()) == {0.3}
    # a fraction each is the same request as naming it
    site = smoke.last
    for method, gate, fraction in (("soft", "rank", 0.5), ("hard", "hard", 0.2)):
        several = smoke.method_gates(method, (3,), fraction={"soft": 0.5, "hard": 0.2})
        named = smoke.gates((3,), gate=gate, fraction=fraction)
        assert torch.equal(several[site], named[site])
    assert int((several[site] == 0).sum()) == round(0.2 * len(several[site]))


@pytest.mark.parametrize(("mean", "worst", "images", "expected"), [
    (0.0, 0.0, 1000, True), (0.0004, 0.01, 1000, True), (0.0006, 0.002, 1000, False),
    (0.0004, 0.011, 1000, False), (0.0004, 0.02, 50, True), (0.0004, 0.04, 50, False)])
def test_what_counts_as_forgotten(mean, worst, images, expected):
    told = {"forgotten-mean": mean, "forgotten-worst": worst}
    assert requests.forgets(told, images) is expected


@pytest.mark.parametrize(("mean", "worst", "expected"), [
    (-0.005, -0.01, True), (-0.0051, -0.006, False), (0.01, -0.011, False)])
def test_what_counts_as_sparing_the_others(mean, worst, expected):
    assert requests.spares({"change-mean": mean, "change-worst": worst}) is expected
