r"""Settings of the ladder's rungs, chosen on the validation split alone.

    softprune fit --choose --dataset cifar100 --rung best -p width=16 -p epochs=14

Each trial forgets a fixed sample of classes in turn; its numbers are means over them. Rule, by the
first line that some trial fulfils, the bar being at most `LIMIT` of the class left (`INSIDE` under
the untouched classifier) and at most `LOSS` of the others lost:

1. the bar is met, whatever the untouched classifier says: of these the one that leaves least under
   either classifier; of equals the widest margin (validation images are few, and the margin is what
   is kept in store for images that nobody has seen), of these the smallest loss;
2. no more is left than that under either classifier: of these the smallest loss;
3. the one that leaves least.

A rung at the last site alone changes nothing but the classifier: it is judged by its own. Axes are
searched one after another, each from the best so far. Fits see training images, the rule
validation images; no test image and no attack has a say.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable

from softprune import artifacts, ladder, paths, profiles, requests, training
from softprune.errors import choose as expect
from softprune.ladder import FitOptions

LIMIT = 0.002  # share of the class's validation images that may still be recognised
INSIDE = 0.01  # and under the untouched classifier, where gates at the last site hid some
LOSS = 0.005  # accuracy that the other classes may lose
SAMPLE = 5  # classes a trial forgets in turn, or more: a tenth of them, and
ENOUGH = 100  # validation images of theirs together, where there are as many

# where classes share the features: gates that may turn channels up, at the last site too, while the
# class is pushed out under the untouched classifier, in twice the steps; the same with shifts and a
# weaker pull, also without the last site; with blends, and where they leave room wider margins
_SHARED = {"sites": "late,last", "keep": "teacher", "margin": 1.5, "pool": 6000, "most": 3.0,
           "steps": 160}
_SHIFTED = _SHARED | {"shift": 0.1, "pull": 0.0003}
_BLENDED = _SHIFTED | {"blend": 0.5}
_INSIDE = _SHIFTED | {"sites": "late", "under": -math.inf}
# directions and shifts in place of gates on channels
_DIRECTED = _INSIDE | {"most": 1.0, "rate": 0.0, "direction": 0.02}

# `+last` adds the last site to where a rung's gates are
AXES: dict[str, list[list[dict]]] = {
    "calibrated": [
        [{"margin": m} for m in (0.1, 0.3, 1.0, 3.0)],
        [{"keep": k} for k in ("labels", "teacher")],
        [{"pull": p} for p in (0.02, 0.002)],
    ],
    "best": [
        [{"margin": m} for m in (0.1, 1.0, 2.0, 3.0)],
        [{"keep": k} for k in ("teacher", "labels")],
        [{}, {"sites": "+last"}],
        [*(_INSIDE | {"blend": b, "margin": m} for b in (0.0, 0.5) for m in (1.0, 2.0, 3.0)),
         *(how | {"under": u} for how in (_SHARED, _SHIFTED, _BLENDED) for u in (0.5, 0.7, 1.0)),
         _BLENDED | {"under": 1.0, "margin": 2.0}, _BLENDED | {"under": 1.5, "margin": 2.5}],
        [{"margin": m} for m in (1.0, 2.0)],
        [{"sites": "all", "keep": "teacher", "margin": m} for m in (1.0, 0.7, 0.5)],
        [_DIRECTED | {"blend": b, "margin": m} for b in (0.0, 0.5) for m in (1.0, 2.0, 3.0)],
    ],
}


def sample(classes: int, images: int) -> range:
    """The classes a choice looks at, spread over all: `SAMPLE`, or more where the images are few
    or the classes many (losses differ by half a point from class to class).

    Args:
        images: in the validation split.

    Example:
        >>> list(sample(10, 2500)), len(sample(100, 2500)), len(sample(10, 65))
        ([0, 2, 4, 6, 8], 10, 10)
    """
    needed = max(SAMPLE, classes // 10, -(-ENOUGH * classes // images))
    return range(0, classes, max(1, -(-classes // needed)))


def looked_at(bench: requests.Bench) -> range:
    """The classes that a choice for this model forgets in turn."""
    return sample(len(bench.images.class_names), len(bench.images.split("validation")[1]))


def prefer(tried: list[dict]) -> dict:
    """The rule, applied to what `judge` returned: of what it leaves equal the first.

    A trial that was not carried on does not compete with those that were.
    """
    carried = max(t["n"] for t in tried)
    tried = [t for t in tried if t["n"] == carried]
    bar = [t for t in tried if t["forgotten-mean"] <= LIMIT and t["change-mean"] >= -LOSS]
    if bar:
        return min(bar, key=lambda t: (t["left"], -t["options"].margin, -t["change-mean"]))
    if few := [t for t in tried if gone(t)]:
        return max(few, key=lambda t: t["change-mean"])
    return min(tried, key=lambda t: t["left"])


def fulfils(trial: dict) -> bool:
    """The bar is met, under the untouched classifier too."""
    return gone(trial) and trial["change-mean"] >= -LOSS


def gone(trial: dict) -> bool:
    """Whether no more than the bar allows is left, under either classifier."""
    return trial["forgotten-mean"] <= LIMIT and trial["left"] <= INSIDE


def changed(best: FitOptions, change: dict) -> FitOptions:
    """`best` with one axis's change."""
    if change.get("sites") == "+last":
        change = {"sites": f"{best.sites},last"}
    return dataclasses.replace(best, **change)


