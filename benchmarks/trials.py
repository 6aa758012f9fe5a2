"""What was tried and did not work, kept runnable: the page quotes these records.

    python benchmarks/trials.py digits data/checkpoints/digits/laptop/NAME.safetensors

Mean compensation (as in `cse`, Pramanik et al.): a gated channel keeps its mean over the retained
training images, h' = g h + (1 - g) mu, which at the last site is a shift of the classifier's bias.
"""

import sys
import time

import torch
from one_checkpoint import opened, record

from softprune import artifacts, requests


def compensated(bench: requests.Bench, cls: int, split: str, keep_mean: bool, **choice):
    """Logits (N, C) under the gates of one class at the last site, with the mean kept or not."""
    g = bench.gates((cls,), **choice)[bench.last]
    head, features = bench.model.fc, bench.outputs(split)[0]
    with torch.no_grad():
        z = head(features * g)
        if keep_mean:
            counts = bench.table.counts.float().clone()
            counts[cls] = 0
            mean = (bench.table.mean["mean"][bench.last] * counts[:, None]).sum(0) / counts.sum()
            z = z + ((1 - g) * mean) @ head.weight.T
    return z


def main(dataset: str, checkpoint: str) -> None:
    """Each gate with and without the mean kept, its fraction chosen on the validation split."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    rows = []
    for gate in ("rank", "hard"):
        for keep_mean in (False, True):
            def turn(fraction, split, gate=gate, keep_mean=keep_mean):
                return requests.summarise(requests.in_turn(
                    bench, lambda c: compensated(bench, c, split, keep_mean, gate=gate,
                                                 fraction=fraction), split))
            tried = {f: turn(f, "validation") for f in requests.FRACTIONS}
            best = max(tried, key=lambda f: tried[f]["retained-mean"] - tried[f]["forgotten-mean"])
            made = turn(best, "test")
            name = "mean-kept" if keep_mean else "plain"
            rows += [artifacts.row("soft", f"trial-{name}-{k}", 100 * made[k], "points",
                                   split="test", gate=gate, fraction=best, sites="last",
                                   n=made["n"])
                     for k in ("forgotten-mean", "forgotten-worst", "change-mean", "change-worst")]
            print(f"{gate:5} {name:10} fraction {best:g}: forgotten "
                  f"{100 * made['forgotten-mean']:.1f} %, others {100 * made['change-mean']:+.2f}")
    record("trials", bench, rows, began)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("expected: python benchmarks/trials.py DATASET CHECKPOINT.safetensors")
    main(*sys.argv[1:])
