"""The book: pages whose numbers come from run records, rendered by Sphinx with warnings as errors.

    python -m softprune.book                      # the student's; prints the path of index.html
    python -m softprune.book --edition teacher    # with solutions and teacher's notes

Pages in `book/` may hold `[[ … ]]`: Jinja expressions over the run records. A record that is
missing, or a filter that fits two values, stops the build. Rendered sources go to `_build/source`.
"""

import argparse
import ast
import functools
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from softprune import (
    artifacts,
    catalog,
    checks,
    editions,
    inturn,
    models,
    notebooks,
    paths,
    requests,
    stages,
)
from softprune.errors import UserError, choose


@functools.cache
def records() -> list[dict]:
    """All run records, read and validated once a build."""
    return artifacts.read_records()


@functools.cache
def table() -> list[dict]:
    """All run records, tidy."""
    return artifacts.tidy(records())


INDEXED = ("key", "stage", "method", "metric")  # what pages ask by, most telling first
_indices: dict = {}  # of the table that `of` holds


def _index(column: str) -> dict:
    """Value of a column -> the rows that have it, in order."""
    if _indices.get("of") is not table():
        _indices.clear()
        _indices["of"] = table()
    if column not in _indices:
        found = _indices[column] = {}
        for r in table():
            found.setdefault(r[column], []).append(r)
    return _indices[column]


def rows(**where) -> list[dict]:
    """Rows whose columns equal `where`; a fraction is compared as a number."""
    among = min((_index(k).get(where[k], []) for k in INDEXED if k in where), key=len,
                default=table())
    return [r for r in among if all(r[k] == v for k, v in where.items())]


def one(**where) -> float:
    """The one value that fits, or a stop: a number in prose is a dependency of the build.

    Raises:
        UserError: none fits, or several that differ.
    """
    values = {r["value"] for r in rows(**where)}
    if len(values) != 1:
        raise UserError(f"{len(values)} values in the run records for {where}: expected one")
    return values.pop()


def pct(value: float, digits: int = 1) -> str:
    """A share as percent."""
    return f"{100 * value:.{digits}f} %"


def about(value: float) -> str:
    """Two significant digits: what a ratio of times is worth.

    Example:
        >>> about(908593), about(50.4), about(0.0473)
        ('910,000', '50', '0.047')
    """
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


@functools.cache
def class_names(dataset: str) -> list[str]:
    """A set's classes, in the order of their indices, from a committed checkpoint's sidecar."""
    folder = paths.root() / "data" / "checkpoints" / dataset
    found = next(p for p in sorted(folder.glob("*/*.json")) if "-without-" not in p.name)
    return artifacts.read_sidecar(found.with_suffix(".safetensors"))["class_names"]


def pages() -> list[str]:
    """Data sets with all four pages published, digits first."""
    order = list(catalog.catalog())
    found = [d for d in order if all(notebooks.published(s, d).exists() for s in notebooks.STAGES)]
    return found


@functools.cache
def page_record(stage: str, dataset: str) -> dict:
    """The run record that a page was published with: its parameters and data name it.

    Raises:
        UserError: there is none.
    """
    page = notebooks.page_metadata(notebooks.published(stage, dataset))
    key = stages.record_key(page["parameters"], page["parts"]["data"])
    for record in records():
        if (record["stage"], record["key"]) == (stage, key):
            return record
    raise UserError(f"no run record fits the {stage} page of {dataset}: "
                    f"type `softprune run {stage} --dataset {dataset} --force`")


def page_key(dataset: str, stage: str = "soft-pruning") -> str:
    """The key of that record, for use as a filter of `rows`."""
    return page_record(stage, dataset)["key"]


@functools.cache
def identity(dataset: str) -> dict:
    """Columns shared by all stages of the run a page shows."""
    p = page_record("soft-pruning", dataset)["parameters"]
    return {k: p[k] for k in ("dataset", "profile", "architecture", "width", "penalty",
                              "strength", "seed")}


SWEPT = {"cifar10": 8, "digits": 16}  # data set -> width of the nets of the ablation
TURN = ("forgotten-mean", "forgotten-worst", "change-mean", "change-worst")


@functools.cache
def in_turn(dataset: str, method: str) -> dict:
    """Numbers of a method over classes forgotten in turn, in points; `n` classes.

    Of the page's own run, or of `softprune in-turn` on the same network where that had more.
    """
    return _turn(_longest(dataset, method), method, "each")


def inside_turn(dataset: str) -> dict | None:
    """What `best` leaves under the untouched classifier, classes in turn, in points."""
    where = _longest(dataset, "best")
    return _turn(where, "best", "inside") if rows(**where, method="best", sites="inside") else None


def _turn(where: dict, method: str, sites: str) -> dict:
    where = where | {"method": method, "sites": sites}
    made = {m: one(**where, metric=f"all-classes-{m}") for m in TURN}
    return made | {"n": rows(**where, metric="all-classes-change-mean")[0]["n"]}


