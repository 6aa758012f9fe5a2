"""The paper's claims beside what was measured, each with a verdict."""

import math

import yaml

from softprune import (
    bar,
    comparisons,
    findings,
    paths,
    recovered,
    requests,
    runs,
    summaries,
    unfitted,
)

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
                  for d in runs.pages() for method, said in VARIANTS.items()
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
    kind, s = claim["id"], summaries.summary(dataset)
    t, r = summaries.in_turn(dataset, method), summaries.request(dataset, method)
    seconds = r["select"] + r["edit"]
    if kind == "complete":
        text = f"{t['forgotten-mean']:.2f} % mean, {t['forgotten-worst']:.1f} % worst of {t['n']}"
        images = runs.rows(key=runs.page_key(dataset), method=method, metric="accuracy",
                      split="forgotten-test", forget=s["forget"])[0]["n"]
        holds = requests.forgets({k: v / 100 for k, v in t.items()}, images)
        if method == "soft":
            text += ("; with the untouched classifier put back, as much as before any edit: the "
                     "gates are in the classifier's columns")
        under = summaries.inside_turn(dataset) if method == "best" else None
        if under:
            text += f"; {under['forgotten-mean']:.2f} % under the untouched classifier"
            if holds and under["forgotten-mean"] > 1:
                return {"text": text, "verdict": "holds under its own classifier only"}
    elif kind == "retained":
        text = f"{t['change-mean']:+.2f} points mean, {t['change-worst']:+.2f} worst of {t['n']}"
        holds = requests.spares({k: v / 100 for k, v in t.items()})
        if method == "soft" and summaries.has(dataset, "retrained"):
            gap = r["retained"] - summaries.request(dataset, "retrained")["retained"]
            text += (f"; for {s['forget']} alone {100 * gap:+.2f} against the network retrained "
                     "without it")
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
        rest = [summaries.beside(dataset, "membership-inference", m, "auc-t1-lira-others")
                if kind == "lira" else None for m in ("original", method, "retrained")]
        return judge_attack(f"{attack}: ", s["forget"], (o, a, r), rest)
    return {"text": text, "verdict": "holds" if holds else "does not hold"}


def judge_attack(said: str, forget: str, told, rest) -> dict:
    """Whether an edit lowers what an attack finds, and whether most of the excess is gone.

    Args:
        told: rows of its AUC on the original, the edited, and the retrained networks (or None).
        rest: the same of an attack on the other classes' outputs alone; rows or None.
    """
    o, a, r = told
    text = f"{said}AUC {runs.between(o)} → {runs.between(a)} ({forget})"
    if o["low"] <= 0.5:
        after = "; after the edit the attack finds something" if a["low"] > 0.5 else ""
        return {"text": text, "verdict": "no evidence: nothing leaked before" + after}
    left, least, most, where = 0.0, 0.0, 0.0, ""
    if r:
        left, least, most = excess_left(o, a, r)
        text += (f"; retrained {runs.between(r)}: {100 * left:.0f} % [{100 * least:.0f}, "
                 f"{100 * most:.0f}] of the excess is left")
    holds = fall(o, a)[0] > 0
    before, after, never = rest
    if before and after:
        text += (f"; by the other classes' outputs alone {runs.between(before)} → "
                 f"{runs.between(after)}")
        if never and before["low"] > 0.5 and before["value"] > never["value"]:
            there, bottom, top = excess_left(before, after, never)
            text += (f"; retrained {runs.between(never)}: {100 * there:.0f} % [{100 * bottom:.0f}, "
                     f"{100 * top:.0f}] of that excess is left")
            where = " by the other classes' outputs" if left <= 0.5 < there else ""
            left, least, most = max(left, there), max(least, bottom), max(most, top)
        least_fall, most_fall = fall(before, after)
        if holds and before["low"] > 0.5 and least_fall <= 0:
            said = "lower by the attack on all outputs, {} by the other classes' alone"
            if most_fall < 0:
                return {"text": text, "verdict": "does not hold: " + said.format("higher")}
            # with most of the excess left, and surely, it is not met even if a little is gone
            verdict = "does not hold: " if least > 0.5 else "open: "
            return {"text": text, "verdict": verdict + said.format("not shown to be lower")}
    if holds and left > 0.5:
        return {"text": text, "verdict": f"in part: lower, but{where} most of the excess is left"}
    if holds and most > 0.5:
        return {"text": text, "verdict": "open: holds by the means, the intervals leave it open"}
    return {"text": text, "verdict": "holds" if holds else "does not hold"}


