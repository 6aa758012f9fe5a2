"""Refusals: of mistakes that would otherwise give wrong numbers; and none makes a page stale."""

import ast
import copy
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from softprune import (
    artifacts,
    audit,
    channels,
    checks,
    evaluation,
    headtohead,
    likelihood,
    models,
    prototypes,
    pruning,
    requests,
    targets,
    unlearning,
)
from softprune.errors import UserError


@pytest.fixture(scope="module")
def contest(smoke):
    return headtohead.Contest(smoke, {"sites": "last", "fraction": 0.25})


# --- what is handed in ---------------------------------------------------------------------------


@pytest.mark.parametrize("forget", [(-1,), (), range(10), (10,), 3, "three", (1.5,)])
def test_a_request_is_some_class_numbers(smoke, forget):
    with pytest.raises(UserError, match="expected"):
        pruning.make_gates(smoke.table, smoke.model.sites()[-1:], forget)
    assert pruning.make_gates(smoke.table, smoke.model.sites()[-1:], [np.int64(3)])


@pytest.mark.parametrize("forget", [42, -1, (3,), "three"])
def test_an_audit_is_of_one_class(digits, forget):
    with pytest.raises(UserError, match="expected one number from 0 to 9"):
        audit.gather(digits, forget)


def test_images_are_handed_in_as_they_are_stored(smoke, digits):
    for wrong in (digits.test_images[:4] / 255, digits.test_images[0], digits.test_images.numpy()):
        with pytest.raises(UserError, match="expected uint8"):
            evaluation.predict(smoke.model, wrong, digits.mean, digits.std)


@pytest.mark.parametrize("wrong, message", [
    (torch.tensor([-0.5] + [1.0] * 7), "0 or more"), (torch.full((8,), torch.nan), "0 or more"),
    ([1.0] * 8, "expected a tensor"), (np.ones(8), "expected a tensor"),
    (torch.ones(3), "expected 8")])
def test_gates_are_tensors_of_numbers_of_0_or_more(smoke, wrong, message):
    model, site = copy.deepcopy(smoke.model), smoke.model.sites()[0]
    before = copy.deepcopy(model.state_dict())
    assert site.channels == 8
    with pytest.raises(UserError, match=message):
        pruning.fold(model, {site.name: wrong})
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_generator_would_be_empty_the_second_time(smoke, contest):
    with pytest.raises(UserError, match="classes: generator: expected a list"):
        requests.calibrate(smoke, classes=(c for c in (1, 2)))
    with pytest.raises(UserError, match="methods: generator"):
        headtohead.run(contest, [3], (m for m in ("soft",)), lambda _: None, lambda _: 1)
    images = SimpleNamespace(class_names=tuple("abc"))
    with pytest.raises(UserError, match="methods: generator"):
        targets.ask(SimpleNamespace(images=images), 1, (m for m in ("soft",)))


def test_membership_is_true_or_false():
    with pytest.raises(UserError, match="expected True and False"):
        likelihood.lira(np.zeros(4), np.zeros((6, 4)), np.ones((6, 4), int))


def test_a_bench_needs_the_images_of_its_checkpoint(smoke, digits):
    import dataclasses

    with pytest.raises(UserError, match=r"expected a pathlib\.Path"):
        requests.Bench(str(smoke.checkpoint), digits)
    with pytest.raises(UserError, match=r"mean is .* expected the images it was trained on"):
        requests.Bench(smoke.checkpoint, dataclasses.replace(digits, mean=(0.0,)))
    larger = digits.train_images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with pytest.raises(UserError, match="trained at 8 pixels, the images have 16"):
        requests.Bench(smoke.checkpoint, dataclasses.replace(digits, train_images=larger))


def test_a_rung_that_was_not_prepared_says_so(smoke, digits):
    with pytest.raises(UserError, match=r"call prepare\('best', classes\)"):
        requests.Bench(smoke.checkpoint, digits).method_gates("best", (3,))


# --- methods -------------------------------------------------------------------------------------


def test_what_the_weights_do_not_say_is_not_judged(smoke, contest):
    for spoil in (lambda m: m.relu3.register_forward_hook(lambda _m, _i, out: 0 * out),
                  lambda m: setattr(m, "avgpool", nn.Sequential(m.avgpool, nn.Hardtanh(0, 1e-3)))):
        model = copy.deepcopy(smoke.model)
        spoil(model)
        with pytest.raises(UserError, match="otherwise than its weights say"):
            contest.judge(headtohead.Outcome(method="mine", cls=3, model=model))
    model = copy.deepcopy(smoke.model)
    model.bn1 = nn.Identity()
    with pytest.raises(UserError, match=r"has no bn1\."):
        contest.judge(headtohead.Outcome(method="mine", cls=3, model=model))


