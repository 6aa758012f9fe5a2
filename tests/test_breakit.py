"""Each mistake has a check that notices it, and the right version passes that check."""

import numpy as np
import pytest
import torch

from softprune import breakit, membership, models


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    model = models.build("digits-cnn", classes=10, channels=1, width=4, side=8).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_()
            layer.running_mean.normal_()
    return model


def gates(model, value=0.3):
    site = model.sites()[1]
    g = torch.ones(site.channels)
    g[:3] = value
    return {site.name: g}


def test_a_gate_before_batch_norm_is_not_exact(net, digits):
    pixels = digits.split("test")[0][:50]
    assert breakit.fold_error(net, gates(net), pixels, digits, broken=False) < 1e-4
    assert breakit.fold_error(net, gates(net), pixels, digits, broken=True) > 1e-2


def test_a_gate_before_batch_norm_is_undone_by_recalibration(net, digits):
    from softprune import evaluation

    pixels = digits.split("train")[0][:500]
    plain = breakit.recalibrated(net, pixels, digits)
    z = evaluation.predict(plain, pixels, digits.mean, digits.std)[1]
    for broken in (False, True):
        made = breakit.recalibrated(breakit.fold(net, gates(net), broken=broken), pixels, digits)
        moved = (evaluation.predict(made, pixels, digits.mean, digits.std)[1] - z).abs().max()
        assert (moved < 1e-2) == broken


@pytest.mark.parametrize(("d", "shadows"), [(1.0, 4), (1.0, 64), (0.5, 8)])
def test_offline_lira_has_its_closed_form_one_sided_only(d, shadows):
    wanted = breakit.lira_expected(d, shadows)
    assert abs(breakit.lira_offline(d, shadows, broken=False) - wanted) < 0.01
    assert breakit.lira_offline(d, shadows, broken=True) < wanted - 0.05


def test_known_values_of_offline_lira():
    assert abs(breakit.lira_expected(1, 10**9) - 0.7602) < 1e-4
    assert abs(breakit.lira_offline(1, 2000, targets=5000, broken=True) - 0.635) < 0.012


def test_only_the_counts_tell_a_table_of_test_images(net, digits):
    right = breakit.statistics(net, digits, broken=False)
    wrong = breakit.statistics(net, digits, broken=True)
    assert right.counts.sum() == len(digits.split("train")[1])
    assert wrong.counts.sum() == len(digits.split("test")[1])


def test_a_threshold_fitted_on_what_is_reported_finds_something_in_nothing():
    generator = np.random.default_rng(1)
    members, others = generator.standard_normal(60), generator.standard_normal(60)
    honest = breakit.shuffled(members, others, lambda m, o: breakit.threshold_accuracy(
        m, o, broken=False))
    fitted = breakit.shuffled(members, others, lambda m, o: breakit.threshold_accuracy(
        m, o, broken=True))
    # the best threshold's gain is half the one-sided Kolmogorov statistic, sqrt(pi / 8) sqrt(2 / n)
    gain = (np.pi / 8) ** 0.5 * (2 / 60) ** 0.5 / 2
    assert abs(honest - 0.5) < 0.02 and abs(fitted - 0.5 - gain) < 0.015


def test_best_threshold_by_hand():
    members, others = np.array([3.0, 5]), np.array([1.0, 2, 4])
    both, member = np.concatenate([members, others]), np.arange(5) < 2
    assert membership.best_threshold(both, member) == 3
    assert breakit.threshold_accuracy(members, others, broken=True) == (1 + 2 / 3) / 2


def test_the_published_modified_entropy_misses_a_known_value():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    labels = torch.tensor([0, 1])
    right = breakit.modified_entropy(p.log(), labels, broken=False)
    assert torch.allclose(right, torch.tensor([0.162167, 2.140867], dtype=torch.float64), atol=1e-5)
    wrong = breakit.modified_entropy(p.log(), labels, broken=True)
    assert wrong[0] == wrong[1], "the labels of the batch mix: both rows get one value"
    for y in (0, 1):
        assert abs(membership.modified_entropy_reference([0.7, 0.2, 0.1], y) - wrong[y]) > 0.5
