"""Every class in turn after `prototype`, which needs the table alone, or `searched`, which needs
the class's images beside it; neither needs a gradient.

    python benchmarks/from_table.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors
    python benchmarks/from_table.py cifar100 CHECKPOINT.safetensors apple,couch --rung searched

Of every class: the class and the others on the test split, under the network's own classifier,
which the edit does not touch. Of the classes named besides, what a classifier refitted on 10,000
training images finds, and what other readers do: those of a record of `benchmarks/readers.py`, to
stand beside what the networks retrained without them have there. Requests for several classes at
once are drawn as in `benchmarks/several.py`. What was searched stays beside the checkpoint.
"""

import argparse
import time
from collections.abc import Callable

from one_checkpoint import classes_of, config_of, opened, record
from readers import class_rows, cost_rows, read_anew, readers
from several import drawn

from softprune import artifacts, audit, evaluation, ladder, prototypes, requests, searching

# the stage of a run record, and where a setting of the data set is
STAGES = {prototypes.RUNG: ("from-table", prototypes.options),
          searching.RUNG: ("searched", searching.options)}

Edits = Callable[[tuple[int, ...]], dict]  # of the classes of a request, looked up


def ready(bench: requests.Bench, rung: str, log=print) -> tuple[Edits, list[dict]]:
    """What a rung does for a request, and rows of the seconds that it took beforehand."""
    classes = bench.images.class_names
    if rung == searching.RUNG:
        stored, seconds = searching.prepare(bench, range(len(classes)), log)
        rows = [artifacts.row(rung, "time-prepare", seconds[c], "s", forget=classes[c])
                for c in stored]
        return ((lambda forget: ladder.request(stored, forget)),
                rows + strength_rows(stored, classes))
    found = prototypes.prepare(bench)
    return (lambda forget: prototypes.request(found, forget)), [
        artifacts.row(rung, "time-prepare",
                      evaluation.median_time(lambda: prototypes.prepare(bench), 5), "s")]


def strength_rows(stored: ladder.Stored, class_names) -> list[dict]:
    """How strong each class's direction is, where it is strongest: its u is -alpha v."""
    return [artifacts.row(searching.RUNG, "strength",
                          max(round(pairs[0, 0].norm().item(), 2) for pairs in edit.values()),
                          forget=class_names[c]) for c, edit in sorted(stored.items())]


def turn_rows(bench: requests.Bench, rung: str, edits: Edits, requested) -> list[dict]:
    """Accuracy of the class, or several, and the others' change, of each of `requested`."""
    before, labels, rows = *bench.outputs("test")[1:], []
    for forget in requested:
        z = bench.gated_outputs(edits(forget), "test")[1]
        told = class_rows(rung, "+".join(bench.images.class_names[c] for c in forget), forget,
                          "test", (labels, z, z), before)
        rows += [r for r in told if r["metric"] != "accuracy-head-refit"]  # there was no refit
    return rows


def reader_rows(bench: requests.Bench, rung: str, edits: Edits, classes, log=print) -> list[dict]:
    """What classifiers fitted anew, and other readers, find of each of `classes`."""
    rows, images = [], bench.images
    original = bench.outputs("test")[1]
    for cls in classes:
        name, evidence = images.class_names[cls], audit.gather(images, cls)
        model = bench.fold_into_copy(edits((cls,)))
        told = class_rows(rung, name, (cls,), "test",
                          read_anew(model, images, splits=("test",))["test"], original)
        refit = next(r for r in told if r["metric"] == "accuracy-head-refit")
        rows += [refit, *(artifacts.row(rung, k, v, split="forgotten-test", forget=name,
                                        n=int(evidence.own.sum()))
                          for k, v in readers(model, evidence).items())]
        log(f"{name:20} refit {100 * refit['value']:5.1f} %")
    return rows


def rows_of(bench: requests.Bench, named=(), log=print, rung: str = prototypes.RUNG) -> list[dict]:
    """All rows of a record."""
    edits, timed = ready(bench, rung, log)
    classes = len(bench.images.class_names)
    rows = turn_rows(bench, rung, edits, [(c,) for c in range(classes)])
    mean = {k: sum(v) / len(v) for k in ("accuracy", "change")
            if (v := [r["value"] for r in rows if r["metric"] == k])}
    log(f"{classes} classes: {100 * mean['accuracy']:.2f} % left, others {mean['change']:+.2f}")
    for size in (2, 3) if classes <= 10 else (2, 5, 10):
        rows += turn_rows(bench, rung, edits, drawn(classes, size))
    rows += [*timed, artifacts.row(rung, "time-select",
                                   evaluation.median_time(lambda: edits((0,))), "s")]
    rows += cost_rows(bench, {rung: edits((0,))})
    return rows + reader_rows(bench, rung, edits, named, log)


def main(dataset: str, checkpoint: str, names: str = "", rung: str = prototypes.RUNG) -> None:
    """Measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    named = classes_of(bench, names)
    rows = rows_of(bench, named, lambda text: print(text, flush=True), rung)
    stage, options = STAGES[rung]
    taken = options(dataset, config_of(bench).profile)
    record(stage, bench, rows, began, {"options": taken.told()})


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    words.add_argument("dataset", metavar="DATASET")
    words.add_argument("checkpoint", metavar="CHECKPOINT.safetensors")
    words.add_argument("names", metavar="CLASS,CLASS", nargs="?", default="")
    words.add_argument("--rung", choices=STAGES, default=prototypes.RUNG)
    main(**vars(words.parse_args()))
