"""Every edit at a glance: in one line of the front page's table, from the head-to-head
pages' records, and in one line of the figure that shows where in the network each of them acts."""

from pathlib import Path
from types import SimpleNamespace

from softprune import (
    bar,
    comparisons,
    findings,
    front,
    guarding,
    ladder,
    models,
    prototypes,
    runs,
    searching,
    summaries,
)

EDITS = ("original", "head-mask", "soft", "hard", "calibrated", "pour-p", "prototype", "searched",
         "best", "guarded")
HIDDEN = "cifar10"  # the set whose refits are shown: of the real ones it has most classes compared


def at_a_glance() -> list[dict]:
    """What each of `EDITS` asks for and reaches, and a network retrained without the class.

    Returns:
        Dicts with `edit`; (least, largest) over the data sets compared head to head, each a mean
        over the classes of its page: `prepare`, seconds of what is done beforehand, None where
        nothing is, and `request`, seconds; `met` and `tried`, how many networks meet the bar on
        accuracy with every class in turn, and `some_met` and `some_tried`, with some of the
        classes, None where there is no such network; `refit`, percent of a class that a refitted
        classifier finds on `HIDDEN`; `auc` and `others`, by data set, rows of the AUC of LiRA with
        shadow models, on all outputs and on the other classes' alone. What was not measured is
        None, or absent from `auc` and `others`.
    """
    sets, made = comparisons.compared(), []
    for edit in (*EDITS, "retrained"):
        rows = [r for d in sets if (r := comparisons.compared_row(d, edit))]
        every, some = ([m for whole, m in bars(edit) if whole == asked] for asked in (True, False))
        made.append({
            "edit": edit, "prepare": _range(r["prepare"] for r in rows),
            "request": _range(r["request"] for r in rows),
            "met": sum(every) if every else None, "tried": len(every) or None,
            "some_met": sum(some) if some else None, "some_tried": len(some) or None,
            "refit": found_by_refit(edit)} | {
                name: {d: told for d in runs.pages() if (told := attacked(d, edit, attack))}
                for name, attack in (("auc", "lira-online"), ("others", "lira-others"))})
    return made


def bars(edit: str) -> list[tuple[bool, bool]]:
    """For every network that an edit was tried on: whether with every class, and whether it meets
    the bar on accuracy.

    The fake stands on the data sets' own pages, `pour-p` on their head-to-head pages; others are in
    `front.front_table`.
    """
    if edit == "head-mask":
        turns = {d: [summaries.in_turn(d, edit)] for d in runs.pages()}
    elif edit == "pour-p":
        turns = {d: [t for t in comparisons.compared_turns(d) if t["method"] == edit]
                 for d in comparisons.compared()}
    else:
        return [(n[edit]["classes"] == n["soft"]["classes"], n[edit]["met"])
                for n in front.front_table() if n.get(edit)]
    return [(t["n"] == summaries.in_turn(d, "soft")["n"], bar.met(d, bar.turn_of(t)))
            for d, told in turns.items() for t in told]


def found_by_refit(edit: str) -> float | None:
    """Percent of a class that a refitted classifier finds on `HIDDEN`, mean over its classes."""
    if HIDDEN not in comparisons.compared():
        return None
    if edit == "original":  # no method of the head to head, but measured beside them
        return 100 * comparisons.refit_before(HIDDEN)
    row = comparisons.compared_row(HIDDEN, edit)
    return 100 * row["refit"] if row else None


def attacked(dataset: str, edit: str, attack: str = "lira-online") -> dict | None:
    """Row of an attack's AUC on the forgotten class, with shadow models: of `benchmarks/lira.py`,
    which has every edit in one run, or else of the data set's page; None where neither has it.
    Of `lira-online` and `lira-centred`, which read the same, it is the one that finds more."""
    told, rows = findings.shadowed(dataset), []
    for name in ("lira-online", "lira-centred") if attack == "lira-online" else (attack,):
        row = told["auc"].get(name, {}).get(edit) if told else None
        rows.append(row or summaries.beside(dataset, "membership-inference", edit,
                                            f"auc-t1-{name}"))
    return max((r for r in rows if r), key=lambda r: r["value"], default=None)


