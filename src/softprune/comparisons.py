"""Numbers of the head-to-head page, from its run records; figures of other papers beside them."""

import functools
import re
import statistics

import nbformat
import yaml

from softprune import (
    catalog,
    choices,
    headtohead,
    notebooks,
    paths,
    runs,
    summaries,
    unfitted,
)

STAGE = "head-to-head"
WITHIN = 2.0  # points that a baseline may lie below what is reported of it


def compared() -> list[str]:
    """Data sets whose head-to-head page is published, digits first."""
    return [d for d in catalog.catalog() if notebooks.published(STAGE, d).exists()]


@functools.cache
def own_rows(dataset: str) -> list[dict]:
    """Rows of the record that the page was published with."""
    return runs.rows(key=runs.page_key(dataset, STAGE), stage=STAGE)


def _rows(dataset: str, **where) -> list[dict]:
    return [r for r in own_rows(dataset) if all(r[k] == v for k, v in where.items())]


@functools.cache
def classes(dataset: str) -> list[str]:
    """The classes forgotten on the page, those with a retrained reference."""
    return [r["forget"] for r in _rows(dataset, method="soft", metric="js-confusion")]


def _over_classes(dataset: str, method: str, metric: str, split: str | None = None,
                  taken=statistics.fmean) -> float | None:
    """The mean, or what `taken` makes of the values, over the page's classes."""
    where = {"method": method, "metric": metric} | ({"split": split} if split else {})
    values = [r["value"] for r in _rows(dataset, **where) if r["forget"] in classes(dataset)]
    return taken(values) if values else None


@functools.cache
def compared_methods(dataset: str) -> list[dict]:
    """A row a method, fastest request first: means over the classes of the page.

    Keys: `method`, `request` (s; select and edit), `ratio` to the plain method's, `prepare` (s,
    of clock and processor the fewer; medians, as in the page's own ledger), `change` (points,
    retained test accuracy against the original's), `forgotten`, `inside`, `refit` (shares), `js`
    (bits), `auc` (T1, modified entropy).
    """
    before = _over_classes(dataset, "original", "accuracy", "retained-test")
    made = []
    for row in _rows(dataset, metric="time-request"):
        m = row["method"]
        made.append({
            "method": m, "request": row["value"],
            "ratio": _rows(dataset, method=m, metric="ratio-request-soft")[0]["value"],
            "prepare": _prepare(dataset, m),
            "change": 100 * (_over_classes(dataset, m, "accuracy", "retained-test") - before),
            "forgotten": _over_classes(dataset, m, "accuracy", "forgotten-test"),
            "inside": _over_classes(dataset, m, "accuracy-inside-only"),
            "refit": _over_classes(dataset, m, "accuracy-head-refit"),
            "js": _over_classes(dataset, m, "js-confusion"),
            "auc": _over_classes(dataset, m, "auc-t1-modified-entropy"),
        })
    return sorted(made, key=lambda r: r["request"])


def _prepare(dataset: str, method: str) -> float | None:
    """Median seconds of what a method does beforehand: of clock and processor the fewer."""
    found = [t for clock in ("cpu", "time") if (t := _over_classes(
        dataset, method, f"{clock}-prepare", taken=statistics.median_high)) is not None]
    return min(found, default=None)


def compared_row(dataset: str, method: str) -> dict | None:
    """That method's row; None if the page has none."""
    return next((r for r in compared_methods(dataset) if r["method"] == method), None)


def refit_before(dataset: str) -> float:
    """Share of a class that a refitted classifier finds without any edit, mean over the classes."""
    return _over_classes(dataset, "original", "accuracy-head-refit")


def right_before(dataset: str) -> float:
    """Share of a class that is right without any edit, mean over the classes."""
    return _over_classes(dataset, "original", "accuracy", "forgotten-test")


def compared_turns(dataset: str) -> list[dict]:
    """Methods over classes in turn: `method`, `n` and the four numbers of `summaries.TURN`."""
    found = _rows(dataset, sites="each", metric="all-classes-forgotten-mean")
    return [{"method": r["method"], "n": r["n"]} | {
        k: _rows(dataset, sites="each", method=r["method"], metric=f"all-classes-{k}")[0]["value"]
        for k in summaries.TURN} for r in found]


