"""Tables of the findings pages: what the ladder's choice tried, and the spread over seeds."""

import dataclasses
import math
import statistics

import numpy as np

from softprune import (
    artifacts,
    book,
    catalog,
    choosing,
    guarding,
    ladder,
    notebooks,
    paths,
    profiles,
    prototypes,
    requests,
    searching,
)
from softprune.errors import UserError

METHODS = ("soft", "hard", *ladder.RUNGS)
FRONT = ("soft", "hard", "best")  # what the front page shows of them


def chosen() -> dict:
    """`data/ladder.json`: data set -> rung -> `set` (what differs from the base) and `record`."""
    path = paths.root() / "data" / "ladder.json"
    return artifacts.read_json(path, "the settings that `softprune fit --choose` wrote", {})


def _choice(dataset: str, rung: str) -> dict | None:
    """The record of the trials that a rung's setting was chosen from; None where none was.

    Raises:
        UserError: the choice names a record that is not there.
    """
    entry = chosen().get(dataset, {}).get(rung)
    if entry is None:
        return None
    found = [r for r in book.records() if (r["stage"], r["key"]) == ("ladder", entry["record"])]
    if not found:
        raise UserError(f"no run record {entry['record']} for the {rung} rung of {dataset}: "
                        f"type `softprune fit --choose --dataset {dataset} --rung {rung}`")
    return found[0]


def searched(dataset: str, rung: str = "best") -> dict | None:
    """The training configuration of the network that a setting was chosen with."""
    record = _choice(dataset, rung)
    return record["parameters"] if record else None


def recipes() -> list[dict]:
    """Each recipe's goal (`profiles.GOALS`) beside what its best training reached on test images:
    of several lengths and options the one that was best on the validation split.

    Returns:
        Dicts with `dataset`, `profile`, `architecture`, `goal` (a share), `reached` (test
        accuracy), `n` (test images), `epochs`, `batch_size`, `minutes` by the clock and `device`,
        all None where the recipe was never trained; and `runs`, the test accuracies of all its
        trainings, least first.
    """
    made = []
    for (dataset, profile, architecture), goal in profiles.GOALS.items():
        width = profiles.profile_defaults(dataset, profile, architecture=architecture)["width"]
        wanted = {"dataset": dataset, "profile": profile, "architecture": architecture,
                  "width": width, "penalty": "so", "seed": 0, "without": []}
        found = [r for r in book.records()
                 if r["stage"] == "train" and wanted.items() <= r["parameters"].items()]
        best = max(found, default=None, key=lambda r: _value(
            r, method="original", metric="accuracy", split="validation"))
        told = dict.fromkeys(("reached", "n", "epochs", "batch_size", "minutes", "device"))
        if best:
            row = _row(best, method="original", metric="accuracy", split="test")
            told = {"reached": row["value"], "n": row["n"],
                    **{k: best["parameters"][k] for k in ("epochs", "batch_size")},
                    "minutes": _row(best, metric="time-train")["value"] / 60,
                    "device": best["provenance"]["device"]}
        made.append({"dataset": dataset, "profile": profile, "architecture": architecture,
                     "goal": goal, **told, "runs": sorted(_value(
                         r, method="original", metric="accuracy", split="test") for r in found)})
    return made


def trials(dataset: str, rung: str) -> list[dict]:
    """What the choice of a rung's setting tried, in order; [] where none was made.

    Returns:
        Dicts with `setting` (what is not the base's), `kind` (of `_kind`), `chosen`, `n`, and in
        points `forgotten`, `worst`, `inside`, `change`.
    """
    record = _choice(dataset, rung)
    if record is None:
        return []
    value = {(r["gate"], r["metric"]): r for r in record["rows"]}
    names = {"forgotten": "forgotten-mean", "worst": "forgotten-worst", "inside": "inside-mean",
             "change": "change-mean"}
    made = []
    for number, options in enumerate(record["extra"]["trials"]):
        at = {k: value[f"trial-{number}", f"trial-{m}"] for k, m in names.items()}
        made.append({k: r["value"] for k, r in at.items()} | {
            "setting": setting(rung, dataset, options), "chosen": options["chosen"],
            "kind": _kind(options), "n": at["change"]["n"]})
    return made


def _kind(options: dict) -> str:
    """Where a trial's gates are and what they may do: `last` (at the last site too), else `direct`
    (along directions), `close` (at most 1) or `turn` (up as well)."""
    if {"last", "all"} & set(options["sites"].split(",")):
        return "last"
    if options.get("direction"):
        return "direct"
    return "turn" if options.get("most", 1) > 1 else "close"


def fitted_steps(dataset: str) -> dict[str, int]:
    """Gradient steps of a round of a fit, by the setting of the data set: `best` and `guarded`."""
    profile = book.identity(dataset)["profile"]
    return {"best": ladder.options("best", dataset, profile).steps,
            guarding.RUNG: guarding.options(dataset, profile).steps}


def trials_meet(dataset: str, rung: str = "best") -> bool:
    """Whether some trial meets the bar under the untouched classifier too, `choosing.fulfils`."""
    return any(choosing.fulfils({"forgotten-mean": t["forgotten"] / 100,
                                 "left": max(t["forgotten"], t["inside"]) / 100,
                                 "change-mean": t["change"] / 100})
               for t in trials(dataset, rung))


# what other pages take from the stages of `notebooks.FITTED`
_TAKEN = {"soft-pruning": "requests for one class or several and their costs",
          "membership-inference": "attacks", "gone-or-hidden": "what comes back",
          "head-to-head": "the head to head"}


def older_pages(dataset: str) -> list[str]:
    """Names of the stages whose pages were executed with an earlier setting of fitted gates."""
    older = []
    for stage in _TAKEN:
        page = notebooks.published(stage, dataset)
        told = notebooks.page_metadata(page)
        parts = told.get("parts", {})
        now = notebooks.rung_settings(dataset, told.get("parameters", {}).get("profile", ""))
        if parts.get("rung settings", now) != now:
            older.append(stage)
    return older


