"""What the head-to-head page says, from rows that are known."""

import pytest

from softprune import artifacts, comparisons, runs, verdicts


def test_a_baseline_reaches_what_is_reported_at_most_two_points_below(monkeypatch):
    # reported of neggrad+: 89.91 - 94.89 = -4.98; of scrub 94.79 - 94.89 = -0.10
    ours = {"neggrad+": {"change": -6.97, "forgotten": 0.02},
            "scrub": {"change": -2.11, "forgotten": 0.073}}
    monkeypatch.setattr(comparisons, "compared_row", lambda d, m: ours.get(m))
    found = {r["method"]: r for r in comparisons.beside_reported("cifar10")}
    assert set(found) == {"neggrad+", "scrub"}
    assert found["neggrad+"]["reported"] == pytest.approx(-4.98) and found["neggrad+"]["reached"]
    assert not found["scrub"]["reached"]
    assert found["scrub"]["left-reported"] == 0 and found["scrub"]["left"] == pytest.approx(7.3)
    assert comparisons.beside_reported("digits") == []
    # retrained there: 94.81 - 94.89 = -0.08; here 0.92, so a point of ours came by itself
    ours["retrained"] = {"change": 0.92, "forgotten": 0.0}
    for change, reached in ((-5.97, True), (-5.99, False)):
        ours["neggrad+"]["change"] = change
        found = {r["method"]: r for r in comparisons.beside_reported("cifar10")}
        assert found["neggrad+"]["reached-beside"] == reached and found["neggrad+"]["reached"]


def test_baselines_without_a_reported_figure_are_named(monkeypatch):
    # of CIFAR-100 pour-p alone is reported beside the retrained network
    rows = [{"method": m, "change": 0.0, "forgotten": 0.0}
            for m in ("soft", "best", "retrained", "pour-p", "ssd", "fine-tune")]
    monkeypatch.setattr(comparisons, "compared_methods", lambda d: rows)
    assert comparisons.unreported("cifar100") == ["fine-tune", "ssd"]


def test_a_choice_at_the_edge_of_what_was_tried_is_named():
    tried = [{"options": {"alpha": a, "rate": r}} for a, r in ((10, 1), (25, 1), (50, 2), (5, 1))]
    for chosen, edge in ((5, ["alpha"]), (10, []), (25, []), (50, ["alpha"])):
        setting = {"chosen": {"alpha": chosen, "rate": 1}, "tried": tried}
        assert comparisons.at_edge(setting) == edge, "of two values each is at an edge"


def test_what_is_left_to_a_refit_is_asked_of_methods_that_forget_and_spare(monkeypatch):
    found = {"retrained": (0, 0, 0.70), "gone": (0, 0, 0.71), "hidden": (0.01, -0.5, 0.72),
             "leaves": (0.02, 0, 0.5), "costs": (0, -0.6, 0.5)}
    keys = ("forgotten", "change", "refit")
    rows = [{"method": m} | dict(zip(keys, v, strict=True)) for m, v in found.items()]
    monkeypatch.setattr(comparisons, "compared_methods", lambda d: rows)
    counted = [{"forget": "cat", "n": 50}, {"forget": "dog", "n": 40}, {"forget": "car", "n": 9}]
    monkeypatch.setattr(comparisons, "_rows", lambda d, **where: counted)
    monkeypatch.setattr(comparisons, "classes", lambda d: ["cat", "dog"])
    told = comparisons.left_to_refit("cifar10")
    assert [[r["method"] for r in told[k]] for k in ("none", "some")] == [["gone"], ["hidden"]]
    assert told["retrained"] == 0.70 and told["images"] == 90


def test_a_baseline_that_leaves_the_features_alone_is_told(monkeypatch):
    rows = [{"method": m, "forgotten": f, "inside": i} for m, f, i in (
        ("ssd", 0.01, 0.77), ("svd", 0.02, 0.8), ("salun", 0.0, 0.75), ("head-mask", 0.0, 0.8))]
    monkeypatch.setattr(comparisons, "compared_methods", lambda d: rows)
    monkeypatch.setattr(comparisons, "_over_classes", lambda *of: 0.8)
    assert [(r["method"], r["before"]) for r in comparisons.turned_fake("cifar100")] == [
        ("ssd", 0.8)], "a fake by design is none by tuning, and .75 is less than .95 of .8"


