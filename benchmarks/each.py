"""Class by class: what is left, what a refit finds, what the others lose, of every class fitted.

    python benchmarks/each.py cifar100 data/checkpoints/cifar100/laptop/NAME.safetensors
    python benchmarks/each.py cifar10 CHECKPOINT.safetensors --rungs best,searched --every 2

Of each class with an edit stored beside the checkpoint (with `--every N` of every N-th), on the
test split: its accuracy under the edited network, under the classifier before the edit (inside
only) and under one refitted on 10,000 training images (head refit), and the others' change.
`original` has the same of the network before any edit, so that means and spreads over all classes
can stand beside each other.
"""

import argparse
import sys
import time

from one_checkpoint import opened, record, step_of
from readers import class_rows, read_anew

from softprune import artifacts, ladder, requests, searching

RUNGS = (*ladder.RUNGS, searching.RUNG)


def edited_rows(bench: requests.Bench, rung: str, cls: int, gates, before) -> list[dict]:
    """Rows of one class after one edit.

    Args:
        before: the original's logits (N, C) of the test images.
    """
    name, labels = bench.images.class_names[cls], bench.images.test_labels
    kept, gone = requests.retained_and_forgotten(
        bench.gated_outputs(gates, "test")[1], labels, (cls,))
    inside = requests.retained_and_forgotten(
        bench.gated_outputs(bench.inside(gates), "test")[1], labels, (cls,))[1]
    change = 100 * (kept - requests.retained_and_forgotten(before, labels, (cls,))[0])
    n = int((labels == cls).sum())
    return [artifacts.row(rung, "change", change, "points", split="retained-test", forget=name,
                          n=len(labels) - n)] + [
        artifacts.row(rung, metric, value, split="forgotten-test", forget=name, n=n)
        for metric, value in (("accuracy", gone), ("accuracy-inside-only", inside),
                              ("accuracy-head-refit", bench.refit_recall(gates, (cls,))))]


def main() -> None:
    """Measure, and write the record whenever ten more classes are there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("checkpoint")
    parser.add_argument("--rungs", default="best")
    parser.add_argument("--every", default="1", metavar="N")
    given = parser.parse_args()
    began, bench = time.perf_counter(), opened(given.dataset, given.checkpoint)
    rungs, step = given.rungs.split(","), step_of(given.every)
    stored = {rung: artifacts.companion(bench.checkpoint, f"gates-{rung}") for rung in rungs}
    for rung, path in stored.items():
        if rung not in RUNGS or not path.exists():
            sys.exit(f"{rung!r}: expected one of {', '.join(RUNGS)} that `softprune fit --rung "
                     f"{rung}` has stored beside {bench.checkpoint.name}")
    before, rows = read_anew(bench.model, bench.images, splits=("test",))["test"], []
    for cls, name in enumerate(bench.images.class_names):
        rows += class_rows("original", name, (cls,), "test", before, before[1])
    extra = {"options": {}}
    for rung, path in stored.items():
        extra["options"][rung] = artifacts.load_tensors(path)[1]["options"]
        there = sorted(ladder.load_gates(path)[0].items())
        for done, (cls, gates) in enumerate((c, g) for c, g in there if not c % step):
            rows += edited_rows(bench, rung, cls, gates, before[1])
            print(rung, bench.images.class_names[cls], [round(r["value"], 4) for r in rows[-4:]],
                  flush=True)
            if done % 10 == 9:
                record("each", bench, rows, began, extra)
    record("each", bench, rows, began, extra)


if __name__ == "__main__":
    main()