def older_note() -> str:
    """A sentence for each data set of which `older_pages` names some; empty if there is none."""
    told = []
    for dataset in book.pages():
        if older := older_pages(dataset):
            title = catalog.catalog()[dataset]["title"]
            pages = "the page {} was" if len(older) == 1 else "the pages {} were"
            taken = "; ".join(_TAKEN[stage] for stage in older)
            told.append(f"{title}: {pages.format(', '.join(older))} executed before the present "
                        f"setting of fitted gates was found; what is taken from there ({taken}) "
                        "is of the **earlier setting**.")
    return " ".join(told)


def cheapest(dataset: str, kind: str) -> dict | None:
    """Of what was tried for `best` with gates of this kind, the cheapest that forgets under either
    classifier; where none does, the one that leaves least."""
    tried = [t for t in trials(dataset, "best") if t["kind"] == kind]
    within = [t for t in tried if t["forgotten"] <= 100 * choosing.LIMIT
              and t["inside"] <= 100 * choosing.INSIDE]
    if within:
        return max(within, key=lambda t: t["change"])
    return min(tried, key=lambda t: max(t["forgotten"], t["inside"]), default=None)


def at_last_site() -> list[str]:
    """Titles of the data sets whose chosen `best` has gates at the last site."""
    return [catalog.catalog()[d]["title"] for d in book.pages()
            if any(t["chosen"] and t["kind"] == "last" for t in trials(d, "best"))]


def along_directions() -> list[str]:
    """Titles of the data sets whose chosen `best` works along directions, not on channels."""
    return [catalog.catalog()[d]["title"] for d in book.pages()
            if any(t["chosen"] and t["kind"] == "direct" for t in trials(d, "best"))]


def setting(rung: str, dataset: str, options: dict) -> str:
    """`margin 0.3, sites late`: the searched options of a trial, in words."""
    base = dataclasses.asdict(ladder.base(rung, dataset))
    shown = ["margin", "keep", "sites" if rung == "best" else "pull"]
    shown += [k for k, v in base.items() if k not in shown and options.get(k, v) != v]
    return ", ".join(f"{k} {options[k]:g}" if isinstance(options[k], float)
                     else f"{k} {options[k]}" for k in shown)


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
    by_seed = {k: {r["seed"]: r["value"] for r in book.rows(metric=f"all-classes-{m}", **where)}
               for k, m in names.items()}
    if not by_seed["change"]:
        return None
    return {"n": len(by_seed["change"])} | {
        k: book.interval(list(v.values())) for k, v in by_seed.items()}


def beside_retrained(dataset: str, width: int, method: str, forget: str,
                     penalty: str = "so") -> dict | None:
    """Retained accuracy of a method's request less the retrained model's, paired by seed.

    Returns:
        `n` seeds and `gap`, a triple (mean, low, high) in points; None where none is.
    """
    where = {"stage": "seeds", "dataset": dataset, "width": width, "metric": "accuracy",
             "penalty": penalty, "forget": forget, "split": "retained-test"}
    ours, theirs = ({r["seed"]: r["value"] for r in book.rows(method=m, **where)}
                    for m in (method, "retrained"))
    both = sorted(set(ours) & set(theirs))
    if not both:
        return None
    return {"n": len(both),
            "gap": book.interval([100 * (ours[s] - theirs[s]) for s in both])}


def networks(dataset: str) -> list[dict]:
    """The networks of a data set whose every class was forgotten in turn, narrow ones first.

    Returns:
        Dicts with `label` (its epochs, and its batches, in it where two networks differ in nothing
        else),
        `architecture`, `width`, `penalty`, `profile`, `epochs`, `n` seeds, `test` (share; mean
        over seeds), `parameters` (numbers in the network), and a dict a method (`soft`, `hard`,
        `calibrated`, `best`, `inside`: `best` under the untouched classifier): how many
        `classes`, `forgotten`, `change` (means over classes and seeds), `worst`, `change-worst`
        (of all), in points, and `request`, `prepare` in seconds (`prepare` for
        fitted gates). `setting` is that of `best`, and `earlier` says that it was chosen anew
        since.
    """
    kinds = ("architecture", "width", "penalty", "profile", "epochs", "batch_size")
    groups: dict[tuple, list[dict]] = {}
    for r in book.records():
        if r["stage"] == "seeds" and r["parameters"]["dataset"] == dataset:
            groups.setdefault(tuple(r["parameters"][k] for k in kinds), []).append(r)
    made = []
    for at, found in groups.items():
        entry = dict(zip(kinds, at, strict=True)) | {"n": len(found)}
        entry["test"] = _mean(found, "original", "accuracy", split="test")
        entry["parameters"] = _mean(found, "original", "parameters")
        fitted = [r["extra"]["rungs"]["best"] for r in found]
        entry["setting"] = setting("best", dataset, fitted[0])
        entry["earlier"] = any(f != ladder.options(
            "best", dataset, entry["profile"]).told() for f in fitted)
        for method in (*METHODS, "inside"):
            told = ({"method": "best", "sites": "inside"} if method == "inside"
                    else {"method": method, "sites": "each"})
            each = {m: [_value(r, metric=f"all-classes-{m}", **told) for r in found]
                    for m in book.TURN}
            entry[method] = {
                "classes": _row(found[0], metric="all-classes-change-mean", **told)["n"],
                "forgotten": statistics.fmean(each["forgotten-mean"]),
                "worst": max(each["forgotten-worst"]),
                "change": statistics.fmean(each["change-mean"]),
                "change-worst": min(each["change-worst"])}
        for method in METHODS:
            entry[method]["request"] = sum(_mean(found, method, f"time-{k}")
                                           for k in ("select", "edit"))
            if method in ladder.RUNGS:
                entry[method]["prepare"] = _mean(found, method, "time-prepare")
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


