import copy

import pytest
import torch

from softprune import audit, evaluation, ladder, models, pruning, training


@pytest.fixture(scope="module")
def trained(digits):
    """A smoke-trained net, what an audit looks at, and gates for one class."""
    from softprune import requests

    bench = requests.Bench(training.train(training.configure("digits", "smoke")), digits)
    return bench, audit.gather(digits, 3, train=600, test=100)


def test_evidence_is_balanced_and_holds_the_class(trained, digits):
    _, evidence = trained
    assert torch.bincount(evidence.train_labels).unique().numel() == 1
    assert evidence.own.sum() == (digits.test_labels == 3).sum().clamp_max(50)
    assert evidence.test.dtype == torch.float32


def test_cka_is_one_under_rotation_and_scale_and_small_for_strangers():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=generator)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    assert audit.cka(x, 3 * x @ rotation + 1) == pytest.approx(1, abs=1e-6)
    assert audit.cka(x, torch.randn(500, 6, generator=generator)) < 0.1


def test_cka_by_hand():
    # centred columns (1, -1, 0) and (1, 0, -1): their products are 1 and norms 2 each: 1/4
    x, y = torch.tensor([[1.0], [-1], [0]]), torch.tensor([[1.0], [0], [-1]])
    assert audit.cka(x, y) == pytest.approx(0.25)


def test_nearest_by_hand():
    train = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0, 0.9]])
    labels = torch.tensor([0, 0, 1, 1])
    test = torch.tensor([[1.0, 0.05], [0.1, 1]])
    assert audit.nearest(train, labels, test, k=1).tolist() == [0, 1]
    # all four vote, two each: the nearer pair decides
    assert audit.nearest(train, labels, test, k=4).tolist() == [0, 1]


def test_a_probe_finds_a_class_that_the_classifier_hides(trained):
    bench, evidence = trained
    fake = audit.mask_head(bench.model, 3)
    assert audit.recall(fake, evidence) == 0
    assert audit.retained(fake, evidence) >= audit.retained(bench.model, evidence)
    depth = audit.depths(fake)[-1]
    seen = audit.probe(audit.pooled(fake, evidence.train)[depth], evidence.train_labels,
                       audit.pooled(fake, evidence.test[evidence.own])[depth], 3, 10)
    assert seen > 0.8
    assert audit.recall(audit.refit(fake, evidence), evidence) > 0.8


def test_nothing_is_changed_by_an_audit(trained):
    bench, evidence = trained
    before = copy.deepcopy(bench.model.state_dict())
    audit.undo_all(bench.model, evidence, bench.gates((3,), fraction=0.25))
    audit.relearn(bench.model, evidence, 2, checkpoints=(0, 1))
    for name, value in bench.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_dividing_by_the_gates_gives_the_original_back_and_closed_ones_stay(trained):
    bench, evidence = trained
    gates = bench.gates((3,), fraction=0.5, sites="all")
    undone = audit.divide(bench.fold_into_copy(gates), gates)
    z, before = (audit.answer(m, evidence.test) for m in (undone, bench.model))
    assert torch.allclose(z, before, atol=1e-3)
    closed = bench.gates((3,), fraction=0.5, gate="hard")
    hard = bench.fold_into_copy(closed)
    assert torch.equal(audit.answer(audit.divide(hard, closed), evidence.test),
                       audit.answer(hard, evidence.test))


def test_orthonormal_kernels_give_a_gate_away(lively):
    """Columns of equal norm, some scaled by a quarter: the norms name them."""
    model, images = lively
    last = model.sites()[-1]
    targets = pruning.plan(model)[last.name]
    with torch.no_grad():
        for weight, shape in targets:
            norms = audit.channel_norms(weight, shape)
            weight.div_(norms.clamp_min(1e-6).view(shape))
    before = model(images)
    gates = torch.ones(last.channels)
    gates[:3] = 0.25
    pruning.fold(model, {last.name: gates})
    assert not torch.allclose(model(images), before, atol=1e-2)
    other_sites = {n: t for n, t in pruning.plan(model).items() if n != last.name}
    kept = [(w, w.clone()) for targets in other_sites.values() for w, _ in targets]
    undone = audit.renormalise(model, below=0.5)
    for (w, was), (name, _) in zip(kept, enumerate(kept), strict=True):
        assert torch.equal(w, was), name  # the audited model itself stays
    back = pruning.plan(undone)[last.name]
    for (weight, shape), _ in zip(back, targets, strict=True):
        norms = audit.channel_norms(weight, shape)
        assert norms == pytest.approx(torch.full_like(norms, norms.median()), rel=1e-4)


