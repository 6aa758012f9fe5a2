"""The speed benchmark runs; what it measures is no matter of a test."""

import sys

import pytest
import torch

from softprune import models, paths

sys.path.insert(0, str(paths.root() / "benchmarks"))
import ratios


def test_an_edit_is_compared_with_bare_multiplications():
    model = models.build("resnet18", classes=3, channels=3, width=4).eval()
    assert ratios.edit(model) > 0


@pytest.mark.parametrize("directions", [False, True])
def test_stored_requests_are_folded_and_put_back(directions):
    assert ratios.stored_requests(directions, width=4) > 0


@pytest.mark.parametrize("rung", ["best", "searched"])
def test_one_edit_is_timed_at_the_width_that_is_asked_for(rung):
    assert 0 < ratios.one_edit(rung, 4) < 1


def test_a_sweep_is_compared_with_one_pass_over_the_same_images():
    assert ratios.sweep(ratios.fake_images(40)) > 0


def test_a_set_is_started_where_it_is_here(digits):
    seconds, size = ratios.start("digits")
    assert seconds > 0 and size == digits.train_images.numel() + digits.test_images.numel()
    assert ratios.start("no-such-set") is None


def test_two_threads_are_timed_and_put_back():
    before = torch.get_num_threads()
    model = models.build("resnet18", classes=10, channels=3, width=4)
    assert ratios.threads(model, batch=8, side=8) > 0
    assert torch.get_num_threads() == before
