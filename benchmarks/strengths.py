"""The plain method with its strength chosen, too: constant gates of every depth and fraction.

    python benchmarks/strengths.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors

`requests.calibrate` chooses the fraction for one kind of gate. Here every fraction stands with
every gate of `ALPHAS` (0 closes, 1 would leave a channel as it was), at the last site, channels by
`difference`. Of all points the validation split chooses two, each by one of `RULES`; every class in
turn is then judged on the test split.
"""

import sys
import time

from one_checkpoint import opened, record, spread

from softprune import channels, choosing, inturn, requests

ALPHAS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75)


def largest_difference(points: list[dict]) -> dict:
    """The rule of `requests.calibrate`: retained less forgotten accuracy; of equals the first."""
    return max(points, key=lambda p: p["retained-mean"] - p["forgotten-mean"])


def least_left(points: list[dict]) -> dict:
    """Of what costs the others at most `choosing.LOSS` the point that leaves least of the class;
    where none does, the cheapest."""
    spared = [p for p in points if p["change-mean"] >= -choosing.LOSS]
    if not spared:
        return max(points, key=lambda p: p["change-mean"])
    return min(spared, key=lambda p: (p["forgotten-mean"], -p["change-mean"]))


RULES = {"largest-difference": largest_difference, "least-left": least_left}


def rows_of(bench: requests.Bench, log=print) -> tuple[list[dict], dict]:
    """Rows of what each rule chose, as `inturn.tell` gives them; and rule -> its gate and fraction,
    by which its rows are found."""
    looked = spread(bench)
    said = {"score": "difference", "statistic": channels.STATISTICS[0], "sites": "last"}
    points = [requests.judged(bench, split="validation", classes=looked, gate="constant",
                              alpha=alpha, fraction=fraction, **said)
              for alpha in ALPHAS for fraction in requests.FRACTIONS]
    rows, chosen = [], {}
    for name, rule in RULES.items():
        alpha, fraction = (rule(points)[k] for k in ("alpha", "fraction"))
        own = said | {"gate": f"constant-{alpha:g}", "fraction": fraction}
        if own not in chosen.values():  # two rules may agree
            turn = requests.in_turn(bench, lambda c, a=alpha, f=fraction: bench.method_logits(
                "soft", (c,), "test", gate="constant", alpha=a, fraction=f, **said))
            rows += inturn.tell("soft", turn, **own)
        chosen[name] = own
        found = {r["metric"]: r["value"] for r in rows if own.items() <= r.items()}
        log(f"{name:20} alpha {alpha:<5} fraction {fraction:<5} "
            f"class {found['all-classes-forgotten-mean']:6.2f} %  "
            f"others {found['all-classes-change-mean']:+.2f}")
    return rows, chosen


def main(dataset: str, checkpoint: str) -> None:
    """Measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    rows, chosen = rows_of(bench, lambda text: print(text, flush=True))
    record("strengths", bench, rows, began, {
        "chosen": chosen, "alphas": ALPHAS, "fractions": requests.FRACTIONS})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("expected: python benchmarks/strengths.py DATASET CHECKPOINT.safetensors")
    main(*sys.argv[1:])
