"""Networks side by side: recipes and their goals, every class in turn, the spread over seeds."""

import statistics

import numpy as np

from softprune import choices, ladder, profiles, runs, summaries

METHODS = ("soft", "hard", *ladder.RUNGS)


def recipes() -> list[dict]:
    """Each recipe's goal (`profiles.GOALS`) beside what its best training reached on test images:
    of several lengths and options the one that was best on the validation split.

    Returns:
        Dicts with `dataset`, `profile`, `architecture`, `goal` (a share), `reached` (test
        accuracy), `n` (test images), `epochs`, `batch_size`, `minutes` by the clock and `device`,
        all None where the recipe was never trained; `own`, the epochs that the profile has; and
        `runs`, the test accuracies of all its trainings, least first.
    """
    made = []
    for (dataset, profile, architecture), goal in profiles.GOALS.items():
        own = profiles.profile_defaults(dataset, profile, architecture=architecture)
        wanted = {"dataset": dataset, "profile": profile, "architecture": architecture,
                  "width": own["width"], "penalty": "so", "seed": 0, "without": []}
        found = [r for r in runs.records()
                 if r["stage"] == "train" and wanted.items() <= r["parameters"].items()]
        best = max(found, default=None, key=lambda r: runs.value_in(
            r, method="original", metric="accuracy", split="validation"))
        told = dict.fromkeys(("reached", "n", "epochs", "batch_size", "minutes", "device"))
        if best:
            row = runs.row_in(best, method="original", metric="accuracy", split="test")
            told = {"reached": row["value"], "n": row["n"],
                    **{k: best["parameters"][k] for k in ("epochs", "batch_size")},
                    "minutes": runs.row_in(best, metric="time-train")["value"] / 60,
                    "device": best["provenance"]["device"]}
        made.append({"dataset": dataset, "profile": profile, "architecture": architecture,
                     "goal": goal, "own": own["epochs"], **told, "runs": sorted(runs.value_in(
                         r, method="original", metric="accuracy", split="test") for r in found)})
    return made


def tricks() -> dict | None:
    """What averaging weights, and trading width for depth, are worth (`benchmarks/recipes.py`).

    Returns:
        None where it was not measured; else `seeds`, `epochs`, `averaged`: decay -> (mean, low,
        high), test accuracy of the averages less that of the weights, and `depths`: architecture ->
        a dict of `width`, `accuracy` (test), and against resnet18, paired by seed, `gap` (mean,
        low, high) and `pace`, the mean ratio of training times. Accuracies in points.
    """
    found = [r for r in runs.records() if r["stage"] == "recipes"]
    if not found:
        return None
    own = {"method": "resnet18", "split": "test"}
    names = {r["metric"] for r in found[0]["rows"] if r["metric"].startswith("accuracy-averaged-")}

    def less(told: dict, than: dict) -> tuple[float, float, float]:
        return runs.interval([100 * (runs.value_in(r, **told) - runs.value_in(r, **than))
                              for r in found])

    def depth(name: str) -> dict:
        times = [[runs.value_in(r, method=m, metric="time-train") for m in (name, "resnet18")]
                 for r in found]
        return {"width": int(runs.value_in(found[0], method=name, metric="width")),
                "accuracy": 100 * runs.mean_in(found, name, "accuracy", split="test"),
                "gap": less({"method": name, "metric": "accuracy", "split": "test"},
                            own | {"metric": "accuracy"}),
                "pace": statistics.fmean(a / b for a, b in times)}

    return {"seeds": len(found), "epochs": found[0]["parameters"]["epochs"],
            "averaged": {float(n.removeprefix("accuracy-averaged-")): less(
                own | {"metric": n}, own | {"metric": "accuracy"}) for n in sorted(names)},
            "depths": {name: depth(name) for name in dict.fromkeys(
                r["method"] for r in found[0]["rows"])}}


def over_seeds(dataset: str, width: int, method: str, penalty: str = "so") -> dict | None:
    """Mean and 95 % t interval over training seeds of every class in turn; None where none is.

    Returns:
        `n` seeds, and for `forgotten`, `worst`, `change`, `change-worst` triples (mean, low,
        high) in points.
    """
    where = {"stage": "seeds", "dataset": dataset, "width": width, "method": method,
             "penalty": penalty, "sites": "each"}
    names = {"forgotten": "forgotten-mean", "worst": "forgotten-worst", "change": "change-mean",
             "change-worst": "change-worst"}
    by_seed = {k: {r["seed"]: r["value"] for r in runs.rows(metric=f"all-classes-{m}", **where)}
               for k, m in names.items()}
    if not by_seed["change"]:
        return None
    return {"n": len(by_seed["change"])} | {
        k: runs.interval(list(v.values())) for k, v in by_seed.items()}


