"""The scores that stage 3 leaves out where classes are many, each with every pooling and gate.

    python benchmarks/scores.py cifar100 data/checkpoints/cifar100/laptop/NAME.safetensors

As stage 3 does it (`requests.candidates`): each combination has the fraction that the validation
split chooses, and is judged on the test split, over about twenty classes, spread over all.
"""

import sys
import time

from one_checkpoint import opened, record, spread

from softprune import artifacts, channels, requests

LEFT_OUT = tuple(s for s in channels.SCORES if s not in ("difference", "contribution", "random"))


def rows_of(bench: requests.Bench, scores=LEFT_OUT, log=print) -> list[dict]:
    """Rows of each combination, named as stage 3 names them."""
    some, rows = spread(bench), []
    for score in scores:
        for found in requests.candidates(bench, scores=(score,), classes=some):
            said = {k: found[k] for k in ("score", "statistic", "gate", "fraction", "sites", "n")}
            rows += [artifacts.row("soft", f"candidate-{k}", 100 * found[k], "points",
                                   split="test", **said)
                     for k in ("forgotten-mean", "forgotten-worst", "change-mean", "change-worst")]
            log(f"{score:12} {found['statistic']:4} {found['gate']:12} {found['fraction']:.2f}  "
                f"class {100 * found['forgotten-mean']:5.1f} %  "
                f"others {100 * found['change-mean']:+6.2f}")
    return rows


def main(dataset: str, checkpoint: str) -> None:
    """Measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    rows = rows_of(bench, log=lambda text: print(text, flush=True))
    record("scores", bench, rows, began)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("expected: python benchmarks/scores.py DATASET CHECKPOINT.safetensors")
    main(*sys.argv[1:])
