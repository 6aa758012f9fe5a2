"""Network by network: the table of *Results*, which the front page counts."""

import statistics

from softprune import across, bar, catalog, choices, recovered, runs, summaries, unfitted

# what is told of each network, beside rungs of records of their own
FRONT = ("soft", "hard", "calibrated", "best")


def front_table() -> list[dict]:
    """The rows: each page's network, then the wider ones (`present`).

    Returns:
        Dicts with `dataset`, `name`, `title` (the name with profile and accuracy), `inside` (what
        `best` leaves under the untouched classifier; None if not measured), and a dict a method of
        `FRONT` as in `networks`, with `met`: whether it meets the whole bar; the same for
        `guarded`, `prototype` and `searched` (None where it was not measured), with `elsewhere`:
        whether another training of the recipe, with other weights, was asked; `refits`: edit ->
        shares that a refitted classifier finds of a class, `before` it and after (`refit`), means
        of `n` classes; `partial`: whether `best` was fitted for some
        classes only; `earlier`: whether by an earlier setting.
    """
    titles, made = {d: c["title"] for d, c in catalog.catalog().items()}, []
    for d in runs.pages():
        own, inside = runs.identity(d), summaries.inside_turn(d)
        turns = {m: summaries.in_turn(d, m) for m in FRONT}
        name = f"{titles[d]}, width {own['width']}"
        made.append({"dataset": d, "name": name, "title": f"{name} ({own['profile']})",
                     "at": {"width": own["width"]}, "weights": set(),
                     "earlier": "soft-pruning" in choices.older_pages(d),
                     "inside": inside["forgotten-mean"] if inside else None}
                    | {m: bar.turn_of(t) for m, t in turns.items()})
    for d in across.side_by_side():
        for e in across.present(across.wider(d)):
            name = f"{titles[d]}, {e['label'].split(', ', 1)[1]}"
            title = f"{name} ({e['profile']}), {100 * e['test']:.1f} % right before"
            title += "; fitted by an earlier setting" if e["earlier"] else ""
            made.append({"dataset": d, "name": name, "title": title, "earlier": e["earlier"],
                         "weights": e["weights"],
                         "at": {k: e[k] for k in ("architecture", "width", "penalty", "epochs")},
                         "inside": e["inside"]["forgotten"]} | {m: dict(e[m]) for m in FRONT})
    for row in made:
        at, weights = row.pop("at"), row.pop("weights")
        found = recovered.most_guarded(row["dataset"], **at)
        row["guarded"] = bar.turn_over(found[0]) | {
            "weights": found[2].get("extra", {}).get("weights")} if found else None
        row |= {rung: unfitted.from_table(row["dataset"], rung, **{"penalty": "so", "seed": 0} | at)
                for rung in choices.UNFITTED}
        for m in (m for m in (*FRONT, "guarded", *choices.UNFITTED) if row[m]):
            row[m]["met"] = bar.met(row["dataset"], row[m])
            row[m]["elsewhere"] = m not in FRONT and bool(weights) and (
                row[m]["weights"] not in weights)
        row["refits"] = {e["rung"]: e for e in across.each(row["dataset"])
                         if ({"penalty": "so", "seed": 0} | at).items() <= e.items()}
        if found:
            refit, before = (of["accuracy-head-refit"] for of in found[:2])
            row["refits"]["guarded"] = {"n": len(refit), "refit": statistics.fmean(refit),
                                        "before": statistics.fmean(before)}
        row["partial"] = row["best"]["classes"] < row["soft"]["classes"]
    return made


def helpers() -> dict:
    """What pages may call."""
    return {"front_table": front_table}