def beside_retrained(dataset: str, width: int, method: str, forget: str,
                     penalty: str = "so") -> dict | None:
    """Retained accuracy of a method's request less the retrained model's, paired by seed.

    Returns:
        `n` seeds and `gap`, a triple (mean, low, high) in points; None where none is.
    """
    where = {"stage": "seeds", "dataset": dataset, "width": width, "metric": "accuracy",
             "penalty": penalty, "forget": forget, "split": "retained-test"}
    ours, theirs = ({r["seed"]: r["value"] for r in runs.rows(method=m, **where)}
                    for m in (method, "retrained"))
    both = sorted(set(ours) & set(theirs))
    if not both:
        return None
    return {"n": len(both),
            "gap": runs.interval([100 * (ours[s] - theirs[s]) for s in both])}


def networks(dataset: str) -> list[dict]:
    """The networks of a data set whose every class was forgotten in turn, narrow ones first.

    Returns:
        Dicts with `label` (its epochs, and its batches, in it where two networks differ in nothing
        else),
        `architecture`, `width`, `penalty`, `profile`, `epochs`, `n` seeds, `test` (share; mean
        over seeds), `weights` (hashes, of the seeds that tell), `parameters` (numbers in the
        network), and a dict a method (`soft`, `hard`, `calibrated`, `best`, `inside`: `best` under
        the untouched classifier): how many
        `classes`, `forgotten`, `change` (means over classes and seeds), `worst`, `change-worst`
        (of all), in points, and `request`, `prepare` in seconds (`prepare` for
        fitted gates). `setting` is that of `best`, and `earlier` says that it was chosen anew
        since. `processor` is what the times were taken on, where seeds differ in it that of the
        first seed.
    """
    kinds = ("architecture", "width", "penalty", "profile", "epochs", "batch_size")
    groups: dict[tuple, list[dict]] = {}
    for r in runs.records():
        if r["stage"] == "seeds" and r["parameters"]["dataset"] == dataset:
            groups.setdefault(tuple(r["parameters"][k] for k in kinds), []).append(r)
    made = []
    for at, found in groups.items():
        entry = dict(zip(kinds, at, strict=True)) | {"n": len(found)}
        entry["test"] = runs.mean_in(found, "original", "accuracy", split="test")
        entry["weights"] = {r["extra"]["weights"] for r in found if "weights" in r["extra"]}
        entry["parameters"] = runs.mean_in(found, "original", "parameters")
        fitted = [r["extra"]["rungs"]["best"] for r in found]
        entry["setting"] = choices.setting("best", dataset, fitted[0])
        entry["earlier"] = any(f != ladder.options(
            "best", dataset, entry["profile"]).told() for f in fitted)
        for method in (*METHODS, "inside"):
            told = ({"method": "best", "sites": "inside"} if method == "inside"
                    else {"method": method, "sites": "each"})
            each = {m: [runs.value_in(r, metric=f"all-classes-{m}", **told) for r in found]
                    for m in summaries.TURN}
            entry[method] = {
                "classes": runs.row_in(found[0], metric="all-classes-change-mean", **told)["n"],
                "forgotten": statistics.fmean(each["forgotten-mean"]),
                "worst": max(each["forgotten-worst"]),
                "change": statistics.fmean(each["change-mean"]),
                "change-worst": min(each["change-worst"])}
        # times of one processor alone: another's differ by more than networks do
        entry["processor"] = processor(min(found, key=lambda r: r["parameters"]["seed"]))
        timed = [r for r in found if processor(r) == entry["processor"]]
        for method in METHODS:
            entry[method]["request"] = sum(runs.mean_in(timed, method, f"time-{k}")
                                           for k in ("select", "edit"))
            if method in ladder.RUNGS:
                entry[method]["prepare"] = runs.mean_in(timed, method, "time-prepare")
        made.append(entry)
    same = ("architecture", "width", "penalty")
    for entry in made:
        alike = [e for e in made if all(e[k] == entry[k] for k in same)]
        label = f"{entry['architecture']}, width {entry['width']}"
        label += f", {entry['epochs']} epochs" if len(alike) > 1 else ""
        if sum(e["epochs"] == entry["epochs"] for e in alike) > 1:
            label += f", batches of {entry['batch_size']}"
        entry["label"] = label
    return sorted(made, key=lambda e: [e[k] for k in (*same, "epochs", "batch_size")])


def processor(record: dict) -> str:
    """What a record was measured on, as its maker calls it, in short.

    Example:
        >>> processor({"provenance": {"device": "cpu Intel(R) Xeon(R) Processor, 1 threads"}})
        'Intel Xeon'
    """
    name = record["provenance"]["device"].removeprefix("cpu ").partition(",")[0]
    return name.replace("(R)", "").removesuffix(" Processor")


