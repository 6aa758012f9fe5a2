"""Baselines with whole epochs: how many steps that is, and trials around a rate."""

import sys
import types

import pytest
import torch

from softprune import paths

sys.path.insert(0, str(paths.root() / "benchmarks"))
import longer


def test_an_epoch_is_a_pass_over_the_images_of_the_other_classes():
    labels = torch.arange(10).repeat_interleave(4750)
    bench = types.SimpleNamespace(images=types.SimpleNamespace(
        split=lambda name: (None, labels), class_names=tuple("abcdefghij")))
    assert longer.steps_of(bench, 1) == 334  # 42,750 images, 128 a step
    assert longer.steps_of(bench, 2) == 668


def test_trials_are_around_the_rate_of_few_steps_and_keep_the_rest(monkeypatch):
    asked = []

    def trial(bench, access, method, classes, options):
        asked.append(options)
        return {"retained": 0.9, "forgotten": 0.0, "seconds": 1.0}

    monkeypatch.setattr(longer.tuning, "trial", trial)
    contest = types.SimpleNamespace(bench=None, access=None, settings={
        "neggrad+": {"balance": 0.97, "rate": 0.02}})
    tried = longer.tuned(contest, "neggrad+", 334, [9], lambda text: None)
    assert [o["rate"] for o in asked] == pytest.approx([0.02, 0.005, 0.01, 0.04])
    assert {o["balance"] for o in asked} == {0.97} and {o["steps"] for o in asked} == {334}
    assert longer.tuning.best(tried)["rate"] == 0.02, "of equals the earliest"


def test_what_was_not_tuned_is_a_line(smoke, monkeypatch):
    monkeypatch.setattr(longer, "opened", lambda dataset, path: smoke)
    monkeypatch.setattr(longer.tuning, "read", lambda: {})
    for methods, message in (("salun", "softprune tune"), ("sadun", "'sadun': expected")):
        monkeypatch.setattr(sys, "argv", ["longer.py", "digits", "net", "three", "--methods",
                                          methods])
        with pytest.raises(SystemExit, match=message):
            longer.main()


def test_what_is_timed_is_judged_as_in_the_head_to_head(smoke):
    contest = longer.headtohead.Contest(smoke, {})
    contest.settings["salun"] = {"steps": 3}
    rows = longer.timed(contest, "salun", 3, 1)
    found = {(r["metric"], r.get("split")) for r in rows}
    assert {("accuracy", "retained-test"), ("accuracy", "forgotten-test"), ("time-edit", None),
            ("accuracy-head-refit", "forgotten-test")} <= found
    assert {r["forget"] for r in rows} == {"three"} and {r["method"] for r in rows} == {"salun"}
