"""Can gates be made unreadable, and at what price? The page quotes these records.

    python benchmarks/readers.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors

Gates fitted against a *reader* (`FitOptions.reader`), a linear classifier that learns along. For
every class whose retrained reference is here: what a classifier refitted afterwards, and the ten
nearest training images, find of the class, beside the retrained network, which never saw it.
"""

import dataclasses
import sys
import time
from pathlib import Path

from one_checkpoint import config_of, opened, record

from softprune import artifacts, audit, inturn, ladder, requests

WEIGHTS = (0.0, 0.03, 0.1)
# gates on channels, also where the setting of `best` works along directions: against a reader those
# cost the others several points at a weight that takes a refit little
CHANNELS = {"direction": 0.0, "rate": ladder.FitOptions.rate, "margin": 1.0, "most": 3.0}
# against an opponent that learns: longer; it needs labels, and blends have none
LONGER = {"steps": 300, "blend": 0.0}


def neighbours(model, evidence, cls: int) -> float:
    """Share of the class's test images whose ten nearest training images vote for it."""
    train, test = (audit.pooled(model, x) for x in (evidence.train, evidence.test[evidence.own]))
    last = list(train)[-1]
    votes = audit.nearest(train[last], evidence.train_labels, test[last])
    return (votes == cls).double().mean().item()


def rows_of(bench: requests.Bench, retrained: dict[int, Path], log=print) -> list[dict]:
    """Rows of each weight, and of the networks retrained without each class."""
    wanted = ladder.options("best", bench.images.name, config_of(bench).profile)
    wanted = dataclasses.replace(wanted, **CHANNELS)
    rows = []
    fitter = ladder.Fitter(bench.model, bench.images, wanted)
    labels, base = bench.images.test_labels, bench.outputs("test")[1]
    for cls, path in retrained.items():
        name, evidence = bench.images.class_names[cls], audit.gather(bench.images, cls)
        fresh = requests.Bench(path, bench.images)
        before = requests.retained_and_forgotten(base, labels, (cls,))[0]
        told = {"original": (bench, bench.model, {}), "retrained": (fresh, fresh.model, {})}
        for weight in WEIGHTS:
            changed = LONGER | {"reader": weight} if weight else {}
            gates = fitter.turned(dataclasses.replace(wanted, **changed)).fit((cls,))
            told[f"reader-{weight:g}"] = bench, bench.fold_into_copy(gates), gates
        for method, (of, model, gates) in told.items():
            kept, gone = requests.retained_and_forgotten(
                of.gated_outputs(gates, "test")[1], labels, (cls,))
            made = {"accuracy": gone, "accuracy-head-refit": of.refit_recall(gates, (cls,)),
                    "recall-t4-10-nn": neighbours(model, evidence, cls)}
            rows += [artifacts.row(method, k, v, split="forgotten-test", forget=name,
                                   n=int((labels == cls).sum())) for k, v in made.items()]
            rows.append(artifacts.row(method, "change", 100 * (kept - before), "points",
                                      split="retained-test", forget=name))
            log(f"{name:12} {method:12} class {100 * gone:6.2f} %  refit "
                f"{100 * made['accuracy-head-refit']:5.1f} %  10-NN "
                f"{100 * made['recall-t4-10-nn']:5.1f} %  others {100 * (kept - before):+.2f}")
    return rows


def main(dataset: str, checkpoint: str) -> None:
    """Fit, measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    if not (retrained := inturn.references(bench, config_of(bench))):
        sys.exit(f"no network retrained without a class: type `softprune train --dataset {dataset} "
                 "--without CLASS` with the checkpoint's options")
    rows = rows_of(bench, retrained, lambda text: print(text, flush=True))
    record("readers", bench, rows, began)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("expected: python benchmarks/readers.py DATASET CHECKPOINT.safetensors")
    main(*sys.argv[1:])
