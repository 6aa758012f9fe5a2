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

from one_checkpoint import config_of, opened, record
from readers import cost_rows, read_anew

from softprune import artifacts, guarding, requests


def rows_of(bench: requests.Bench, classes, log=print) -> list[dict]:
    """Rows of each class: of the test split, and the seconds of its fit."""
    images, rows = bench.images, []
    stored, seconds = guarding.prepare(bench, classes, log)
    labels, before, found_before = read_anew(bench.model, images)["test"]
    for cls in classes:
        name, own = images.class_names[cls], labels == cls
        labels, z, anew = read_anew(bench.fold_into_copy(stored[cls]), images)["test"]
        kept, gone = requests.retained_and_forgotten(z, labels, (cls,))
        change = 100 * (kept - requests.retained_and_forgotten(before, labels, (cls,))[0])
        refit = {"original": found_before, guarding.RUNG: anew}
        refit = {m: requests.retained_and_forgotten(answers, labels, (cls,))[1]
                 for m, answers in refit.items()}
        told = {"split": "forgotten-test", "forget": name, "n": int(own.sum())}
        rows += [artifacts.row(m, "accuracy-head-refit", v, **told) for m, v in refit.items()]
        rows += [artifacts.row(guarding.RUNG, "accuracy", gone, **told),
                 artifacts.row(guarding.RUNG, "change", change, "points", forget=name,
                               split="retained-test", n=int((~own).sum())),
                 artifacts.row(guarding.RUNG, "time-prepare", seconds[cls], "s", forget=name)]
        log(f"{name:20} class {100 * gone:6.2f} %  refit {100 * refit[guarding.RUNG]:5.1f} % "
            f"({100 * refit['original']:.1f} before)  others {change:+.2f}")
    return rows + cost_rows(bench, {guarding.RUNG: stored[classes[0]]})


def main(dataset: str, checkpoint: str, every: str = "1") -> None:
    """Fit, measure, and write the record."""
    began = time.perf_counter()
    if not (every.isdecimal() and int(every)):
        sys.exit(f"{every!r}: expected a number from 1, every how many classes one is taken")
    bench = opened(dataset, checkpoint)
    classes = range(0, len(bench.images.class_names), int(every))
    rows = rows_of(bench, classes, lambda text: print(text, flush=True))
    taken = guarding.options(dataset, config_of(bench).profile)
    record("guarded", bench, rows, began, {"options": taken.told()})


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("expected: python benchmarks/guarded.py DATASET CHECKPOINT.safetensors [N]")
    main(*sys.argv[1:])