def left_to_refit(dataset: str) -> dict:
    """Of the methods that leave at most one percent of the class right and cost the others at most
    half a point: after which a refitted classifier finds no more of the class than in the
    retrained network, give or take a point, and after which it does.

    Returns:
        `none` and `some`, rows of `compared_methods`, the least found first; `retrained`, the
        share found there; and `images`, the test images of the classes.
    """
    goal = compared_row(dataset, "retrained")["refit"]
    able = sorted((r for r in compared_methods(dataset) if r["method"] != "retrained"
                   and r["forgotten"] <= 0.01 and r["change"] >= -0.5), key=lambda r: r["refit"])
    split = {True: [], False: []}
    for row in able:
        split[row["refit"] <= goal + 0.01].append(row)
    images = sum(r["n"] for r in _rows(dataset, method="original", metric="accuracy",
                                       split="forgotten-test") if r["forget"] in classes(dataset))
    return {"none": split[True], "some": split[False], "retrained": goal, "images": images}


def turned_fake(dataset: str) -> list[dict]:
    """Baselines that may change every layer and, as tuned, forget in the classifier alone: at most
    one percent of the class is right, and the original's classifier finds all but a twentieth of
    what it found before. Rows of `compared_methods`, with `before`, that share."""
    before = _over_classes(dataset, "original", "accuracy", "forgotten-test")
    return [r | {"before": before} for r in compared_methods(dataset)
            if r["method"] in (*headtohead.STATISTICS, *headtohead.TRAINED)
            and r["forgotten"] <= 0.01 and r["inside"] >= 0.95 * before]


def ranked(dataset: str, method: str, criterion: str = "confusion-row") -> dict | None:
    """Row of a method's rank by its distance to the retrained model, 1 the nearest: `value`, the
    median over bootstrap draws of images, `low` and `high` of nine tenths, and the class, `forget`.
    """
    found = _rows(dataset, method=method, metric=f"rank-{criterion}")
    return found[0] if found else None


def plain_fractions(dataset: str) -> dict[str, float]:
    """The fractions of `soft` and `hard` that the published page prints in its list of methods."""
    page = nbformat.read(notebooks.published("head-to-head", dataset), 4)
    text = "\n".join(o.get("text", "") for c in page.cells for o in c.get("outputs", []))
    found = re.findall(r"^(soft|hard) .*fraction=([0-9.]+)", text, re.MULTILINE)
    return {method: float(value) for method, value in found}


def seed_floor(dataset: str) -> float | None:
    """Mean confusion distance of networks retrained from other seeds; None if there are none."""
    found = _rows(dataset, method="retrained", metric="js-confusion-seeds")
    return found[0]["value"] if found else None


# how many times as long as the plain method's request each is to take at least
BARS = {"ssd": 100, "salun": 100, "retrained": 1000}


def speed_bar(dataset: str) -> list[dict]:
    """The bar's three ratios: `method`, `ratio`, `bar`, `met`."""
    return [{"method": m, "bar": bar, "ratio": r["ratio"], "met": r["ratio"] >= bar}
            for m, bar in BARS.items() if (r := compared_row(dataset, m))]


def times_apart(method: str = "") -> float:
    """How many times as long or as short a request took in another run than on the head-to-head
    page, at most over data sets: what one run's time of an edit is worth. Without a method, of all
    that both have."""
    asked = (method,) if method else ("soft", "hard", "best", *choices.UNFITTED)
    pairs = [(there, own["request"]) for d in compared() if d in runs.pages() for m in asked
             if (there := _elsewhere(d, m)) and (own := compared_row(d, m))]
    if not pairs and method:
        return times_apart()
    return max((max(a / b, b / a) for a, b in pairs), default=1.0)


def _elsewhere(dataset: str, method: str) -> float | None:
    """Seconds of a request on the data set's page, or in the record of an edit without a fit."""
    if method in choices.UNFITTED:
        found = unfitted.from_table(dataset, method)
    else:
        found = summaries.request(dataset, method) if summaries.has(dataset, method) else None
    timed = found and found["edit"] is not None  # not of every method a page was timed
    return found["select"] + found["edit"] if timed else None


