"""Directions guarded against a reader: what they are, what they do, how they are stored."""

import copy
import dataclasses
import json

import pytest
import torch

from softprune import artifacts, evaluation, guarding, ladder, pruning
from softprune.cli import main

SHORT = guarding.GuardOptions(steps=60, rounds=1, pairs=4, pool=400, sites="inner")


@pytest.fixture(scope="module")
def guard(smoke):
    return guarding.Guard(smoke.model, smoke.images, SHORT)


def test_unwritten_pairs_and_shifts_change_nothing(guard, smoke):
    pairs, shifts = guard.unwritten(2, torch.Generator().manual_seed(0))
    assert {n: tuple(p.shape) for n, p in pairs.items()} == {
        "direction:conv1": (8, 2, 8), "direction:conv2": (8, 2, 16)}
    assert all(torch.allclose(p[:, 1].norm(dim=1), torch.ones(8)) for p in pairs.values())
    maps = guard.pool[:20]
    torch.testing.assert_close(guard.features(pairs | shifts, maps), guard.features({}, maps))


def test_the_loss_by_hand(guard):
    """An untouched network of even logits: KL and reader by hand, a margin that is missed whole."""
    guard = copy.copy(guard)
    model = guard.model = copy.deepcopy(guard.model)
    reader = ladder.Reader(model.fc, (1,))
    with torch.no_grad():
        for head in (model.fc, reader.head):
            head.weight.zero_()
            head.bias.zero_()
        reader.head.bias[1] = 2.0  # the reader is sure of the class by 2
    features = torch.randn(5, model.fc.in_features)
    told = guard.loss({guarding.END: features}, torch.zeros(3, 10), {guarding.END: reader}, 0.5)
    # nine even classes of ten: sum over them of 1/9 (log 1/9 - log 1/10)
    expected = (torch.tensor(10 / 9).log() + 0.5 * SHORT.margin + SHORT.reader * 2.0)
    torch.testing.assert_close(told, expected)
    guard.options = dataclasses.replace(SHORT, deep=0.7)
    both = guard.loss({guarding.END: features, "conv2": features}, torch.zeros(3, 10),
                      {guarding.END: reader, "conv2": reader}, 0.5)
    torch.testing.assert_close(both, expected + 0.7 * 2.0)


def test_a_fit_forgets_and_folds_exactly(guard, smoke):
    edit = guard.fit((3,))
    assert set(edit) == {"direction:conv1", "direction:conv2", "shift:bn3"}
    assert edit["direction:conv2"].shape == (4, 2, 16)
    images, labels = smoke.images, smoke.images.test_labels
    z = evaluation.predict(smoke.fold_into_copy(edit), images.split("test")[0], images.mean,
                           images.std)[1]
    before = smoke.outputs("test")[1]
    own = labels == 3
    assert evaluation.accuracy(z[own], labels[own]) < 0.1 < evaluation.accuracy(before[own],
                                                                                labels[own])
    assert evaluation.accuracy(z[~own], labels[~own]) > 0.8
    with pruning.gated(smoke.model, edit), torch.no_grad():
        explicit = evaluation.predict(smoke.model, images.split("test")[0], images.mean,
                                      images.std)[1]
    torch.testing.assert_close(z, explicit, rtol=1e-3, atol=1e-3)
    again = guard.fit((3,))
    assert all(torch.equal(again[name], edit[name]) for name in edit), "the same draws"


def test_stored_once_and_folded_by_the_tool(smoke, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(guarding, "options", lambda dataset, profile: SHORT)
    words = ["fit", "--dataset", "digits", "--profile", "smoke", "--rung", "guarded"]
    assert main([*words, "--classes", "three"]) == 0
    assert "guarded: three fitted" in capsys.readouterr().out
    assert main([*words, "--classes", "three"]) == 0
    assert "three fitted" not in capsys.readouterr().out
    path = artifacts.companion(smoke.checkpoint, "gates-guarded")
    stored = ladder.load_gates(path)[0]
    assert json.loads(artifacts.load_tensors(path)[1]["options"])["pairs"] == 4
    out = tmp_path / "g.safetensors"
    assert main(["forget", "--checkpoint", str(smoke.checkpoint), "--classes", "three", "--rung",
                 "guarded", "--out", str(out)]) == 0
    torch.testing.assert_close(artifacts.load_checkpoint(out)[0].conv3.weight,
                               smoke.fold_into_copy(stored[3]).conv3.weight)
    path.unlink()
    assert main([*words, "--choose"]) == 2
    assert "expected --rung calibrated, best, searched" in capsys.readouterr().err


def test_the_reader_learns_on_images_that_have_a_label(smoke, monkeypatch):
    options = guarding.GuardOptions(steps=3, rounds=1, pairs=1, pool=400, sites="inner", blend=0.5,
                                    recent=2)
    guard, counts = guarding.Guard(smoke.model, smoke.images, options), []

    def learn(self, features, labels):
        counts.append((len(features), len(labels), int((labels == 3).sum())))

    monkeypatch.setattr(ladder.Reader, "learn", learn)
    assert all(p.isfinite().all() for p in guard.fit((3,)).values())
    sizes, same, own = zip(*counts, strict=True)
    assert sizes == same and own == (48, 96, 96), "two steps are remembered"
    assert all(48 < n < 48 + 128 for n in (sizes[0], sizes[1] - sizes[0])), "about half are blends"


def test_a_set_has_the_blends_of_its_best():
    assert guarding.options("cifar100", "laptop").blend == ladder.options(
        "best", "cifar100", "laptop").blend > 0
    assert guarding.options("digits", "laptop") == guarding.GuardOptions()