def refitted(dataset: str) -> list[dict]:
    """What a refitted classifier finds of a class, where a retrained network is there to compare.

    Returns:
        Dicts with `architecture`, `width`, `penalty`, `epochs`, `seed`, `forget`, and shares
        `original`, `soft`, `hard`, `calibrated`, `best`, `retrained`; `gap` is what the others
        have after `best` less what they have in the retrained network, in points.
    """
    made = []
    for r in book.records():
        if r["stage"] != "seeds" or r["parameters"]["dataset"] != dataset:
            continue
        names = {row["forget"] for row in r["rows"] if row["metric"] == "accuracy-head-refit"}
        for name in sorted(names):
            entry = {k: r["parameters"][k] for k in ("architecture", "width", "penalty", "epochs",
                                                     "seed")}
            entry |= {m: _value(r, metric="accuracy-head-refit", method=m, forget=name)
                      for m in ("original", *METHODS, "retrained")}
            kept = [_value(r, metric="accuracy", method=m, forget=name, split="retained-test")
                    for m in ("best", "retrained")]
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
    return {"n": len(found), "gap": book.interval([r["gap"] for r in found]),
            "refit": book.interval([100 * (r["best"] - r["retrained"]) for r in found])}


def readers(dataset: str) -> dict | None:
    """Directions guarded against a reader, beside `best`, the original and retrained networks.

    Returns:
        None where nothing was measured, else `width`, `setting-of`, the data set that the setting
        was chosen on, `n` classes whose retrained network is there, `of`, the number of all that
        were fitted, `trials` (`_trial`, in the order of the record),
        the name of the `chosen` one, `others`: metric -> method -> mean over the `n`, `gaps`:
        metric -> (mean, low, high) in points of the chosen one less the retrained networks, paired
        by class, and `depths`, those of these metrics that are a linear classifier's at a depth.
    """
    found = [r for r in book.records()
             if r["stage"] == "readers" and r["parameters"]["dataset"] == dataset]
    if not found:
        return None
    rows = found[-1]["rows"]
    references = {r["forget"] for r in rows if r["method"] == "retrained"}
    other: dict[str, dict[str, list[float]]] = {}
    for r in rows:
        if r["metric"].startswith("recall-"):
            by_method = other.setdefault(r["metric"].removeprefix("recall-t4-"), {})
            by_method.setdefault(r["method"], []).append(r["value"])
    methods = list(dict.fromkeys(r["method"] for r in rows))
    looked = [m for m in methods if m.startswith("guarded") and m in other["10-nn"]]
    own = dataset in guarding.chosen()
    return {"width": found[-1]["parameters"]["width"], "n": len(references),
            "setting-of": dataset if own else guarding.LIKE.get(dataset, "cifar10"),
            "of": len({r["forget"] for r in rows if "forget" in r}), "chosen": looked[0],
            "trials": [_trial(rows, m, references) for m in sorted(methods, key=_order)],
            "depths": [k for k in other if k.startswith("probe-")],
            "others": {k: {m: statistics.fmean(v) for m, v in by_method.items()}
                       for k, by_method in other.items()},
            "gaps": {k: book.interval([100 * (a - b) for a, b in zip(
                by_method[looked[0]], by_method["retrained"], strict=True)])
                for k, by_method in other.items() if "retrained" in by_method}}


def again(dataset: str) -> dict | None:
    """What two readers that learn by steps find of a class, from features of one size
    (`benchmarks/again.py`), of the page's network.

    Returns:
        None where it was not measured, else `n` classes with a retrained network, `states` of the
        hidden layer, `orders` and `steps` of fine-tuning, `methods` in order, `mean`: reader
        (`hidden`, `relearned`; and `others`, what fine-tuning leaves them) -> method -> percent,
        mean over the classes, `reach`: reader -> method -> the least and the largest of states or
        orders, means over the classes, and `gaps`: reader -> method -> (mean, low, high) less the
        retrained networks, paired by class, in points.
    """
    own = {k: book.identity(dataset)[k] for k in ("architecture", "width", "penalty", "seed")}
    found = [r for r in book.records() if r["stage"] == "again"
             and ({"dataset": dataset} | own).items() <= r["parameters"].items()]
    if not found:
        return None
    rows = found[-1]["rows"]
    methods = list(dict.fromkeys(r["method"] for r in rows))
    value = {m: {k.removeprefix("recall-t4-"): v for k, v in _by_class(rows, m).items()}
             for m in methods}
    keys, classes = list(value["retrained"]), list(value["retrained"]["hidden"])
    reach = {k: {m: tuple(100 * statistics.fmean(r[end] for r in rows if r["method"] == m
                                                 and r["metric"] == f"recall-t4-{k}")
                          for end in ("low", "high")) for m in methods}
             for k in ("hidden", "relearned")}
    told = {k: found[-1]["extra"][k] for k in ("states", "orders", "steps")}
    return told | {"n": len(classes), "methods": methods, "reach": reach,
            "mean": {k: {m: 100 * statistics.fmean(value[m][k].values()) for m in methods}
                     for k in keys},
            "gaps": {k: {m: book.interval([100 * (value[m][k][c] - value["retrained"][k][c])
                                           for c in classes]) for m in methods} for k in keys}}


def commits() -> dict[str, int]:
    """How many records there are, `all`, and of these from a `changed` work tree, or one whose
    commit is `unknown`."""
    told = [r["provenance"]["commit"] for r in book.records()]
    return {"all": len(told), "changed": sum(c.endswith("+") for c in told),
            "unknown": told.count("unknown")}


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
    for r in book.records():
        if r["stage"] != "each" or r["parameters"]["dataset"] != dataset:
            continue
        before = _by_class(r["rows"], "original")["accuracy-head-refit"]
        for rung in r["extra"]["options"]:
            found = _by_class(r["rows"], rung)
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


