"""Every class in turn after `guarded`, and what a refitted classifier then finds of it.

    python benchmarks/guarded.py cifar100 data/checkpoints/cifar100/laptop/NAME.safetensors
    python benchmarks/guarded.py tiny-imagenet-200 CHECKPOINT.safetensors 5

Of every N-th class (by default all): the class and the others on the test split under the network's
own classifier, which the edit does not touch, and the class under one refitted on the features of
10,000 training images. Fits are stored beside the checkpoint as they are made, so that what is
stopped resumes; the record that the book reads is written at the end. `benchmarks/readers.py` is
what chose the setting, on classes with a retrained network.
"""

import sys
import time

from one_checkpoint import config_of, opened, record, step_of
from readers import class_rows, cost_rows, read_anew

from softprune import artifacts, guarding, requests


def rows_of(bench: requests.Bench, classes, log=print) -> list[dict]:
    """Rows of each class: of the test split, and the seconds of its fit."""
    images, rows = bench.images, []
    stored, seconds = guarding.prepare(bench, guarding.RUNG, classes, log)
    original = read_anew(bench.model, images)["test"]
    for cls in classes:
        name = images.class_names[cls]
        read = read_anew(bench.fold_into_copy(stored[cls]), images)["test"]
        before, told = (class_rows(m, name, (cls,), "test", r, original[1])
                        for m, r in (("original", original), (guarding.RUNG, read)))
        before = before[1]  # what a refit finds; the rest is the network's, not the edit's
        gone, found, change = (r["value"] for r in told)
        rows += [before, *told,
                 artifacts.row(guarding.RUNG, "time-prepare", seconds[cls], "s", forget=name)]
        log(f"{name:20} class {100 * gone:6.2f} %  refit {100 * found:5.1f} % "
            f"({100 * before['value']:.1f} before)  others {change:+.2f}")
    return rows + cost_rows(bench, {guarding.RUNG: stored[classes[0]]})


def main(dataset: str, checkpoint: str, every: str = "1") -> None:
    """Fit, measure, and write the record."""
    began = time.perf_counter()
    step = step_of(every)
    bench = opened(dataset, checkpoint)
    classes = range(0, len(bench.images.class_names), step)
    rows = rows_of(bench, classes, lambda text: print(text, flush=True))
    taken = guarding.options(dataset, config_of(bench).profile)
    record("guarded", bench, rows, began, {"options": taken.told()})


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("expected: python benchmarks/guarded.py DATASET CHECKPOINT.safetensors [N]")
    main(*sys.argv[1:])
