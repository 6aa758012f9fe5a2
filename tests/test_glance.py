"""The front page's line for every edit says what its records say, and nothing that they do not."""

import pytest

from softprune import (
    bar,
    comparisons,
    findings,
    front,
    glance,
    ladder,
    paths,
    pruning,
    runs,
    summaries,
)


@pytest.fixture
def two_sets(monkeypatch):
    """`best` and a retrained network on two sets, three networks, one attacked by its page."""
    rows = {("a", "best"): {"prepare": 2.0, "request": 1e-3, "refit": 0.5, "forgotten": 0.5},
            ("cifar10", "best"): {"prepare": 9.0, "request": 4e-4, "refit": 0.25,
                                  "forgotten": 0.0},
            ("cifar10", "retrained"): {"prepare": None, "request": 60.0, "refit": 0.125,
                                       "forgotten": 0.0}}
    monkeypatch.setattr(comparisons, "compared", lambda: ["a", "cifar10"])
    monkeypatch.setattr(comparisons, "compared_row", lambda d, m: rows.get((d, m)))
    monkeypatch.setattr(comparisons, "refit_before", lambda d: {"cifar10": 0.75}[d])
    monkeypatch.setattr(comparisons, "right_before", lambda d: {"cifar10": 0.875}[d])
    monkeypatch.setattr(comparisons, "compared_turns", lambda d: {"a": [
        {"method": "pour-p", "n": 2, "forgotten-mean": 0.0, "forgotten-worst": 0.0,
         "change-mean": -0.1, "change-worst": -2.0}]}.get(d, []))
    network = {"soft": {"classes": 10, "met": False}, "guarded": None}
    monkeypatch.setattr(front, "front_table", lambda: [
        network | {"best": {"classes": n, "met": met}}
        for n, met in ((10, True), (10, False), (3, True))])
    monkeypatch.setattr(bar, "bars", lambda d, told: (
        told["forgotten"] == 0, told["change-worst"] >= -1))
    monkeypatch.setattr(runs, "pages", lambda: ["a", "cifar10"])
    monkeypatch.setattr(summaries, "in_turn", lambda d, m: {
        "forgotten-mean": 0.0, "forgotten-worst": 0.0, "change-mean": 0.1, "change-worst": 0.0,
        "n": 10})
    monkeypatch.setattr(summaries, "beside", lambda d, stage, edit, metric: (
        {"value": 0.75} if (d, edit, metric) == ("a", "best", "auc-t1-lira-online") else None))
    monkeypatch.setattr(findings, "shadowed", lambda d: {
        "auc": {"lira-online": {"searched": {"value": 0.5}}}} if d == "cifar10" else None)
    return {line["edit"]: line for line in glance.at_a_glance()}


def test_a_line_has_the_least_and_the_largest_of_the_sets_and_the_refit_of_one(two_sets):
    best = two_sets["best"]
    assert best["prepare"] == (2.0, 9.0) and best["request"] == (4e-4, 1e-3)
    assert best["refit"] == 25.0 and best["auc"] == {"a": {"value": 0.75}}
    again = two_sets["retrained"]
    assert again["prepare"] is None and again["request"] == (60.0, 60.0)
    assert again["met"] is None and again["refit"] == 12.5
    assert two_sets["original"]["refit"] == 75.0


def test_the_picture_has_what_is_right_and_what_a_refit_finds_the_goal_last(two_sets):
    from softprune import plots

    rows = glance.hidden_or_gone()
    assert rows == [{"edit": "original", "right": 87.5, "refit": 75.0},
                    {"edit": "best", "right": 0.0, "refit": 25.0},
                    {"edit": "retrained", "right": 0.0, "refit": 12.5}]
    figure, alt = plots.hidden_or_gone(rows)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [r["edit"] for r in rows]
    assert figure.axes[0].lines[0].get_xdata()[0] == 12.5  # the dotted line: the retrained one
    assert "best 0 and 25 percent" in alt


def test_networks_with_some_of_the_classes_are_counted_apart(two_sets):
    counted = {edit: [line[k] for k in ("met", "tried", "some_met", "some_tried")]
               for edit, line in two_sets.items()}
    assert counted["best"] == [1, 2, 1, 1]
    assert counted["soft"] == [0, 3, None, None]
    assert counted["head-mask"] == [2, 2, None, None]  # the fake meets it everywhere
    assert counted["pour-p"] == [None, None, 0, 1]  # two of ten classes, one too dear
    assert counted["guarded"] == counted["retrained"] == [None] * 4


def test_what_was_not_measured_is_not_told(two_sets):
    assert list(two_sets) == [*glance.EDITS, "retrained"]
    guarded = two_sets["guarded"]
    assert guarded.pop("edit") == "guarded"
    assert guarded.pop("auc") == guarded.pop("others") == {}
    assert set(guarded.values()) == {None}


def test_edits_that_a_page_does_not_attack_are_told_by_the_benchmark(two_sets):
    assert two_sets["searched"]["auc"] == {"cifar10": {"value": 0.5}}
    assert two_sets["searched"]["others"] == {}


@pytest.mark.parametrize("dataset, architecture", [("digits", "digits-cnn"),
                                                   ("cifar10", "resnet18")])
def test_where_edits_act_is_where_the_stored_ones_are(dataset, architecture, monkeypatch):
    monkeypatch.setattr(runs, "identity", lambda d: {
        "architecture": architecture, "width": 16, "profile": "laptop"})
    sites, lines = glance.acting(dataset)
    told = {line["edit"]: line for line in lines}
    assert told["soft"]["gates"] == sites[-1:]
    folder = paths.shipped() / dataset / "laptop"
    shipped = sorted(folder.glob(f"{architecture}-w16-so-0.01-s0.gates-*.safetensors"))
    rungs = [r for p in shipped if (r := p.stem.rsplit("-", 1)[1]) in told]
    assert {"calibrated", "searched", "best"} <= set(rungs)
    for path, rung in ((p, r) for p in shipped for r in rungs if p.stem.endswith(r)):
        stored = ladder.load_gates(path)[0][3]
        along = {n.removeprefix(pruning.DIRECTION): g for n, g in stored.items()
                 if pruning.is_direction(n)}
        assert set(told[rung]["directions"]) == set(along)
        assert {len(g) for g in along.values()} <= {told[rung]["pairs"]}
        assert set(told[rung]["gates"]) == set(pruning.multiplied(stored))
        assert bool(told[rung]["shifts"]) == any(map(pruning.is_shift, stored))


def test_the_figure_says_in_words_where_edits_act(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "identity", lambda d: {
        "architecture": "resnet18", "width": 16, "profile": "laptop"})
    monkeypatch.setattr(comparisons, "compared", lambda: [])
    alt = glance.pictures(tmp_path)["where-edits-act"]
    assert (tmp_path / "where-edits-act.png").exists()
    assert alt.startswith("Where each edit acts") and "soft at layer4;" in alt
