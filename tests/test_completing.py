"""What records are given before they are written, on sets counted by hand."""

import dataclasses
import inspect
import re

import pytest
import torch

from softprune import artifacts, audit, completing, notebooks, runs, stages


def few(digits):
    """Digits with six test images: two zeros, three ones, a four."""
    return dataclasses.replace(digits, test_labels=torch.tensor([0, 0, 1, 1, 1, 4]))


def test_the_number_of_images_is_counted_where_a_row_does_not_say_it(digits):
    said = {"split": "forgotten-test", "forget": "one"}
    rows = [artifacts.row("best", "accuracy-head-refit", 0.5, **said),
            artifacts.row("best", "accuracy", 0.5, split="retained-test", forget="zero+one"),
            artifacts.row("best", "js-confusion", 0.1, "bit", forget="zero"),
            artifacts.row("best", "accuracy-inside-only", 0.5, **said, n=2)]
    assert [r["n"] for r in completing.complete(rows, few(digits))] == [3, 1, 2, 2]


def test_what_was_not_measured_on_all_images_is_left_without_a_number(digits):
    rows = [artifacts.row("best", "accuracy", 0.5, split="forgotten-train", forget="one"),
            artifacts.row("best", "recall-t4-u2", 0.5, split="forgotten-test", forget="one"),
            artifacts.row("best", "time-edit", 0.5, "s", forget="one")]
    assert completing.complete(rows, few(digits)) == rows


@pytest.mark.parametrize("stage", completing.ASKED)
def test_undone_networks_are_counted_by_what_they_were_asked(digits, stage, monkeypatch):
    """`gather` takes as many images of the class, and of the others, as a stage asks about."""
    code = "".join(c.source for c in notebooks.read(notebooks.template(stage)).cells)
    told = re.search(r"audit\.gather\(images, [^)=]*?(?:, train=\d+, test=(\d+))?\)\n", code)
    most = int(told[1] or inspect.signature(audit.gather).parameters["test"].default)
    assert completing.ASKED[stage] == most // 2
    monkeypatch.setitem(completing.ASKED, stage, 2)
    rows = [artifacts.row("best", "recall-t4-u2", 0.5, split="forgotten-test", forget=forget)
            for forget in ("zero", "one")]
    rows += [artifacts.row("best", "accuracy-t4-int4", 0.5, split="retained-test", forget="one")]
    made = completing.complete(rows, few(digits), stage=stage)
    evidence = [audit.gather(few(digits), cls, train=100, test=4).own for cls in (0, 1)]
    assert [r["n"] for r in made] == [2, 2, 2] == [
        *(int(own.sum()) for own in evidence), int((~evidence[1]).sum())]


def test_every_request_stands_beside_the_original_which_is_asked_once(digits):
    logits = torch.eye(10)[[0, 1, 1, 1, 0, 4]]  # one zero and one 1 are mistaken
    asked = []

    def original():
        asked.append(1)
        return logits

    rows = [artifacts.row("best", "accuracy", 0.0, split="forgotten-test", forget=forget)
            for forget in ("zero", "one", "zero+four")]
    made = completing.complete(rows, few(digits), original)
    own = {(r["forget"], r["split"]): (r["value"], r["n"]) for r in made
           if r["method"] == "original"}
    assert own == {("zero", "forgotten-test"): (1 / 2, 2), ("zero", "retained-test"): (3 / 4, 4),
                   ("one", "forgotten-test"): (2 / 3, 3), ("one", "retained-test"): (2 / 3, 3),
                   ("zero+four", "forgotten-test"): (2 / 3, 3),
                   ("zero+four", "retained-test"): (2 / 3, 3)}
    assert asked == [1]
    assert completing.complete(made, few(digits), original) == made and asked == [1]


def test_the_others_accuracy_is_told_where_only_its_change_was(digits):
    said = {"forget": "one", "split": "retained-test"}
    logits = torch.eye(10)[[0, 1, 1, 1, 0, 4]]  # of the others two of three are right
    rows = [artifacts.row("best", "accuracy", 0.0, split="forgotten-test", forget="one"),
            artifacts.row("best", "change", 100 / 3, "points", low=0.0, high=40.0, **said),
            artifacts.row("soft", "change", -100 / 3, "points", **said),
            artifacts.row("soft", "accuracy", 0.3, **said)]
    made = completing.complete(rows, few(digits), lambda: logits)
    kept = {r["method"]: (r["value"], r["n"], r["unit"], "low" in r) for r in made
            if r["metric"] == "accuracy" and r["split"] == "retained-test"}
    assert kept == {"best": (1.0, 3, "", False), "soft": (0.3, 3, "", False),
                    "original": (2 / 3, 3, "", False)}
    assert completing.complete(made, few(digits)) == made
    assert runs.by_class(made, "best") == {"accuracy": {"one": 0.0}, "retained": {"one": 1.0},
                                           "change": {"one": 100 / 3}}


def test_controls_and_fits_at_request_have_their_names(digits):
    rows = [artifacts.row("soft", "all-classes-change-mean", -1.0, "points", score="random",
                          gate="rank"),
            artifacts.row("hard", "all-classes-change-mean", -1.0, "points", score="random",
                          gate="hard"),
            artifacts.row("together", "several-2-time-select", 3.0, "s"),
            artifacts.row("guarded-together", "time-prepare", 3.0, "s"),
            artifacts.row("best", "time-prepare", 3.0, "s")]
    made = completing.complete(rows, few(digits))
    assert [(r["method"], r["metric"]) for r in made] == [
        ("random-channels", "all-classes-change-mean"),
        ("random-channels", "all-classes-change-mean"), ("together", "several-2-time-edit"),
        ("guarded-together", "time-edit"), ("best", "time-prepare")]
    assert [r.get("gate") for r in made[:2]] == ["rank", "hard"]


def test_gates_of_zero_are_hard_and_intervals_stay_among_shares(digits):
    rows = [artifacts.row("soft", "candidate-change-mean", -1.4, "points", gate="hard", low=-2.0),
            artifacts.row("soft", "auc-t2-all", 0.99, gate="rank", low=0.97, high=1.01)]
    closed, near = completing.complete(rows, few(digits))
    assert (closed["method"], closed["low"]) == ("hard", -2.0)
    assert (near["method"], near["low"], near["high"]) == ("soft", 0.97, 1.0)


def test_a_stage_closes_with_the_original_of_its_checkpoint(smoke):
    stage = stages.open_stage("soft-pruning", {
        "dataset": "digits", "profile": "smoke", "architecture": "", "width": 0, "penalty": "",
        "strength": -1.0, "epochs": 0, "seed": 0})
    stage.add("best", "accuracy", 0.0, split="forgotten-test", forget="three")
    rows = artifacts.read_json(stage.close())["rows"]
    logits, labels = smoke.outputs("test")[1:]
    right = (logits.argmax(1) == labels)[labels == 3].double().mean().item()
    assert {r["method"]: r["value"] for r in rows if r["split"] == "forgotten-test"} == {
        "best": 0.0, "original": right}