def fall(before: dict, after: dict) -> tuple[float, float]:
    """Between what an attack's AUC falls by an edit: the record's interval, images paired, or that
    of the two AUCs as if they were independent, too wide since models and images are the same.

    Example:
        >>> at = lambda v, reach: {"value": v, "low": v - reach, "high": v + reach}
        >>> [round(v, 3) for v in fall(at(0.9, 0.03), at(0.8, 0.04))]
        [0.05, 0.15]
    """
    if "gap" in after:
        return after["gap"]["low"], after["gap"]["high"]
    reach = math.hypot(*((row["high"] - row["low"]) / 2 for row in (before, after)))
    gap = before["value"] - after["value"]
    return gap - reach, gap + reach


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
    kind, t = claim["id"], unfitted.apart(dataset, method)
    if t is None:
        return None
    if kind == "faster":
        return judge_speed(dataset, method)
    if kind == "privacy":
        return judge_shadowed(dataset, method)
    there = summaries.in_turn(dataset, "soft")["n"]
    holds = "holds" if t["classes"] == there else (
        f"open: holds for the {t['classes']} of {there} classes that were fitted")
    if kind == "complete":
        return {"text": f"{t['forgotten']:.2f} % mean, {t['worst']:.1f} % worst of {t['classes']}; "
                        "the classifier is untouched",
                "verdict": holds if t["gone"] else "does not hold"}
    if kind == "retained":
        over = f", {t['below']} of them below a point" if t["below"] else ""
        return {"text": f"{t['change']:+.2f} points mean, {t['change-worst']:+.2f} worst of "
                        f"{t['classes']}{over}",
                "verdict": holds if t["spared"] else "does not hold"}
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
    if dataset not in comparisons.compared():
        return None
    own = comparisons.compared_row(dataset, method)
    if own is None:
        return None
    said, fitted, surely, surely_not = [], [], True, False
    apart = comparisons.times_apart(method)
    for other in comparisons.speed_bar(dataset):
        times = other["ratio"] / own["ratio"]
        surely = surely and times >= other["bar"] * apart
        surely_not = surely_not or times < other["bar"] / apart
        said.append(f"{runs.about(times)} times as fast as {other['method']}")
        if own["prepare"]:
            with_fit = times * own["request"] / (own["request"] + own["prepare"])
            fitted.append(f"{runs.about(with_fit)} times as fast as {other['method']}"
                          if with_fit >= 1
                          else f"{longer(runs.about(1 / with_fit))} as {other['method']}")
    text = f"select and edit {1000 * own['request']:.2f} ms: " + ", ".join(said)
    verdict = "holds" if surely else "does not hold" if surely_not else "open"
    if method in ("searched", "calibrated", "best", "guarded"):
        work = "search" if method == "searched" else "fit"
        digits = 2 if own["prepare"] < 1 else 1
        text += (f"; with the class's {work} beforehand, {own['prepare']:.{digits}f} s: "
                 + ", ".join(fitted))
        if whole := comparisons.every_class(dataset, method):
            text += (f"; for all {whole['classes']} classes, "
                     f"{runs.about(whole['retrainings'])} trainings of the network")
        done = "searched" if method == "searched" else "fitted"
        verdict += f" for a class that was {done} beforehand" if surely else ""
    if verdict == "open":
        verdict += f": a ratio is within a factor of {apart:.1f} of its bar"
    return {"text": text, "verdict": verdict}


def longer(times: str) -> str:
    """How much longer something takes, in words.

    Example:
        >>> longer("1"), longer("30")
        ('about as long', '30 times as long')
    """
    return "about as long" if times == "1" else f"{times} times as long"


def all_at_once(dataset: str) -> list[dict]:
    """Every edit of `recovered.beside_bars` against all bars together, by its means.

    Returns:
        Dicts with `edit`, and whether it meets `gone` (complete), `spared` (half a point), `near`
        (the others beside retrained networks), `out` (what a refit finds), and `met`, all of them.
    """
    told = []
    for b in recovered.beside_bars(dataset):
        if b["edit"] == "best":
            gone, spared = bar.bars(dataset, bar.turn_of(summaries.in_turn(dataset, "best")))
        else:
            found = unfitted.apart(dataset, b["edit"])
            gone, spared = found["gone"], found["spared"]
        near, out = (b[k].startswith("holds") for k in ("others-verdict", "refit-verdict"))
        told.append({"edit": b["edit"], "gone": gone, "spared": spared, "near": near, "out": out,
                     "met": gone and spared and near and out})
    return told


def helpers() -> dict:
    """What pages may call."""
    return {"claims": claims, "held": held, "variants": list(VARIANTS.values()),
            "all_at_once": all_at_once}