def test_the_bars_verdict_and_the_claims(monkeypatch):
    ratios = {"soft": 1.0, "best": 0.5, "ssd": 99.0, "salun": 5000.0, "retrained": 40_000.0}
    rows = {m: {"ratio": r, "request": r / 1e4, "prepare": 7.0} for m, r in ratios.items()}
    monkeypatch.setattr(comparisons, "compared_row", lambda d, m: rows.get(m))
    assert [b["met"] for b in comparisons.speed_bar("cifar10")] == [False, True, True]
    monkeypatch.setattr(comparisons, "compared", lambda: ["cifar10"])
    monkeypatch.setattr(runs, "pages", lambda: ["cifar10"])
    there = {"soft": 1e-4}
    monkeypatch.setattr(comparisons, "_elsewhere", lambda d, m: there.get(m))
    assert comparisons.times_apart() == 1, "another run took as long"
    assert verdicts.judge_speed("cifar10", "soft")["verdict"] == "does not hold"
    judged = verdicts.judge_speed("cifar10", "best")  # twice as fast: 198 times against ssd
    assert judged["verdict"] == "holds for a class that was fitted beforehand"
    # the other's 9.9 ms against 7.00005 s
    assert "fit beforehand, 7.0 s: 710 times as long as ssd" in judged["text"]
    there["soft"] = 0.8e-4
    assert comparisons.times_apart() == 1.25, "as much as one run's time may be off"
    assert comparisons.times_apart("best") == 1.25, "of which no other run is known"
    for method in ("soft", "best"):  # 99 of 100, and 198: one may be as well, one not
        verdict = verdicts.judge_speed("cifar10", method)["verdict"]
        assert verdict.startswith("open: a ratio is within a factor of 1.2" if method == "soft"
                                  else "holds for")
    there["best"] = 0.2e-4  # of .5e-4, so 198 times are within a factor of 2.5 of 100
    assert comparisons.times_apart() == 2.5 and comparisons.times_apart("soft") == 1.25
    assert verdicts.judge_speed("cifar10", "best")["verdict"].startswith("open")
    assert verdicts.judge_speed("cifar10", "prototype") is None, "an older page is without its row"
    assert verdicts.judge_speed("cifar100", "soft") is None


def test_what_holds_in_part_or_is_open_is_counted_apart():
    said = ["holds", "holds for a class that was fitted beforehand", "does not hold",
            "holds under its own classifier only", "in part: lower, but most of the excess is left",
            "open: a ratio is near", "no evidence: nothing leaked before"]
    ours = [{"variant": "plain", "verdict": v} for v in said]
    claim = {"ours": [*ours, {"variant": "`best`", "verdict": "holds"}]}
    assert verdicts.held(claim, "plain") == {"holds": 2, "part": 2, "open": 1, "judged": 6}
    assert verdicts.held(claim, "`best`") == {"holds": 1, "part": 0, "open": 0, "judged": 1}
    assert verdicts.held(claim, "`searched`")["judged"] == 0


def test_figures_of_other_papers_keep_their_own_conventions():
    for group in comparisons.reported()["accuracies"]:
        with_mia = ["mia" in r for r in group["rows"]]
        assert (all(with_mia) and group["mia"]) or not any(with_mia)
        assert {"original", "retrained"} <= {r["method"] for r in group["rows"]}


def test_headlines_come_from_their_own_records(monkeypatch):
    def record(width, ssd):
        times = {"soft": 0.001, "best": 0.002, "ssd": 0.001 * ssd, "salun": 5.0, "retrained": 2.0}
        rows = [artifacts.row(m, k, v, forget="cat") for m, t in times.items()
                for k, v in (("time-request", t), ("ratio-request-soft", t / 0.001))]
        rows.append(artifacts.row("best", "time-prepare", 12, "s", forget="cat"))
        return {"stage": "headline", "rows": rows, "provenance": {"device": "cpu"}, "parameters": {
            "dataset": "cifar10", "architecture": "resnet18", "width": width, "epochs": 9,
            "profile": "laptop"}}

    monkeypatch.setattr(runs, "records", lambda: [record(64, 99), record(32, 101)])
    half, full = comparisons.headlines()
    assert (half["width"], full["width"], half["prepare"], half["forget"]) == (32, 64, 12, "cat")
    assert half["device"] == "cpu" and half["epochs"] == 9
    assert [b["met"] for b in half["bars"]] == [True] * 3
    assert [b["met"] for b in full["bars"]] == [False, True, True]