def refitted(dataset: str) -> list[dict]:
    """What a refitted classifier finds of a class, where a retrained network is there to compare.

    Returns:
        Dicts with `architecture`, `width`, `penalty`, `epochs`, `seed`, `forget`, and shares
        `original`, `soft`, `hard`, `calibrated`, `best`, `retrained`; `gap` is what the others
        have after `best` less what they have in the retrained network, in points.
    """
    made = []
    for r in runs.records():
        if r["stage"] != "seeds" or r["parameters"]["dataset"] != dataset:
            continue
        names = {row["forget"] for row in r["rows"] if row["metric"] == "accuracy-head-refit"}
        for name in sorted(names):
            entry = {k: r["parameters"][k] for k in ("architecture", "width", "penalty", "epochs",
                                                     "seed")}
            entry |= {m: runs.value_in(r, metric="accuracy-head-refit", method=m, forget=name)
                      for m in ("original", *METHODS, "retrained")}
            kept = [runs.value_in(r, metric="accuracy", method=m, forget=name,
                                  split="retained-test") for m in ("best", "retrained")]
            made.append(entry | {"forget": name, "gap": 100 * (kept[0] - kept[1])})
    return sorted(made, key=lambda e: (e["architecture"], e["width"], e["penalty"], e["forget"],
                                       e["seed"]))


def over_references(dataset: str, width: int, penalty: str = "so") -> dict | None:
    """`best` beside the networks retrained without a class, over the classes of the first seed.

    Returns:
        `n` classes, and (mean, low, high) in points of `gap`, what the others have after `best`
        less what they have in the retrained network, and of `refit`, what a refitted classifier
        finds of the class less what it finds in the retrained network; None where none is.
    """
    found = [r for r in refitted(dataset) if (r["width"], r["penalty"], r["seed"]) ==
             (width, penalty, 0) and r["architecture"] == "resnet18"]
    if not found:
        return None
    return {"n": len(found), "gap": runs.interval([r["gap"] for r in found]),
            "refit": runs.interval([100 * (r["best"] - r["retrained"]) for r in found])}


def each(dataset: str) -> list[dict]:
    """Class by class (`benchmarks/each.py`): networks and rungs, with the spread over classes.

    Returns:
        Dicts with the network's `architecture`, `width`, `penalty`, `epochs` and `seed`, `rung`,
        `n` classes, shares `before` and `refit` that a refitted classifier finds of a class in the
        original and after the edit, `inside` (accuracy under the classifier before), means over
        classes; `refit-spread` and `change-spread`, standard deviations over classes (shares,
        points), `change` (mean, points) and `low`, `high`, the classes between which nine tenths
        lie.
    """
    made = []
    for r in runs.records():
        if r["stage"] != "each" or r["parameters"]["dataset"] != dataset:
            continue
        before = runs.by_class(r["rows"], "original")["accuracy-head-refit"]
        for rung in r["extra"]["options"]:
            found = runs.by_class(r["rows"], rung)
            refit, change = found["accuracy-head-refit"], list(found["change"].values())
            low, high = np.quantile(change, [0.05, 0.95])
            made.append({k: r["parameters"][k] for k in (
                "architecture", "width", "penalty", "epochs", "seed")} | {
                "rung": rung, "n": len(refit), "refit": statistics.fmean(refit.values()),
                "before": statistics.fmean(before[c] for c in refit),
                "inside": statistics.fmean(found["accuracy-inside-only"].values()),
                "refit-spread": statistics.stdev(refit.values()),
                "change": statistics.fmean(change), "change-spread": statistics.stdev(change),
                "low": float(low), "high": float(high)})
    return sorted(made, key=lambda e: (e["architecture"], e["width"], e["penalty"], e["epochs"],
                                       e["seed"], e["rung"]))


def side_by_side() -> list[str]:
    """The data sets that have a page and several networks."""
    return [d for d in runs.pages() if len(networks(d)) > 1]


def wider(dataset: str) -> list[dict]:
    """Those of `networks` that differ from the page's own in that they are wider (and longer
    trained, where wide ones are)."""
    own = runs.identity(dataset)
    return [e for e in networks(dataset) if e["penalty"] == "so"
            and e["architecture"] == own["architecture"] and e["width"] > own["width"]]


def present(entries: list[dict]) -> list[dict]:
    """Those of `wider` whose gates have the present setting; of a width where none has, all."""
    found = {e["width"] for e in entries if not e["earlier"]}
    return [e for e in entries if not e["earlier"] or e["width"] not in found]


def helpers() -> dict:
    """What pages may call."""
    return {"recipes": recipes, "tricks": tricks, "over_seeds": over_seeds,
            "beside_retrained": beside_retrained, "networks": networks, "refitted": refitted,
            "over_references": over_references, "each_class": each, "side_by_side": side_by_side,
            "wider": wider, "present": present}
