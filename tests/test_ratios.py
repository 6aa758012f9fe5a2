"""The speed benchmark runs; what it measures is no matter of a test."""

import sys

import pytest

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
