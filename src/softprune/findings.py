"""Tables of the findings pages that have a record of their own."""

import statistics

from softprune import across, bar, guarding, requests, runs


def commits() -> dict[str, int]:
    """How many records there are, `all`, and of these from a `changed` work tree, or one whose
    commit is `unknown`."""
    told = [r["provenance"]["commit"] for r in runs.records()]
    return {"all": len(told), "changed": sum(c.endswith("+") for c in told),
            "unknown": told.count("unknown")}


def shadowed(dataset: str) -> dict | None:
    """What shadow models tell of every edit, in one run (`benchmarks/lira.py`).

    Returns:
        None where it was not measured, else `forget`, `count` of shadow models and how many were
        `retrained` without the class, `seen`, training images of each (these two None in records
        that do not tell), `auc`: attack -> method -> its row, with `gap`, the row of the original's
        less this one, images paired, where the record has it, `tpr`: attack -> method -> share of
        members found where one outsider in a hundred is taken for one, and `left`: method ->
        percent of the class right on unseen images.
    """
    found = [r for r in runs.records()
             if r["stage"] == "lira" and r["parameters"]["dataset"] == dataset]
    if not found:
        return None
    rows, more, auc, tpr = found[-1]["rows"], found[-1]["extra"], {}, {}
    for r in rows:
        kind, _, attack = r["metric"].partition("-t1-")
        if kind == "auc":
            auc.setdefault(attack, {})[r["method"]] = dict(r)
        elif kind == "gap":
            auc[attack][r["method"]]["gap"] = r
        elif kind == "tpr":
            tpr.setdefault(attack, {})[r["method"]] = r["value"]
    return {"forget": rows[0]["forget"], "count": more["count"],
            "retrained": more.get("retrained"), "seen": more.get("seen"), "auc": auc, "tpr": tpr,
            "left": {r["method"]: 100 * r["value"] for r in rows if r["metric"] == "accuracy"}}


