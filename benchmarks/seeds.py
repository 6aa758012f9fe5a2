"""The headline numbers of one training seed: every class in turn, plain and both rungs.

    python benchmarks/seeds.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors

One record (stage `seeds`) a checkpoint; the book takes means and intervals over seeds. Where the
same seed was also retrained without a class, its retained accuracy stands beside the request's.
"""

import dataclasses
import sys
import time
from pathlib import Path

from softprune import artifacts, datasets, ladder, requests, training

TURN = ("forgotten-mean", "forgotten-worst", "retained-mean", "change-mean", "change-worst")


def in_turn_rows(bench: requests.Bench) -> tuple[list[dict], dict]:
    """Rows of every class in turn, and each method's turn for later use."""
    classes = range(len(bench.images.class_names))
    for rung in ladder.RUNGS:
        bench.prepare(rung, classes, log=print)
    fraction = requests.calibrate(bench)[0]
    rows, turns = [], {}
    for method in ("soft", *ladder.RUNGS):
        said = {"fraction": fraction} if method == "soft" else {}
        turns[method] = requests.in_turn(
            bench, lambda c, m=method, s=said: bench.method_logits(m, (c,), "test", **s))
        made = requests.summarise(turns[method])
        rows += [artifacts.row(method, f"all-classes-{k}", 100 * made[k], "points", split="test",
                               sites="each", n=made["n"], **said) for k in TURN]
    return rows, turns


def beside_retrained(bench: requests.Bench, config, turns: dict) -> list[dict]:
    """Retained test accuracy of each request whose retrained reference is here, and of that."""
    rows = []
    for c, name in enumerate(bench.images.class_names):
        path = training.find_checkpoint(dataclasses.replace(config, without=(name,)))
        if path is None:
            continue
        fresh = requests.Bench(path, bench.images)
        _, logits, labels = fresh.outputs("test")
        kept = {"retrained": requests.retained_and_forgotten(logits, labels, (c,))[0]}
        kept |= {m: t["retained"][c] for m, t in turns.items()}
        kept["original"] = turns["soft"]["before"][c]
        rows += [artifacts.row(m, "accuracy", v, split="retained-test", forget=name, sites="each",
                               n=int((labels != c).sum())) for m, v in kept.items()]
    return rows


def main(dataset: str, *checkpoints: str) -> None:
    """One record a checkpoint."""
    images = datasets.load(dataset)
    for checkpoint in checkpoints:
        began = time.perf_counter()
        bench = requests.Bench(Path(checkpoint), images)
        config = training.TrainConfig.from_dict(bench.sidecar["config"])
        rows, turns = in_turn_rows(bench)
        rows += beside_retrained(bench, config, turns)
        path = artifacts.write_record("seeds", artifacts.short_hash(config.as_dict()),
                                      config.as_dict(), rows,
                                      artifacts.provenance(time.perf_counter() - began))
        print(path.name)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("expected: python benchmarks/seeds.py DATASET CHECKPOINT.safetensors …")
    main(*sys.argv[1:])
