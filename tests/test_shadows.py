import sys
import types

import numpy as np
import pytest
import torch

from softprune import channels, cli, evaluation, paths, pruning, roc, shadows, targets, training
from softprune.errors import UserError

sys.path.insert(0, str(paths.root() / "benchmarks"))
import lira
import one_checkpoint


@pytest.fixture(scope="module")
def small(digits):
    """Eight models of a few epochs, two of them also without a class."""
    made = shadows.open_set(training.configure("digits", "smoke"), digits)
    shadows.train_missing(made, 3)
    return made


def test_every_image_is_in_half_of_the_models_and_every_class_is_split_evenly():
    labels = torch.arange(30) % 3
    member = shadows.halves(labels, 8)
    assert (member.sum(0) == 4).all()
    for k in range(8):
        assert np.bincount(labels[member[k]].numpy()).tolist() == [5, 5, 5]
    assert (shadows.halves(labels, 4) == member[:4]).all()  # more models do not change the first


def test_the_recipe_memorises_and_the_rest_is_the_trainings_own(digits):
    config = training.configure("digits", "smoke", penalty="none", without=("three",),
                                pad=2, cutout=4)
    made = shadows.open_set(config, digits).config
    assert (made.pad, made.cutout, made.flip, made.without) == (0, 0, False, ())
    assert (made.penalty, made.width) == ("none", config.width)


def test_noise_gives_wrong_labels_and_a_pool_is_balanced(digits):
    config = training.configure("digits", "smoke")
    clean = shadows.open_set(config, digits, pool=200)
    noisy = shadows.open_set(config, digits, pool=200, noise=0.5)
    assert torch.bincount(clean.labels).tolist() == [20] * 10
    changed = (clean.labels != noisy.labels).double().mean().item()
    assert changed == pytest.approx(0.45, abs=0.1)  # a tenth of the draws are right by chance
    assert clean.folder != noisy.folder
    with pytest.raises(UserError, match="noise"):
        shadows.open_set(config, digits, noise=1.0)


def test_a_model_sees_its_half_and_its_twin_not_the_class(small):
    assert len(small.seen(0)) == small.member[0].sum()
    assert 3 not in small.labels[small.seen(0, 3)]
    assert 3 in small.labels[small.seen(0)]


def test_the_same_seed_gives_the_same_model_and_what_is_there_stays(small, tmp_path):
    again = shadows.train_one(small, 1)
    for name, value in small.model(1).state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert small.missing(3) == []
    assert shadows.train_missing(small, 3) < 1


def test_answers_of_every_method(small):
    methods = ("original", "head-mask", "random-channels", "hard", "soft", "calibrated",
               "calibrated-masked", "retrained")
    answers = targets.ask(small, 3, methods, retained=50, fraction=0.25)
    masked = answers.pool["calibrated-masked"]
    others = [c for c in range(10) if c != 3]
    assert torch.isinf(masked[..., 3]).all()
    assert torch.equal(masked[..., others], answers.pool["calibrated"][..., others])
    assert set(answers.pool) == set(methods)
    assert len(answers.pool["retrained"]) == 2 and len(answers.pool["soft"]) == 8
    own = answers.labels == 3
    assert own.sum() == (small.labels == 3).sum()
    assert (~own).sum() == 50
    assert torch.isinf(answers.pool["head-mask"][..., 3]).all()
    guesses = answers.pool["retrained"][:, own].argmax(2)
    assert (guesses == 3).double().mean() < 0.05
    # what was asked of the original is what the model says
    z = small.model(2)
    few = (small.labels == 3).nonzero().squeeze(1)
    said = evaluation.predict(z, small.pixels[few], small.images.mean, small.images.std)[1]
    assert torch.allclose(answers.pool["original"][2][own], said, atol=1e-5)


def test_a_retrained_target_leaks_nothing_and_a_mask_gives_one_half(small):
    answers = targets.ask(small, 3, ("original", "head-mask", "soft", "retrained"), retained=50,
                          fraction=0.25)
    for name in ("lira-online", "lira-offline", "rmia"):
        assert targets.attack(answers, "head-mask", name).auc == 0.5
        assert abs(targets.attack(answers, "retrained", name).auc - 0.5) < 0.12
    swapped = targets.Answers(
        forget=3, labels=answers.labels, held_labels=answers.held_labels,
        member=np.roll(answers.member, 1, 1), pool=answers.pool, held=answers.held)
    assert abs(targets.attack(swapped, "original", "lira-online").auc - 0.5) < 0.1
    with pytest.raises(UserError, match="rmia"):
        targets.attack(answers, "soft", "loss")


def test_gates_come_from_what_the_shadow_itself_has_seen(small):
    part = shadows.part(small.images, small.pixels[:30], small.labels[:30])
    assert len(part.split("train")[1]) == 30
    assert len(part.split("validation")[1]) == len(small.images.split("validation")[1])


