"""Class by class: what is left, what a refit finds, what the others lose, of every class fitted.

    python benchmarks/each.py cifar100 data/checkpoints/cifar100/laptop/NAME.safetensors
    python benchmarks/each.py cifar10 CHECKPOINT.safetensors --rungs best,searched

Of each class with an edit stored beside the checkpoint, on the test split: its accuracy under the
edited network, under the classifier before the edit (inside only) and under one refitted on 10,000
training images (head refit), and the others' change. `original` has the same of the network before
any edit, so that means and spreads over all classes can stand beside each other.
"""

import argparse
import time

from one_checkpoint import opened, record
from readers import class_rows, read_anew

from softprune import artifacts, ladder, requests, searching
from softprune.errors import choose

RUNGS = (*ladder.RUNGS, searching.RUNG)


def stored_edits(bench: requests.Bench, rung: str) -> ladder.Stored:
    """What is stored of a rung for this network, of whatever setting; none if nothing is."""
    path = artifacts.companion(bench.checkpoint, f"gates-{rung}")
    return ladder.load_gates(path)[0] if path.exists() else {}


def edited_rows(bench: requests.Bench, rung: str, cls: int, gates, before) -> list[dict]:
    """Rows of one class after one edit.

    Args:
        before: the original's logits (N, C) of the test images.
    """
    name, labels = bench.images.class_names[cls], bench.images.test_labels
    z = bench.gated_outputs(gates, "test")[1]
    rows = class_rows(rung, name, (cls,), "test", (labels, z, z), before)
    under = bench.gated_outputs(bench.inside(gates), "test")[1]
    inside = requests.retained_and_forgotten(under, labels, (cls,))[1]
    n = int((labels == cls).sum())
    return [r for r in rows if r["metric"] != "accuracy-head-refit"] + [
        artifacts.row(rung, metric, value, split="forgotten-test", forget=name, n=n)
        for metric, value in (("accuracy-inside-only", inside),
                              ("accuracy-head-refit", bench.refit_recall(gates, (cls,))))]


def main() -> None:
    """Measure, and write the record whenever ten more classes are there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("checkpoint")
    parser.add_argument("--rungs", default="best")
    given = parser.parse_args()
    began, bench = time.perf_counter(), opened(given.dataset, given.checkpoint)
    for rung in given.rungs.split(","):
        choose("rung", rung, RUNGS)
    before, rows = read_anew(bench.model, bench.images, splits=("test",))["test"], []
    for cls, name in enumerate(bench.images.class_names):
        rows += class_rows("original", name, (cls,), "test", before, before[1])
    weights = {"weights": bench.sidecar["sha256"],
               "options": {r: {} for r in given.rungs.split(",")}}
    for rung in weights["options"]:
        path = artifacts.companion(bench.checkpoint, f"gates-{rung}")
        weights["options"][rung] = artifacts.load_tensors(path)[1]["options"]
        for done, (cls, gates) in enumerate(sorted(stored_edits(bench, rung).items()), 1):
            rows += edited_rows(bench, rung, cls, gates, before[1])
            print(rung, bench.images.class_names[cls], [round(r["value"], 4) for r in rows[-4:]],
                  flush=True)
            if done % 10 == 0:
                record("each", bench, rows, began, weights)
    record("each", bench, rows, began, weights)


if __name__ == "__main__":
    main()