def _longest(dataset: str, method: str) -> dict:
    """The record in which a method forgot most classes of a page's network in turn, as a filter of
    `rows`: gates fitted by an earlier setting do not count."""
    page = page_record("soft-pruning", dataset)
    found = [{"stage": "soft-pruning", "key": page["key"]}]
    fitted = inturn.rungs(dataset, page["parameters"]["profile"])
    for r in records():
        alike = r["stage"] == "seeds" and r["parameters"].items() <= page["parameters"].items()
        if alike and r["extra"]["rungs"] == fitted:
            found.append({"stage": "seeds", "key": r["key"]})

    def classes(where: dict) -> int:
        told = rows(**where, method=method, sites="each", metric="all-classes-change-mean")
        return told[0]["n"] if told else 0

    return max(found, key=classes)


@functools.cache
def request(dataset: str, method: str) -> dict:
    """One class's request: accuracies, what a refit finds (shares), select and edit (seconds)."""
    key = {"key": page_key(dataset), "stage": "soft-pruning", "method": method}
    forget = requested(dataset)
    made = {"refit": one(**key, metric="accuracy-head-refit"),
            "inside": one(**key, metric="accuracy-inside-only")}
    for split in ("retained", "forgotten"):
        made[split] = one(**key, metric="accuracy", split=f"{split}-test", forget=forget)
    for part in ("select", "edit", "prepare"):
        found = rows(**key, metric=f"time-{part}")
        made[part] = found[0]["value"] if found else None
    return made


def requested(dataset: str) -> str:
    """The class that a page's request names."""
    where = {"key": page_key(dataset), "stage": "soft-pruning", "metric": "time-edit"}
    return next(r for r in rows(**where))["forget"]


def has(dataset: str, method: str) -> bool:
    """Whether a page has a method: a retrained reference may not be there yet."""
    return bool(rows(key=page_key(dataset), stage="soft-pruning", method=method,
                     metric="accuracy-head-refit"))


@functools.cache
def summary(dataset: str) -> dict:
    """The headline numbers of a data set, from its four records."""
    same = identity(dataset)
    forget = requested(dataset)
    trained = {"key": page_key(dataset, "orthogonal-training"), "stage": "orthogonal-training"}
    soft = request(dataset, "soft")
    made = {
        "n": in_turn(dataset, "soft")["n"], "forget": forget,
        "fraction": rows(key=page_key(dataset), method="soft",
                         metric="accuracy-head-refit")[0]["fraction"],
        "test": one(**trained, method="original", metric="accuracy", split="test"),
        "request": soft["select"] + soft["edit"],
        "train": one(**trained, metric="time-train"),
    }
    retrain = rows(**same, stage="train", method="retrained", forget=forget, metric="time-train")
    made["retrain"] = retrain[0]["value"] if retrain else None
    mia = page_key(dataset, "membership-inference")
    for method in ("original", "soft", "best", "retrained"):
        found = rows(key=mia, stage="membership-inference", method=method, forget=forget,
                     metric="auc-t1-modified-entropy")
        made[f"auc-{method}"] = found[0] if found else None
        made[f"lira-{method}"] = beside(dataset, "membership-inference", method,
                                        "auc-t1-lira-online")
    return made


def beside(dataset: str, stage: str, method: str, metric: str, **where) -> dict | None:
    """One row of the record that a page was published with; None where it was not measured.

    Raises:
        UserError: several rows fit, and differ.
    """
    if not notebooks.published(stage, dataset).exists():
        return None
    found = rows(key=page_key(dataset, stage), stage=stage, method=method, metric=metric, **where)
    if len({r["value"] for r in found}) > 1:
        raise UserError(f"{metric} of {method} on the {stage} page of {dataset} is not one number")
    return found[0] if found else None


def between(row: dict | None, digits: int = 3) -> str:
    """`.766 [.758, .774]`, without the interval where there is none; an en dash for no row."""
    if row is None:
        return "–"
    text = f"{row['value']:.{digits}f}"
    if row["low"] == "":
        return text
    return f"{text} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def audited() -> list[str]:
    """Data sets with a *Gone or only hidden?* page."""
    return [d for d in pages() if notebooks.published("gone-or-hidden", d).exists()]


# --- the claims ----------------------------------------------------------------------------------


VARIANTS = {"soft": "plain", "prototype": "`prototype`", "searched": "`searched`", "best": "`best`",
            "guarded": "`guarded`"}
APART = ("prototype", "searched", "guarded")  # told by records of their own