def headlines() -> list[dict]:
    """Request times on checkpoints of their own (`benchmarks/headline.py`), wide ones last.

    Returns:
        Dicts with `dataset`, `architecture`, `width`, `epochs`, `profile`, `device`, `forget`,
        `soft` and `best` (seconds of a request), `prepare` (seconds of the fit of `best`) and
        `bars`, as `speed_bar` gives them.
    """
    made = []
    for record in runs.records():
        if record["stage"] != "headline":
            continue
        value = {(r["method"], r["metric"]): r["value"] for r in record["rows"]}
        entry = {k: record["parameters"][k] for k in ("dataset", "architecture", "width",
                                                      "epochs", "profile")}
        entry |= {m: value[m, "time-request"] for m in ("soft", "best")}
        entry["bars"] = [{"method": m, "bar": bar, "ratio": value[m, "ratio-request-soft"],
                          "met": value[m, "ratio-request-soft"] >= bar} for m, bar in BARS.items()]
        made.append(entry | {"prepare": value["best", "time-prepare"],
                             "device": record["provenance"]["device"],
                             "forget": record["rows"][0]["forget"]})
    return sorted(made, key=lambda e: (e["dataset"], e["architecture"], e["width"]))


@functools.cache
def reported() -> dict:
    """`data/reported.yml`."""
    return yaml.safe_load((paths.root() / "data" / "reported.yml").read_text())


def beside_reported(dataset: str) -> list[dict]:
    """Methods of ours that a paper reports on the same set: both changes of retained accuracy.

    Keys: `method`, `cite`, `reported` and `ours` (points, each against its own original), `reached`
    (ours at most two points below) and `reached-beside` (so, too, after what each one's retrained
    network gained is taken off); `left-reported` and `left` (percent of the class still right).
    """
    made = []
    for group in reported()["accuracies"]:
        if group["dataset"] != dataset:
            continue
        kept = {r["method"]: r["retained"] for r in group["rows"]}
        before = kept["original"]
        # that a class is gone already helps the others, by more where a network confused it
        goal = compared_row(dataset, "retrained")
        free = goal["change"] - (kept["retrained"] - before) if goal and "retrained" in kept else 0
        for r in group["rows"]:
            ours = compared_row(dataset, r["method"])
            if ours and r["method"] != "original":
                gap = r["retained"] - before
                made.append({"method": r["method"], "cite": group["cite"], "reported": gap,
                             "ours": ours["change"], "reached": ours["change"] >= gap - WITHIN,
                             "reached-beside": ours["change"] - free >= gap - WITHIN,
                             "left-reported": r["forgotten"], "left": 100 * ours["forgotten"]})
    return made


def unreported(dataset: str) -> list[str]:
    """Baselines on a set's page that no paper of `reported` has a figure for on that set."""
    known = {r["method"] for r in beside_reported(dataset)} | {"original", *headtohead.OWN}
    return sorted(r["method"] for r in compared_methods(dataset) if r["method"] not in known)


def helpers() -> dict:
    """What pages may call."""
    own = (compared, compared_methods, compared_row, compared_turns, speed_bar, headlines, reported,
           plain_fractions, beside_reported, unreported, tuning_of, seed_floor, baselines, at_edge,
           longer, every_class, by_class, ranked, left_to_refit, turned_fake, times_apart)
    return {f.__name__: f for f in own} | {"compared_classes": classes}


def baselines() -> list[dict]:
    """Each method of the registry: `method`, what it `does` (the first line of its docstring), what
    it `reads` at request beside the weights, and the bibliography's key, `cite`."""
    from softprune import unlearning

    return [{"method": m.name, "does": m.run.__doc__.strip().split("\n")[0],
             "reads": m.needs, "cite": m.cite} for m in unlearning.registry().values()]


def tuning_of(dataset: str) -> dict:
    """How a set's baselines were tuned: the entry of `data/baselines.yml`; empty if not."""
    path = paths.root() / "data" / "baselines.yml"
    found = yaml.safe_load(path.read_text()) if path.exists() else None
    return (found or {}).get(dataset, {})


