import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from softprune import membership
from softprune.errors import UserError


def test_modified_entropy_known_values():
    z = torch.tensor([[0.7, 0.2, 0.1]] * 2, dtype=torch.float64).log()
    found = -membership.modified_entropy(z, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([0.162167, 2.140867], abs=1e-6)
    for y in (0, 1, 2):
        fast = -membership.modified_entropy(z[:1], torch.tensor([y])).item()
        assert fast == pytest.approx(membership.modified_entropy_reference([0.7, 0.2, 0.1], y))


def test_modified_entropy_keeps_its_order_where_a_probability_is_nearly_one():
    """e + d with logits (g, 0, 0): p_k = 1 / (e^g + 2), and 1 - p of the first is 2 p_k.

    Far beyond the gap of 37 at which 1 - p is 0 in double precision."""
    gaps = torch.tensor([5.0, 18, 30, 45, 100, 300], dtype=torch.float64)
    z = torch.stack([gaps, torch.zeros(6), torch.zeros(6)], 1)
    p = torch.exp(-gaps) / (1 + 2 * torch.exp(-gaps))
    right = 2 * p * torch.log1p(2 * torch.exp(-gaps)) + 2 * p * -torch.log1p(-p)
    found = -membership.modified_entropy(z, torch.zeros(6, dtype=torch.long))
    assert torch.allclose(found, right, rtol=1e-9, atol=0)
    assert (found[1:] < found[:-1]).all() and (found > 0).all()
    # sure and wrong: (1 - p_y)(-ln p_y) and -ln(1 - p) of the first, p_1 ln of 2 p_k
    wrong = (1 - p) * (gaps + torch.log1p(2 * torch.exp(-gaps)))
    wrong += (1 - 2 * p) * -(math.log(2) + p.log()) + p * -torch.log1p(-p)
    found = -membership.modified_entropy(z, torch.ones(6, dtype=torch.long))
    assert torch.allclose(found, wrong, rtol=1e-9, atol=0)


def test_extreme_and_masked_logits_give_finite_scores():
    z = torch.tensor([[1000.0, 0, 0], [-math.inf, 2, 1]])
    for rule in (membership.confidence, membership.entropy, membership.modified_entropy):
        assert torch.isfinite(rule(z, torch.tensor([0, 0]))).all()


def test_entropy_and_confidence_by_hand():
    z = torch.zeros(1, 4)
    assert membership.entropy(z, torch.tensor([1])).item() == pytest.approx(-math.log(4))
    assert membership.confidence(z, torch.tensor([1])).item() == pytest.approx(0.25)


@pytest.mark.parametrize("rule", [membership.delong, membership.delong_reference])
def test_delong_by_hand(rule):
    auc, variance = rule([3, 5, 2.5], [1, 2, 3, 4])
    assert auc == pytest.approx(17 / 24, abs=1e-9)
    assert variance == pytest.approx(0.0520833, abs=1e-6)


def test_delong_agrees_with_its_definition_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 40), rng.integers(0, 5, 30)
    assert membership.delong(a, b) == pytest.approx(membership.delong_reference(a, b))


def test_gaussian_scores_at_distance_one():
    rng = np.random.default_rng(1)
    auc, variance = membership.delong(rng.normal(1, 1, 4000), rng.normal(0, 1, 4000))
    assert abs(auc - norm.cdf(1 / math.sqrt(2))) < 4 * math.sqrt(variance)


def outputs(n, shift, seed):
    z = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    z[:, 0] += shift
    return z, torch.zeros(n, dtype=torch.long)


# the neighbour attack does not look at the class this leak is in: test_likelihood has its own
@pytest.mark.parametrize("name", [a for a in membership.ATTACKS if a != "neighbour"])
def test_a_planted_leak_is_found_and_without_one_nothing_is(name):
    held, labels = outputs(600, 1, 1)
    leak = membership.attack(name, outputs(600, 4, 2)[0], labels, held, labels)
    assert leak.low > 0.6
    null = membership.attack(name, outputs(600, 1, 3)[0], labels, held, labels)
    sigma = math.sqrt((600 + 600 + 1) / (12 * 600 * 600))
    assert abs(null.auc - 0.5) < 4 * sigma


def test_roc_ends_and_area_agree_with_delong():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.7, 1, 90), rng.normal(0, 1, 70)
    fpr, tpr = membership.roc(a, b)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(membership.delong(a, b)[0])


def test_smallest_fpr_and_refusals():
    assert membership.smallest_fpr(1000) == 0.01
    z, y = outputs(5, 0, 0)
    with pytest.raises(UserError, match="at least 10"):
        membership.attack("entropy", z, y, z, y)
    with pytest.raises(UserError, match="confidence, entropy"):
        membership.attack("guess", z, y, z, y)