def claims() -> list[dict]:
    """Every claim of `data/paper.yml` beside ours, with a verdict: the plain method, `best`, and
    those of `APART` where they were measured."""
    settings = yaml.safe_load((paths.root() / "data" / "paper.yml").read_text())
    return [
        {"claim": c["claim"], "source": c["source"], "bar": c["bar"],
         "ours": [{"dataset": d, "variant": said, **found}
                  for d in pages() for method, said in VARIANTS.items()
                  if (found := judge(c, d, method))]}
        for c in settings["claims"]
    ]


def held(claim: dict, variant: str) -> dict:
    """On how many data sets a claim of `claims` `holds` for a variant, holds in `part` (also: under
    its own classifier only), is `open`, and of how many that could be `judged`: where nothing
    leaked before, nothing can."""
    own = [o["verdict"] for o in claim["ours"] if o["variant"] == variant
           and not o["verdict"].startswith("no evidence")]
    part = [v for v in own if v.startswith("in part") or v.endswith("only")]
    return {"holds": sum(v.startswith("holds") for v in own if v not in part), "part": len(part),
            "open": sum(v.startswith("open") for v in own), "judged": len(own)}


def judge(claim: dict, dataset: str, method: str) -> dict | None:
    """Our measurement of one claim and whether it holds; None if one of `APART` has none."""
    if method in APART:
        return judge_apart(claim, dataset, method)
    if claim["id"] == "privacy" and (told := judge_shadowed(dataset, method)):
        return told
    kind, s, t, r = claim["id"], summary(dataset), in_turn(dataset, method), request(
        dataset, method)
    seconds = r["select"] + r["edit"]
    if kind == "complete":
        text = f"{t['forgotten-mean']:.2f} % mean, {t['forgotten-worst']:.1f} % worst of {t['n']}"
        images = rows(key=page_key(dataset), method=method, metric="accuracy",
                      split="forgotten-test", forget=s["forget"])[0]["n"]
        holds = requests.forgets({k: v / 100 for k, v in t.items()}, images)
        if method == "soft":
            text += "; under the untouched classifier as before: the gates act on its columns"
        under = inside_turn(dataset) if method == "best" else None
        if under:
            text += f"; {under['forgotten-mean']:.2f} % under the untouched classifier"
            if holds and under["forgotten-mean"] > 1:
                return {"text": text, "verdict": "holds under its own classifier only"}
    elif kind == "retained":
        text = f"{t['change-mean']:+.2f} points mean, {t['change-worst']:+.2f} worst of {t['n']}"
        holds = requests.spares({k: v / 100 for k, v in t.items()})
        if method == "soft" and has(dataset, "retrained"):
            gap = r["retained"] - request(dataset, "retrained")["retained"]
            text += f"; {100 * gap:+.2f} beside the network retrained without {s['forget']}"
    elif kind == "milliseconds":
        text = f"{1000 * seconds:.2f} ms (select and edit, median)"
        if r["prepare"]:
            text += f"; {r['prepare']:.0f} s a class beforehand"
        holds = seconds < 0.01
    elif kind == "faster":
        if (found := judge_speed(dataset, method)) is not None:
            return found
        if s["retrain"] is None:
            return {"text": "no retrained model yet", "verdict": "open"}
        # the shorter of two trainings: they are timed beside other work
        times = min(s["retrain"], s["train"]) / seconds
        text = f"{times:,.0f} times as fast as retraining (nothing else compared yet)"
        if r["prepare"]:
            text += f"; {min(s['retrain'], s['train']) / r['prepare']:.0f} times with its fit"
        holds = times >= 1000
    else:
        kind = "lira" if s["lira-original"] else "auc"
        o, a, r = (s[f"{kind}-{m}"] for m in ("original", method, "retrained"))
        attack = "online LiRA on shadow models" if kind == "lira" else "modified entropy"
        # a gate on the class's own logit need not take anything from what the others tell
        rest = [beside(dataset, "membership-inference", m, "auc-t1-lira-others") if kind == "lira"
                else None for m in ("original", method, "retrained")]
        return judge_attack(f"{attack}: ", s["forget"], (o, a, r), rest)
    return {"text": text, "verdict": "holds" if holds else "does not hold"}


