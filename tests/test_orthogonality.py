import math

import pytest
import torch

from softprune import models, orthogonality
from softprune.errors import UserError


def orthonormal(out, inputs, k):
    flat = torch.nn.init.orthogonal_(torch.empty(out, inputs * k * k))
    return flat.view(out, inputs, k, k)


@pytest.mark.parametrize("shape", [(4, 3, 3), (40, 3, 3), (9, 1, 3)])
def test_so_is_zero_on_orthonormal_rows_or_columns(shape):
    assert orthogonality.so(orthonormal(*shape)) < 1e-9


def test_so_by_hand():
    weight = torch.tensor([[2.0, 0.0], [1.0, 1.0]]).view(2, 2, 1, 1)
    # Gram [[4, 2], [2, 2]]: (4-1)^2 + 2^2 + 2^2 + (2-1)^2
    assert orthogonality.so(weight).item() == pytest.approx(18)


def test_the_two_gram_matrices_differ_by_a_constant():
    weight = torch.randn(7, 2, 1, 1)
    kernel = weight.flatten(1)
    larger = (kernel @ kernel.T - torch.eye(7)).square().sum()
    assert (larger - orthogonality.so(weight)).item() == pytest.approx(5, rel=1e-4)


def test_batched_agrees_with_one_by_one():
    model = models.build("resnet18", classes=3, channels=3, width=4)
    weights = [m.weight for m in models.kernels(model).values()]
    slow = sum(orthogonality.so(w) for w in weights)
    assert orthogonality.so_batched(weights).item() == pytest.approx(slow.item(), rel=1e-5)
    assert orthogonality.penalty(model, "so").item() == pytest.approx(slow.item(), rel=1e-5)
    generic = torch.autograd.grad(3 * slow, weights)  # of the definition, layer by layer
    own = torch.autograd.grad(3 * orthogonality.so_batched(weights), weights)
    for a, b in zip(own, generic, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (7, 2, 1, 1)])  # wide, and taller than wide
def test_the_gradient_of_so_is_that_of_finite_differences(shape):
    weights = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *w: orthogonality.so_batched(list(w)), weights)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(3, 2, 3), (2, 3, 1)])
def test_ocnn_agrees_with_its_definition(stride, shape):
    out, inputs, k = shape
    weight = torch.randn(out, inputs, k, k, dtype=torch.float64).float()
    fast = orthogonality.ocnn(weight, stride).item()
    assert fast == pytest.approx(orthogonality.ocnn_reference(weight, stride).item(), rel=1e-4)


def test_ocnn_is_zero_on_a_delta_kernel_at_stride_two():
    weight = torch.zeros(2, 2, 3, 3)
    weight[0, 0, 1, 1] = weight[1, 1, 1, 1] = 1
    assert orthogonality.ocnn(weight, 2) == 0  # padding 1 would put the identity elsewhere


def test_penalty_stays_float32_under_autocast():
    model = models.build("digits-cnn", classes=3, channels=1, width=4)
    for conv in models.kernels(model).values():
        conv.weight.data = orthonormal(*conv.weight.shape[:3])
    with torch.autocast("cpu", torch.bfloat16):
        assert orthogonality.penalty(model, "so") < 1e-8


def test_measures_tell_norm_from_angle():
    model = models.build("digits-cnn", classes=3, channels=1, width=2)
    for conv in models.kernels(model).values():
        conv.weight.data = 3 * orthonormal(*conv.weight.shape[:3])
    found = orthogonality.kernel_measures(model)
    assert found["norm"] == pytest.approx(2, abs=1e-5)
    assert found["coherence"] < 1e-6


def test_feature_correlation_of_copies_is_one_and_of_independents_small():
    x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    assert orthogonality.feature_correlation(torch.cat([x, -2 * x + 1], 1)) == pytest.approx(1)
    both = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
    assert orthogonality.feature_correlation(both) < 4 / math.sqrt(4000)


def test_class_selectivity_by_hand():
    means = torch.tensor([[1.0, 1.0, 3.0], [0.0, 1.0, 1.0]])
    assert orthogonality.class_selectivity(means).tolist() == [1, 0, 0.5]


