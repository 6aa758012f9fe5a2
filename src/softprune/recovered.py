"""What readers still find of a class: guarded directions, at a depth, beside retrained networks."""

import math
import statistics

from softprune import bar, choices, guarding, runs, summaries, unfitted


def readers(dataset: str) -> dict | None:
    """Directions guarded against a reader, beside `best`, the original and retrained networks.

    Returns:
        None where nothing was measured, else `width`, `setting-of`, the data set that the setting
        was chosen on, `n` classes whose retrained network is there, `of`, the number of all that
        were fitted, `trials` (`_trial`, in the order of the record),
        the name of the `chosen` one, `others`: metric -> method -> mean over the `n`, `gaps`:
        metric -> (mean, low, high) in points of the chosen one less the retrained networks, paired
        by class, `before`: the same of the original, and `depths`, those of these metrics that are
        a linear classifier's at a depth.
    """
    record = _readers(dataset)
    if record is None:
        return None
    rows = record["rows"]
    references = {r["forget"] for r in rows if r["method"] == "retrained"}
    other: dict[str, dict[str, list[float]]] = {}
    for r in rows:
        if r["metric"].startswith("recall-"):
            by_method = other.setdefault(r["metric"].removeprefix("recall-t4-"), {})
            by_method.setdefault(r["method"], []).append(r["value"])
    methods = list(dict.fromkeys(r["method"] for r in rows))
    looked = [m for m in methods if m.startswith("guarded") and m in other["10-nn"]]
    own = dataset in guarding.chosen()
    return {"width": record["parameters"]["width"], "n": len(references),
            "setting-of": dataset if own else guarding.LIKE.get(dataset, "cifar10"),
            "of": len({r["forget"] for r in rows if "forget" in r}), "chosen": looked[0],
            "trials": [_trial(rows, m, references) for m in sorted(methods, key=_order)],
            "depths": [k for k in other if k.startswith("probe-")],
            "others": {k: {m: statistics.fmean(v) for m, v in by_method.items()}
                       for k, by_method in other.items()},
            "gaps": _gaps(other, looked[0]), "before": _gaps(other, "original")}


def _gaps(other: dict, method: str) -> dict[str, tuple[float, float, float]]:
    """Metric -> what is found after a method less in the retrained networks, paired by class."""
    return {k: runs.interval([100 * (a - b) for a, b in zip(
        by_method[method], by_method["retrained"], strict=True)])
        for k, by_method in other.items() if {method, "retrained"} <= by_method.keys()}


def _readers(dataset: str) -> dict | None:
    """The last record of `benchmarks/readers.py` on a data set."""
    return next((r for r in reversed(runs.records()) if r["stage"] == "readers"
                 and r["parameters"]["dataset"] == dataset), None)