def judge_attack(said: str, forget: str, told, rest) -> dict:
    """Whether an edit lowers what an attack finds, and whether most of the excess is gone.

    Args:
        told: rows of its AUC on the original, the edited, and the retrained networks (or None).
        rest: the same of an attack on the other classes' outputs alone; rows or None.
    """
    o, a, r = told
    text = f"{said}AUC {between(o)} → {between(a)} ({forget})"
    if o["low"] <= 0.5:
        after = "; after the edit the attack finds something" if a["low"] > 0.5 else ""
        return {"text": text, "verdict": "no evidence: nothing leaked before" + after}
    left, most, where = 0.0, 0.0, ""
    if r:
        left, least, most = excess_left(o, a, r)
        text += (f"; retrained {between(r)}: {100 * left:.0f} % [{100 * least:.0f}, "
                 f"{100 * most:.0f}] of the excess is left")
    holds = a["high"] < o["low"]
    before, after, never = rest
    if before and after:
        text += f"; by the other classes' outputs alone {between(before)} → {between(after)}"
        if never and before["low"] > 0.5 and before["value"] > never["value"]:
            there, least, top = excess_left(before, after, never)
            text += (f"; retrained {between(never)}: {100 * there:.0f} % [{100 * least:.0f}, "
                     f"{100 * top:.0f}] of that excess is left")
            where = " by the other classes' outputs" if left <= 0.5 < there else ""
            left, most = max(left, there), max(most, top)
        if holds and before["low"] > 0.5 and after["high"] >= before["low"]:
            other = "higher" if after["low"] > before["high"] else "not shown to be lower"
            return {"text": text, "verdict": "in part: lower by the attack on all outputs, "
                    f"{other} by the other classes' alone"}
    if holds and left > 0.5:
        return {"text": text, "verdict": f"in part: lower, but{where} most of the excess is left"}
    if holds and most > 0.5:
        return {"text": text, "verdict": "open: holds by the means, the intervals leave it open"}
    return {"text": text, "verdict": "holds" if holds else "does not hold"}


def excess_left(before: dict, after: dict, never: dict) -> tuple[float, float, float]:
    """Of what an attack finds in the original beyond a network that never saw the class, the share
    that is left after an edit, and its interval: the three of the AUCs, carried over to first
    order as if they were independent.

    Example:
        >>> at = lambda v, reach: {"value": v, "low": v - reach, "high": v + reach}
        >>> [round(v, 3) for v in excess_left(at(0.9, 0.04), at(0.6, 0.04), at(0.5, 0.0))]
        [0.25, 0.147, 0.353]
    """
    o, a, r = (row["value"] for row in (before, after, never))
    reach = [(row["high"] - row["low"]) / 2 for row in (before, after, never)]
    excess = o - r
    left = (a - r) / excess
    slopes = (-left / excess, 1 / excess, (left - 1) / excess)
    half = sum((s * h) ** 2 for s, h in zip(slopes, reach, strict=True)) ** 0.5
    return left, left - half, left + half


def judge_apart(claim: dict, dataset: str, method: str) -> dict | None:
    """The same of one of `APART`, from its own records; None where it was not measured."""
    from softprune import comparisons, findings  # they read this module

    kind, t = claim["id"], findings.apart(dataset, method)
    if t is None:
        return None
    if kind == "faster":
        return judge_speed(dataset, method)
    if kind == "privacy":
        return judge_shadowed(dataset, method)
    if kind == "complete":
        return {"text": f"{t['forgotten']:.2f} % mean, {t['worst']:.1f} % worst of {t['classes']}; "
                        "the classifier is untouched",
                "verdict": "holds" if t["gone"] else "does not hold"}
    if kind == "retained":
        return {"text": f"{t['change']:+.2f} points mean, {t['change-worst']:+.2f} worst of "
                        f"{t['classes']}",
                "verdict": "holds" if t["spared"] else "does not hold"}
    if method == "guarded":
        if dataset not in comparisons.compared():
            return None
        own = comparisons.compared_row(dataset, method)
        seconds, before = own["request"], f"beforehand a fit of {own['prepare']:.0f} s a class"
    else:
        seconds = t["select"] + t["edit"]
        before = (f"no fit, {1000 * t['prepare']:.1f} ms for all classes once the table is there"
                  if method == "prototype" else
                  f"beforehand a search of {t['prepare']:.2f} s a class")
    return {"text": f"{1000 * seconds:.2f} ms (select and edit, median); {before}",
            "verdict": "holds" if seconds < 0.01 else "does not hold"}


def judge_shadowed(dataset: str, method: str) -> dict | None:
    """The claim of membership from `benchmarks/lira.py`, which has every edit in one run; None
    where no shadow models were asked about this one."""
    from softprune import findings

    shadowed = findings.shadowed(dataset)
    if shadowed is None or method not in shadowed["auc"]["lira-online"]:
        return None
    # of two attacks on all outputs the one that finds more after the edit
    whole = [a for a in ("lira-online", "lira-centred") if a in shadowed["auc"]]
    found = max(whole, key=lambda a: shadowed["auc"][a][method]["value"])
    told, rest = ([shadowed["auc"][attack].get(m) for m in ("original", method, "retrained")]
                  for attack in (found, "lira-others"))
    said = "online LiRA" if found == "lira-online" else "centred LiRA"
    return judge_attack(f"{said} on {shadowed['count']} shadow models: ",
                        shadowed["forget"], told, rest)