def test_every_shadow_forgets_by_what_it_has_seen_itself(small, monkeypatch):
    """Three rungs beside those that the audited pages have; nothing is left in the set itself."""
    rows = lira.rows_of(small, 3, 0.25, log=lambda text: None)
    at = {(r["method"], r["metric"]): r for r in rows}
    assert {m for m, _ in at} == {*lira.KNOWN, *lira.EDITS}
    for edit in lira.EDITS:
        assert at[edit, "accuracy"]["value"] < 0.5 * at["original", "accuracy"]["value"]
        leak = at[edit, "auc-t1-lira-online"]
        assert 0 <= leak["low"] <= leak["value"] <= leak["high"] <= 1
        whole = at["original", "auc-t1-lira-online"]
        assert leak["n"] == whole["n"]
        gap = at[edit, "gap-t1-lira-online"]
        assert gap["value"] == pytest.approx(whole["value"] - leak["value"])
        assert gap["low"] <= gap["value"] <= gap["high"]
        assert (edit, "tpr-t1-lira-online") not in at  # too few outsiders for one in a hundred
    monkeypatch.setattr(lira, "EDITS", {})
    monkeypatch.setattr(lira, "RATE", 0.5)
    few = lira.rows_of(small, 3, 0.25, log=lambda text: None)
    rates = {r["method"]: r["value"] for r in few if r["metric"] == "tpr-t1-lira-online"}
    assert set(rates) == set(lira.KNOWN) and rates["original"] > rates["head-mask"] - 1e-9
    monkeypatch.undo()
    seen = small.seen(2)
    own = shadows.part(small.images, small.pixels[seen], small.labels[seen])
    model = small.model(2)
    target = lira.Target(model, own, channels.class_channel_table(model, own))
    pruning.fold(model, lira.prototype(target, 3, "smoke"))
    edited = lira.edited(small, "prototype", 3).model(2)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(edited.state_dict()[name], value)
    shipped = str(paths.shipped() / "digits" / "laptop" / "digits-cnn-w16-so-0.01-s0.safetensors")
    for name, said in (("owl", "unknown class 'owl'"), ("three,five", "expected the name of one")):
        with pytest.raises(SystemExit, match=said):
            lira.main("digits", shipped, name)


def test_a_name_that_stands_for_several_classes_is_refused():
    """As `fruit` on CIFAR-100 does."""
    images = types.SimpleNamespace(class_indices=lambda names: {"apple": [0], "fruit": [0, 5]}[
        names[0]])
    bench = types.SimpleNamespace(images=images)
    assert one_checkpoint.classes_of(bench, "apple") == [0]
    assert one_checkpoint.classes_of(bench, "") == []
    with pytest.raises(SystemExit, match="'fruit' stands for 2 classes"):
        one_checkpoint.classes_of(bench, "apple,fruit")


def test_wrong_labels_are_remembered_and_the_attack_finds_them(digits):
    """A planted leak in the whole chain: half of the labels are noise, so nothing can be learnt
    about them but by heart."""
    config = training.configure("digits", "laptop")
    made = shadows.open_set(config, digits, count=8, retrained=0, pool=200, noise=0.4, epochs=40,
                            batch_size=20)
    shadows.train_missing(made)
    answers = targets.ask(made, 3, ("original",), retained=150)
    for name in ("lira-online", "lira-offline", "rmia"):
        leak = targets.attack(answers, "original", name, retained=True)
        assert leak.auc > 0.65 and leak.low > 0.5, name
        assert len(leak.scores.aucs) == 8 and len(leak.members) == len(leak.others) == 8 * 75


def test_the_command_says_what_it_made(capsys):
    assert cli.main(["shadows", "--dataset", "digits", "--profile", "smoke", "--without", "three"]
                    ) == 0
    assert "8 shadow models" in capsys.readouterr().out
    assert cli.main(["shadows", "--dataset", "digits", "--profile", "smoke", "--without",
                     "three,four"]) == 2
    assert "expected one class" in capsys.readouterr().err


def test_the_luck_of_the_images_is_that_of_one_model():
    """Models that answer alike have no spread between them, and DeLong's error over images."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 300, 2, generator=generator)
    member = np.arange(300) % 2 == 0
    z[0, member, 0] += 0.8
    told = targets.Answers(
        forget=0, labels=torch.zeros(300, dtype=torch.long), member=np.stack([member] * 4),
        held_labels=torch.zeros(1, dtype=torch.long), pool={"original": z.expand(4, -1, -1)},
        held={})
    leak = targets.attack(told, "original", targets.ALONE)
    auc, variance = roc.delong(leak.members[:150], leak.others[:150])
    assert leak.auc == pytest.approx(auc)
    assert (leak.high - leak.low) / 2 == pytest.approx(1.95996 * variance**0.5, rel=1e-5)
