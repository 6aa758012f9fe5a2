r"""Settings of the ladder's rungs, chosen on the validation split alone.

    softprune fit --choose --dataset cifar100 --rung best -p width=16 -p epochs=14

Rule: of the settings that leave at most `LIMIT` of the class, the one that costs the others least;
if none leaves so little, the one that leaves least. Both are means over a fixed sample of classes,
each forgotten in turn; what is left is judged under the untouched classifier, too, unless the rung
touches nothing else. Axes are searched one after another, each from the best found so far.

Fits see training images, the rule validation images; no test image and no attack has a say.
"""

import dataclasses
import json
import time
from collections.abc import Callable

from softprune import artifacts, ladder, paths, requests, training
from softprune.errors import choose as expect
from softprune.ladder import FitOptions

LIMIT = 0.01  # share of the class's validation images that may still be recognised
SAMPLE = 10  # classes a trial forgets in turn, at most

AXES: dict[str, list[list[dict]]] = {
    "calibrated": [
        [{"margin": m} for m in (0.1, 0.3, 1.0, 3.0)],
        [{"keep": k} for k in ("labels", "teacher")],
        [{"pull": p} for p in (0.02, 0.0)],
    ],
    "best": [
        [{"margin": m} for m in (0.1, 0.3, 1.0)] + [{"away": "teacher"}],
        [{"keep": k} for k in ("teacher", "labels")],
        [{"weight": w} for w in (1.0, 0.3, 3.0)],
        [{"sites": s} for s in ("late", "late,last")],
    ],
}


def sample(classes: int) -> range:
    """The classes a choice looks at: every so-manieth, `SAMPLE` at most.

    Example:
        >>> list(sample(10)), len(sample(100))
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 10)
    """
    return range(0, classes, max(1, -(-classes // SAMPLE)))


def prefer(tried: list[dict]) -> dict:
    """The rule, applied to what `judge` returned: the first of equals."""
    within = [t for t in tried if t["left"] <= LIMIT]
    if within:
        return max(within, key=lambda t: t["change-mean"])
    return min(tried, key=lambda t: t["left"])


def judge(bench: requests.Bench, options: FitOptions, classes) -> dict:
    """Fit each of `classes` and look at the validation split.

    Returns:
        `options`, the numbers of `requests.summarise`, `inside` and `left` (shares of the class
        recognised under the untouched classifier, and the larger of both), `seconds` a class.
    """
    began = time.perf_counter()
    fitter = ladder.Fitter(bench.model, bench.images, options)
    fitted = {c: fitter.fit(c) for c in classes}
    seconds = (time.perf_counter() - began) / len(fitted)

    def turn(kept):
        logits = {c: bench.gated_outputs(kept(g), "validation")[1] for c, g in fitted.items()}
        return requests.summarise(requests.in_turn(bench, logits.get, "validation", classes))

    made = turn(lambda g: g)
    inside = made if fitter.at_head else turn(bench.inside)
    return {"options": options, "seconds": seconds, "inside": inside["forgotten-mean"],
            "left": max(made["forgotten-mean"], inside["forgotten-mean"]), **made}


def search(bench: requests.Bench, rung: str, log: Callable[[dict], None] | None = None,
           axes: list | None = None) -> tuple[FitOptions, list[dict]]:
    """The setting of a rung by the rule, and everything that was tried."""
    expect("rung", rung, ladder.RUNGS)
    classes = sample(len(bench.images.class_names))
    best, tried = ladder.base(rung, bench.images.name), {}
    for axis in AXES[rung] if axes is None else axes:
        for change in axis:
            options = dataclasses.replace(best, **change)
            if options not in tried:
                tried[options] = judge(bench, options, classes)
                if log:
                    log(tried[options])
        best = prefer(list(tried.values()))["options"]
    return best, list(tried.values())


def choose(bench: requests.Bench, rung: str, log=None, axes: list | None = None) -> FitOptions:
    """Search, write a run record (stage `ladder`), and put the choice into `data/ladder.json`."""
    began = time.perf_counter()
    best, tried = search(bench, rung, log, axes)
    rows, extra = [], []
    for number, t in enumerate(tried):
        said = {"split": "validation", "sites": t["options"].sites, "n": t["n"],
                "gate": f"trial-{number}"}
        rows += [artifacts.row(rung, metric, 100 * t[key], "points", **said) for metric, key in (
            ("trial-forgotten-mean", "forgotten-mean"), ("trial-inside-mean", "inside"),
            ("trial-forgotten-worst", "forgotten-worst"), ("trial-change-mean", "change-mean"),
            ("trial-change-worst", "change-worst"))]
        rows.append(artifacts.row(rung, "trial-time-prepare", t["seconds"], "s", **said))
        extra.append(dataclasses.asdict(t["options"]) | {"chosen": t["options"] == best})
    config = training.TrainConfig.from_dict(bench.sidecar["config"])
    key = artifacts.short_hash({"config": config.as_dict(), "rung": rung,
                                "data": bench.images.data_hash})
    artifacts.write_record("ladder", key, config.as_dict(), rows,
                           artifacts.provenance(time.perf_counter() - began), {"trials": extra})
    remember(bench.images.name, rung, best, key)
    return best


def remember(dataset: str, rung: str, best: FitOptions, key: str) -> None:
    """Write a choice into `data/ladder.json`: what differs from the rung's base, and the record."""
    base = dataclasses.asdict(ladder.base(rung, dataset))
    changed = {k: v for k, v in dataclasses.asdict(best).items() if v != base[k]}
    path = paths.root() / "data" / "ladder.json"
    chosen = json.loads(path.read_text()) if path.exists() else {}
    chosen.setdefault(dataset, {})[rung] = {"set": changed, "record": key}
    artifacts.write_json(path, chosen)