def judge(fitter: ladder.Fitter, bench: requests.Bench, classes, whole: bool = False) -> dict:
    """Fit each of `classes` and look at the validation split.

    A trial whose first two classes both cost the others more than twice `LOSS` is not carried on
    unless `whole` asks for it: its `n` says so.

    Returns:
        `options`, the numbers of `requests.summarise`, `inside` and `left` (shares of the class
        recognised under the untouched classifier, and the larger of both), `seconds` a class.
    """
    began = time.perf_counter()
    folded, inside = {}, {}
    for c in classes:
        gates = fitter.fit((c,))
        requests.add(folded, bench, c, gates, "validation")
        # a rung at the last site alone is judged by its own classifier
        requests.add(inside, bench, c, gates if fitter.at_head else bench.inside(gates),
                     "validation")
        lost = [b - r for r, b in zip(folded["retained"], folded["before"], strict=True)]
        if not whole and len(lost) == 2 and min(lost) > 2 * LOSS:
            break
    made, under = requests.summarise(folded), requests.summarise(inside)["forgotten-mean"]
    return {"options": fitter.options, "seconds": (time.perf_counter() - began) / made["n"],
            "inside": under, "left": max(made["forgotten-mean"], under), **made}


def search(bench: requests.Bench, rung: str, log: Callable[[dict], None] | None = None,
           axes: list | None = None, known: list[dict] = ()) -> tuple[FitOptions, list[dict]]:
    """The setting of a rung by the rule, and everything that was tried.

    Args:
        known: trials of before, as `search` returned them: they are not made again.
    """
    expect("rung", rung, ladder.RUNGS)
    classes = looked_at(bench)
    best, tried = ladder.base(rung, bench.images.name), {}
    known, fitter = {t["options"]: t for t in known}, None
    for axis in AXES[rung] if axes is None else axes:
        for change in axis:
            options = changed(best, change)
            if options not in tried and options in known:
                tried[options] = known[options]
            elif options not in tried:
                fitter = (fitter.turned(options) if fitter  # shares the maps before the gates
                          else ladder.Fitter(bench.model, bench.images, options))
                tried[options] = judge(fitter, bench, classes)
                if log:
                    log(tried[options])
        best = prefer(list(tried.values()))["options"]
    return best, list(tried.values())


def record_of(bench: requests.Bench, rung: str) -> tuple[dict, str]:
    """Parameters and key of the run record in which a rung's trials stand."""
    config = training.TrainConfig.from_dict(bench.sidecar["config"]).as_dict()
    return config, artifacts.short_hash({"config": config, "rung": rung,
                                         "classes": list(looked_at(bench)),
                                         "weights": bench.sidecar["sha256"]})


# metric of a trial's row -> its key in what `judge` returns
_METRICS = {"trial-forgotten-mean": "forgotten-mean", "trial-inside-mean": "inside",
            "trial-forgotten-worst": "forgotten-worst", "trial-change-mean": "change-mean",
            "trial-change-worst": "change-worst"}


def choose(bench: requests.Bench, rung: str, log=None, axes: list | None = None) -> FitOptions:
    """Search, write a run record (stage `ladder`), and put the choice into `data/ladder.json`.

    Trials of an earlier record of the same weights are read from it, and stay in it.
    """
    began = time.perf_counter()
    parameters, key = record_of(bench, rung)
    before = known_trials(parameters, key)
    best, tried = search(bench, rung, log, axes, before)
    tried += [t for t in before if t["options"] not in {t["options"] for t in tried}]
    rows, extra = [], []
    for number, t in enumerate(tried):
        said = {"split": "validation", "sites": t["options"].sites, "gate": f"trial-{number}"}
        rows += [artifacts.row(rung, metric, 100 * t[k], "points", n=t["n"], **said)
                 for metric, k in _METRICS.items()]
        rows.append(artifacts.row(rung, "trial-time-prepare", t["seconds"], "s", n=t["n"], **said))
        extra.append(t["options"].told() | {"chosen": t["options"] == best})
    artifacts.write_record("ladder", key, parameters, rows,
                           artifacts.provenance(time.perf_counter() - began), {"trials": extra})
    remember(profiles.chosen_under(bench.images.name, parameters["profile"]), rung, best, key)
    return best


def known_trials(parameters: dict, key: str) -> list[dict]:
    """The trials of a record, as `judge` returns them; [] where there is no such record."""
    found = [r for r in artifacts.read_records(parameters["dataset"], parameters["profile"],
                                               "ladder") if r["key"] == key]
    if not found:
        return []
    rows = {(r["gate"], r["metric"]): r for r in found[0]["rows"]}
    made = []
    for number, told in enumerate(found[0]["extra"]["trials"]):
        if (options := FitOptions.of_told(told)) is None:
            continue
        at = {k: rows[f"trial-{number}", m] for m, k in _METRICS.items()}
        t = {k: r["value"] / 100 for k, r in at.items()} | {"n": at["inside"]["n"]}
        t["seconds"] = rows[f"trial-{number}", "trial-time-prepare"]["value"]
        t["left"] = max(t["forgotten-mean"], t["inside"])
        made.append(t | {"options": options})
    return made


def remember(entry: str, rung: str, best: FitOptions, key: str) -> None:
    """Write a choice into `data/ladder.json`: what differs from the rung's base, and the record.

    Args:
        entry: of `profiles.chosen_under`.
    """
    base = ladder.base(rung, entry.split("/")[0]).told()
    moved = {k: v for k, v in best.told().items() if v != base.get(k)}
    path = paths.root() / "data" / "ladder.json"
    chosen = json.loads(path.read_text()) if path.exists() else {}
    chosen.setdefault(entry, {})[rung] = {"set": moved, "record": key}
    artifacts.write_json(path, chosen)