def judge_speed(dataset: str, method: str) -> dict | None:
    """The claim of speed from the head-to-head record; None where there is none. It is open where a
    ratio is nearer to its bar than two runs of the same request are to each other."""
    from softprune import comparisons

    if dataset not in comparisons.compared():
        return None
    own = comparisons.compared_row(dataset, method)
    if own is None:
        return None
    said, fitted, surely, surely_not = [], [], True, False
    apart = comparisons.times_apart()
    for other in comparisons.speed_bar(dataset):
        times = other["ratio"] / own["ratio"]
        surely = surely and times >= other["bar"] * apart
        surely_not = surely_not or times < other["bar"] / apart
        said.append(f"{about(times)} times as fast as {other['method']}")
        if own["prepare"]:
            with_fit = times * own["request"] / (own["request"] + own["prepare"])
            fitted.append(f"{about(with_fit)} times as fast as {other['method']}" if with_fit >= 1
                          else f"{longer(about(1 / with_fit))} as {other['method']}")
    text = f"select and edit {1000 * own['request']:.2f} ms: " + ", ".join(said)
    verdict = "holds" if surely else "does not hold" if surely_not else "open"
    if method in ("searched", "calibrated", "best", "guarded"):
        work = "search" if method == "searched" else "fit"
        digits = 2 if own["prepare"] < 1 else 1
        text += (f"; with the class's {work} beforehand, {own['prepare']:.{digits}f} s: "
                 + ", ".join(fitted))
        if whole := comparisons.every_class(dataset, method):
            text += (f"; for all {whole['classes']} classes, "
                     f"{about(whole['retrainings'])} trainings of the network")
        done = "searched" if method == "searched" else "fitted"
        verdict += f" for a class that was {done} beforehand" if surely else ""
    if verdict == "open":
        verdict += f": a ratio is within a factor of {apart:.1f} of its bar"
    return {"text": text, "verdict": verdict}


# --- the ablation --------------------------------------------------------------------------------


def ablation(dataset: str, width: int, **where) -> list[dict]:
    """Sweep rows of one width, grouped over seeds: a dict a (penalty, strength, method, …) point.

    Returns:
        Dicts with the point's columns, `n` seeds, and mean, low and high (t interval over seeds)
        of `forgotten` and `change`, in points.
    """
    groups: dict[tuple, dict[str, dict]] = {}
    columns = ("penalty", "strength", "method", "score", "gate", "fraction")
    for r in rows(stage="sweep", dataset=dataset, width=width, **where):
        kind = r["metric"].removeprefix("all-classes-")
        if kind in ("forgotten-mean", "change-mean"):
            group = groups.setdefault(tuple(r[c] for c in columns), {})
            group.setdefault(kind.split("-")[0], {})[r["seed"]] = r["value"]
    return [dict(zip(columns, at, strict=True)) | {"n": len(g["change"])}
            | {f"{k}{end}": v for k in ("forgotten", "change")
               for end, v in zip(("", "-low", "-high"), interval(list(g[k].values())),
                                 strict=True)}
            for at, g in groups.items()]


def mean_of(keys: list[str], metric: str, split: str) -> float:
    """Mean over trainings, named by their records' keys, of one number of the original."""
    values = [one(key=k, stage="train", method="original", metric=metric, split=split)
              for k in keys]
    return sum(values) / len(values)


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval over seeds; a single seed has none: the mean thrice."""
    import statistics

    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, mean, mean
    half = _quantile(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


@functools.cache  # a page asks thousands of times for a few degrees of freedom
def _quantile(freedom: float) -> float:
    """Of Student's t, for a 95 % interval."""
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def at_forgetting(points: list[dict], level: float) -> dict | None:
    """The point that costs the others least among those that leave at most `level` percent."""
    within = [p for p in points if p["forgotten"] <= level]
    return max(within, key=lambda p: p["change"]) if within else None


# the strength at which penalties are set side by side: where each was trained with every seed
STRENGTHS = {"so": 0.01, "srip": 0.1, "ocnn": 0.01, "feature": 0.1}
ORDER = ("none", *STRENGTHS, "hard")  # of rows and columns


def compare(dataset: str, width: int, level: float = 5.0) -> list[dict]:
    """A row a penalty: what each way of pruning costs the others at `level` percent forgetting.

    A penalty has one strength here, that of `STRENGTHS`, or where it has none the one with all
    seeds: the others have a table of their own.
    """
    table = ablation(dataset, width)
    ways = {
        "plain": {"score": "difference", "gate": "rank"},
        "hard": {"score": "difference", "gate": "hard"},
        "contribution": {"score": "contribution", "gate": "hard"},
        "random": {"score": "random", "gate": "hard"},
        "calibrated": {"method": "calibrated"},
    }
    made = []
    for penalty in sorted({p["penalty"] for p in table}, key=ORDER.index):
        mine = [p for p in table if p["penalty"] == penalty]
        n = max(p["n"] for p in mine)
        lam = STRENGTHS.get(penalty, next(p["strength"] for p in mine if p["n"] == n))
        mine = [p for p in mine if p["strength"] == lam] or mine
        n = max(p["n"] for p in mine)
        made.append({"penalty": penalty, "strength": mine[0]["strength"], "n": n} | {
            way: at_forgetting([p for p in mine if all(p[k] == v for k, v in where.items())],
                               level)
            for way, where in ways.items()})
    return made


