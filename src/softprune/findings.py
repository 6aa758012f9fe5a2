"""Tables of the findings pages: what the ladder's choice tried, and the spread over seeds."""

import dataclasses
import json

from softprune import book, choosing, ladder, paths
from softprune.errors import UserError


def chosen() -> dict:
    """`data/ladder.json`: data set -> rung -> `set` (what differs from the base) and `record`."""
    path = paths.root() / "data" / "ladder.json"
    return json.loads(path.read_text()) if path.exists() else {}


def trials(dataset: str, rung: str) -> list[dict]:
    """What the choice of a rung's setting tried, in order; [] where none was made.

    Returns:
        Dicts with `setting` (what is not the base's), `chosen`, `n`, and in points `forgotten`,
        `worst`, `inside`, `change`.

    Raises:
        UserError: the choice names a record that is not there.
    """
    entry = chosen().get(dataset, {}).get(rung)
    if entry is None:
        return []
    found = [r for r in book.records() if (r["stage"], r["key"]) == ("ladder", entry["record"])]
    if not found:
        raise UserError(f"no run record {entry['record']} for the {rung} rung of {dataset}: "
                        f"type `softprune fit --choose --dataset {dataset} --rung {rung}`")
    value = {(r["gate"], r["metric"]): r for r in found[0]["rows"]}
    names = {"forgotten": "forgotten-mean", "worst": "forgotten-worst", "inside": "inside-mean",
             "change": "change-mean"}
    made = []
    for number, options in enumerate(found[0]["extra"]["trials"]):
        at = {k: value[f"trial-{number}", f"trial-{m}"] for k, m in names.items()}
        made.append({k: r["value"] for k, r in at.items()} | {
            "setting": setting(rung, dataset, options), "chosen": options["chosen"],
            "n": at["change"]["n"]})
    return made


def inside_only(dataset: str) -> dict | None:
    """Of what was tried for `best` without the last site, the trial that the rule would take."""
    tried = [t for t in trials(dataset, "best") if "last" not in t["setting"].split("sites ")[1]]
    within = [t for t in tried if t["forgotten"] <= 100 * choosing.LIMIT]
    if within:
        return max(within, key=lambda t: t["change"])
    return min(tried, key=lambda t: t["forgotten"], default=None)


def setting(rung: str, dataset: str, options: dict) -> str:
    """`margin 0.3, sites late`: the searched options of a trial, in words."""
    base = dataclasses.asdict(ladder.base(rung, dataset))
    shown = ["margin", "keep", "sites" if rung == "best" else "pull"]
    shown += [k for k, v in base.items() if k not in shown and options.get(k, v) != v]
    return ", ".join(f"{k} {options[k]:g}" if isinstance(options[k], float)
                     else f"{k} {options[k]}" for k in shown)


def over_seeds(dataset: str, width: int, method: str) -> dict | None:
    """Mean and 95 % t interval over training seeds of every class in turn; None where none is.

    Returns:
        `n` seeds, and for `forgotten`, `worst`, `change`, `change-worst` triples (mean, low,
        high) in points.
    """
    where = {"stage": "seeds", "dataset": dataset, "width": width, "method": method}
    names = {"forgotten": "forgotten-mean", "worst": "forgotten-worst", "change": "change-mean",
             "change-worst": "change-worst"}
    by_seed = {k: {r["seed"]: r["value"] for r in book.rows(metric=f"all-classes-{m}", **where)}
               for k, m in names.items()}
    if not by_seed["change"]:
        return None
    return {"n": len(by_seed["change"])} | {
        k: book.interval(list(v.values())) for k, v in by_seed.items()}


def beside_retrained(dataset: str, width: int, method: str, forget: str) -> dict | None:
    """Retained accuracy of a method's request less the retrained model's, paired by seed.

    Returns:
        `n` seeds and `gap`, a triple (mean, low, high) in points; None where none is.
    """
    where = {"stage": "seeds", "dataset": dataset, "width": width, "metric": "accuracy",
             "forget": forget, "split": "retained-test"}
    ours, theirs = ({r["seed"]: r["value"] for r in book.rows(method=m, **where)}
                    for m in (method, "retrained"))
    both = sorted(set(ours) & set(theirs))
    if not both:
        return None
    return {"n": len(both),
            "gap": book.interval([100 * (ours[s] - theirs[s]) for s in both])}


def helpers() -> dict:
    """What pages may call."""
    return {"trials": trials, "inside_only": inside_only, "over_seeds": over_seeds,
            "beside_retrained": beside_retrained, "rungs": ladder.RUNGS,
            "limit": choosing.LIMIT, "loss": choosing.LOSS}