def guarded_turn(dataset: str) -> dict | None:
    """The classes of a data set forgotten in turn by `guarded`, on the page's network.

    Of the record that has most classes: `benchmarks/guarded.py`, or the one the setting was chosen
    by.

    Returns:
        How many `classes`; `forgotten` and `change` (means), `worst` and `change-worst` in points,
        read under the network's own classifier, which the edit leaves as it is; `met`, whether
        these meet the whole bar; shares that a refitted classifier finds, `refit` and
        `refit-before`, and `retrained`: what it finds in the networks retrained without a class,
        of which there are `references` (None and 0 where there is none); `seconds` of a fit. None
        where nothing was measured.
    """
    looked, found = readers(dataset), _most_guarded(dataset, width=book.identity(dataset)["width"])
    if not found:
        return None
    own, before, record = found
    kept = [r for r in (looked["trials"] if looked else ()) if r["method"] == "retrained"]
    seconds = [r["value"] for r in record["rows"] if r["metric"] == "time-prepare"
               and r["method"] in (guarding.RUNG, looked and looked["chosen"])]
    return _turn(own) | {"met": met(dataset, _turn(own)),
                         "refit": statistics.fmean(own["accuracy-head-refit"]),
                         "refit-before": statistics.fmean(before["accuracy-head-refit"]),
                         "retrained": kept[0]["test"]["refit"] if kept else None,
                         "references": looked["n"] if kept else 0,
                         "seconds": statistics.fmean(seconds)}


def deeper(dataset: str) -> dict | None:
    """Directions guarded at a depth, too (`benchmarks/deep.py`), beside what the record of
    `readers` has of the same classes.

    Returns:
        None where one of both is missing; else `n` classes with a retrained network, the guarded
        `depths`, `weight` and `last`, the weights of the readers there and at the end, `seconds` of
        a fit and of an `edit`, and `table`: method (`best`, `guarded`, `deep`, `retrained`) -> a
        dict of means over these classes on the test split, `forgotten`, `refit` and the readers
        (shares), and `others` (points); `gaps`: the same keys for `guarded` and `deep` less the
        retrained network, paired by class, (mean, low, high) in points; `all`: of all classes
        that were fitted, as in `networks`.
    """
    found, looked = ([r for r in book.records() if r["stage"] == stage
                      and r["parameters"]["dataset"] == dataset] for stage in ("deep", "readers"))
    if not found or not looked:
        return None
    record, chosen_ = found[-1], readers(dataset)["chosen"]
    names = {"best": "best", "guarded": chosen_, "deep": guarding.DEEP, "retrained": "retrained"}
    rows = record["rows"] + looked[-1]["rows"]
    by_method = {m: _by_class(rows, name) for m, name in names.items()}
    references = sorted(set(by_method["retrained"]["change"]) & set(by_method["deep"]["change"]))
    keys = {"accuracy": "forgotten", "accuracy-head-refit": "refit", "change": "others"} | {
        k: k.removeprefix("recall-t4-") for k in by_method["deep"] if k.startswith("recall-t4-")}
    table = {m: {told: statistics.fmean(of[k][c] for c in references) for k, told in keys.items()}
             for m, of in by_method.items()}
    gaps = {m: {told: book.interval([(1 if k == "change" else 100)
                                     * (by_method[m][k][c] - by_method["retrained"][k][c])
                                     for c in references]) for k, told in keys.items()}
            for m in ("guarded", "deep")}
    seconds = [r["value"] for r in record["rows"] if r["metric"] == "time-prepare"]
    options = record["extra"]["options"]
    return {"n": len(references), "depths": options["depths"].split(","),
            "weight": options["deep"], "last": options["reader"],
            "seconds": statistics.fmean(seconds), "edit": _value(record, metric="time-edit"),
            "table": table, "gaps": gaps,
            "all": _turn(_test_values(record, guarding.DEEP))}


# stage of the records of `benchmarks/from_table.py`, and file of `data` with choices
UNFITTED = {prototypes.RUNG: ("from-table", prototypes.FILE),
            searching.RUNG: ("searched", searching.FILE)}


def from_table(dataset: str, rung: str = prototypes.RUNG, **at) -> dict | None:
    """Every class in turn after `prototype` or `searched` (`benchmarks/from_table.py`).

    Args:
        at: parameters of the network; without any, the page's.

    Returns:
        None where nothing was measured, else as in `networks`, with `gone` and `spared`, the two
        halves of the bar, and `met`; `options`; seconds of `prepare` (of all classes by
        `prototype`, of one by `searched`; the table apart), `select` and `edit`; `strengths` of the
        classes, sorted, where they were searched; `refit` and
        `gaps`: what a refitted classifier finds, less what it finds in the networks retrained
        without a class, and the others' change less there, paired by class, (mean, low, high) in
        points, and the same of other readers, all of `n` classes (None where there is none);
        `several`: size -> a dict as in `networks`, of requests for so many classes at once.
    """
    found = [r for r in book.records()
             if r["stage"] == UNFITTED[rung][0] and r["parameters"]["dataset"] == dataset]
    if found:
        shared = ("architecture", "width", "penalty", "seed", "profile")
        own = at or {k: v for k, v in book.identity(dataset).items() if k in shared}
        found = [r for r in found if own.items() <= r["parameters"].items()]
    if not found:
        return None
    record = found[-1]
    value = _by_class(record["rows"], rung)
    by_size: dict[int, dict[str, list[float]]] = {}
    for name, change in value["change"].items():
        turn = by_size.setdefault(1 + name.count("+"), {"accuracy": [], "change": []})
        turn["accuracy"].append(value["accuracy"][name])
        turn["change"].append(change)
    single = _turn(by_size.pop(1))
    looked = [] if at else [r for r in book.records() if r["stage"] == "readers"
                            and r["parameters"]["dataset"] == dataset]
    there = _by_class(looked[-1]["rows"], "retrained") if looked else {}
    refit = value.get("accuracy-head-refit", {})
    both = sorted(set(refit) & set(there.get("accuracy-head-refit", {})))
    gaps = {k.removeprefix("recall-t4-"): book.interval([
        (1 if k == "change" else 100) * (v[c] - there[k][c]) for c in both])
        for k, v in value.items() if both and k in there and set(both) <= set(v)}
    gone, spared = _bars(dataset, single)
    return single | {
        "gone": gone, "spared": spared, "met": gone and spared,
        "options": record["extra"]["options"],
        "prepare": statistics.fmean(r["value"] for r in record["rows"]
                                    if r["metric"] == "time-prepare"),
        **{k: _value(record, metric=f"time-{k}") for k in ("select", "edit")},
        "strengths": sorted(r["value"] for r in record["rows"] if r["metric"] == "strength"),
        "n": len(both), "gaps": gaps or None,
        "refit": 100 * statistics.fmean(refit[c] for c in both) if both else None,
        "several": {size: _turn(turn) for size, turn in sorted(by_size.items())}}