def by_score(dataset: str, width: int, gate: str, level: float = 5.0) -> dict[str, dict]:
    """score -> penalty -> its cheapest point at `level` percent forgetting, None where none is.

    Penalties and their strengths are those of `compare`.
    """
    table = ablation(dataset, width, gate=gate)
    own = [(r["penalty"], r["strength"]) for r in compare(dataset, width, level)]
    return {score: {penalty: at_forgetting(
        [p for p in table if (p["score"], p["penalty"], p["strength"]) == (score, penalty, lam)],
        level) for penalty, lam in own} for score in dict.fromkeys(p["score"] for p in table)}


def effects(dataset: str, width: int, penalty: str) -> dict[str, list[str]]:
    """What training with a penalty changes, over all scores but `random` and both gates.

    Returns:
        Names "score, gate" by what happened at 5 % forgetting: it costs the others `less` or `more`
        than without a penalty, by an interval of the difference that leaves out 0, or that
        holds 0, `meet`; `only` it reaches so little, or `never` it does but the unpenalised
        network; `neither`.
    """
    made: dict[str, list[str]] = {k: [] for k in ("less", "more", "meet", "only", "never",
                                                  "neither")}
    for gate in ("hard", "rank"):
        for score, points in by_score(dataset, width, gate).items():
            if score == "random":
                continue
            a, b = points[penalty], points["none"]
            if not (a and b):
                kind = "only" if a else "never" if b else "neither"
            else:
                _, low, high = less(a, b)
                kind = "less" if low > 0 else "more" if high < 0 else "meet"
            made[kind].append(f"{score}, {gate}")
    return made


def at_cost(dataset: str, width: int, gate: str, limit: float) -> dict[str, dict]:
    """score -> penalty -> how little of the class is left where the others lose at most `limit`.

    The other way round than `by_score`: each seed has its own fraction, the one that leaves least.
    A penalty has the strength of `STRENGTHS`, or what it has.

    Returns:
        Points as `less` takes them, `forgotten` in percent; None where some seed has no fraction
        that costs so little.
    """
    curves: dict[tuple, dict[float, dict[str, float]]] = {}
    for r in rows(stage="sweep", dataset=dataset, width=width, gate=gate):
        kind = r["metric"].removeprefix("all-classes-")
        if (kind in ("forgotten-mean", "change-mean")
                and r["strength"] == STRENGTHS.get(r["penalty"], r["strength"])):
            at = curves.setdefault((r["score"], r["penalty"], r["seed"]), {})
            at.setdefault(r["fraction"], {})[kind.split("-")[0]] = r["value"]
    least: dict[str, dict[str, list]] = {}
    for (score, penalty, _), curve in curves.items():
        left = [p["forgotten"] for p in curve.values() if p["change"] >= -limit]
        least.setdefault(score, {}).setdefault(penalty, []).append(min(left, default=None))
    return {score: {penalty: None if None in values else {"n": len(values)} | dict(zip(
        ("forgotten", "forgotten-low", "forgotten-high"), interval(values), strict=True))
        for penalty, values in by_penalty.items()} for score, by_penalty in least.items()}


def less(a: dict, b: dict, of: str = "change") -> tuple[float, float, float]:
    """The change (or what `of` says) of one of `ablation`'s points less that of another, in points,
    with Welch's 95 % interval over the seeds of either; of a single seed on a side it is unbounded.

    Example:
        >>> point = lambda mean, half: {"change": mean, "change-low": mean - half,
        ...                             "change-high": mean + half, "n": 3}
        >>> [round(v, 2) for v in less(point(-1.0, 0.5), point(-2.0, 0.5))]
        [1.0, 0.54, 1.46]
    """
    gap = a[of] - b[of]
    if min(a["n"], b["n"]) < 2:
        return gap, -float("inf"), float("inf")
    # squared standard errors, out of the t intervals
    errors = [((p[f"{of}-high"] - p[f"{of}-low"]) / 2 / _quantile(p["n"] - 1)) ** 2
              for p in (a, b)]
    if not sum(errors):
        return gap, gap, gap
    freedom = sum(errors) ** 2 / sum(e**2 / (p["n"] - 1) for e, p in zip(errors, (a, b),
                                                                          strict=True))
    half = _quantile(freedom) * sum(errors) ** 0.5
    return gap, gap - half, gap + half


