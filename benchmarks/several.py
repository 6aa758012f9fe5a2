"""Several classes at once: what is left, what the others lose, and what a refit then finds.

    python benchmarks/several.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors 2,3
    python benchmarks/several.py cifar100 CHECKPOINT.safetensors 2,5,10

The first requests of each size are those of stage 3's page (`requests.several`). Each is answered
by what is stored of single classes, combined (`best`, `guarded`), and by fits for all classes of
the request at once (`together` with the setting of `best`, `guarded-together`). Where a network was
trained without the classes of the first request, `softprune train --without CLASS,CLASS` with the
checkpoint's options, it stands beside them. The page reads these records.
"""

import dataclasses
import sys
import time
from pathlib import Path

import torch
from one_checkpoint import config_of, opened, record
from readers import answer_rows, read_anew

from softprune import artifacts, guarding, ladder, requests, training

DRAWS = 3
TOGETHER = f"{guarding.RUNG}-{requests.TOGETHER}"


def drawn(classes: int, size: int, draws: int = DRAWS) -> list[tuple[int, ...]]:
    """The first requests for `size` classes that `requests.several` makes."""
    generator = torch.Generator().manual_seed(size)
    return [tuple(sorted(torch.randperm(classes, generator=generator)[:size].tolist()))
            for _ in range(draws)]


def retrained(bench: requests.Bench, forget: tuple[int, ...]) -> Path | None:
    """The network trained as the checkpoint was, without these classes; None if it is not here."""
    names = tuple(bench.images.class_names[c] for c in sorted(forget))
    config = dataclasses.replace(config_of(bench), without=names)
    return training.find_checkpoint(config)


def rows_of(bench: requests.Bench, sizes, draws: int = DRAWS, log=print) -> list[dict]:
    """Rows of each request and answer: of the test split, and the seconds of a fit."""
    images, rows = bench.images, []
    asked = [forget for size in sizes for forget in drawn(len(images.class_names), size, draws)]
    wanted = sorted({c for forget in asked for c in forget})
    bench.prepare("best", wanted, log)
    stored, _ = guarding.prepare(bench, guarding.RUNG, wanted, log)
    guard = guarding.Guard(bench.model, images, guarding.setting(bench, guarding.RUNG))
    original = read_anew(bench.model, images, splits=("test",))["test"]
    for forget in asked:
        name = "+".join(images.class_names[c] for c in forget)
        edits = {"best": bench.method_gates("best", forget),
                 guarding.RUNG: ladder.request(stored, forget),
                 requests.TOGETHER: bench.together(forget)}
        began = time.perf_counter()
        edits[TOGETHER] = guard.fit(forget)
        seconds = {requests.TOGETHER: bench.fitted[forget][1],
                   TOGETHER: time.perf_counter() - began}
        rows += [artifacts.row(m, "time-edit", s, "s", forget=name) for m, s in seconds.items()]
        told = {"original": original}
        for method, gates in edits.items():
            told[method] = read_anew(bench.fold_into_copy(gates), images, splits=("test",))["test"]
        if there := retrained(bench, forget):
            model = requests.Bench(there, images).model
            told["retrained"] = read_anew(model, images, splits=("test",))["test"]
        rows += answer_rows(name, forget, told, log)
    return rows


def main(dataset: str, checkpoint: str, sizes: str) -> None:
    """Fit, measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    wanted = sizes.split(",")
    most = len(bench.images.class_names) - 1
    if not all(s.isdecimal() and 2 <= int(s) <= most for s in wanted):
        sys.exit(f"{sizes!r}: expected numbers of classes from 2 to {most}, as in 2,3")
    rows = rows_of(bench, [int(s) for s in wanted],
                   log=lambda text: print(text, flush=True))
    record("several", bench, rows, began)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("expected: python benchmarks/several.py DATASET CHECKPOINT.safetensors SIZES")
    main(*sys.argv[1:])
