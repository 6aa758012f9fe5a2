"""The record of directions guarded against a reader, from a small model."""

import dataclasses
import json
import sys

import pytest

from softprune import artifacts, guarding, paths, training

sys.path.insert(0, str(paths.root() / "benchmarks"))
import readers


def test_every_trial_stands_beside_the_original_and_the_retrained_network(smoke, monkeypatch):
    chosen = guarding.GuardOptions(steps=60, rounds=1, pairs=4, pool=400)
    monkeypatch.setattr(guarding, "options", lambda dataset, profile: chosen)
    monkeypatch.setattr(readers, "TRIALS", {"digits": ((1, 0.0), (4, chosen.reader))})
    retrained = training.train(training.configure("digits", "smoke", without=("three",)))
    rows = readers.rows_of(smoke, [3], {3: retrained}, lambda text: None)
    value = {(r["method"], r.get("split"), r["metric"]): r["value"] for r in rows}
    own = readers.name_of(4, chosen.reader)
    assert {m for m, *_ in value} == {"original", "retrained", "best", "guarded-1-0", own}
    assert {r.get("forget") for r in rows} == {"three", None} and len(value) == len(rows)
    # four pairs u, v of 16 channels and 32 shifts, two bytes each
    assert value[own, None, "size-stored"] == 2 * (4 * 2 * 16 + 32)
    assert 0 < value[own, None, "time-edit"] < 1
    assert value["original", "retained-test", "change"] == 0
    assert value["retrained", "forgotten-test", "accuracy"] == 0
    assert value[own, "forgotten-test", "accuracy"] < 0.2
    # the same measure as everywhere else in the book
    assert value["original", "forgotten-test", "accuracy-head-refit"] == pytest.approx(
        smoke.refit_recall({}, (3,)), abs=1e-6)
    taken = readers.chosen(rows)
    others = {k for m, _, k in value if m == taken and "recall" in k}
    assert others == {k for m, _, k in value if m == "retrained" and "recall" in k}
    assert {"recall-t4-10-nn", "recall-t4-probe-conv1"} <= others
    rest = {own, "guarded-1-0"} - {taken}
    assert not [k for m, _, k in value if m in rest and "recall" in k]
    alone, edits = readers.fitted_rows(smoke, [3], {}, lambda text: None)
    assert {m for m, *_ in value} - {r["method"] for r in alone} == {"retrained"}
    assert edits[3]["original"] == {} and set(edits[3][own]) == {"direction:conv2", "shift:bn3"}


def test_the_rule_takes_the_cheapest_of_those_a_refit_cannot_read():
    def of(method, refit, change, forget="cat", split="validation"):
        return [artifacts.row(method, "accuracy-head-refit", refit, split=f"forgotten-{split}",
                              forget=forget),
                artifacts.row(method, "change", change, "points", split=f"retained-{split}",
                              forget=forget)]

    rows = of("retrained", 0.7, 0.1) + of("best", 0.6, 1.0)  # best is no trial
    rows += of("guarded-1-0", 0.8, 0.5) + of("guarded-8-0.1", 0.7, -0.4)
    assert readers.chosen(rows + of("guarded-8-0.2", 0.6, -0.5)) == "guarded-8-0.1"
    # on the test split, and of a class without a reference, another would be better
    rows += of("guarded-1-0", 0.1, 3.0, split="test") + of("guarded-1-0", 0.1, 3.0, forget="dog")
    assert readers.chosen(rows) == "guarded-8-0.1"
    assert readers.chosen([r for r in rows if r["method"] != "guarded-8-0.1"]) == "guarded-1-0"


def test_sets_without_trials_have_the_setting_alone():
    setting = guarding.GuardOptions()
    assert list(readers.trials(setting, "digits").values()) == [setting]
    ten = readers.trials(setting, "cifar10")
    assert setting in ten.values() and len(ten) == len(set(readers.TRIALS["cifar10"]))
    assert ten["guarded-8-0.05"] == dataclasses.replace(setting, pairs=8, reader=0.05)


def test_wrong_words_are_told_in_a_line():
    with pytest.raises(SystemExit, match="expected one of"):
        readers.main("mnist", "x.safetensors")
    with pytest.raises(SystemExit, match="expected a number from 1"):
        readers.main("digits", "x.safetensors", "0")


@pytest.mark.parametrize("dataset", sorted(guarding.chosen()))
def test_the_setting_in_use_is_the_one_that_the_rule_took(dataset):
    assert dataset in readers.TRIALS
    entry = guarding.chosen()[dataset]
    found = list((paths.root() / f"data/results/{dataset}/laptop").glob("readers-*.json"))
    record = json.loads(found[0].read_text())
    setting = guarding.options(dataset, "laptop")
    assert [entry["record"]] == [json.loads(p.read_text())["key"] for p in found]
    assert readers.chosen(record["rows"]) == readers.name_of(setting.pairs, setting.reader)
    told = guarding.GuardOptions.of_told(record["extra"]["options"])
    assert dataclasses.replace(told, reader=setting.reader, pairs=setting.pairs) == setting


def test_a_choice_is_written_beside_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    (tmp_path / "data").mkdir()
    assert guarding.options("cifar10") == guarding.GuardOptions(), "nothing was chosen"
    one = dataclasses.replace(guarding.GuardOptions(), pairs=1, reader=0.01)
    guarding.remember("cifar100", one, "abc")
    guarding.remember("cifar10/paper", dataclasses.replace(one, pairs=2), "def")
    assert guarding.chosen()["cifar100"] == {"set": {"pairs": 1, "reader": 0.01}, "record": "abc"}
    # a profile's own choice before the set's, and a set of many classes as CIFAR-100
    assert [guarding.options(*of).pairs for of in (
        ("cifar100", "laptop"), ("tiny-imagenet-200", "laptop"), ("cifar10", "paper"),
        ("cifar10", "laptop"), ("digits", "laptop"))] == [1, 1, 2, 32, 32]