def test_fractions_are_read_from_the_pages_list_of_methods(monkeypatch, tmp_path):
    import nbformat

    text = ("soft             reads at request: table              fraction=0.15\n"
            "hard             reads at request: table              fraction=0.05\n"
            "cse              reads at request: table              alpha=0, fraction=0.25\n")
    cell = nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output(
        "stream", name="stdout", text=text)])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "page.ipynb")
    monkeypatch.setattr(comparisons.notebooks, "published", lambda *a: tmp_path / "page.ipynb")
    assert comparisons.plain_fractions("any") == {"soft": 0.15, "hard": 0.05}


def test_every_baseline_says_in_a_line_what_it_does():
    told = {m["method"]: m for m in comparisons.baselines()}
    assert {"head-mask", "pour-p", "ssd", "salun", "retrain"} <= set(told)
    assert all(len(m["does"].split()) > 4 and "|" not in m["does"] for m in told.values())
    assert told["ssd"]["reads"] == ("forget", "retain") and not told["pour-p"]["reads"]


def test_whole_epochs_stand_beside_few_steps(monkeypatch):
    def row(method, metric, value, split=None, forget="cat"):
        return {"method": method, "metric": metric, "value": value, "forget": forget} | (
            {"split": split} if split else {})

    rows = [row("best", "time-edit", 0.25, forget=f) for f in ("cat", "dog")]
    for forget, kept, taken in (("cat", 0.9, 8.0), ("dog", 0.8, 4.0)):
        rows += [row("salun", "accuracy", kept, "retained-test", forget),
                 row("salun", "accuracy", 0.5, "retained-train", forget),
                 row("salun", "accuracy", 0.0, "forgotten-test", forget),
                 row("salun", "accuracy-inside-only", 0.3, "forgotten-test", forget),
                 row("salun", "accuracy-head-refit", 0.7, "forgotten-test", forget),
                 row("salun", "time-select", 1.0, forget=forget),
                 row("salun", "cpu-select", 2.0, forget=forget),  # more threads than one
                 row("salun", "time-edit", 9.0, forget=forget),  # on a busy machine
                 row("salun", "cpu-edit", taken, forget=forget)]
    own = dict(dataset="cifar10", architecture="resnet18", width=16, penalty="so", seed=0)
    record = {"stage": "longer", "parameters": own, "rows": rows,
              "extra": {"epochs": 1.0, "steps": 334, "trials": {"salun": [{}, {}, {}, {}]}}}
    monkeypatch.setattr(runs, "records", lambda: [record])
    monkeypatch.setattr(runs, "identity", lambda d: own)
    monkeypatch.setattr(comparisons, "compared", lambda: ["cifar10"])
    monkeypatch.setattr(comparisons, "classes", lambda d: ["cat", "dog"])
    monkeypatch.setattr(comparisons, "compared_row", lambda d, m: {"method": m})
    monkeypatch.setattr(comparisons, "_over_classes", lambda *of: 0.86)
    told = comparisons.longer("cifar10")
    assert (told["steps"], told["trials"]) == (334, 4)
    (found,) = told["rows"]
    assert found["change"] == pytest.approx(-1.0) and found["forgotten"] == 0
    assert (found["inside"], found["refit"]) == pytest.approx((0.3, 0.7))
    assert found["request"] == pytest.approx(7.0)  # of (1 + 8) and (1 + 4)
    assert found["ratio"] == pytest.approx(28.0)
    monkeypatch.setattr(comparisons, "classes", lambda d: ["cat"])
    assert comparisons.longer("cifar10") is None, "of other classes than the page's"