def apart(dataset: str, method: str) -> dict | None:
    """Every class in turn after one of `book.APART`, of a data set's own network: as `from_table`,
    of `guarded` the accuracies and the two halves of the bar alone; None where not measured."""
    if method != guarding.RUNG:
        return from_table(dataset, method)
    found = _most_guarded(dataset, width=book.identity(dataset)["width"])
    if found is None:
        return None
    told = _turn(found[0])
    return told | dict(zip(("gone", "spared"), _bars(dataset, told), strict=True))


def shadowed(dataset: str) -> dict | None:
    """What shadow models tell of every edit, in one run (`benchmarks/lira.py`).

    Returns:
        None where it was not measured, else `forget`, `count` of shadow models and how many were
        `retrained` without the class, `seen`, training images of each (these two None in records
        that do not tell), `auc`: attack -> method -> its row, `tpr`: attack -> method -> share of
        members found where one outsider in a hundred is taken for one, and `left`: method ->
        percent of the class right on unseen images.
    """
    found = [r for r in book.records()
             if r["stage"] == "lira" and r["parameters"]["dataset"] == dataset]
    if not found:
        return None
    rows, more, auc, tpr = found[-1]["rows"], found[-1]["extra"], {}, {}
    for r in rows:
        kind, _, attack = r["metric"].partition("-t1-")
        if kind == "auc":
            auc.setdefault(attack, {})[r["method"]] = r
        elif kind == "tpr":
            tpr.setdefault(attack, {})[r["method"]] = r["value"]
    return {"forget": rows[0]["forget"], "count": more["count"],
            "retrained": more.get("retrained"), "seen": more.get("seen"), "auc": auc, "tpr": tpr,
            "left": {r["method"]: 100 * r["value"] for r in rows if r["metric"] == "accuracy"}}


def table_elsewhere(dataset: str, rung: str = prototypes.RUNG) -> list[dict]:
    """The same of every other network that it was tried on, by the setting of the data set.

    Returns:
        Dicts as `from_table`, with the network's `architecture`, `width`, `epochs`, `penalty`,
        `seed`, and `profile`.
    """
    shared = ("architecture", "width", "penalty", "seed", "profile")
    own = {k: v for k, v in book.identity(dataset).items() if k in shared}
    told = [{k: r["parameters"][k] for k in (*shared, "epochs")} for r in book.records()
            if r["stage"] == UNFITTED[rung][0] and r["parameters"]["dataset"] == dataset]
    others = [at for at in told if not own.items() <= at.items()]
    return [at | from_table(dataset, rung, **at) for at in sorted(others, key=lambda at: (
        at["architecture"], at["width"], at["epochs"], at["penalty"], at["seed"]))]


def table_trials(dataset: str, rung: str = prototypes.RUNG) -> list[dict]:
    """What the choice of a setting of `prototype` or `searched` tried, for each number of sites
    what it would take (`prototypes.prefer`): validation split.

    Returns:
        Dicts with the setting's options, in points `left` (not told by a margin yet), `forgotten`,
        `change` and `change-worst`, how many classes, `n`, and `chosen`.
    """
    key = prototypes.chosen(UNFITTED[rung][1]).get(dataset, {}).get("record")
    found = [r for r in book.records() if r["stage"] == f"{rung}-choice" and r["key"] == key
             and r["parameters"]["dataset"] == dataset]
    if not found:
        return []
    extra, by_trial = found[-1]["extra"], {}
    for r in found[-1]["rows"]:
        trial = by_trial.setdefault(int(r["gate"].removeprefix("trial-")), {"n": r["n"]})
        trial[r["metric"].removeprefix("trial-")] = r["value"] / 100
    tried = [t | {"options": extra["trials"][i]} for i, t in by_trial.items()]
    worst = searching.WORST if rung == searching.RUNG else math.inf
    best = [prototypes.prefer([t for t in tried if t["options"]["sites"] == count], worst)
            for count in sorted({t["options"]["sites"] for t in tried})]
    return [t["options"] | {"left": 100 * t["left"], "forgotten": 100 * t["forgotten-mean"],
                            "change": 100 * t["change-mean"],
                            "change-worst": 100 * t["change-worst"], "n": t["n"],
                            "chosen": t["options"] == extra["set"]} for t in best]


def several(dataset: str) -> list[dict]:
    """Several classes at once (`benchmarks/several.py`): what is left, and what a refit finds.

    Returns:
        Dicts with `size`, `method`, `n` requests, `forgotten`, `worst`, `refit` (percent),
        `change`, `change-worst` (points), `seconds` of a fit at request (None where it is a
        look-up), and `retrained`: of the request that has one, what a refit finds after the method
        less in the network retrained without these classes, and the others' change less there, in
        points (None where there is none).
    """
    found = [r for r in book.records()
             if r["stage"] == "several" and r["parameters"]["dataset"] == dataset]
    if not found:
        return []
    rows, made = found[-1]["rows"], []
    order = ("original", "best", guarding.RUNG, requests.TOGETHER)
    methods = sorted({r["method"] for r in rows},
                     key=lambda m: order.index(m) if m in order else len(order))
    by_method = {m: _by_class(rows, m) for m in methods}
    there = by_method.pop("retrained", {"change": {}})
    for size in sorted({1 + r["forget"].count("+") for r in rows}):
        for method, of in by_method.items():
            names = [n for n in of["change"] if 1 + n.count("+") == size]
            known = next((n for n in names if n in there["change"]), None)
            seconds = [r["value"] for r in rows if r["metric"] == "time-prepare"
                       and r["method"] == method and r["forget"] in names]
            gone, change, refit = ([of[k][n] for n in names] for k in
                                   ("accuracy", "change", "accuracy-head-refit"))
            made.append({
                "size": size, "method": method, "n": len(names),
                "forgotten": 100 * statistics.fmean(gone), "worst": 100 * max(gone),
                "change": statistics.fmean(change), "change-worst": min(change),
                "refit": 100 * statistics.fmean(refit),
                "seconds": statistics.fmean(seconds) if seconds else None,
                "retrained": known and {
                    "request": known,
                    "refit": 100 * (of["accuracy-head-refit"][known]
                                    - there["accuracy-head-refit"][known]),
                    "change": of["change"][known] - there["change"][known]}})
    return made