def by_strength(dataset: str, width: int, penalty: str = "so", level: float = 5.0) -> list[dict]:
    """`difference` with hard gates at `level` percent forgetting, a row a strength that was swept.

    Returns:
        Rows of `ablation`, weak penalties first; strengths that forget so much at no fraction are
        left out.
    """
    table = ablation(dataset, width, penalty=penalty, score="difference", gate="hard")
    strengths = sorted({p["strength"] for p in table})
    found = [at_forgetting([p for p in table if p["strength"] == s], level) for s in strengths]
    return [p for p in found if p]


# --- rendering -----------------------------------------------------------------------------------


def picture(dataset: str, path: Path) -> str:
    """The front page's picture, drawn from the run record; returns its alt text."""
    from softprune import plots

    where = {"key": page_key(dataset), "stage": "soft-pruning"}

    def mean(row, part):
        return one(**where, method=row["method"], fraction=row["fraction"], sites=row["sites"],
                   metric=f"all-classes-{part}-mean")

    points = [
        {"method": r["method"], "fraction": r["fraction"], "forgotten": r["value"],
         "retained": mean(r, "retained")}
        for r in rows(**where, metric="all-classes-forgotten-mean")
        if r["sites"] not in ("each", "inside")
    ]
    lone = {m: tuple(one(**where, method=m, sites="each", metric=f"all-classes-{part}-mean")
                     for part in ("forgotten", "retained"))
            for m in ("head-mask", "calibrated", "best")}
    cross = lone.pop("head-mask")
    figure, alt = plots.frontier(points, None, cross, [(m, *at) for m, at in lone.items()])
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.save(figure, path)
    return alt


def ablation_picture(dataset: str, width: int, path: Path) -> str:
    """Curves of every penalty, `difference` with hard gates; returns the alt text."""
    from softprune import plots

    groups: dict[str, list[dict]] = {}
    table = ablation(dataset, width, score="difference", gate="hard")
    for row in compare(dataset, width):
        name = row["penalty"] if row["n"] > 1 else f"{row['penalty']} (one seed)"
        groups[name] = [
            {"forgotten": p["forgotten"], "change": p["change"], "low": p["change-low"],
             "high": p["change-high"]}
            for p in table if (p["penalty"], p["strength"]) == (row["penalty"], row["strength"])]
    figure, alt = plots.curves_at_equal_forgetting(groups)
    plots.save(figure, path)
    return alt


def scores_picture(dataset: str, width: int, path: Path, penalty: str = "so") -> str:
    """Curves of every score on networks trained with `penalty`, hard and soft gates side by side;
    returns the alt text."""
    from softprune import plots

    lam = next(r["strength"] for r in compare(dataset, width) if r["penalty"] == penalty)
    panels: dict[str, dict[str, list[dict]]] = {}
    for gate, title in (("hard", "closed (hard)"), ("rank", "attenuated (rank)")):
        for p in ablation(dataset, width, penalty=penalty, strength=lam, gate=gate):
            panels.setdefault(title, {}).setdefault(p["score"], []).append(
                {"forgotten": p["forgotten"], "change": p["change"], "low": p["change-low"],
                 "high": p["change-high"]})
    figure, alt = plots.panels_at_equal_forgetting(panels)
    plots.save(figure, path)
    return alt


