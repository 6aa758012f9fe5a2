"""A rung's setting is chosen by a rule, on the validation split, and remembered."""

import dataclasses
import json
import math

import pytest

from softprune import artifacts, choosing, cli, cli_train, devices, ladder, paths, requests
from softprune.errors import UserError

AXES = [[{"margin": 0.1}, {"margin": 1.0}], [{"keep": "labels"}, {"keep": "teacher"}]]


@pytest.fixture
def own_root(monkeypatch, tmp_path):
    """A root whose `data/ladder.json` may be written."""
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    return tmp_path


def trial(forgotten, inside, change, margin=1.0):
    return {"forgotten-mean": forgotten, "left": max(forgotten, inside), "change-mean": change,
            "n": 5, "options": ladder.FitOptions(margin=margin)}


def test_the_rule_by_hand():
    least, met = trial(0.0, 0.001, -0.0045), trial(0.002, 0.0, -0.004)
    equal, cheaper = trial(0.0, 0.01, -0.004), trial(0.0, 0.01, -0.003)
    wider, too_wide = trial(0.0, 0.01, -0.005, 2.0), trial(0.0, 0.01, -0.006, 3.0)
    hiding, worse = trial(0.0, 0.3, 0.01), trial(0.0, 0.4, 0.02)
    costly, dear = trial(0.0, 0.01, -0.01), trial(0.001, 0.001, -0.02)
    kept, loose = trial(0.003, 0.003, 0.0), trial(0.02, 0.02, 0.0)
    every = [loose, kept, dear, costly, worse, hiding, met, equal, cheaper, wider,
             least, too_wide]
    for expected in (least, met, wider, cheaper, equal, hiding, worse, too_wide, costly, dear, kept,
                     loose):
        assert choosing.prefer(every) is expected
        every.remove(expected)
        if not every:
            break
    twin = dict(met)
    assert choosing.prefer([met, twin]) is met, "the first of equals"
    broken_off = trial(0.0, 0.0, -0.2) | {"n": 2}
    assert choosing.prefer([broken_off, kept]) is kept, "two classes are not five"
    assert choosing.prefer([broken_off]) is broken_off


def test_an_axis_changes_one_thing():
    base = ladder.base("best", "cifar10")
    assert choosing.changed(base, {"margin": 9.0}) == dataclasses.replace(base, margin=9.0)
    assert choosing.changed(base, {"sites": "+last"}).sites == "late,last"
    assert choosing.changed(base, {}) == base


def test_what_another_version_of_the_fit_tried_is_not_known(monkeypatch):
    options = dataclasses.replace(ladder.base("best", "cifar10"), shift=0.1)
    told = options.told()
    assert "version" not in told and ladder.FitOptions.of_told(told | {"chosen": True}) == options
    monkeypatch.setattr(ladder, "FIT_VERSION", 2)
    assert options.told() == told | {"version": 2} != told, "stored gates are fitted anew"
    assert ladder.FitOptions.of_told(told) is None
    assert ladder.FitOptions.of_told(options.told()) == options


