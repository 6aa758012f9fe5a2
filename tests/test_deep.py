"""Directions guarded at a depth, too."""

import dataclasses
import sys
import types

import pytest
import torch

from softprune import (
    artifacts,
    audit,
    evaluation,
    guarding,
    ladder,
    models,
    paths,
    pruning,
)
from softprune.cli import main
from softprune.errors import UserError

sys.path.insert(0, str(paths.root() / "benchmarks"))
import deep as benchmark

SHORT = guarding.GuardOptions(steps=40, rounds=1, pairs=4, pool=400, sites="inner",
                              depths="conv2", deep=0.2)


@pytest.fixture(scope="module")
def deep(smoke):
    return guarding.Guard(smoke.model, smoke.images, SHORT)


@pytest.mark.parametrize("architecture, depth, first", [
    ("resnet18", "layer3", "layer2"), ("digits-cnn", "conv2", "conv1")])
def test_the_depth_is_the_last_but_one_and_the_edit_begins_before(architecture, depth, first):
    model = models.build(architecture, classes=10, channels=3, width=4)
    bench = types.SimpleNamespace(model=model, images=types.SimpleNamespace(name="cifar10"),
                                  sidecar={"config": {"profile": "laptop"}})
    plain, found = (guarding.setting(bench, rung) for rung in guarding.RUNGS)
    edited = models.choose_sites(model, found.sites)
    assert (found.depths, edited[0].name) == (depth, first)
    assert [s.name for s in edited] == [s.name for s in model.sites()][
        [s.name for s in model.sites()].index(first):-1]
    assert (found.deep, found.reader, found.pairs) == (plain.reader / 4, plain.reader, plain.pairs)


def test_a_reader_of_no_weight_changes_nothing(smoke):
    """Nor is a depth told where there is none, so what was stored before is still found."""
    without, idle = (guarding.Guard(smoke.model, smoke.images, dataclasses.replace(SHORT, **o))
                     for o in ({"depths": ""}, {"deep": 0.0}))
    edit, same = without.fit((3,)), idle.fit((3,))
    assert edit.keys() == same.keys() and all(torch.equal(e, same[n]) for n, e in edit.items())
    assert "depths" not in without.options.told() and idle.options.told()["depths"] == "conv2"


def test_a_depths_reader_begins_as_the_probe_of_the_unedited_maps(deep, smoke):
    pixels, labels = smoke.images.split("train")
    few = torch.arange(60)
    batch, = evaluation.batches(pixels[few], smoke.images.mean, smoke.images.std, deep.device, 60)
    deep.features({}, deep.before(pixels[few]))
    torch.testing.assert_close(deep.seen["conv2"], audit.pooled(smoke.model, batch[0])["conv2"],
                               atol=1e-2, rtol=1e-2)  # maps of the pool are in half precision
    told = deep.heads["conv2"](deep._scaled("conv2", deep.seen["conv2"]))
    assert evaluation.accuracy(told, labels[few]) > 0.9


def test_a_fit_hides_the_class_from_the_depths_first_reader_and_folds_exactly(deep, smoke):
    def still_read(guard, edit):
        with torch.no_grad():
            guard.features(edit, guard.own(3))
            told = guard.heads["conv2"](guard._scaled("conv2", guard.seen["conv2"]))
        return (told.argmax(1) == 3).double().mean().item()

    idle = guarding.Guard(smoke.model, smoke.images, dataclasses.replace(SHORT, deep=0.0))
    edit = deep.fit((3,))
    assert still_read(deep, {}) > 0.8
    assert still_read(deep, edit) < still_read(idle, idle.fit((3,))) - 0.1
    pixels, labels = smoke.images.split("test")
    model = smoke.fold_into_copy(edit)
    z = evaluation.predict(model, pixels, smoke.images.mean, smoke.images.std)[1]
    assert evaluation.accuracy(z[labels == 3], labels[labels == 3]) < 0.1
    assert evaluation.accuracy(z[labels != 3], labels[labels != 3]) > 0.7
    with pruning.gated(smoke.model, edit), torch.no_grad():
        explicit = evaluation.predict(smoke.model, pixels, smoke.images.mean, smoke.images.std)[1]
    torch.testing.assert_close(z, explicit, atol=1e-3, rtol=1e-3)


def test_a_depth_that_the_edit_cannot_reach_is_refused(smoke):
    for name in ("conv9", "conv1"):  # no site, and in front of the edit
        with pytest.raises(UserError, match="depth"):
            guarding.Guard(smoke.model, smoke.images, dataclasses.replace(
                SHORT, sites="conv2", depths=name))


def test_stored_once_and_folded_by_the_tool(smoke, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(guarding, "setting", lambda bench, rung: SHORT)
    words = ["fit", "--dataset", "digits", "--profile", "smoke", "--rung", "deep"]
    for told in (True, False):
        assert main([*words, "--classes", "three"]) == 0
        assert ("deep: three fitted" in capsys.readouterr().out) == told
    path = artifacts.companion(smoke.checkpoint, "gates-deep")
    out = tmp_path / "d.safetensors"
    assert main(["forget", "--checkpoint", str(smoke.checkpoint), "--classes", "three", "--rung",
                 "deep", "--out", str(out)]) == 0
    torch.testing.assert_close(artifacts.load_checkpoint(out)[0].conv3.weight,
                               smoke.fold_into_copy(ladder.load_gates(path)[0][3]).conv3.weight)
    path.unlink()
    assert main([*words, "--choose"]) == 2
    assert "expected --rung calibrated, best, searched" in capsys.readouterr().err


def test_the_record_has_depths_and_refits_on_both_splits(smoke, monkeypatch):
    monkeypatch.setattr(guarding, "setting", lambda bench, rung: SHORT)
    rows = benchmark.rows_of(smoke, [3], lambda text: None)
    value = {(r["method"], r.get("split"), r["metric"]): r["value"] for r in rows}
    own = guarding.DEEP
    assert len(value) == len(rows) and {m for m, *_ in value} == {own, "original"}
    assert value[own, "forgotten-test", "accuracy"] < 0.2
    at = "recall-t4-probe-conv2"
    assert {s for m, s, k in value if (m, k) == (own, at)} == {"forgotten-test",
                                                              "forgotten-validation"}
    assert value["original", "forgotten-validation", at] > 0.8
    assert -30 < value[own, "retained-validation", "change"] < 5
    assert (own, "forgotten-test", "recall-t4-10-nn") in value
    assert value[own, None, "time-edit"] > 0


def test_wrong_words_are_told_in_a_line(smoke):
    with pytest.raises(SystemExit, match="unknown class 'owl'"):
        benchmark.main("digits", str(smoke.checkpoint), "three,owl")
