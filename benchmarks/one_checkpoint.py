"""What benchmarks of one checkpoint share: opening it, and the record of what was measured."""

import sys
import time
from pathlib import Path

from softprune import artifacts, completing, datasets, requests
from softprune.errors import UserError
from softprune.training import TrainConfig


def opened(dataset: str, path: str) -> requests.Bench:
    """A checkpoint with its data; leaves with one line where either is not there."""
    try:
        return requests.Bench(Path(path), datasets.load(dataset))
    except UserError as error:
        sys.exit(str(error))


def classes_of(bench: requests.Bench, names: str) -> list[int]:
    """The classes of names with commas, one each; leaves with one line where one is unknown, or
    stands for several."""
    found = []
    for name in (n for n in names.split(",") if n):
        try:
            meant = bench.images.class_indices([name])
        except UserError as error:
            sys.exit(str(error))
        if len(meant) != 1:
            sys.exit(f"{name!r} stands for {len(meant)} classes: expected the name of one")
        found += meant
    return found


def spread(bench: requests.Bench, most: int = 20) -> range:
    """About `most` classes, evenly over all; of fewer than twice as many all."""
    count = len(bench.images.class_names)
    return range(0, count, max(1, count // most))


def step_of(every: str) -> int:
    """Every how many classes one is taken; leaves with one line where that is no number."""
    if not (every.isdecimal() and int(every)):
        sys.exit(f"{every!r}: expected a number from 1, every how many classes one is taken")
    return int(every)


def config_of(bench: requests.Bench) -> TrainConfig:
    """How the checkpoint was trained."""
    return TrainConfig.from_dict(bench.sidecar["config"])


def record(stage: str, bench: requests.Bench, rows: list[dict], began: float,
           extra: dict | None = None, *, of_shadows: bool = False) -> Path:
    """Write a run record that is named by the checkpoint's training, and says its weights: two
    trainings of one recipe differ where processors do.

    Args:
        began: `time.perf_counter()` of the start.
        of_shadows: rows are means over shadow models, whose original is not the checkpoint.
    """
    config = config_of(bench).as_dict()
    original = None if of_shadows else lambda: bench.outputs("test")[1]
    rows = completing.complete(rows, bench.images, original)
    extra = {"weights": bench.sidecar["sha256"]} | (extra or {})
    return artifacts.write_record(stage, artifacts.short_hash(config), config, rows,
                                  artifacts.provenance(time.perf_counter() - began), extra)