def test_the_sample_is_spread_and_small_unless_images_are_few():
    for n in (2, 3, 10, 100, 200, 205):
        chosen = list(choosing.sample(n, 25 * n))
        most = max(choosing.SAMPLE, n // 10)
        assert min(n, most) * 2 / 3 <= len(chosen) <= most and chosen[0] == 0 and chosen[-1] < n
    assert list(choosing.sample(10, 60)) == list(range(10)), "all there are"
    assert len(choosing.sample(20, 200)) * 10 >= choosing.ENOUGH


@pytest.mark.parametrize("rung", ladder.RUNGS)
def test_axes_hold_settings_that_can_be_fitted(rung):
    for axis in choosing.AXES[rung]:
        made = [choosing.changed(ladder.base(rung, "cifar10"), change) for change in axis]
        assert len(set(made)) == len(made), "each of an axis is another setting"
        inside = [o for o in made if "last" not in o.sites.split(",") and o.sites != "all"]
        assert all(o.under == -math.inf for o in inside), "the hinge would be the same twice"


def test_search_goes_axis_by_axis_and_sees_no_test_image(smoke, monkeypatch, own_root):
    seen = []
    monkeypatch.setattr(choosing, "looked_at", lambda b: (1, 3))
    monkeypatch.setattr(requests.Bench, "outputs", spy(requests.Bench.outputs, seen))
    best, tried = choosing.search(smoke, "calibrated", axes=AXES)
    assert set(seen) == {"validation"}
    settings = [(t["options"].margin, t["options"].keep) for t in tried]
    assert settings[:2] == [(0.1, "labels"), (1.0, "labels")] and len(settings) == 3
    assert settings[2] == (choosing.prefer(tried[:2])["options"].margin, "teacher")
    assert best == choosing.prefer(tried)["options"]
    assert all(t["left"] >= t["forgotten-mean"] and t["n"] == 2 for t in tried)


def spy(method, seen):
    def outputs(self, split):
        seen.append(split)
        return method(self, split)
    return outputs


def test_a_mask_of_the_head_is_not_taken_for_forgetting(smoke, monkeypatch):
    """Gates at the last site do nothing under the untouched classifier: `left` says so."""
    monkeypatch.setattr(ladder.Fitter, "fit", lambda self, c: {
        "conv2": smoke.gates(c, sites="conv2", fraction=0.05, gate="constant", alpha=1.0)[
            "conv2"],
        "conv3": smoke.gates(c, fraction=1.0, gate="hard")["conv3"]})
    options = dataclasses.replace(ladder.base("best", "digits"), sites="conv2,conv3")
    made = choosing.judge(ladder.Fitter(smoke.model, smoke.images, options), smoke, [3])
    _, base, labels = smoke.outputs("validation")
    known = requests.retained_and_forgotten(base, labels, (3,))[1]
    assert known > 0.5 and made["inside"] == pytest.approx(known)
    assert made["left"] == pytest.approx(max(known, made["forgotten-mean"]))


def test_a_hopeless_trial_is_not_carried_on(smoke, monkeypatch):
    closed = smoke.gates((3,), fraction=1.0, gate="hard")
    harm = {"closed": closed, "open": {"conv3": closed["conv3"] + 1}}
    for kind, n in (("closed", 2), ("open", 3)):
        fitted = []
        monkeypatch.setattr(ladder.Fitter, "fit",
                            lambda self, c, k=kind, f=fitted: f.append(c) or harm[k])
        fitter = ladder.Fitter(smoke.model, smoke.images, ladder.base("calibrated", "digits"))
        made = choosing.judge(fitter, smoke, [1, 2, 3])
        assert made["n"] == n and fitted == [(1,), (2,), (3,)][:n], kind


def test_the_choice_is_recorded_remembered_and_used(smoke, monkeypatch, own_root, capsys):
    monkeypatch.setattr(choosing, "looked_at", lambda b: (3,))
    monkeypatch.setitem(choosing.AXES, "calibrated", [[{"margin": 0.3}, {"margin": 3.0}]])
    words = ["fit", "--choose", "--dataset", "digits", "--profile", "smoke", "--rung", "calibrated"]
    monkeypatch.setattr(cli_train, "configuration", lambda *_, **__: None)
    monkeypatch.setattr(cli_train, "bench_of", lambda _: smoke)
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert said.count("left") == 2 and "chosen for calibrated on digits: margin=" in said
    stored = json.loads((own_root / "data/ladder.json").read_text())["digits"]["calibrated"]
    record = artifacts.read_records("digits", "smoke", "ladder")[0]
    assert record["key"] == stored["record"]
    chosen = [t for t in record["extra"]["trials"] if t["chosen"]]
    assert len(chosen) == 1 and chosen[0]["margin"] == stored["set"]["margin"]
    assert {r["split"] for r in record["rows"]} == {"validation"}
    assert ladder.options("calibrated", "digits").margin == stored["set"]["margin"]
    assert ladder.options("best", "digits") == ladder.base("best", "digits")
    # a longer axis makes only what is new, and the record keeps everything
    monkeypatch.setitem(choosing.AXES, "calibrated", [[{"margin": m} for m in (3.0, 5.0)]])
    assert cli.main(words) == 0 and capsys.readouterr().out.count("left") == 1
    again, = artifacts.read_records("digits", "smoke", "ladder")
    assert sorted(t["margin"] for t in again["extra"]["trials"]) == [0.3, 3.0, 5.0]
    values = [{(r["metric"], r["gate"]): r["value"] for r in x["rows"] if "time" not in r["metric"]}
              for x in (record, again)]
    order = [t["margin"] for t in again["extra"]["trials"]]
    for metric in ("trial-forgotten-mean", "trial-change-mean"):
        assert values[1][metric, f"trial-{order.index(0.3)}"] == values[0][metric, "trial-0"]
    with pytest.raises(UserError, match="unknown rung"):
        choosing.search(smoke, "worst")


def test_the_committed_choices_are_settings_with_a_record():
    stored = json.loads((paths.root() / "data/ladder.json").read_text())
    for dataset, rungs in stored.items():
        for rung, choice in rungs.items():
            assert dataclasses.replace(ladder.base(rung, dataset), **choice["set"])
            found = list((paths.root() / "data/results" / dataset).glob(
                f"*/ladder-{choice['record']}.json"))
            assert len(found) == 1, (dataset, rung)


def test_the_committed_choices_follow_the_rule(monkeypatch):
    """Those that were made by an earlier form of it, too."""
    results = paths.root() / "data" / "results"
    monkeypatch.setattr(paths, "results", lambda: results)
    for dataset, rungs in json.loads((paths.root() / "data/ladder.json").read_text()).items():
        for rung, choice in rungs.items():
            record, = (r for r in artifacts.read_records(dataset.split("/")[0], stage="ladder")
                       if r["key"] == choice["record"])
            tried = choosing.known_trials(record["parameters"], record["key"])
            chosen = [t["chosen"] for t in record["extra"]["trials"]].index(True)
            assert choosing.prefer(tried) is tried[chosen], (dataset, rung)


def test_a_turned_fitter_shares_maps_and_fits_what_a_new_one_fits(smoke):
    short = {"steps": 4, "rounds": 1, "pool": 200}
    first = ladder.Fitter(smoke.model, smoke.images, dataclasses.replace(
        ladder.base("best", "digits"), **short))
    first.fit((3,))
    for sites, margin, shared in (("inner", 2.0, True), ("inner,last", 1.0, True),
                                  ("conv2", 1.0, False), ("last", 1.0, False)):
        options = dataclasses.replace(first.options, sites=sites, margin=margin)
        turned, new = first.turned(options), ladder.Fitter(smoke.model, smoke.images, options)
        assert (turned.pool is first.pool) is shared and turned.at_head == new.at_head
        ours, theirs = turned.fit((3,)), new.fit((3,))
        assert ours.keys() == theirs.keys() == {s.name for s in turned.sites}
        for name in ours:
            assert (ours[name] == theirs[name]).all()


def test_a_bench_and_its_fits_are_where_pick_device_says(smoke, digits, monkeypatch):
    asked = []

    def pick():
        import torch
        asked.append(1)
        return torch.device("cpu")

    monkeypatch.setattr(devices, "pick_device", pick)
    bench = requests.Bench(smoke.checkpoint, digits)
    assert asked and bench.device.type == "cpu"
    assert ladder.Fitter(bench.model, digits, ladder.base("best", "digits")).device == bench.device
    requests.Bench(smoke.checkpoint, digits, device="cpu")
    assert len(asked) == 1, "a device that was named is not picked again"
