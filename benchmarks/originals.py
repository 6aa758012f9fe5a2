"""Another original of the same recipe: the edits of classes that networks were retrained without.

    python benchmarks/originals.py cifar100 data/checkpoints/cifar100/laptop/NAME.safetensors apple

A data set's page has one original, and what that training was lucky in moves every difference to
retrained networks. Of an original of another seed, for each class named (with commas): the class,
the others, and the class under a classifier refitted on 10,000 training images, on the test split,
before any edit and after each edit (`EDITS`) by the data set's setting. The values of the networks
retrained from the page's seed stand in the record of `benchmarks/readers.py`, so that they need not
be here. Networks of one seed may share their luck: where one was retrained without a class from the
other original's seed (`softprune train --without CLASS -p seed=…`), it stands beside it.
"""

import sys
import time
from pathlib import Path

from one_checkpoint import classes_of, config_of, opened, record
from readers import answer_rows, read_anew

from softprune import guarding, inturn, ladder, prototypes, requests, searching

EDITS = (prototypes.RUNG, searching.RUNG, "best", guarding.RUNG)


def fitted(bench: requests.Bench, classes, log=print) -> dict[str, dict[int, dict]]:
    """Edit -> class -> gates; what takes a fit is stored beside the checkpoint."""
    bench.prepare("best", classes)
    table, searched = prototypes.prepare(bench), searching.prepare(bench, classes, log)[0]
    guarded = guarding.prepare(bench, guarding.RUNG, classes, log)[0]
    made = {prototypes.RUNG: lambda c: prototypes.request(table, (c,)),
            searching.RUNG: lambda c: ladder.request(searched, (c,)),
            "best": lambda c: bench.method_gates("best", (c,)),
            guarding.RUNG: guarded.__getitem__}
    return {edit: {c: made[edit](c) for c in classes} for edit in EDITS}


def rows_of(bench: requests.Bench, classes, retrained: dict[int, Path] | None = None,
            log=print) -> list[dict]:
    """Rows of the original, of each edit, and of the network of the same seed `retrained` without
    the class where it is here, class by class."""
    images, rows = bench.images, []
    edits = fitted(bench, classes, log)
    original = read_anew(bench.model, images, splits=("test",))["test"]
    for cls in classes:
        name = images.class_names[cls]
        models = {m: bench.fold_into_copy(of[cls]) for m, of in edits.items()}
        if cls in (retrained or {}):
            models["retrained"] = requests.Bench(retrained[cls], images).model
        answers = {"original": original} | {
            m: read_anew(model, images, splits=("test",))["test"] for m, model in models.items()}
        rows += answer_rows(name, (cls,), answers, log)
    return rows


def main(dataset: str, checkpoint: str, names: str) -> None:
    """Fit, measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    classes = classes_of(bench, names)
    if not classes:
        sys.exit("expected names of classes, with commas, as in apple,couch")
    rows = rows_of(bench, classes, inturn.references(bench, config_of(bench)),
                   lambda text: print(text, flush=True))
    profile = bench.sidecar["config"]["profile"]
    settings = {"best": ladder.options("best", dataset, profile)} | {
        of.RUNG: of.options(dataset, profile) for of in (prototypes, searching, guarding)}
    told = {edit: setting.told() for edit, setting in settings.items()}
    record("originals", bench, rows, began, {"options": told})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("expected: python benchmarks/originals.py DATASET CHECKPOINT.safetensors CLASSES")
    main(*sys.argv[1:])