def _by_class(rows: list[dict], method: str) -> dict[str, dict[str, float]]:
    """Metric -> class -> a method's value on the test split."""
    made: dict[str, dict[str, float]] = {}
    for r in rows:
        if r["method"] == method and r.get("split", "").endswith("test"):
            made.setdefault(r["metric"], {})[r["forget"]] = r["value"]
    return made


def _most_guarded(dataset: str, **at) -> tuple[dict, dict, dict] | None:
    """`_test_values` of `guarded` and of the original, and their record: of the network with these
    parameters, the record that has most classes; None where there is none."""
    looked, tried = readers(dataset), []
    for record in book.records():
        if record["stage"] in ("guarded", "readers") and (
                {"dataset": dataset} | at).items() <= record["parameters"].items():
            method = guarding.RUNG if record["stage"] == "guarded" else looked["chosen"]
            tried.append((_test_values(record, method), _test_values(record, "original"), record))
    return max(tried, key=lambda t: len(t[0]["accuracy"]), default=None)


def _turn(own: dict) -> dict:
    """Of `_test_values`, as in `networks`: means and worst over classes, points."""
    return {"classes": len(own["accuracy"]), "forgotten": 100 * statistics.fmean(own["accuracy"]),
            "worst": 100 * max(own["accuracy"]), "change": statistics.fmean(own["change"]),
            "change-worst": min(own["change"])}


def _test_values(record: dict, method: str) -> dict[str, list[float]]:
    """Metric -> a method's values on the test split, one a class."""
    return {k: list(v.values()) for k, v in _by_class(record["rows"], method).items()}


def two_references(dataset: str) -> dict | None:
    """What two networks retrained without the page's class have: the one in the record of
    `readers`, and the page's own; None where one of them is not there.

    Returns:
        `forget`, and pairs `refit` (percent of the class that a refitted classifier finds) and
        `others` (their accuracy less the original's, points).
    """
    name = book.requested(dataset)
    found = [r for r in book.rows(dataset=dataset, stage="readers", method="retrained", forget=name)
             if r["split"].endswith("test")]
    there = {r["metric"]: r["value"] for r in found}
    if "change" not in there or not book.has(dataset, "retrained"):
        return None
    own, original = book.request(dataset, "retrained"), book.request(dataset, "original")
    return {"forget": name,
            "refit": (100 * there["accuracy-head-refit"], 100 * own["refit"]),
            "others": (there["change"], 100 * (own["retained"] - original["retained"]))}


NEAR = 0.3  # points that the others may lie below a retrained network


def beside_bars(dataset: str) -> list[dict]:
    """`prototype`, `searched`, `best` and `guarded` against the two bars that a retrained network
    sets, over the classes that one is there for.

    Returns:
        Dicts with `edit`, `n` classes, and in points less the retrained network, (mean, low,
        high), `others` and `refit`, each with a verdict: `others-verdict`, `refit-verdict`.
    """
    found = readers(dataset)
    if not found:
        return []
    made = []
    for rung in UNFITTED:
        closed = from_table(dataset, rung)
        if closed and closed["gaps"]:
            others, refit = closed["gaps"]["change"], closed["gaps"]["accuracy-head-refit"]
            made.append({"edit": rung, "n": closed["n"], "others": others, "refit": refit,
                         "others-verdict": near(others), "refit-verdict": hidden(refit)})
    for t in (t for t in found["trials"] if t["method"] in ("best", found["chosen"])):
        others, refit = t["test"]["change-gap"], t["test"]["refit-gap"]
        made.append({"edit": "guarded" if t["pairs"] else "best", "n": found["n"],
                     "others": others, "refit": refit,
                     "others-verdict": near(others), "refit-verdict": hidden(refit)})
    return made


def near(gap: tuple[float, float, float]) -> str:
    """Whether the others lie at most `NEAR` points below the retrained networks: a verdict.

    Example:
        >>> near((-0.1, -0.2, 0.0)), near((-0.5, -0.7, -0.4))
        ('holds', 'does not hold')
    """
    mean, low, high = gap
    if low >= -NEAR:
        return "holds"
    if high < -NEAR:
        return "does not hold"
    verdict = "holds" if mean >= -NEAR else "does not hold"
    return f"{verdict} on average, the interval leaves it open"


def hidden(gap: tuple[float, float, float]) -> str:
    """Whether a refit finds more of the class than in the retrained networks: a verdict.

    Example:
        >>> hidden((15.0, 12.0, 18.0)), hidden((-1.0, -3.0, 1.0))
        ('does not hold: hidden in part', 'holds on average, the interval leaves it open')
    """
    mean, low, high = gap
    if low > 0:
        return "does not hold: hidden in part"
    if high < 0:
        return "holds, and takes more than retraining does"
    if mean > 0:
        return "does not hold on average, the interval leaves it open"
    return "holds on average, the interval leaves it open" if high > 0 else "holds"


def _order(method: str) -> tuple:
    """The original and `best` first, the retrained networks last, trials by pairs and weight."""
    if method.startswith("guarded-"):
        return 2, *(float(x) for x in method.split("-")[1:])
    return {"original": (0,), "best": (1,)}.get(method, (3,))


