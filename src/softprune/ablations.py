"""The ablation's numbers: penalties, scores and gates compared at equal forgetting, over seeds."""

import itertools
from pathlib import Path

from softprune import runs
from softprune.errors import UserError

SWEPT = {"cifar10": 8, "digits": 16}  # data set -> width of the nets of the ablation
# the strength at which penalties are set side by side, trained with every seed: of `so` the
# recipe's; on CIFAR-10 of the others the largest, in decades to 0.1, whose network (seed 0) is
# within a point of the unpenalised ones on validation images
STRENGTHS = {"digits": {"so": 0.01, "srip": 0.1, "ocnn": 0.01, "feature": 0.1},
             "cifar10": {"so": 0.01, "srip": 0.1, "ocnn": 0.001, "feature": 0.001}}
SEEN = "cifar10"  # whose kernels are drawn: networks with and without a penalty are here
GATES = {"hard": "closed (hard)", "rank": "attenuated (rank)"}
ORDER = ("none", *STRENGTHS["digits"], "hard")  # of rows and columns


def ablation(dataset: str, width: int, **where) -> list[dict]:
    """Sweep rows of one width, grouped over seeds: a dict a (penalty, strength, method, …) point.

    Returns:
        Dicts with the point's columns, `n` seeds, and mean, low and high (t interval over seeds)
        of `forgotten` and `change`, in points.
    """
    groups: dict[tuple, dict[str, dict]] = {}
    columns = ("penalty", "strength", "method", "score", "gate", "fraction")
    for r in runs.rows(stage="sweep", dataset=dataset, width=width, **where):
        kind = r["metric"].removeprefix("all-classes-")
        if kind in ("forgotten-mean", "change-mean"):
            group = groups.setdefault(tuple(r[c] for c in columns), {})
            group.setdefault(kind.split("-")[0], {})[r["seed"]] = r["value"]
    return [dict(zip(columns, at, strict=True)) | {"n": len(g["change"])}
            | {f"{k}{end}": v for k in ("forgotten", "change")
               for end, v in zip(("", "-low", "-high"), runs.interval(list(g[k].values())),
                                 strict=True)}
            for at, g in groups.items()]


def mean_of(keys: list[str], metric: str, split: str) -> float:
    """Mean over trainings, named by their records' keys, of one number of the original."""
    values = [runs.one(key=k, stage="train", method="original", metric=metric, split=split)
              for k in keys]
    return sum(values) / len(values)


