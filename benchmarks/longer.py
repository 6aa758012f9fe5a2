"""What do the trained baselines reach with whole epochs, instead of the head to head's few steps?

    python benchmarks/longer.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors \\
        cat,airplane,automobile --epochs 1

Each method takes `--epochs` passes over the retained training images. Its rate is set
anew by the rule of `softprune tune`, on the class that was tuned on: four trials around the rate
that few steps got. Then the classes named, on the test split, as the head to head judges; `best` is
timed in the same run. A method's rows are written as soon as they are there.
"""

import argparse
import math
import sys
import time

from one_checkpoint import classes_of, opened, record

from softprune import finetuning, headtohead, requests, tuning

FACTORS = (1.0, 0.25, 0.5, 2.0)  # of the rate chosen for few steps, that first


def steps_of(bench: requests.Bench, epochs: float) -> int:
    """Steps that make so many passes over the images of all classes but one."""
    labels = bench.images.split("train")[1]
    kept = len(labels) * (1 - 1 / len(bench.images.class_names))
    return math.ceil(epochs * kept / finetuning.DescentOptions.retained)


def tuned(contest: headtohead.Contest, method: str, steps: int, classes, log=print) -> list[dict]:
    """Trials of a method at so many steps, as `tuning.tune` keeps them."""
    chosen, tried = contest.settings[method], []
    for factor in FACTORS:
        options = {**chosen, "rate": factor * chosen["rate"], "steps": steps}
        tried.append({"options": options} | tuning.trial(contest.bench, contest.access, method,
                                                         classes, options))
        log(f"{method:13} {tried[-1]}")
    return tried


def timed(contest: headtohead.Contest, method: str, cls: int, repeats: int) -> list[dict]:
    """Rows of one method on one class."""
    return contest.rows(contest.judge(contest.edited(method, cls, repeats)))


def main() -> None:
    """Tune, measure, and write the record after each method."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("checkpoint")
    parser.add_argument("classes")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--methods", default=",".join(headtohead.TRAINED))
    given = parser.parse_args()
    began, bench = time.perf_counter(), opened(given.dataset, given.checkpoint)
    if wrong := set(methods := given.methods.split(",")) - set(headtohead.TRAINED):
        sys.exit(f"{wrong.pop()!r}: expected some of {', '.join(headtohead.TRAINED)}")
    classes, contest = classes_of(bench, given.classes), headtohead.Contest(bench, {})
    entry = tuning.read().get(given.dataset, {})
    if lacking := set(methods) - set(entry.get("methods", {})):
        sys.exit(f"{', '.join(sorted(lacking))} not tuned with few steps: type `softprune tune "
                 f"--dataset {given.dataset}`")
    tune_on = classes_of(bench, entry["class"].replace("+", ","))
    steps, rows, trials = steps_of(bench, given.epochs), [], {}
    log = lambda text: print(text, flush=True)  # noqa: E731
    for cls in classes:
        rows += timed(contest, "best", cls, 51)
    for method in methods:
        trials[method] = tuned(contest, method, steps, tune_on, log)
        contest.settings[method] = tuning.best(trials[method])
        for cls in classes:
            rows += timed(contest, method, cls, 1)
            log(f"{method:13} {bench.images.class_names[cls]}")
        record("longer", bench, rows, began, {"epochs": given.epochs, "steps": steps,
                                              "class": entry["class"], "trials": trials})


if __name__ == "__main__":
    main()