def test_a_method_has_a_name_of_its_own_and_returns_a_network(smoke, monkeypatch):
    monkeypatch.setattr(unlearning, "METHODS", dict(unlearning.registry()))
    with pytest.raises(UserError, match="there is a method 'ssd' already"):
        unlearning.method("ssd")(lambda *_: None)
    for _ in range(2):  # a cell that is executed again
        unlearning.method("mine")(lambda model, *_: None)
    with pytest.raises(UserError, match="mine returned NoneType: expected the edited network"):
        unlearning.unlearn("mine", smoke.model, (3,), unlearning.Access.of(smoke))


def test_a_score_without_a_branch_is_no_score(smoke, monkeypatch):
    monkeypatch.setattr(channels, "SCORES", (*channels.SCORES, "peak"))
    with pytest.raises(AssertionError, match="peak has a name in SCORES and no branch"):
        channels.score(smoke.table, smoke.last, (3,), "peak")
    with pytest.raises(AssertionError, match="peak has no reference"):
        channels.score_reference(torch.rand(9, 4), torch.arange(9) % 3, (1,), "peak")


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_every_architecture_keeps_the_protocol(architecture):
    torch.manual_seed(0)
    side, colours = (8, 1) if architecture == "digits-cnn" else (32, 3)
    model = models.build(architecture, classes=5, channels=colours, width=4, side=side)
    checks.protocol(model, torch.randn(3, colours, side, side))


class Slip(models.DigitsNet):
    """A network whose last site names a reader and a norm that are wrong, as `slip` says."""

    slip: ClassVar[dict] = {}

    def sites(self):
        *first, last = super().sites()
        return [*first, models.Site(**{f: getattr(last, f) for f in (
            "name", "channels", "module", "readers", "kernel", "feeds", "consumers", "read")}
            | self.slip)]


@pytest.mark.parametrize("slip, message", [
    ({"readers": (), "norm": "bn3", "module": "conv3"}, "folded gates differ"),
    ({"readers": ("head",)}, "the network has no head"), ({"module": "relu9"}, "has no relu9")])
def test_a_site_that_does_not_fold_is_found(slip, message):
    torch.manual_seed(0)
    model = Slip(classes=5, channels=1, width=4)
    checks.protocol(model, torch.randn(3, 1, 8, 8))
    model.slip = slip
    with pytest.raises(UserError, match=message):
        checks.protocol(model, torch.randn(3, 1, 8, 8))


def test_a_plain_module_is_told_what_it_lacks(digits):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    evidence = audit.gather(digits, 3, train=200, test=100)
    assert 0 <= audit.recall(plain, evidence) <= 1
    for attempt in (audit.refit, audit.undo_all):
        with pytest.raises(UserError, match="Sequential has no features, pooled features"):
            attempt(plain, evidence)


def test_directions_need_a_site_that_carries_them(smoke, monkeypatch):
    monkeypatch.setattr(type(smoke.model), "sites", lambda self: [
        models.Site(name="conv3", channels=64, module="relu3", readers=("fc",))])
    with pytest.raises(UserError, match="no site inside this network carries directions"):
        prototypes.prepare(smoke)


# --- the key of a page ---------------------------------------------------------------------------

SOURCE = '''
"""A module."""
from softprune import channels
def f(x):
    """Words."""
    y = x + 1
    return y
'''
SAME = '''
from softprune import channels, checks
from softprune.errors import UserError, choose
def f(x):
    checks.classes(x, 3)
    choose("x", x, (1, 2))
    if x < 0:
        raise UserError("below 0")
    y = x + 1  # one more
    return y
'''


def parsed(text: str) -> str:
    return ast.dump(artifacts._deciding(ast.parse(text)))


def test_a_refusal_makes_no_page_stale():
    assert parsed(SAME) == parsed(SOURCE)


@pytest.mark.parametrize("old, new", [
    ("x + 1", "x + 2"), ('raise UserError("below 0")', "x = 0"),
    ("if x < 0:", "if (x := x - 1) < 0:"), ("    y = x", "    else:\n        x = 2\n    y = x"),
    ("checks.classes(x, 3)", "x = checks.classes(x, 3)"),
    ("import channels, checks", "import channels, roc")])
def test_what_can_change_a_number_does(old, new):
    assert SAME.count(old) == 1
    assert parsed(SAME.replace(old, new)) != parsed(SAME)
