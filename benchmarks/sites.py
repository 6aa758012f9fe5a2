"""Where should the plain method act? Its gates at every foldable site, and at groups of them.

    python benchmarks/sites.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors

At `last`, `inner`, `late`, `all` and each site by itself, channels by `difference`, attenuated
(`rank`) and closed (`hard`): of `FRACTIONS` the one that the validation split chooses by every
second class (`requests.calibrate`), then every class in turn on the test split. Gates inside leave
the classifier as it was.
"""

import sys
import time

from one_checkpoint import opened, record

from softprune import inturn, requests

GROUPS = ("last", "inner", "late", "all")
FRACTIONS = (0.05, 0.1, 0.25, 0.5, 0.8)
METHODS = {"soft": "rank", "hard": "hard"}


def rows_of(bench: requests.Bench, log=print) -> list[dict]:
    """Rows of each place and gate: means and worst classes, as `inturn.tell` gives them."""
    rows = []
    names = [s.name for s in bench.model.sites()]
    looked = range(0, len(bench.images.class_names), 2)
    for sites in (*GROUPS, *names[:-1]):  # the last one by itself is a group
        for method, gate in METHODS.items():
            said = {"score": "difference", "statistic": "mean", "gate": gate, "sites": sites}
            fraction, _ = requests.calibrate(bench, FRACTIONS, looked, **said)
            turn = requests.in_turn(bench, lambda c, s=said, f=fraction: bench.method_logits(
                "soft", (c,), "test", fraction=f, **s))
            rows += inturn.tell(method, turn, fraction=fraction, **said)
            made = requests.summarise(turn)
            log(f"{sites:16} {gate:5} {fraction:<5} class {100 * made['forgotten-mean']:6.2f} %  "
                f"others {100 * made['change-mean']:+.2f} ({100 * made['change-worst']:+.2f})")
    return rows


def main(dataset: str, checkpoint: str) -> None:
    """Measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    rows = rows_of(bench, lambda text: print(text, flush=True))
    record("sites", bench, rows, began, {"fractions": FRACTIONS, "sites": [
        s.name for s in bench.model.sites()]})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("expected: python benchmarks/sites.py DATASET CHECKPOINT.safetensors")
    main(*sys.argv[1:])
