"""Every class in turn after `prototype`, which needs the class-by-channel table and no fit.

    python benchmarks/from_table.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors
    python benchmarks/from_table.py cifar100 CHECKPOINT.safetensors apple,couch

Of every class: the class and the others on the test split, under the network's own classifier,
which the edit does not touch. Of the classes named besides, what a classifier refitted on 10,000
training images finds, and what other readers do: those of a record of `benchmarks/readers.py`, to
stand beside what the networks retrained without them have there. Requests for several classes at
once are drawn as in `benchmarks/several.py`.
"""

import sys
import time

from one_checkpoint import config_of, opened, record
from readers import class_rows, cost_rows, read_anew, readers
from several import drawn

from softprune import artifacts, audit, evaluation, prototypes, requests
from softprune.errors import UserError


def turn_rows(bench: requests.Bench, found: dict, requested) -> list[dict]:
    """Accuracy of the class, or several, and the others' change, of each of `requested`."""
    before, labels, rows = *bench.outputs("test")[1:], []
    for forget in requested:
        z = bench.gated_outputs(prototypes.request(found, forget), "test")[1]
        told = class_rows(prototypes.RUNG, ",".join(bench.images.class_names[c] for c in forget),
                          forget, "test", (labels, z, z), before)
        rows += [r for r in told if r["metric"] != "accuracy-head-refit"]  # there was no refit
    return rows


def reader_rows(bench: requests.Bench, found: dict, classes, log=print) -> list[dict]:
    """What classifiers fitted anew, and other readers, find of each of `classes`."""
    rows, images = [], bench.images
    original = bench.outputs("test")[1]
    for cls in classes:
        name, evidence = images.class_names[cls], audit.gather(images, cls)
        model = bench.fold_into_copy(prototypes.request(found, (cls,)))
        told = class_rows(prototypes.RUNG, name, (cls,), "test",
                          read_anew(model, images, splits=("test",))["test"], original)
        refit = next(r for r in told if r["metric"] == "accuracy-head-refit")
        rows += [refit, *(artifacts.row(prototypes.RUNG, k, v, split="forgotten-test", forget=name,
                                        n=int(evidence.own.sum()))
                          for k, v in readers(model, evidence).items())]
        log(f"{name:20} refit {100 * refit['value']:5.1f} %")
    return rows


def rows_of(bench: requests.Bench, named=(), log=print) -> list[dict]:
    """All rows of a record."""
    found = prototypes.prepare(bench)
    classes = len(bench.images.class_names)
    rows = turn_rows(bench, found, [(c,) for c in range(classes)])
    mean = {k: sum(v) / len(v) for k in ("accuracy", "change")
            if (v := [r["value"] for r in rows if r["metric"] == k])}
    log(f"{classes} classes: {100 * mean['accuracy']:.2f} % left, others {mean['change']:+.2f}")
    for size in (2, 3) if classes <= 10 else (2, 5, 10):
        rows += turn_rows(bench, found, drawn(classes, size))
    rows.append(artifacts.row(prototypes.RUNG, "time-prepare",
                              evaluation.median_time(lambda: prototypes.prepare(bench), 5), "s"))
    rows.append(artifacts.row(prototypes.RUNG, "time-select", evaluation.median_time(
        lambda: prototypes.request(found, (0,))), "s"))
    rows += cost_rows(bench, {prototypes.RUNG: prototypes.request(found, (0,))})
    return rows + reader_rows(bench, found, named, log)


def main(dataset: str, checkpoint: str, names: str = "") -> None:
    """Measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    try:
        named = [bench.images.class_indices([n])[0] for n in names.split(",") if n]
    except UserError as error:
        sys.exit(str(error))
    rows = rows_of(bench, named, lambda text: print(text, flush=True))
    taken = prototypes.options(dataset, config_of(bench).profile)
    record("from-table", bench, rows, began,
           {"options": taken.told(), "weights": bench.sidecar["sha256"]})


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("expected: python benchmarks/from_table.py DATASET CHECKPOINT.safetensors "
                 "[CLASS,CLASS]")
    main(*sys.argv[1:])