def at_forgetting(points: list[dict], level: float) -> dict | None:
    """The point that costs the others least among those that leave at most `level` percent."""
    within = [p for p in points if p["forgotten"] <= level]
    return max(within, key=lambda p: p["change"]) if within else None


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
        told = STRENGTHS.get(dataset, {})
        lam = told.get(penalty, next(p["strength"] for p in mine if p["n"] == n))
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

    The other way round than `by_score`: each seed has its own fraction, the one that leaves least,
    also between two that were swept (along the straight line that joins them): where a step costs
    or forgets much, whether a seed takes it would be chance. A penalty has the strength of
    `STRENGTHS`, or what it has.

    Returns:
        Points as `less` takes them, `forgotten` in percent; None where some seed has no fraction
        that costs so little.
    """
    curves: dict[tuple, dict[float, dict[str, float]]] = {}
    for r in runs.rows(stage="sweep", dataset=dataset, width=width, gate=gate):
        kind = r["metric"].removeprefix("all-classes-")
        if (kind in ("forgotten-mean", "change-mean")
                and r["strength"] == STRENGTHS.get(dataset, {}).get(r["penalty"], r["strength"])):
            at = curves.setdefault((r["score"], r["penalty"], r["seed"]), {})
            at.setdefault(r["fraction"], {})[kind.split("-")[0]] = r["value"]
    least: dict[str, dict[str, list]] = {}
    for (score, penalty, _), curve in curves.items():
        least.setdefault(score, {}).setdefault(penalty, []).append(
            _least([curve[f] for f in sorted(curve)], limit))
    return {score: {penalty: None if None in values else {"n": len(values)} | dict(zip(
        ("forgotten", "forgotten-low", "forgotten-high"), runs.interval(values), strict=True))
        for penalty, values in by_penalty.items()} for score, by_penalty in least.items()}


def _least(curve: list[dict[str, float]], limit: float) -> float | None:
    """The least `forgotten` on the line through points in order of their fraction, where `change`
    is no loss above `limit`; None where it always is.

    Example:
        >>> at = lambda left, change: {"forgotten": left, "change": change}
        >>> _least([at(80.0, 0.0), at(20.0, -2.0)], 0.5)
        65.0
    """
    left = [p["forgotten"] for p in curve if p["change"] >= -limit]
    for p, q in itertools.pairwise(curve):
        if (p["change"] + limit) * (q["change"] + limit) < 0:  # the line passes the limit
            share = (p["change"] + limit) / (p["change"] - q["change"])
            left.append(p["forgotten"] + share * (q["forgotten"] - p["forgotten"]))
    return min(left, default=None)


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
    errors = [((p[f"{of}-high"] - p[f"{of}-low"]) / 2 / runs.quantile(p["n"] - 1)) ** 2
              for p in (a, b)]
    if not sum(errors):
        return gap, gap, gap
    freedom = sum(errors) ** 2 / sum(e**2 / (p["n"] - 1) for e, p in zip(errors, (a, b),
                                                                          strict=True))
    half = runs.quantile(freedom) * sum(errors) ** 0.5
    return gap, gap - half, gap + half


TOLD = ("coherence", "correlation", "selectivity")  # of a trained network, on validation images


def untangled(dataset: str, width: int, penalty: str = "so") -> dict[str, dict]:
    """What training with a penalty, at its strength of the ablation, does to `TOLD`.

    Returns:
        By measure `none` and `with`, means over seeds, `gap`: with less none, and Welch's 95 %
        interval, and `n`, networks without and with.
    """
    made = {}
    for measure in TOLD:
        points = {}
        for name in ("none", penalty):
            strength = STRENGTHS[dataset].get(name, 0.0)
            found = runs.rows(stage="train", dataset=dataset, width=width, method="original",
                              metric=measure, split="validation", penalty=name, strength=strength)
            mean, low, high = runs.interval([r["value"] for r in found])
            points[name] = {measure: mean, f"{measure}-low": low, f"{measure}-high": high,
                            "n": len(found)}
        made[measure] = {"none": points["none"][measure], "with": points[penalty][measure],
                         "gap": less(points[penalty], points["none"], measure),
                         "n": (points["none"]["n"], points[penalty]["n"])}
    return made


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


def swept() -> dict[str, int]:
    """Those of `SWEPT` that were."""
    return {d: w for d, w in SWEPT.items() if runs.rows(stage="sweep", dataset=d, width=w)}


def pictures(folder: Path) -> dict[str, str]:
    """All of them, drawn into a folder: name -> alt text."""
    drawn = {"ablation": ablation_picture, "scores": scores_picture}
    made = {f"{name}-{d}": draw(d, w, folder / f"{name}-{d}.png")
            for name, draw in drawn.items() for d, w in swept().items()}
    if SEEN in runs.pages():
        made[f"grams-{SEEN}"] = grams_picture(SEEN, folder / f"grams-{SEEN}.png")
    return made


def grams_picture(dataset: str, path: Path) -> str:
    """Cosines of the filters of one layer, where they overlap most without a penalty, of the page's
    network and of the same trained without one; returns the alt text."""
    import dataclasses

    import torch.nn.functional as F

    from softprune import artifacts, models, orthogonality, plots, training

    said = runs.page_record("soft-pruning", dataset)["parameters"]
    names = {f.name for f in dataclasses.fields(training.TrainConfig)}
    own = training.TrainConfig.from_dict({k: v for k, v in said.items() if k in names})
    grams: dict[str, dict] = {}
    for penalty in ("none", own.penalty):
        config = dataclasses.replace(own, penalty=penalty)
        checkpoint = training.find_checkpoint(config)
        if checkpoint is None:
            raise UserError(f"{config.name} is not here: type `softprune train --dataset {dataset} "
                            f"-p penalty={penalty}` with the page's -p")
        kernels = models.kernels(artifacts.load_checkpoint(checkpoint)[0])
        name = "no penalty" if penalty == "none" else f"{penalty}, λ = {config.strength:g}"
        grams[name] = {layer: orthogonality.gram(F.normalize(k.weight.flatten(1)))
                       for layer, k in kernels.items()  # more filters than entries cannot be
                       if len(k.weight) <= k.weight[0].numel()}
    plain = next(iter(grams.values()))
    layer = max(plain, key=lambda at: (plain[at].abs().mean() - 1 / len(plain[at])).item())
    figure, alt = plots.gram_matrices([(name, g[layer]) for name, g in grams.items()])
    plots.save(figure, path)
    return f"Layer {layer}, filters of length 1. {alt}"


def ablation_picture(dataset: str, width: int, path: Path) -> str:
    """Curves of every penalty, `difference` with hard and soft gates; returns the alt text."""
    from softprune import plots

    panels: dict[str, dict[str, list[dict]]] = {}
    for gate, title in GATES.items():
        table = ablation(dataset, width, score="difference", gate=gate)
        for row in compare(dataset, width):
            name = row["penalty"] if row["n"] > 1 else f"{row['penalty']} (one seed)"
            own = (row["penalty"], row["strength"])
            panels.setdefault(title, {})[name] = [
                _drawn(p) for p in table if (p["penalty"], p["strength"]) == own]
    figure, alt = plots.panels_at_equal_forgetting(panels)
    plots.save(figure, path)
    return alt


def _drawn(point: dict) -> dict:
    return {"forgotten": point["forgotten"], "change": point["change"], "low": point["change-low"],
            "high": point["change-high"]}


def scores_picture(dataset: str, width: int, path: Path, penalty: str = "so") -> str:
    """Curves of every score on networks trained with `penalty`, hard and soft gates side by side;
    returns the alt text."""
    from softprune import plots

    lam = next(r["strength"] for r in compare(dataset, width) if r["penalty"] == penalty)
    panels: dict[str, dict[str, list[dict]]] = {}
    for gate, title in GATES.items():
        for p in ablation(dataset, width, penalty=penalty, strength=lam, gate=gate):
            panels.setdefault(title, {}).setdefault(p["score"], []).append(_drawn(p))
    figure, alt = plots.panels_at_equal_forgetting(panels)
    plots.save(figure, path)
    return alt


def helpers() -> dict:
    """What pages may call."""
    return {"ablation": ablation, "compare": compare, "by_strength": by_strength,
            "by_score": by_score, "effects": effects, "at_cost": at_cost, "less": less,
            "mean_of": mean_of, "untangled": untangled, "penalties": ORDER, "swept": swept()}