def hidden_or_gone(dataset: str = HIDDEN) -> list[dict]:
    """Of `original`, the edits of the table and *retrained*: percent of a class that is still
    right, and that a refitted classifier finds, means over the classes compared head to head."""
    made = []
    for edit in (*EDITS, "retrained"):
        if edit == "original":
            right = comparisons.right_before(dataset)
            made.append({"edit": edit, "right": 100 * right,
                         "refit": 100 * comparisons.refit_before(dataset)})
        elif row := comparisons.compared_row(dataset, edit):
            made.append({"edit": edit, "right": 100 * row["forgotten"],
                         "refit": 100 * row["refit"]})
    return made


def acting(dataset: str = HIDDEN) -> tuple[list[str], list[dict]]:
    """Where each edit acts in the network of a data set's pages, by the settings in force.

    Returns:
        The names of the network's sites, in its order, and a dict an edit with `edit`, lists of
        sites `gates` and `directions`, `pairs` (how many directions a site), `shifts` (parts of the
        network whose last batch norms are shifted) and `readers` (sites where a classifier learns
        along while it is fitted).
    """
    own = runs.identity(dataset)
    model = models.build(own["architecture"], classes=2, channels=3, width=own["width"])
    last = model.sites()[-1].name
    made = [_line("soft", gates=[last]), _line("calibrated", gates=[last])]
    for rung, options in ((prototypes.RUNG, prototypes.options), (searching.RUNG,
                                                                  searching.options)):
        at = prototypes.where(model, options(dataset, own["profile"]).sites)
        made.append(_line(rung, directions=[s.name for s in at]))
    # what `guarding.setting` asks of a bench
    bench = SimpleNamespace(model=model, images=SimpleNamespace(name=dataset),
                            sidecar={"config": {"profile": own["profile"]}})
    for rung in ("best", *guarding.RUNGS):
        o = (ladder.options(rung, dataset, own["profile"]) if rung == "best"
             else guarding.setting(bench, rung))
        sites = models.choose_sites(model, o.sites)
        behind = {name for name, _ in models.split_at(model, sites)[1]}
        depths = o.depths.split(",") if getattr(o, "depths", "") else []
        made.append(_line(
            rung, gates=[s.name for s in sites] if o.rate else [],
            directions=[s.name for s in sites if s.read] if o.direction else [],
            pairs=getattr(o, "pairs", 1),
            shifts=sorted({part for part in models.shifts(model).values() if part in behind}
                          if o.shift else ()),
            readers=[*depths, last] if rung in guarding.RUNGS else []))
    return [s.name for s in model.sites()], made


def _line(edit: str, **at) -> dict:
    return {"edit": edit, "gates": [], "directions": [], "pairs": 1, "shifts": [],
            "readers": []} | at


def _range(values) -> tuple[float, float] | None:
    known = [v for v in values if v is not None]
    return (min(known), max(known)) if known else None


def span(pair: tuple[float, float]) -> str:
    """Two times in seconds as a page shows them, two digits each, the unit once where it is one.

    Example:
        >>> span((0.00011, 0.000394)), span((2.5117, 1289.2)), span((0.03, 87.2))
        ('0.11–0.39\\xa0ms', '2.5 s – 21 min', '0.03–87\\xa0s')
    """
    (low, one), (high, other) = map(_two_digits, pair)
    if one == other:
        return f"{low}–{high}\N{NO-BREAK SPACE}{one}"
    return f"{low} {one} – {high} {other}"


def _two_digits(seconds: float) -> tuple[str, str]:
    """Number and unit."""
    size, unit = (60, "min") if seconds >= 90 else (1, "s") if seconds >= 0.01 else (1e-3, "ms")
    value = seconds / size
    return f"{value:.{0 if value >= 9.5 else 1 if value >= 0.95 else 2}f}", unit


def pictures(folder: Path) -> dict[str, str]:
    """Write the figures; returns alternative texts by name, none where there are no pages."""
    if HIDDEN not in runs.pages():
        return {}
    from softprune import plots

    made = {"where-edits-act": plots.where_edits_act(*acting())}
    if HIDDEN in comparisons.compared():
        made["hidden-or-gone"] = plots.hidden_or_gone(hidden_or_gone())
    folder.mkdir(parents=True, exist_ok=True)
    for name, (figure, _) in made.items():
        plots.save(figure, folder / f"{name}.png")
    return {name: alt for name, (_, alt) in made.items()}


def helpers() -> dict:
    """What pages may call."""
    return {"at_a_glance": at_a_glance, "span": span, "attacked": attacked, "glance_set": HIDDEN}
