import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from softprune import artifacts, datasets, models, paths, requests, training
from softprune.errors import UserError
from softprune.profiles import profile_defaults


def test_one_cycle_by_hand():
    rates = [training.one_cycle(s, 9, 1.0, 0.2) for s in range(9)]
    assert rates[0] == pytest.approx(0.5) and rates[1] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.125) and max(rates) <= 1


def test_smoothing_gives_nothing_to_a_class_left_out():
    goal = training.smoothed_targets(torch.tensor([0]), torch.tensor([1.0, 0, 1]), 0.1)
    assert goal.tolist()[0] == pytest.approx([0.95, 0, 0.05])


def test_configuration_round_trip_and_names():
    config = training.configure("cifar10", "laptop", without=("cat",), seed=2)
    assert training.TrainConfig.from_dict(config.as_dict()) == config
    assert config.name == "resnet18-w32-so-0.01-s2-without-cat"
    none = training.configure("digits", "smoke", penalty="none")
    assert none.strength == 0 and "none" in none.name


@pytest.mark.parametrize("bad", [{"width": 0}, {"penalty": "x"}, {"architecture": "vgg"},
                                 {"lr": 1}, {"strength": -1.0},
                                 {"cutout": -1}, {"pad": -1}, {"warmup": 1.0},
                                 {"warmup": -0.1}, {"momentum": -1.0}, {"momentum": 1.0},
                                 {"label_smoothing": -0.1}, {"per_class": 1}, {"per_class": -2},
                                 {"seed": 2**31}])
def test_bad_options_are_refused(bad):
    with pytest.raises(UserError):
        training.configure("digits", "smoke", **bad)


def test_crops_stay_within_one_reflection():
    with pytest.raises(UserError, match="pad=8: expected less than the 8 pixels"):
        training.load_images(training.configure("digits", "smoke", pad=8))


def test_crops_fit_the_shorter_side(digits, monkeypatch):
    low = dataclasses.replace(digits, train_images=digits.train_images[:, :, :5])
    monkeypatch.setattr(datasets, "load", lambda _name: low)
    with pytest.raises(UserError, match="pad=5: expected less than the 5 pixels"):
        training.load_images(training.configure("digits", "smoke", pad=5))


def test_sides_follow_the_share_of_the_run():
    config = training.configure("cifar10", "laptop")
    sides = [training.side_at(config, e) for e in range(config.epochs)]
    assert sides == [16] * 10 + [24] * 14 + [0] * 16  # to a quarter, to three fifths, to the end


def test_cutout_greys_what_the_batches_otherwise_have(digits):
    """The same crops in the same order; a configuration without it is told as before it existed."""
    plain = training.configure("digits", "smoke")
    assert "cutout" not in plain.as_dict()
    holed = dataclasses.replace(plain, cutout=4)
    assert training.TrainConfig.from_dict(holed.as_dict()) == holed
    told = [plain, holed]
    pixels, labels = digits.split("train")
    (a, _), (b, _) = (next(training.epoch_batches(c, pixels, labels, (0.0,), (1.0,), 0))
                      for c in told)
    lost = a != b
    assert 0 < lost.double().mean() < 0.5 and (b[lost] == 0).all()


def test_strong_augmentation_is_for_wide_networks_and_for_pictures_known_to_bear_it():
    wide = training.configure("cifar10", "laptop")
    narrow = training.configure("cifar10", "laptop", width=16)
    asked = training.configure("cifar10", "laptop", width=16, pad=3)
    assert (wide.pad, wide.cutout) == (4, 12) and (narrow.pad, narrow.cutout) == (2, 0)
    assert asked.pad == 3
    assert training.configure("cifar10", "paper", width=16).pad == 4
    assert profile_defaults("my-pictures", "laptop", 16)["cutout"] == 0


def test_killed_and_resumed_ends_in_the_same_weights(own_results):
    config = training.configure("digits", "smoke", seed=7)
    whole = artifacts.load_tensors(training.train(config))[0]
    path = training.find_checkpoint(config)
    for file in path.parent.glob(f"{config.name}*"):
        file.unlink()
    assert training.train(config, stop_after=2) is None
    assert training.find_checkpoint(config) is None, "an unfinished run was taken for whole"
    resumed = artifacts.load_tensors(training.train(config))[0]
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_a_killed_process_resumes_to_the_same_weights(own_results):
    """SIGKILL in the middle of whatever it does after two epochs, then the same command again."""
    words = ["--dataset", "digits", "--profile", "smoke", "-p", "seed=8", "-p", "epochs=8",
             "--threads", "1"]
    command = [sys.executable, "-m", "softprune.cli", "train", *words]
    environment = os.environ | {"SOFTPRUNE_ROOT": str(own_results)}
    (own_results / "data").mkdir(exist_ok=True)
    shutil.copy(paths.root() / "data/catalog.yml", own_results / "data")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for _ in range(2):
            assert process.stdout.readline().startswith("epoch")
        process.kill()
    config = training.configure("digits", "smoke", seed=8, epochs=8)
    assert training.find_checkpoint(config) is None
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert not done.stdout.startswith("epoch 1/"), "it began again"
    path = training.find_checkpoint(config)
    resumed = artifacts.load_tensors(path)[0]
    for file in path.parent.glob(f"{config.name}*"):
        file.unlink()
    subprocess.run(command, capture_output=True, env=environment, check=True)
    whole = artifacts.load_tensors(path)[0]
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_a_training_is_not_repeated_and_a_reference_never_sees_the_class(digits):
    # a seed of its own: other tests train the reference of seed 0, and the cache is the run's
    config = dataclasses.replace(training.configure("digits", "smoke", seed=71),
                                 without=("three",))
    logged = []
    path = training.train(config, log=logged.append)
    assert len(logged) == config.epochs and training.train(config, log=logged.append) == path
    assert len(logged) == config.epochs
    logits = artifacts.load_tensors(artifacts.companion(path, "logits"))[0]["test"].float()
    assert (logits.argmax(1) != 3).all()