def render(source: Path, target: Path, edition: str = "student") -> None:
    """Copy `source` to `target`, filling every page's numbers in.

    What the student's edition must not hold is taken out before anything is rendered.
    """
    import jinja2

    from softprune import sliders

    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    if (source / "class").exists():
        editions.place(target, edition)
    alts = {d: picture(d, target / "images" / f"{d}.png") for d in pages()}
    swept = {d: w for d, w in SWEPT.items() if rows(stage="sweep", dataset=d, width=w)}
    alts |= {f"ablation-{d}": ablation_picture(d, w, target / "images" / f"ablation-{d}.png")
             for d, w in swept.items()}
    alts |= {f"scores-{d}": scores_picture(d, w, target / "images" / f"scores-{d}.png")
             for d, w in swept.items()}
    from softprune import comparisons, findings, glance  # they read this module

    alts |= comparisons.pictures(target / "images") | glance.pictures(target / "images")
    environment = jinja2.Environment(
        variable_start_string="[[", variable_end_string="]]", block_start_string="[%",
        block_end_string="%]", comment_start_string="[##", comment_end_string="##]",
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    paper, site = (yaml.safe_load((paths.root() / name).read_text())
                   for name in ("data/paper.yml", "_config.yml"))
    environment.filters["zip"] = zip
    environment.globals |= {
        "one": one, "rows": rows, "pct": pct, "about": about, "pages": pages, "summary": summary,
        "claims": claims, "held": held,
        "less": less, "variants": list(VARIANTS.values()), "paper": paper,
        "catalog": catalog.catalog(), "alts": alts,
        "identity": identity, "page_key": page_key, "in_turn": in_turn, "request": request,
        "has": has, "ablation": ablation, "compare": compare, "swept": swept,
        "penalties": ORDER, "class_names": class_names, "by_strength": by_strength,
        "by_score": by_score, "effects": effects, "at_cost": at_cost,
        "mean_of": mean_of, "beside": beside, "between": between, "audited": audited,
        "inside_turn": inside_turn, "edition": edition, "assignments": editions.assignments,
        "mistakes": editions.mistakes, "sliders": sliders, "purpose": purpose,
        "architectures": sorted(models.ARCHITECTURES.items()), "protocol": checks.PROTOCOL,
        "repository": site["repository"]["url"],
    }
    environment.globals |= findings.helpers()
    environment.globals |= comparisons.globals_for_pages()
    environment.globals |= glance.helpers()
    for page in sorted(target.rglob("*.md")):
        try:
            page.write_text(without_negative_zero(
                environment.from_string(page.read_text()).render()))
        except jinja2.TemplateError as error:
            raise UserError(f"{page.relative_to(target)}: {error}") from error


def build(out: Path | None = None, edition: str = "student") -> Path:
    """Render and build; returns the path of `index.html`.

    Args:
        edition: `student`, assignments as released; `teacher`, with solutions and notes, in a
            folder of its own, so that nothing of it can stay behind in the student's.

    Raises:
        UserError: a missing number, or a warning of Sphinx.
    """
    choose("edition", edition, editions.EDITIONS)
    root = paths.root()
    work = out or root / "_build" / ("teacher" if edition == "teacher" else "")
    source = work / "source"
    render(root / "book", source, edition)
    toc = work / "_toc.yml"
    toc.write_text(editions.contents(edition))
    made_from, stamp = tree_hash([source, root / "_config.yml", toc, root / "src"]
                                 ), work / "built-from"
    index = work / "_build" / "html" / "index.html"
    if index.exists() and stamp.exists() and stamp.read_text() == made_from:
        return index
    stamp.unlink(missing_ok=True)
    index = sphinx(source, root / "_config.yml", toc, work)
    stamp.write_text(made_from)
    return index


def without_negative_zero(text: str) -> str:
    """A number that rounds to zero has no sign.

    Example:
        >>> without_negative_zero("-0.00 [-0.00, +0.02], -0.01, 10-0.0")
        '0.00 [0.00, +0.02], -0.01, 10-0.0'
    """
    return re.sub(r"(?<![\w.])[-−](0\.0+)(?!\d)", r"\1", text)


def longer(times: str) -> str:
    """How much longer something takes, in words.

    Example:
        >>> longer("1"), longer("30")
        ('about as long', '30 times as long')
    """
    return "about as long" if times == "1" else f"{times} times as long"


def purpose(module: str) -> str:
    """The first sentence of a module's docstring, without its end."""
    source = (Path(__file__).parent / f"{module}.py").read_text()
    return ast.get_docstring(ast.parse(source)).split("\n\n")[0].replace("\n", " ").split(". ")[0]


def tree_hash(places: list[Path]) -> str:
    """Hash of files and of all files below folders, names and contents."""
    files = [f for p in places for f in ([p] if p.is_file() else sorted(p.rglob("*")))]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.name}\0{artifacts.sha256(file)}\n".encode())
    return digest.hexdigest()


def sphinx(source: Path, config: Path, toc: Path, out: Path) -> Path:
    """Jupyter Book on rendered sources; any warning is an error.

    Raises:
        UserError: it did not build; what Sphinx said goes to standard error.
    """
    settings = yaml.safe_load(config.read_text())
    if not settings["repository"]["url"]:  # no address, so no links to it: the theme would fail
        settings.pop("launch_buttons")
        settings.pop("repository")
    config = out / "_config.yml"
    config.write_text(yaml.safe_dump(settings))
    command = [
        sys.executable, "-c", "from jupyter_book.cli.main import main; main()",
        "build", str(source), "--config", str(config), "--toc", str(toc),
        "--path-output", str(out), "-W", "-n", "--keep-going",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    index = out / "_build" / "html" / "index.html"
    if done.returncode or not index.exists():
        told = done.stdout + done.stderr  # hundreds of lines of progress: what matters comes last
        wrong = [line for line in told.splitlines() if "WARNING" in line or "ERROR" in line]
        sys.stderr.write(done.stdout[-6000:] + done.stderr[-6000:] + "\n".join(["", *wrong, ""]))
        raise UserError("the book did not build without warnings: they stand above")
    return index


def main(words: list[str] | None = None) -> int:
    """Build, print where it is."""
    parser = argparse.ArgumentParser(prog="softprune.book", description="Build the book.")
    parser.add_argument("--edition", default="student", metavar="|".join(editions.EDITIONS))
    try:
        print(build(edition=parser.parse_args(words).edition))
    except UserError as error:
        print(f"softprune.book: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
