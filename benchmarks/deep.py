"""Is a class unreadable one stage earlier, too? Directions guarded at a depth beside `guarded`.

    python benchmarks/deep.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors cat,dog

Of each class named: directions with a reader at the end and one at a depth (`guarding`); the
class and the others under the network's own classifier, what a refit finds, and what other readers
do, on the test split and, of refit and depths, on the validation split. What `best`, `guarded` and
the networks retrained without the class have is in the record of `benchmarks/readers.py`, of the
same checkpoint and classes.
"""

import sys
import time

import torch
from one_checkpoint import classes_of, opened, record
from readers import class_rows, cost_rows, read_anew, readers

from softprune import artifacts, audit, evaluation, guarding, requests


def depth_rows(method: str, model, images, evidence: audit.Evidence) -> list[dict]:
    """What a linear classifier at each depth finds of the class's validation images."""
    pixels, labels = images.split("validation")
    own = labels == evidence.forget
    batches = evaluation.batches(pixels[own], images.mean, images.std, "cpu", 500)
    held = audit.pooled(model, torch.cat([x for x, _ in batches]))
    train = audit.pooled(model, evidence.train)
    return [artifacts.row(method, f"recall-t4-probe-{site}",
                          audit.probe(maps, evidence.train_labels, held[site], evidence.forget,
                                      evidence.classes),
                          split="forgotten-validation", n=int(own.sum()),
                          forget=images.class_names[evidence.forget])
            for site, maps in train.items()]


def rows_of(bench: requests.Bench, classes, log=print) -> list[dict]:
    """Rows of each class, of both splits, and the seconds of a fit."""
    images, rows = bench.images, []
    stored, seconds = guarding.prepare(bench, guarding.DEEP, classes, log)
    original = read_anew(bench.model, images)
    for cls in classes:
        name, evidence = images.class_names[cls], audit.gather(images, cls)
        rows.append(artifacts.row(guarding.DEEP, "time-prepare", seconds[cls], "s", forget=name))
        model = bench.fold_into_copy(stored[cls])
        for split, read in read_anew(model, images).items():
            told = class_rows(guarding.DEEP, name, (cls,), split, read, original[split][1])
            gone, found, change = (r["value"] for r in told)
            rows += told
            log(f"{name:12} {split:10} class {100 * gone:6.2f} %  refit {100 * found:5.1f} %  "
                f"others {change:+.2f}")
        rows += depth_rows("original", bench.model, images, evidence)
        rows += depth_rows(guarding.DEEP, model, images, evidence)
        rows += [artifacts.row(guarding.DEEP, k, v, split="forgotten-test", forget=name,
                               n=int(evidence.own.sum()))
                 for k, v in readers(model, evidence).items()]
    return rows + cost_rows(bench, {guarding.DEEP: stored[classes[-1]]})


def main(dataset: str, checkpoint: str, names: str) -> None:
    """Fit, measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    classes = classes_of(bench, names)
    rows = rows_of(bench, classes, log=lambda text: print(text, flush=True))
    record("deep", bench, rows, began, {"options": guarding.setting(bench, guarding.DEEP).told()})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("expected: python benchmarks/deep.py DATASET CHECKPOINT.safetensors CLASS,CLASS")
    main(*sys.argv[1:])