def test_renormalising_leaves_what_only_shifts_touch(lively):
    model, _ = lively
    shifted = models.shifts(model)
    if not shifted:
        pytest.skip("this network has no shifts")
    with torch.no_grad():
        for norm in shifted:
            model.get_submodule(norm).bias.copy_(torch.linspace(0.01, 1, len(
                model.get_submodule(norm).bias)))
    undone = audit.renormalise(model)
    for norm in shifted:
        assert torch.equal(undone.get_submodule(norm).bias, model.get_submodule(norm).bias), norm


def test_new_statistics_are_those_of_the_retained_images(trained):
    bench, evidence = trained
    again = audit.restatistic(bench.model, evidence)
    kept = evidence.train[evidence.train_labels != 3].split(250)
    with torch.no_grad():
        maps = [bench.model.conv1(batch) for batch in kept]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    assert torch.allclose(again.bn1.running_mean, mean, atol=1e-5)
    assert torch.equal(again.bn1.weight, bench.model.bn1.weight)  # a folded gate stays


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_weights_lie_on_the_grid(lively, bits):
    model, _ = lively
    rounded = audit.quantize(model, bits)
    weight, was = rounded.fc.weight, model.fc.weight
    scale = was.abs().max() / (2 ** (bits - 1) - 1)
    assert (weight - was).abs().max() <= scale / 2 + 1e-7
    assert len(weight.unique()) <= 2**bits - 1


def test_relearning_starts_from_nothing_and_brings_the_class_back(trained):
    bench, evidence = trained
    fake = audit.mask_head(bench.model, 3)
    curve = audit.relearn(fake, evidence, 10)
    assert curve[0] == 0 and curve[-1] > 0.7
    assert len(curve) == len(audit.CHECKPOINTS)
    # without images of the class a mask stays
    assert audit.relearn(fake, evidence, 0, checkpoints=(0, 5)) == [0, 0]


def test_area_between_curves_by_hand():
    assert audit.area_between([0.5, 0.5, 1], [0, 0, 0], (0, 1, 3)) == pytest.approx(2 / 3)
    assert audit.area_between([0.3, 0.6], [0.3, 0.6], (0, 40)) == 0


def test_depths_are_ends_of_stages_or_evenly_spaced():
    net = models.build("resnet18", classes=3, channels=3, width=4)
    assert audit.depths(net) == ["layer1", "layer2", "layer3", "layer4"]
    vgg = models.build("vgg16", classes=3, channels=3, width=4)
    assert len(audit.depths(vgg)) == 4 and audit.depths(vgg)[-1] == vgg.sites()[-1].name


def test_noise_can_only_add_to_what_is_recognised_in_some_draw(trained):
    bench, evidence = trained
    assert audit.noisy_recall(bench.model, evidence, scale=0.0) == audit.recall(
        bench.model, evidence)
    assert audit.noisy_recall(audit.mask_head(bench.model, 3), evidence) == 0


def test_the_refitted_head_agrees_with_the_stage_three_number(trained, digits):
    """Two routes to one accuracy: gates at inner sites change features in both."""
    bench, _ = trained
    everything = audit.gather(digits, 3, train=10_000, test=10_000)
    gates = bench.gates((3,), fraction=0.5, sites="inner")
    few = ladder.pick(digits.split("train")[1], 10_000, 0)
    assert torch.equal(everything.train_labels, digits.split("train")[1][few])
    there = bench.refit_recall(gates, (3,))
    here = audit.recall(audit.refit(bench.fold_into_copy(gates), everything), everything)
    assert here == pytest.approx(there, abs=0.03)
    assert evaluation.accuracy(torch.eye(2), torch.tensor([0, 1])) == 1


def test_relearning_does_not_depend_on_the_size_of_features(trained):
    """The same function with features four times as large comes back no faster."""
    bench, evidence = trained
    larger = copy.deepcopy(bench.model)
    audit.behind_pooling(larger, audit.Scaled(4.0))
    with torch.no_grad():
        larger.fc.weight.div_(4)
    curves = [audit.relearn(model, evidence, 10, checkpoints=(0, 2, 5))
              for model in (bench.model, larger)]
    assert curves[0] == pytest.approx(curves[1], abs=0.03)
    levelled = audit.level(larger, evidence)
    x = evidence.test[:50]
    assert torch.allclose(levelled(x), bench.model(x), atol=1e-4)
    seen = []
    levelled.fc.register_forward_pre_hook(lambda _, h: seen.append(h[0]))
    audit.answer(levelled, evidence.train)
    assert torch.cat(seen).square().mean().item() == pytest.approx(1, rel=1e-4)