def _trial(rows: list[dict], method: str, references: set[str]) -> dict:
    """One method of a `readers` record.

    Returns:
        `method`, `pairs` and `weight`, `seconds` a fit (None where it is no trial), `edit` (seconds
        of a fold) and `bytes` stored a class (None where nothing is folded),
        `all`: of all classes fitted, on the test split, `forgotten`, `worst`, `change`,
        `change-worst`; and for `test` and `validation`, means over the classes with a reference,
        `forgotten`, `refit`, `change`, and (mean, low, high) in points less the retrained network,
        `refit-gap` and `change-gap`.
    """
    def of(m: str, metric: str, split: str) -> dict[str, float]:
        return {r.get("forget"): r["value"] for r in rows
                if (r["method"], r["metric"]) == (m, metric) and r.get("split", "").endswith(split)}

    pairs, weight = method.split("-")[1:] if method.startswith("guarded-") else (None, None)
    seconds = of(method, "time-prepare", "").values()
    edit, stored = (of(method, k, "").get(None) for k in ("time-edit", "size-stored"))
    gone, change = (of(method, k, "test").values() for k in ("accuracy", "change"))
    made = {"method": method, "pairs": pairs and int(pairs), "weight": weight and float(weight),
            "seconds": statistics.fmean(seconds) if seconds else None, "edit": edit,
            "bytes": stored,
            "all": {"forgotten": statistics.fmean(gone), "worst": max(gone),
                    "change": statistics.fmean(change), "change-worst": min(change)}}
    for split in ("validation", "test"):
        here = {k: of(method, m, split) for k, m in
                (("forgotten", "accuracy"), ("refit", "accuracy-head-refit"), ("change", "change"))}
        told = {k: statistics.fmean(v[c] for c in sorted(references)) for k, v in here.items()}
        for k, metric, scale in (("refit", "accuracy-head-refit", 100), ("change", "change", 1)):
            there = of("retrained", metric, split)
            told[f"{k}-gap"] = book.interval([scale * (here[k][c] - there[c])
                                              for c in sorted(references)])
        made[split] = told
    return made


def directions(dataset: str) -> list[dict]:
    """What the stored directions of `best` read at each site, means over classes on validation
    images; one dict a site, of the page's network: `site`, `n` classes, `auc`, `share-own`,
    `share-others`, `against`, `strength`."""
    width = book.identity(dataset)["width"]
    found = [r for r in book.records() if r["stage"] == "directions"
             and r["parameters"]["dataset"] == dataset and r["parameters"]["width"] == width]
    made: dict[str, dict] = {}
    for row in found[-1]["rows"] if found else ():
        at = made.setdefault(row["sites"], {"site": row["sites"], "n": row["n"]})
        at[row["metric"].removeprefix("direction-")] = row["value"]
    return list(made.values())


def fits(dataset: str) -> list[dict]:
    """Settings of `best` that were fitted from several seeds on the validation split, the chosen
    one first.

    Returns:
        Dicts with `name`, `setting`, `present` (whether gates have that setting now), `width`, `n`
        seeds, `classes`, and over seeds the means
        `forgotten`, `inside`, `change` (points; `least` and `most` are its extremes), `prepare`
        (seconds), and `gain`: (mean, low, high) of the change less the chosen setting's, paired
        by seed.
    """
    made = []
    for record in book.records():
        if record["stage"] != "fits" or record["parameters"]["dataset"] != dataset:
            continue
        for name, options in record["extra"]["settings"].items():
            def over(metric, name=name, found=record["rows"]):
                return [r["value"] for r in found if (r["method"], r["metric"]) == (name, metric)]

            change = over("change-mean")
            gain = [a - b for a, b in zip(change, over("change-mean", "chosen"), strict=True)]
            made.append({
                "name": name, "setting": setting("best", dataset, options), "n": len(change),
                "present": options == ladder.options(
                    "best", dataset, record["parameters"]["profile"]).told(),
                "width": record["parameters"]["width"],
                "classes": next(r["n"] for r in record["rows"] if r["metric"] == "change-mean"),
                "forgotten": statistics.fmean(over("forgotten-mean")),
                "inside": statistics.fmean(over("inside-mean")),
                "change": statistics.fmean(change), "least": min(change), "most": max(change),
                "prepare": statistics.fmean(over("time-prepare")),
                "gain": book.interval(gain)})
    return made


def sequence_ends(methods=("head-mask", *METHODS, requests.TOGETHER)) -> list[dict]:
    """After the last of requests that arrived one after another, a row a page and method.

    Returns:
        Dicts with `dataset`, `method`, `n` requests, `forgotten` and `change` in points.
    """
    made = []
    for dataset in book.pages():
        for method in methods:
            where = {"key": book.page_key(dataset), "stage": "soft-pruning", "method": method}
            found = [r for r in book.rows(**where) if r["metric"].startswith("sequence-")]
            if not found:
                continue
            n = max(r["n"] for r in found)
            told = {k: book.one(**where, metric=f"sequence-{n}-{k}")
                    for k in ("forgotten", "change")}
            made.append({"dataset": dataset, "method": method, "n": n} | told)
    return made


def side_by_side() -> list[str]:
    """The data sets that have a page and several networks."""
    return [d for d in book.pages() if len(networks(d)) > 1]


def wider(dataset: str) -> list[dict]:
    """Those of `networks` that differ from the page's own in that they are wider (and longer
    trained, where wide ones are)."""
    own = book.identity(dataset)
    return [e for e in networks(dataset) if e["penalty"] == "so"
            and e["architecture"] == own["architecture"] and e["width"] > own["width"]]


def present(entries: list[dict]) -> list[dict]:
    """Those of `wider` whose gates have the present setting; of a width where none has, all."""
    found = {e["width"] for e in entries if not e["earlier"]}
    return [e for e in entries if not e["earlier"] or e["width"] not in found]