def test_unknown_penalty_lists_the_known():
    model = models.build("digits-cnn", classes=3, channels=1, width=2)
    with pytest.raises(UserError, match="none, so, srip, ocnn"):
        orthogonality.penalty(model, "soo")


def test_srip_is_the_largest_eigenvalue_of_the_residual():
    weights = [torch.randn(6, 2, 3, 3), torch.randn(6, 2, 3, 3), torch.randn(5, 6, 1, 1)]
    exact = sum(
        torch.linalg.eigvalsh(k @ k.T - torch.eye(len(k))).abs().max().item()
        for k in (w.flatten(1) for w in weights))
    found = sum(orthogonality.spectral(r, steps=200).sum().item()
                for r in orthogonality.residuals(weights))
    assert found == pytest.approx(exact, rel=1e-3)
    for shape in ((4, 3, 3), (40, 3, 3)):
        (residual,) = orthogonality.residuals([orthonormal(*shape)])
        assert orthogonality.spectral(residual) < 1e-5


def test_decorrelation_by_hand():
    x = torch.randn(500, 1)
    twice = torch.cat([x, -3 * x + 1], 1)  # two ordered pairs of squared correlation 1, over J = 2
    assert orthogonality.decorrelation(twice).item() == pytest.approx(1, abs=1e-4)
    rows = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert orthogonality.decorrelation(rows).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("architecture", ["resnet18", "digits-cnn"])
def test_projection_is_the_polar_factor(architecture):
    channels = 3 if architecture == "resnet18" else 1
    model = models.build(architecture, classes=3, channels=channels, width=4)
    before = {n: m.weight.detach().clone() for n, m in models.kernels(model).items()}
    orthogonality.project(model)
    for name, conv in models.kernels(model).items():
        u, _, v = torch.linalg.svd(before[name].flatten(1), full_matrices=False)
        torch.testing.assert_close(conv.weight.flatten(1), u @ v, rtol=1e-3, atol=1e-4)
    assert orthogonality.penalty(model, "so").item() < 1e-6
    assert orthogonality.penalty(model, "hard") == 0


@pytest.mark.parametrize("name", ["srip", "feature", "tied"])
def test_a_step_along_the_gradient_lowers_the_penalty(name):
    torch.manual_seed(0)
    model = models.build("digits-cnn", classes=3, channels=1, width=4)
    batch, labels = torch.randn(64, 1, 8, 8), torch.arange(64) % 3

    def value():
        with models.site_maps(model, lambda m: m.mean((2, 3))) as pooled:
            model(batch)
            return orthogonality.penalty(model, name, pooled, labels)

    first = value()
    first.backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p -= 1e-3 * p.grad
    assert value() < first


def test_straying_is_the_share_outside_the_classs_own_channels():
    labels = torch.tensor([0, 1, 1])
    features = torch.tensor([[2.0, 0, 6, 0], [0, 5, 0, 0], [1, 1, 1, 1]])
    # channels 0 and 2 are class 0's, 1 and 3 class 1's: 0, 0 and a half
    assert orthogonality.straying(features, labels, 2) == pytest.approx(0.5 / 3)
    assert orthogonality.straying(3 * features, labels, 2) == pytest.approx(0.5 / 3)
    assert orthogonality.straying(torch.zeros(3, 4), labels, 2) == 0, "a dead image strays nowhere"


def test_tied_is_so_and_the_tie_at_the_last_site():
    torch.manual_seed(0)
    model = models.build("resnet18", classes=5, channels=3, width=4)
    batch, labels = torch.randn(10, 3, 16, 16), torch.arange(10) % 5
    with models.site_maps(model, lambda m: m.mean((2, 3))) as pooled:
        model(batch)
        made = orthogonality.penalty(model, "tied", pooled, labels)
        stray = orthogonality.straying(pooled[model.sites()[-1].name], labels, 5)
    expected = orthogonality.penalty(model, "so") + orthogonality.TIE * stray
    assert made.item() == pytest.approx(expected.item()) and 0 < stray < 1