def test_a_checkpoint_that_was_changed_is_trained_again(digits):
    config = training.configure("digits", "smoke", seed=72)
    path = training.train(config)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert training.find_checkpoint(config) is None
    assert training.train(config) == path and path.read_bytes() == whole


@pytest.mark.parametrize("kind", ["sidecar", "table", "logits"])
def test_a_changed_companion_is_written_again(kind, digits):
    config = training.configure("digits", "smoke", seed=72)
    path = training.train(config)
    beside = artifacts.companion(path, kind)
    whole = beside.read_bytes()
    for damage in (whole[: len(whole) // 2], b"[]", b"{}"):
        beside.write_bytes(damage)
        assert artifacts.intact(path) is None and training.find_checkpoint(config) is None
        assert training.train(config) == path, "written beside what it should have replaced"
        if kind != "sidecar":  # which has the time of its making
            assert beside.read_bytes() == whole
        assert artifacts.intact(path)


def test_the_sidecar_is_written_last(digits, monkeypatch):
    config = training.configure("digits", "smoke", seed=73)

    def full_disk(*_args):
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(artifacts, "write_record", full_disk)
        training.train(config)
    assert training.find_checkpoint(config) is None, "what is not all there counts as finished"
    assert training.train(config) == training.find_checkpoint(config)


def test_a_table_of_another_training_is_refused(smoke, digits, tmp_path):
    own = training.find_checkpoint(training.configure("digits", "smoke"))
    other = training.train(training.configure("digits", "smoke", seed=72))
    for kind in ("sidecar", "table"):
        target = artifacts.companion(tmp_path / own.name, kind)
        target.write_bytes(artifacts.companion(own, kind).read_bytes())
    (tmp_path / own.name).write_bytes(own.read_bytes())
    requests.Bench(tmp_path / own.name, digits)
    table = artifacts.companion(tmp_path / own.name, "table")
    table.write_bytes(artifacts.companion(other, "table").read_bytes())
    with pytest.raises(UserError, match="expected both from one training"):
        requests.Bench(tmp_path / own.name, digits)


def test_shipped_weights_are_the_measured_ones(smoke, digits):
    from softprune import evaluation

    path = training.find_checkpoint(training.configure("digits", "smoke"))
    tensors = artifacts.load_tensors(path)[0]
    assert tensors["fc.weight"].dtype == torch.float16
    stored = artifacts.load_tensors(artifacts.companion(path, "logits"))[0]["test"].float()
    fresh = evaluation.predict(smoke.model, digits.test_images, digits.mean, digits.std)[1]
    torch.testing.assert_close(stored, fresh, rtol=2e-3, atol=2e-3)


def test_a_header_as_long_as_a_pickle_begins_is_no_pickle(tmp_path):
    for extra in range(600):  # until the header has 640 bytes: 0x80, 0x02
        path = tmp_path / "h.safetensors"
        artifacts.save_tensors(path, {"a": torch.zeros(1)}, {"note": "x" * extra})
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert artifacts.load_tensors(path)[0]["a"].item() == 0


def test_weights_that_are_no_numbers_are_neither_written_nor_read(tmp_path):
    lost, path = {"a": torch.zeros(1), "b": torch.tensor([1.0, torch.nan])}, tmp_path / "m"
    artifacts.save_tensors(path, {"a": torch.full((1,), -torch.inf)})  # a masked bias is one
    with pytest.raises(UserError, match="was not written: b holds NaN"):
        artifacts.save_tensors(path, lost)
    assert artifacts.load_tensors(path)[0]["a"].item() == -torch.inf
    safetensors.torch.save_file(lost, path)
    with pytest.raises(UserError, match="b holds NaN"):
        artifacts.load_tensors(path)


def test_damaged_foreign_and_pickled_checkpoints_are_refused(smoke, tmp_path):
    path = training.find_checkpoint(training.configure("digits", "smoke"))
    copy = tmp_path / "m.safetensors"
    copy.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="sidecar"):
        artifacts.load_checkpoint(copy)
    side = json.loads(artifacts.companion(path, "sidecar").read_text())
    artifacts.write_json(artifacts.companion(copy, "sidecar"), side)
    artifacts.load_checkpoint(copy, architecture="digits-cnn")
    with pytest.raises(UserError, match="expected a checkpoint of resnet18"):
        artifacts.load_checkpoint(copy, architecture="resnet18")
    copy.write_bytes(copy.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="hash"):
        artifacts.load_checkpoint(copy)
    torch.save({}, tmp_path / "p.pt")
    with pytest.raises(UserError, match="pickle"):
        artifacts.load_checkpoint(tmp_path / "p.pt")


def test_atomic_leaves_nothing_behind_when_the_block_fails(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), artifacts.atomic(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_run_records_are_validated_and_tidy(smoke):
    import jsonschema

    records = artifacts.read_records("digits", "smoke", "train")
    rows = artifacts.tidy(records)
    assert rows and all(list(r) == list(artifacts.COLUMNS) for r in rows)
    parameters = records[0]["parameters"]
    with pytest.raises(jsonschema.ValidationError):
        artifacts.write_record("x", "k", parameters, [{"method": "soft"}], {}, {})
    good = records[0]["rows"][0]
    for wrong in ({"value": "1"}, {"n": 2.5}, {"n": "2"}, {"value": True}, {"what": 1},
                  {"split": 3}):
        with pytest.raises(jsonschema.ValidationError):  # one among many that are right
            artifacts.validate(records[0] | {"rows": [good] * 3 + [good | wrong] + [good] * 3})
    for wrong in ({"rows": [good, 3]}, {"rows": {}}, {"format": 0}):
        with pytest.raises(jsonschema.ValidationError):
            artifacts.validate(records[0] | wrong)
    for broken in ([], None):
        with pytest.raises(jsonschema.ValidationError):
            artifacts.validate(broken)
    artifacts.validate(records[0] | {"rows": [good | {"n": 2.0}, good | {"n": 2}]})


def test_a_stop_is_not_training_time():
    assert training.without_pauses([1.0] * 9 + [1001.0]) == (10.0, 1000.0)
    assert training.without_pauses([0.01] * 9 + [1.0])[1] == 0, "a hiccup is not a stop"
    assert training.without_pauses([40.0, 50.0, 60.0]) == (150.0, 0)


def test_two_recipes_of_one_name_keep_both_checkpoints():
    first = training.configure("digits", "smoke", seed=31, epochs=1)
    second = training.configure("digits", "smoke", seed=31, epochs=1, batch_size=32)
    assert first.name == second.name
    one, other = training.train(first), training.train(second)
    assert one.stem == first.name and other.stem.startswith(f"{first.name}-") and one != other
    assert training.find_checkpoint(first) == one and training.find_checkpoint(second) == other
    assert artifacts.read_sidecar(one)["config"]["batch_size"] == first.batch_size
    assert training.train(second) == other


def test_small_imported_images_are_not_shrunk(monkeypatch):
    from softprune import catalog

    for side, shrunk in ((8, False), (31, False), (32, True), (64, True)):
        monkeypatch.setattr(catalog, "side", lambda name, side=side: side)
        assert bool(training.configure("mine", "laptop").sides) is shrunk
    assert training.configure("cifar10", "laptop").sides


def test_the_side_of_a_decoded_set_is_read_from_its_header(digits):
    from softprune import catalog

    assert catalog.side("digits") == 8 and catalog.side("nowhere") is None


def test_a_request_without_a_name_takes_a_class_that_exists():
    from softprune.stages import default_request

    assert [default_request("abcdef"[:n]) for n in (2, 3, 4, 6)] == ["b", "c", "d", "d"]


@pytest.mark.parametrize("architecture", ["resnet18", "vgg16"])
def test_every_side_of_a_recipe_goes_through_the_network(architecture):
    recipe = training.configure("cifar10", "laptop", architecture=architecture, width=4)
    model = models.build(architecture, classes=10, channels=3, width=4).eval()
    sides = {training.side_at(recipe, e) for e in range(recipe.epochs)} - {0}
    assert len(sides) >= 2
    for side in sides | {32}:
        assert model(torch.zeros(2, 3, side, side)).shape == (2, 10)


def test_rounding_up_changes_nothing_for_whole_images():
    model = models.build("vgg16", classes=10, channels=3, width=4).eval()
    x = torch.randn(2, 3, 32, 32)
    whole = model(x)
    for m in model.modules():
        if isinstance(m, torch.nn.MaxPool2d):
            m.ceil_mode = False
    assert torch.equal(model(x), whole)


def test_another_architecture_brings_its_own_rate_where_it_replaces_a_residual_network():
    own = training.configure("cifar10", "laptop")
    other = training.configure("cifar10", "laptop", architecture="vgg16")
    assert own.peak_lr == 0.25 and other.peak_lr == 0.1
    assert (own.epochs, own.width) == (other.epochs, other.width)
    assert training.configure("cifar10", "laptop", architecture="vgg16", peak_lr=0.2).peak_lr == 0.2
    # digits have a small recipe of their own
    assert training.configure("digits", "laptop", architecture="vgg16").pad == 1