def retrained_mean(dataset: str) -> tuple[float, float] | None:
    """Accuracies (forgotten class, others) in percent of the networks retrained without a class,
    means over the classes; None unless every class of the set has its own."""
    record = _readers(dataset)
    value = runs.by_class(record["rows"], "retrained") if record else {}
    if len(value.get("accuracy", ())) < summaries.in_turn(dataset, "soft")["n"]:
        return None
    return tuple(100 * statistics.fmean(value[k].values()) for k in ("accuracy", "retained"))


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
    own = {k: runs.identity(dataset)[k] for k in ("architecture", "width", "penalty", "seed")}
    found = [r for r in runs.records() if r["stage"] == "again"
             and ({"dataset": dataset} | own).items() <= r["parameters"].items()]
    if not found:
        return None
    rows = found[-1]["rows"]
    methods = list(dict.fromkeys(r["method"] for r in rows))
    value = {m: {k.removeprefix("recall-t4-"): v for k, v in runs.by_class(rows, m).items()}
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
            "gaps": {k: {m: runs.interval([100 * (value[m][k][c] - value["retrained"][k][c])
                                           for c in classes]) for m in methods} for k in keys}}


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
    looked, found = readers(dataset), most_guarded(dataset, width=runs.identity(dataset)["width"])
    if not found:
        return None
    own, before, record = found
    kept = [r for r in (looked["trials"] if looked else ()) if r["method"] == "retrained"]
    seconds = [r["value"] for r in record["rows"] if r["metric"] == "time-prepare"
               and r["method"] in (guarding.RUNG, looked and looked["chosen"])]
    return bar.turn_over(own) | {"met": bar.met(dataset, bar.turn_over(own)),
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
    found, looked = ([r for r in runs.records() if r["stage"] == stage
                      and r["parameters"]["dataset"] == dataset] for stage in ("deep", "readers"))
    if not found or not looked:
        return None
    record, chosen_ = found[-1], readers(dataset)["chosen"]
    names = {"best": "best", "guarded": chosen_, "deep": guarding.DEEP, "retrained": "retrained"}
    rows = record["rows"] + looked[-1]["rows"]
    by_method = {m: runs.by_class(rows, name) for m, name in names.items()}
    references = sorted(set(by_method["retrained"]["change"]) & set(by_method["deep"]["change"]))
    keys = {"accuracy": "forgotten", "accuracy-head-refit": "refit", "change": "others"} | {
        k: k.removeprefix("recall-t4-") for k in by_method["deep"] if k.startswith("recall-t4-")}
    table = {m: {told: statistics.fmean(of[k][c] for c in references) for k, told in keys.items()}
             for m, of in by_method.items()}
    gaps = {m: {told: runs.interval([(1 if k == "change" else 100)
                                     * (by_method[m][k][c] - by_method["retrained"][k][c])
                                     for c in references]) for k, told in keys.items()}
            for m in ("guarded", "deep")}
    seconds = [r["value"] for r in record["rows"] if r["metric"] == "time-prepare"]
    options = record["extra"]["options"]
    return {"n": len(references), "depths": options["depths"].split(","),
            "weight": options["deep"], "last": options["reader"],
            "seconds": statistics.fmean(seconds), "edit": runs.value_in(record, metric="time-edit"),
            "table": table, "gaps": gaps,
            "all": bar.turn_over(runs.test_values(record, guarding.DEEP))}


def two_references(dataset: str) -> dict | None:
    """What two networks retrained without the page's class have: the one in the record of
    `readers`, and the page's own; None where one of them is not there.

    Returns:
        `forget`, and pairs `refit` (percent of the class that a refitted classifier finds) and
        `others` (their accuracy less the original's, points).
    """
    name = summaries.requested(dataset)
    found = [r for r in runs.rows(dataset=dataset, stage="readers", method="retrained", forget=name)
             if r["split"].endswith("test")]
    there = {r["metric"]: r["value"] for r in found}
    if "change" not in there or not summaries.has(dataset, "retrained"):
        return None
    own, original = summaries.request(dataset, "retrained"), summaries.request(dataset, "original")
    return {"forget": name,
            "refit": (100 * there["accuracy-head-refit"], 100 * own["refit"]),
            "others": (there["change"], 100 * (own["retained"] - original["retained"]))}


KEPT_AND_FOUND = ("retained", "accuracy-head-refit")  # the two bars' measures, as in `by_class`
NEAR = 0.3  # points that the others may lie below a retrained network


def beside_bars(dataset: str) -> list[dict]:
    """`prototype`, `searched`, `best` and `guarded` against the two bars that a retrained network
    sets, over the classes that one is there for.

    Returns:
        Dicts with `edit`, `n` classes, and in points less the retrained network, (mean, low,
        high), `others` and `refit`, each with a verdict: `others-verdict`, `refit-verdict`; and
        `others-anew`, the verdict on the others where the original's own luck counts as well.
    """
    found = readers(dataset)
    if not found:
        return []
    made, chance = [], luck(dataset)
    for rung in choices.UNFITTED:
        closed = unfitted.from_table(dataset, rung)
        if closed and closed["gaps"]:
            others, refit = closed["gaps"]["change"], closed["gaps"]["accuracy-head-refit"]
            made.append({"edit": rung, "n": closed["n"], "others": others, "refit": refit,
                         "others-verdict": near(others), "refit-verdict": hidden(refit)})
    for t in (t for t in found["trials"] if t["method"] in ("best", found["chosen"])):
        others, refit = t["test"]["change-gap"], t["test"]["refit-gap"]
        made.append({"edit": "guarded" if t["pairs"] else "best", "n": found["n"],
                     "others": others, "refit": refit,
                     "others-verdict": near(others), "refit-verdict": hidden(refit)})
    for b in made:
        mean, low, _ = b["others"]
        half = math.hypot(mean - low, chance["reach"]) if chance else math.inf
        b["others-anew"] = near((mean, mean - half, mean + half))
    return made


def fake_beside(dataset: str) -> dict | None:
    """The fake that only hides the class's output against the same two bars: as `beside_bars`; None
    where no network was retrained. Inside it is the original, so a refit finds as much as there."""
    found = _readers(dataset)
    there = runs.by_class(found["rows"], "retrained") if found else {}
    if not there:
        return None
    masked = {r["forget"]: r["value"] for r in runs.rows(
        key=runs.page_key(dataset), stage="soft-pruning", method="head-mask", metric="accuracy",
        split="retained-test", sites="each")}
    before = runs.by_class(found["rows"], "original")["accuracy-head-refit"]
    others, refit = (runs.interval([100 * (own[c] - there[k][c]) for c in sorted(there[k])])
                     for own, k in zip((masked, before), KEPT_AND_FOUND, strict=True))
    return {"edit": "head-mask", "n": len(there["retained"]), "others": others, "refit": refit,
            "others-verdict": near(others), "refit-verdict": hidden(refit)}


def luck(dataset: str) -> dict | None:
    """How far one training lies from another by chance, from the networks retrained without a
    class: the others' accuracy there less the original's, one value a class.

    The original is one training as well, and what it was lucky in moves every difference to it.

    Returns:
        `n` networks, `mean` and `deviation` in points, and `reach`, half a 95 % t interval for one
        training; None of fewer than three.
    """
    record = _readers(dataset)
    found = list(runs.by_class(record["rows"], "retrained").get("change", {}).values()) if (
        record) else []
    if len(found) < 3:
        return None
    spread = statistics.stdev(found)
    return {"n": len(found), "mean": statistics.fmean(found), "deviation": spread,
            "reach": runs.quantile(len(found) - 1) * spread}


def originals(dataset: str) -> dict | None:
    """The two bars over several originals of the page's recipe (`benchmarks/originals.py`).

    Returns:
        `seeds` of the originals, the page's first; `edits`: dicts as in `beside_bars`, their
        intervals over originals and classes, with `each`, the others less the retrained networks'
        by original, means over classes, and `turns`, of each original but the page's:
        `bar.turn_over` of these classes; and `paired`, the same beside the networks retrained from
        each original's own seed (`_paired`); first `original`, before any edit. None where no other
        original was measured.
    """
    looked = _readers(dataset)
    if looked is None:
        return None
    own = {k: v for k, v in looked["parameters"].items() if k != "seed"}
    found = {r["parameters"]["seed"]: r["rows"] for r in runs.records()
             if r["stage"] == "originals" and own.items() <= r["parameters"].items()}
    if not found:
        return None
    first, page = looked["parameters"]["seed"], looked["rows"]
    for rung, (stage, *_) in choices.UNFITTED.items():
        page = page + [row for r in runs.records() if r["stage"] == stage
                       and r["parameters"] == looked["parameters"]
                       for row in r["rows"] if row["method"] == rung]
    names = {"original": "original", **{rung: rung for rung in choices.UNFITTED}, "best": "best",
             guarding.RUNG: readers(dataset)["chosen"]}
    there = runs.by_class(looked["rows"], "retrained")
    own_seed = [there, *(runs.by_class(found[seed], "retrained") for seed in sorted(found))]
    seeds, told = [first, *sorted(found)], []
    for edit, of_page in names.items():
        by_original = [runs.by_class(page, of_page),
                       *(runs.by_class(found[seed], edit) for seed in sorted(found))]
        every = [of[k] for of in (there, *by_original) for k in KEPT_AND_FOUND]
        classes = sorted(set.intersection(*(set(values) for values in every)))
        if len(classes) < 2:  # one gives no interval
            continue
        others, refit = ([[100 * (of[k][c] - there[k][c]) for c in classes] for of in by_original]
                         for k in KEPT_AND_FOUND)
        gaps = runs.crossed(others), runs.crossed(refit)
        told.append({"edit": edit, "n": len(classes), "others": gaps[0], "refit": gaps[1],
                     "others-verdict": near(gaps[0]), "refit-verdict": hidden(gaps[1]),
                     "each": [statistics.fmean(of) for of in others],
                     "turns": [bar.turn_over({k: [of[k][c] for c in classes]
                                              for k in ("accuracy", "change")})
                               for of in by_original[1:]],
                     "paired": _paired(seeds, by_original, own_seed)})
    return {"seeds": seeds, "edits": told}


def _paired(seeds: list[int], by_original: list[dict], own_seed: list[dict]) -> dict | None:
    """Originals beside networks retrained from the same seeds, of the classes that all of these
    were retrained without: networks of one seed may share their luck.

    Returns:
        `seeds`, `classes`, `each`: the others by seed, `others` and `refit`: (mean, low, high) over
        seeds, in points, with verdicts as in `beside_bars`; None of fewer than two seeds.
    """
    both = [(s, of, there) for s, of, there in zip(seeds, by_original, own_seed, strict=True)
            if there]
    classes = sorted(set.intersection(*(
        set(of[k]) & set(there[k]) for _, of, there in both for k in KEPT_AND_FOUND)))
    if len(both) < 2 or not classes:
        return None
    others, refit = ([statistics.fmean(100 * (of[k][c] - there[k][c]) for c in classes)
                      for _, of, there in both] for k in KEPT_AND_FOUND)
    gaps = runs.interval(others), runs.interval(refit)
    return {"seeds": [s for s, *_ in both], "classes": classes, "each": others,
            "others": gaps[0], "refit": gaps[1], "others-verdict": near(gaps[0]),
            "refit-verdict": hidden(gaps[1])}


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
    return f"{verdict} on average; open"


def hidden(gap: tuple[float, float, float]) -> str:
    """Whether a refit finds more of the class than in the retrained networks: a verdict.

    Example:
        >>> hidden((15.0, 12.0, 18.0)), hidden((-1.0, -3.0, 1.0))
        ('does not hold: hidden in part', 'holds on average; open')
    """
    mean, low, high = gap
    if low > 0:
        return "does not hold: hidden in part"
    if high < 0:
        return "holds, and takes more than retraining does"
    if mean > 0:
        return "does not hold on average; open"
    return "holds on average; open" if high > 0 else "holds"


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
                if (r["method"], r["metric"]) == (m, metric) and r.get("split", "").endswith(split)
                and (metric != "accuracy" or r["split"].startswith("forgotten"))}

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
            told[f"{k}-gap"] = runs.interval([scale * (here[k][c] - there[c])
                                              for c in sorted(references)])
        made[split] = told
    return made


def most_guarded(dataset: str, **at) -> tuple[dict, dict, dict] | None:
    """`runs.test_values` of `guarded` and of the original, and their record: of the network with
    these parameters, the record that has most classes; None where there is none."""
    looked, tried = readers(dataset), []
    for record in runs.records():
        if record["stage"] in ("guarded", "readers") and (
                {"dataset": dataset} | at).items() <= record["parameters"].items():
            method = guarding.RUNG if record["stage"] == "guarded" else looked["chosen"]
            told = (runs.test_values(record, m) for m in (method, "original"))
            tried.append((*told, record))
    return max(tried, key=lambda t: len(t[0]["accuracy"]), default=None)


def helpers() -> dict:
    """What pages may call."""
    return {"readers": readers, "again": again, "guarded_turn": guarded_turn, "deeper": deeper,
            "two_references": two_references, "originals": originals, "beside_bars": beside_bars,
            "fake_beside": fake_beside, "near": near, "luck": luck}
