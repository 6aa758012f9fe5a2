"""Request times against ssd, salun and retraining on one checkpoint: the ratios the claim is about.

    python benchmarks/headline.py cifar10 CHECKPOINT.safetensors cat

No quality is judged here; the notebook *Head to head* does that, on a narrower network. One record
(stage `headline`) a checkpoint. What takes long is counted in processor seconds too, as there.
"""

import sys
import time

from one_checkpoint import classes_of, opened, record

from softprune import artifacts, headtohead, requests

METHODS = ("soft", "best", "ssd", "salun")


def measure(bench: requests.Bench, cls: int, methods=METHODS) -> list[dict]:
    """Rows: select and edit in seconds, their ratio to the plain method's, the fit beforehand."""
    contest = headtohead.Contest(bench, {"fraction": requests.fractions(bench)})
    outcomes = {m: contest.edited(m, cls, 21 if m in headtohead.OWN else 1) for m in methods}
    clock, worked = contest.retrain_time()
    outcomes["retrained"] = headtohead.Outcome(method="retrained", cls=cls, model=bench.model,
                                               seconds={"edit": clock}, cpu={"edit": worked})
    rows, said = [], {"forget": bench.images.class_names[cls]}
    for m, o in outcomes.items():
        rows += [artifacts.row(m, "time-request", o.request, "s", **said),
                 artifacts.row(m, "ratio-request-soft", o.request / outcomes["soft"].request,
                               **said)]
        if m in ("best", "calibrated"):
            rows.append(artifacts.row(m, "time-prepare", o.seconds["prepare"], "s", **said))
    return rows


def main(dataset: str, checkpoint: str, cls: str) -> None:
    """Measure, print, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    rows = measure(bench, classes_of(bench, cls)[0])
    for r in rows:
        print(f"{r['method']:10} {r['metric']:20} {r['value']:14,.5f} {r['unit']}")
    print(record("headline", bench, rows, began).name)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("expected: python benchmarks/headline.py DATASET CHECKPOINT.safetensors CLASS")
    main(*sys.argv[1:])
