"""Edits that fit nothing: `prototype` and `searched`, every class in turn."""

import statistics

from softprune import bar, choices, guarding, prototypes, recovered, runs


def from_table(dataset: str, rung: str = prototypes.RUNG, **at) -> dict | None:
    """Every class in turn after `prototype` or `searched` (`benchmarks/from_table.py`).

    Args:
        at: parameters of the network; without any, the page's.

    Returns:
        None where nothing was measured, else as in `networks`, with `gone` and `spared`, the two
        halves of the bar, and `met`; `options`; `weights` of the network (a hash; None in a record
        that does not tell); seconds of `prepare` (of all classes by `prototype`, of one by
        `searched`; the table apart), `select` and `edit`; `strengths` of the classes, sorted, where
        they were searched; `refit` and `gaps`: what a refitted classifier finds, less what it finds
        in the networks retrained without a class, and the others' change less there, paired by
        class, (mean, low, high) in points, and the same of other readers, all of `n` classes
        (None where there is none); `several`: size -> a dict as in `networks`, of requests for so
        many classes at once.
    """
    found = [r for r in runs.records()
             if r["stage"] == choices.UNFITTED[rung][0] and r["parameters"]["dataset"] == dataset]
    if found:
        shared = ("architecture", "width", "penalty", "seed", "profile")
        own = at or {k: v for k, v in runs.identity(dataset).items() if k in shared}
        found = [r for r in found if own.items() <= r["parameters"].items()]
    if not found:
        return None
    record = found[-1]
    value = runs.by_class(record["rows"], rung)
    by_size: dict[int, dict[str, list[float]]] = {}
    for name, change in value["change"].items():
        turn = by_size.setdefault(1 + name.count("+"), {"accuracy": [], "change": []})
        turn["accuracy"].append(value["accuracy"][name])
        turn["change"].append(change)
    single = bar.turn_over(by_size.pop(1))
    looked = [] if at else [r for r in runs.records() if r["stage"] == "readers"
                            and r["parameters"]["dataset"] == dataset]
    there = runs.by_class(looked[-1]["rows"], "retrained") if looked else {}
    refit = value.get("accuracy-head-refit", {})
    both = sorted(set(refit) & set(there.get("accuracy-head-refit", {})))
    gaps = {k.removeprefix("recall-t4-"): runs.interval([
        (1 if k == "change" else 100) * (v[c] - there[k][c]) for c in both])
        for k, v in value.items() if both and k in there and set(both) <= set(v)}
    gone, spared = bar.bars(dataset, single)
    return single | {
        "gone": gone, "spared": spared, "met": gone and spared,
        "options": record["extra"]["options"], "weights": record["extra"].get("weights"),
        "prepare": statistics.fmean(r["value"] for r in record["rows"]
                                    if r["metric"] == "time-prepare"),
        **{k: runs.value_in(record, metric=f"time-{k}") for k in ("select", "edit")},
        "strengths": sorted(r["value"] for r in record["rows"] if r["metric"] == "strength"),
        "n": len(both), "gaps": gaps or None,
        "refit": 100 * statistics.fmean(refit[c] for c in both) if both else None,
        "several": {size: bar.turn_over(turn) for size, turn in sorted(by_size.items())}}


def apart(dataset: str, method: str) -> dict | None:
    """Every class in turn after one of `verdicts.APART`, of a data set's own network: as
    `from_table`, of `guarded` the accuracies and the two halves of the bar alone; None where not
    measured."""
    if method != guarding.RUNG:
        return from_table(dataset, method)
    found = recovered.most_guarded(dataset, width=runs.identity(dataset)["width"])
    if found is None:
        return None
    told = bar.turn_over(found[0])
    return told | dict(zip(("gone", "spared"), bar.bars(dataset, told), strict=True))


def table_elsewhere(dataset: str, rung: str = prototypes.RUNG) -> list[dict]:
    """The same of every other network that it was tried on, by the setting of the data set.

    Returns:
        Dicts as `from_table`, with the network's `architecture`, `width`, `epochs`, `penalty`,
        `seed`, and `profile`.
    """
    shared = ("architecture", "width", "penalty", "seed", "profile")
    own = {k: v for k, v in runs.identity(dataset).items() if k in shared}
    told = [{k: r["parameters"][k] for k in (*shared, "epochs")} for r in runs.records()
            if r["stage"] == choices.UNFITTED[rung][0] and r["parameters"]["dataset"] == dataset]
    others = [at for at in told if not own.items() <= at.items()]
    return [at | from_table(dataset, rung, **at) for at in sorted(others, key=lambda at: (
        at["architecture"], at["width"], at["epochs"], at["penalty"], at["seed"]))]


def helpers() -> dict:
    """What pages may call."""
    return {"from_table": from_table, "table_elsewhere": table_elsewhere}