def front_table() -> list[dict]:
    """The front page's table: each page's network, then the wider ones (`present`).

    Returns:
        Dicts with `dataset`, `name`, `title` (the name with profile and accuracy), `inside` (what
        `best` leaves under the untouched classifier; None if not measured), and a dict a method of
        `FRONT` as in `networks`, with `met`: whether it meets the whole bar; the same for
        `guarded`, `prototype` and `searched` (None where it was not measured); `refit`: the row of
        `each` of `best`, or None; `partial`: whether `best` was fitted for some classes only;
        `earlier`: whether by an earlier setting.
    """
    titles, made = {d: c["title"] for d, c in catalog.catalog().items()}, []
    for d in book.pages():
        own, inside = book.identity(d), book.inside_turn(d)
        turns = {m: book.in_turn(d, m) for m in FRONT}
        name = f"{titles[d]}, width {own['width']}"
        made.append({"dataset": d, "name": name, "title": f"{name} ({own['profile']})",
                     "at": {"width": own["width"]},
                     "earlier": "soft-pruning" in older_pages(d),
                     "inside": inside["forgotten-mean"] if inside else None}
                    | {m: turn_of(t) for m, t in turns.items()})
    for d in side_by_side():
        for e in present(wider(d)):
            name = f"{titles[d]}, {e['label'].split(', ', 1)[1]}"
            title = f"{name} ({e['profile']}), {100 * e['test']:.1f} % right before"
            title += "; fitted by an earlier setting" if e["earlier"] else ""
            made.append({"dataset": d, "name": name, "title": title, "earlier": e["earlier"],
                         "at": {k: e[k] for k in ("architecture", "width", "penalty", "epochs")},
                         "inside": e["inside"]["forgotten"]} | {m: dict(e[m]) for m in FRONT})
    for row in made:
        at = row.pop("at")
        found = _most_guarded(row["dataset"], **at)
        row["guarded"] = _turn(found[0]) if found else None
        row |= {rung: from_table(row["dataset"], rung, **{"penalty": "so", "seed": 0} | at)
                for rung in UNFITTED}
        for told in (row[m] for m in (*FRONT, "guarded", *UNFITTED) if row[m]):
            told["met"] = met(row["dataset"], told)
        row["refit"] = next((e for e in each(row["dataset"]) if e["rung"] == "best"
                             and ({"penalty": "so", "seed": 0} | at).items() <= e.items()), None)
        row["partial"] = row["best"]["classes"] < row["soft"]["classes"]
    return made


def turn_of(told: dict) -> dict:
    """The numbers of `book.in_turn` or `comparisons.compared_turns` under the names of
    `networks`."""
    return {"forgotten": told["forgotten-mean"], "worst": told["forgotten-worst"],
            "change": told["change-mean"], "change-worst": told["change-worst"],
            "classes": told["n"]}


def met(dataset: str, told: dict) -> bool:
    """Whether one method's numbers in `networks` meet the whole bar."""
    return all(_bars(dataset, told))


def _bars(dataset: str, told: dict) -> tuple[bool, bool]:
    """Whether such numbers meet its first half, forgotten, and its second, the others spared."""
    key = {"key": book.page_key(dataset), "stage": "soft-pruning"}
    images = book.rows(**key, metric="accuracy", split="forgotten-test")[0]["n"]
    told = {"forgotten-mean": told["forgotten"], "forgotten-worst": told["worst"],
            "change-mean": told["change"], "change-worst": told["change-worst"]}
    told = {k: v / 100 for k, v in told.items()}
    return requests.forgets(told, images), requests.spares(told)


def _value(record: dict, **where) -> float:
    """The one value of a record's row that fits."""
    return _row(record, **where)["value"]


def _row(record: dict, **where) -> dict:
    """The one row of a record that fits."""
    found = [r for r in record["rows"] if all(r.get(k) == v for k, v in where.items())]
    if len(found) != 1:
        raise UserError(f"{len(found)} rows for {where} in the run record {record['key']}: "
                        "expected one; type `softprune in-turn`")
    return found[0]


def _mean(found: list[dict], method: str, metric: str, **where) -> float:
    return statistics.fmean(_value(r, method=method, metric=metric, **where) for r in found)


def helpers() -> dict:
    """What pages may call."""
    return {"trials": trials, "cheapest": cheapest, "at_last_site": at_last_site,
            "along_directions": along_directions, "over_seeds": over_seeds,
            "beside_retrained": beside_retrained, "networks": networks, "refitted": refitted,
            "over_references": over_references,
            "sequence_ends": sequence_ends, "searched": searched, "trials_meet": trials_meet,
            "side_by_side": side_by_side, "readers": readers, "guarded_turn": guarded_turn,
            "two_references": two_references, "deeper": deeper, "again": again,
            "each_class": each, "commits": commits,
            "fitted_steps": fitted_steps,
            "several": several, "table_loss": prototypes.LOSS, "table_near": prototypes.NEAR,
            "from_table": from_table, "table_elsewhere": table_elsewhere,
            "shadowed": shadowed, "table_trials": table_trials, "table_worst": searching.WORST,
            "table_tried": {rung: {"sites": own.SITES} | more for rung, own, more in (
                (prototypes.RUNG, prototypes, {"alpha": prototypes.ALPHAS,
                                               "spread": prototypes.SPREADS}),
                (searching.RUNG, searching, {"margin": searching.MARGINS}))},
            "table_spreads": searching.SPREADS, "sample": searching.SAMPLE,
            "strengths": searching.STRENGTHS, "strays": searching.STRAYS, "most": searching.MOST,
            "beside_bars": beside_bars, "near": near, "directions": directions,
            "fits": fits, "met": met,
            "wider": wider, "older_pages": older_pages, "older_note": older_note,
            "front_table": front_table, "present": present,
            "recipes": recipes,
            "rungs": ladder.RUNGS, "limit": choosing.LIMIT, "limit_inside": choosing.INSIDE,
            "loss": choosing.LOSS}
