"""Is a class unreadable one stage earlier, too? Directions guarded at a depth beside `guarded`.

    python benchmarks/deep.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors cat,dog

Of each class named: directions with a reader at the end and one at every depth (`depths`); the
class and the others under the network's own classifier, what a refit finds, and what other readers
do, on the test split and, of refit and depths, on the validation split. What `best`, `guarded` and
the networks retrained without the class have is in the record of `benchmarks/readers.py`, of the
same checkpoint and classes.
"""

import sys
import time

import torch
from one_checkpoint import opened, record
from readers import class_rows, cost_rows, read_anew, readers

from softprune import artifacts, audit, depths, evaluation, requests
from softprune.errors import UserError


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
    images, rows, edit = bench.images, [], None
    guard = depths.DeepGuard(bench.model, images, depths.options(bench))
    original = read_anew(bench.model, images)
    for cls in classes:
        name, evidence = images.class_names[cls], audit.gather(images, cls)
        began = time.perf_counter()
        edit = guard.fit((cls,))
        rows.append(artifacts.row(depths.RUNG, "time-prepare", time.perf_counter() - began, "s",
                                  forget=name))
        model = bench.fold_into_copy(edit)
        for split, read in read_anew(model, images).items():
            told = class_rows(depths.RUNG, name, (cls,), split, read, original[split][1])
            gone, found, change = (r["value"] for r in told)
            rows += told
            log(f"{name:12} {split:10} class {100 * gone:6.2f} %  refit {100 * found:5.1f} %  "
                f"others {change:+.2f}")
        rows += depth_rows("original", bench.model, images, evidence)
        rows += depth_rows(depths.RUNG, model, images, evidence)
        rows += [artifacts.row(depths.RUNG, k, v, split="forgotten-test", forget=name,
                               n=int(evidence.own.sum()))
                 for k, v in readers(model, evidence).items()]
    return rows + cost_rows(bench, {depths.RUNG: edit})


def main(dataset: str, checkpoint: str, names: str) -> None:
    """Fit, measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    try:
        classes = [bench.images.class_indices([name])[0] for name in names.split(",")]
    except UserError as error:
        sys.exit(str(error))
    rows = rows_of(bench, classes, log=lambda text: print(text, flush=True))
    record("deep", bench, rows, began, {"options": depths.options(bench).told()})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("expected: python benchmarks/deep.py DATASET CHECKPOINT.safetensors CLASS,CLASS")
    main(*sys.argv[1:])