def every_class(dataset: str, method: str) -> dict | None:
    """What it takes to have a fitted edit ready for whichever class is asked: `classes`, `seconds`
    of all fits, and `retrainings`, how many whole trainings of the page's network that is; None
    where the page has no such method or no retrained network."""
    own, again = compared_row(dataset, method), compared_row(dataset, "retrained")
    if not (own and again and own["prepare"]):
        return None
    n = len(runs.class_names(dataset))
    return {"classes": n, "seconds": n * own["prepare"],
            "retrainings": n * own["prepare"] / again["request"]}


def by_class(dataset: str, method: str) -> dict[str, float]:
    """Class -> change of the others' accuracy on test images, in points, of the page's requests."""
    kept = {m: {r["forget"]: r["value"] for r in _rows(
        dataset, method=m, metric="accuracy", split="retained-test")}
        for m in (method, "original")}
    return {c: 100 * (v - kept["original"][c]) for c, v in kept[method].items()
            if c in classes(dataset)}


def longer(dataset: str) -> dict | None:
    """The trained baselines with whole epochs (`benchmarks/longer.py`) beside the page's few steps,
    on the page's network and classes.

    Returns:
        None where it was not measured, else `epochs`, `steps`, the number of `trials`, and `rows`:
        `method`, `change` (points) and shares `forgotten`, `inside` and
        `refit`, means over the classes; `request` (s) and `ratio` to the request of `best` in the
        same run; `short`, the method's row of `compared_methods`.
    """
    own = {k: runs.identity(dataset)[k] for k in ("architecture", "width", "penalty", "seed")}
    found = [r for r in runs.records() if r["stage"] == "longer"
             and ({"dataset": dataset} | own).items() <= r["parameters"].items()]
    if not found or dataset not in compared():
        return None
    rows, told = found[-1]["rows"], found[-1]["extra"]
    if {r["forget"] for r in rows} != set(classes(dataset)):
        return None
    parts: dict[tuple, list[float]] = {}  # of clock and processor the fewer, as `Outcome.request`
    for r in rows:
        clock, _, part = r["metric"].partition("-")
        if clock in ("time", "cpu") and part in ("select", "edit"):
            parts.setdefault((r["method"], r["forget"], part), []).append(r["value"])

    def request(method):
        return sum(min(v) for k, v in parts.items() if k[0] == method) / len(classes(dataset))

    def mean(method, metric, split):
        asked = (method, metric, split)
        return statistics.fmean(r["value"] for r in rows
                                if (r["method"], r["metric"], r.get("split")) == asked)

    before = _over_classes(dataset, "original", "accuracy", "retained-test")
    made = [{"method": m, "short": compared_row(dataset, m),
             "change": 100 * (mean(m, "accuracy", "retained-test") - before),
             "forgotten": mean(m, "accuracy", "forgotten-test"),
             "inside": mean(m, "accuracy-inside-only", "forgotten-test"),
             "refit": mean(m, "accuracy-head-refit", "forgotten-test"),
             "request": request(m), "ratio": request(m) / request("best")}
            for m in headtohead.TRAINED if m in told["trials"]]
    return {"rows": made, "epochs": told["epochs"], "steps": told["steps"],
            "trials": len(next(iter(told["trials"].values())))}


def at_edge(setting: dict) -> list[str]:
    """Options of a method's entry in `tuning_of` whose chosen value is the smallest or the largest
    of those tried: a wider search might find a better one.

    Example:
        >>> tried = [{"options": {"alpha": a, "rate": 1}} for a in (10, 25, 50)]
        >>> at_edge({"chosen": {"alpha": 50, "rate": 1}, "tried": tried})
        ['alpha']
    """
    found = []
    for option, value in setting["chosen"].items():
        values = {t["options"][option] for t in setting["tried"]}
        if len(values) > 2 and value in (min(values), max(values)):
            found.append(option)
    return found


def pictures(folder) -> dict[str, str]:
    """Draw each set's figure into `folder`; returns the alt texts by name."""
    from softprune import plots

    alts = {}
    for dataset in compared():
        limit = _rows(dataset, method="original", metric="memory-limit")[0]["value"]
        figure, alt = plots.quality_against_time(
            [{"method": r["method"], "seconds": r["request"], "distance": r["js"]}
             for r in compared_methods(dataset)], limit, seed_floor(dataset))
        plots.save(figure, folder / f"head-to-head-{dataset}.png")
        alts[f"head-to-head-{dataset}"] = alt
    return alts
