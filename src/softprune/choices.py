"""What the choice of settings tried, and which pages are older than the choice."""

import dataclasses
import math
import statistics

from softprune import (
    artifacts,
    catalog,
    choosing,
    guarding,
    ladder,
    notebooks,
    paths,
    prototypes,
    runs,
    searching,
)
from softprune.errors import UserError


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
    found = [r for r in runs.records() if (r["stage"], r["key"]) == ("ladder", entry["record"])]
    if not found:
        raise UserError(f"no run record {entry['record']} for the {rung} rung of {dataset}: "
                        f"type `softprune fit --choose --dataset {dataset} --rung {rung}`")
    return found[0]


def searched(dataset: str, rung: str = "best") -> dict | None:
    """The training configuration of the network that a setting was chosen with."""
    record = _choice(dataset, rung)
    return record["parameters"] if record else None


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
    profile = runs.identity(dataset)["profile"]
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
    for dataset in runs.pages():
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
    return [catalog.catalog()[d]["title"] for d in runs.pages()
            if any(t["chosen"] and t["kind"] == "last" for t in trials(d, "best"))]


def along_directions() -> list[str]:
    """Titles of the data sets whose chosen `best` works along directions, not on channels."""
    return [catalog.catalog()[d]["title"] for d in runs.pages()
            if any(t["chosen"] and t["kind"] == "direct" for t in trials(d, "best"))]


def setting(rung: str, dataset: str, options: dict) -> str:
    """`margin 0.3, sites late`: the searched options of a trial, in words."""
    base = dataclasses.asdict(ladder.base(rung, dataset))
    shown = ["margin", "keep", "sites" if rung == "best" else "pull"]
    shown += [k for k, v in base.items() if k not in shown and options.get(k, v) != v]
    return ", ".join(f"{k} {options[k]:g}" if isinstance(options[k], float)
                     else f"{k} {options[k]}" for k in shown)


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
    for record in runs.records():
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
                "gain": runs.interval(gain)})
    return made


# stage of the records of `benchmarks/from_table.py`, and file of `data` with choices
UNFITTED = {prototypes.RUNG: ("from-table", prototypes.FILE),
            searching.RUNG: ("searched", searching.FILE)}


def table_trials(dataset: str, rung: str = prototypes.RUNG) -> list[dict]:
    """What the choice of a setting of `prototype` or `searched` tried, for each number of sites
    what it would take (`prototypes.prefer`): validation split.

    Returns:
        Dicts with the setting's options, in points `left` (not told by a margin yet), `forgotten`,
        `change` and `change-worst`, how many classes, `n`, and `chosen`.
    """
    key = prototypes.chosen(UNFITTED[rung][1]).get(dataset, {}).get("record")
    found = [r for r in runs.records() if r["stage"] == f"{rung}-choice" and r["key"] == key
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


def helpers() -> dict:
    """What pages may call."""
    return {"trials": trials, "trials_meet": trials_meet, "cheapest": cheapest,
            "searched": searched, "at_last_site": at_last_site,
            "along_directions": along_directions, "fitted_steps": fitted_steps, "fits": fits,
            "older_pages": older_pages, "older_note": older_note, "table_trials": table_trials,
            "rungs": ladder.RUNGS, "limit": choosing.LIMIT, "limit_inside": choosing.INSIDE,
            "loss": choosing.LOSS, "table_loss": prototypes.LOSS, "table_near": prototypes.NEAR,
            "table_worst": searching.WORST, "table_spreads": searching.SPREADS,
            "table_tried": {
                prototypes.RUNG: {"sites": prototypes.SITES, "alpha": prototypes.ALPHAS,
                                  "spread": prototypes.SPREADS},
                searching.RUNG: {"sites": searching.SITES, "margin": searching.MARGINS}},
            "sample": searching.SAMPLE, "strengths": searching.STRENGTHS,
            "strays": searching.STRAYS, "most": searching.MOST}