def several(dataset: str) -> list[dict]:
    """Several classes at once (`benchmarks/several.py`): what is left, and what a refit finds.

    Returns:
        Dicts with `size`, `method`, `n` requests, `forgotten`, `worst`, `refit` (percent),
        `change`, `change-worst` (points), `seconds` of a fit at request (None where it is a
        look-up), and `retrained`: of the request that has one, what a refit finds after the method
        less in the network retrained without these classes, and the others' change less there, in
        points (None where there is none).
    """
    found = [r for r in runs.records()
             if r["stage"] == "several" and r["parameters"]["dataset"] == dataset]
    if not found:
        return []
    rows, made = found[-1]["rows"], []
    order = ("original", "best", guarding.RUNG, requests.TOGETHER)
    methods = sorted({r["method"] for r in rows},
                     key=lambda m: order.index(m) if m in order else len(order))
    by_method = {m: runs.by_class(rows, m) for m in methods}
    there = by_method.pop("retrained", {"change": {}})
    for size in sorted({1 + r["forget"].count("+") for r in rows}):
        for method, of in by_method.items():
            names = [n for n in of["change"] if 1 + n.count("+") == size]
            known = next((n for n in names if n in there["change"]), None)
            seconds = [r["value"] for r in rows if r["metric"] == "time-edit"
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


def directions(dataset: str) -> list[dict]:
    """What the stored directions of `best` read at each site, means over classes on validation
    images; one dict a site, of the page's network: `site`, `n` classes, `auc`, `share-own`,
    `share-others`, `against`, `strength`."""
    width = runs.identity(dataset)["width"]
    found = [r for r in runs.records() if r["stage"] == "directions"
             and r["parameters"]["dataset"] == dataset and r["parameters"]["width"] == width]
    made: dict[str, dict] = {}
    for row in found[-1]["rows"] if found else ():
        at = made.setdefault(row["sites"], {"site": row["sites"], "n": row["n"]})
        at[row["metric"].removeprefix("direction-")] = row["value"]
    return list(made.values())


def sequence_ends(methods=("head-mask", *across.METHODS, requests.TOGETHER)) -> list[dict]:
    """After the last of requests that arrived one after another, a row a page and method.

    Returns:
        Dicts with `dataset`, `method`, `n` requests, `forgotten` and `change` in points.
    """
    made = []
    for dataset in runs.pages():
        for method in methods:
            where = {"key": runs.page_key(dataset), "stage": "soft-pruning", "method": method}
            found = [r for r in runs.rows(**where) if r["metric"].startswith("sequence-")]
            if not found:
                continue
            n = max(r["n"] for r in found)
            told = {k: runs.one(**where, metric=f"sequence-{n}-{k}")
                    for k in ("forgotten", "change")}
            made.append({"dataset": dataset, "method": method, "n": n} | told)
    return made


def places(dataset: str) -> list[dict]:
    """The plain method at groups of sites and at single ones (`benchmarks/sites.py`), on the page's
    network.

    Returns:
        Dicts with `sites`, `gate`, `fraction`, and in points `forgotten`, `worst`, `change`,
        `change-worst`, with `met`: whether they meet the bar; empty where it was not measured.
    """
    record = _beside(dataset, "sites")
    groups: dict[tuple, dict] = {}
    for r in record["rows"] if record else ():
        at = {k: r[k] for k in ("sites", "gate", "fraction")}
        if r["metric"].removeprefix("all-classes-") in TURN:
            groups.setdefault(tuple(at.values()), at)
    return [_judged(dataset, record["rows"], at) for at in groups.values()]


def strength_too(dataset: str) -> list[dict]:
    """The plain method with constant gates whose strength, and fraction, validation chose
    (`benchmarks/strengths.py`), on the page's network.

    Returns:
        Dicts with `rule`, `alpha`, `fraction`, and what `places` has of each; empty where it was
        not measured.
    """
    record = _beside(dataset, "strengths")
    chosen = record["extra"]["chosen"] if record else {}
    return [{"rule": rule, "alpha": float(own["gate"].removeprefix("constant-")),
             "fraction": own["fraction"]}
            | {k: v for k, v in _judged(dataset, record["rows"], own).items() if k not in own}
            for rule, own in chosen.items()]


TURN = {"forgotten-mean": "forgotten", "forgotten-worst": "worst", "change-mean": "change",
        "change-worst": "change-worst"}


def _beside(dataset: str, stage: str) -> dict | None:
    """The last record of a measurement on a data set's page network."""
    own = {k: runs.identity(dataset)[k] for k in ("dataset", "width", "penalty", "seed", "profile")}
    found = [r for r in runs.records() if r["stage"] == stage
             and own.items() <= r["parameters"].items()]
    return found[-1] if found else None


def _judged(dataset: str, rows: list[dict], at: dict) -> dict:
    """`at`, what `inturn.tell` wrote of it by the names of `TURN`, and whether that is `met`."""
    told = {TURN[k]: r["value"] for r in rows if at.items() <= r.items()
            and (k := r["metric"].removeprefix("all-classes-")) in TURN}
    return at | told | {"met": bar.met(dataset, told)}


def combinations(dataset: str) -> list[dict]:
    """Every score, pooling and gate that was tried, each at the fraction that validation chooses:
    those of stage 3, of a set of many classes the others too (`benchmarks/scores.py`); the
    second-hand setting at every site last.

    Returns:
        Dicts with `score`, `statistic`, `gate`, `sites`, `fraction`, `n` classes, and in points
        `forgotten`, `worst`, `change`, `change-worst`.
    """
    own = runs.rows(key=runs.page_key(dataset), stage="soft-pruning")
    beside = _beside(dataset, "scores")
    groups: dict[tuple, dict] = {}
    for r in [*own, *(beside["rows"] if beside else ())]:
        if (kind := TURN.get(r["metric"].removeprefix("candidate-"))) and (
                r["metric"].startswith("candidate-")):
            at = {k: r[k] for k in ("score", "statistic", "gate", "sites", "fraction", "n")}
            groups.setdefault(tuple(at.values()), at)[kind] = r["value"]
    return sorted(groups.values(), key=lambda g: g["sites"] == "all")


def readings() -> dict:
    """What other readings of the paper came to: `combinations` of all pages.

    Returns:
        `n` of them, how many `met` the bar, and what the others lose `everywhere`, at
        every site: (least, most) over data sets, points; None where it was not measured.
    """
    tried = [(d, c) for d in runs.pages() for c in combinations(d)]
    everywhere = [-c["change"] for _, c in tried if c["sites"] == "all"]
    return {"n": len(tried), "met": sum(bar.met(d, c) for d, c in tried),
            "everywhere": (min(everywhere), max(everywhere)) if everywhere else None}


def helpers() -> dict:
    """What pages may call."""
    return {"commits": commits, "places": places, "shadowed": shadowed, "several": several,
            "directions": directions, "sequence_ends": sequence_ends, "readings": readings,
            "strength_too": strength_too, "combinations": combinations}
