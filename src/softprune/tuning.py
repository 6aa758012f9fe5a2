"""Settings of the baselines, chosen by one rule and written to `data/baselines.yml`.

    softprune tune --dataset digits

Rule: every method that has something to set gets the same number of trials, its paper's setting (or
our default) first; one class, not among those that are reported, is forgotten; the trial with the
largest retained - forgotten accuracy on the validation split is taken, of equals the earlier.
"""

from collections.abc import Callable

import yaml

from softprune import artifacts, evaluation, paths, requests, unlearning
from softprune.errors import UserError

RULE = ("the largest retained - forgotten accuracy on the validation split, of equals the earlier "
        "trial; as many trials for every method; one class, the set's last")
_RATES = [{"rate": r} for r in (0.02, 0.005, 0.05, 0.1)]
TRIALS: dict[str, list[dict]] = {
    "bias-shift": [{"shift": s} for s in (5.0, 2.0, 10.0, 20.0)],
    "cdp": [{"fraction": f} for f in (0.1, 0.05, 0.2, 0.3)],
    "cse": [{"fraction": f, "alpha": a}
            for f, a in ((0.25, 0.0), (0.5, 0.0), (0.75, 0.0), (0.5, 0.25))],
    "svd": [{"alpha_r": r, "alpha_f": f}
            for r, f in ((100.0, 3.0), (100.0, 30.0), (1000.0, 30.0), (30.0, 3.0))],
    "ssd": [{"alpha": a} for a in (10.0, 25.0, 50.0, 100.0)],
    "fine-tune": _RATES,
    "neggrad+": [{"rate": r, "balance": b}
                 for r, b in ((0.02, 0.95), (0.02, 0.99), (0.005, 0.95), (0.05, 0.99))],
    "random-label": _RATES,
    "salun": _RATES,
    "scrub": [{"rate": r} for r in (0.001, 0.0005, 0.002, 0.005)],
    "delete": [{"rate": r} for r in (0.002, 0.0005, 0.001, 0.005)],
}


def best(tried: list[dict]) -> dict:
    """The options of the trial that the rule takes.

    Example:
        >>> best([{"options": {"a": 1}, "retained": 0.9, "forgotten": 0.2},
        ...       {"options": {"a": 2}, "retained": 0.9, "forgotten": 0.1}])
        {'a': 2}
    """
    return max(tried, key=lambda t: t["retained"] - t["forgotten"])["options"]


def path():
    """Where settings and trials are kept."""
    return paths.root() / "data" / "baselines.yml"


def read() -> dict:
    """All data sets' settings; empty if none were chosen."""
    return yaml.safe_load(path().read_text()) if path().exists() else {}


def tune(bench: requests.Bench, methods=tuple(TRIALS), log: Callable[[str], None] | None = None
         ) -> dict:
    """Try every setting not tried yet, write each as it is measured; the data set's entry.

    Raises:
        UserError: a method that has nothing to set.
    """
    for name in methods:
        if name not in TRIALS:
            raise UserError(f"nothing to tune in {name!r}: expected some of {', '.join(TRIALS)}")
    images, cls = bench.images, len(bench.images.class_names) - 1
    access = unlearning.Access.of(bench)
    head = {"rule": RULE, "class": images.class_names[cls], "split": "validation",
            "profile": bench.sidecar["config"]["profile"], "checkpoint": bench.checkpoint.stem,
            "weights": bench.sidecar["sha256"][:12]}
    entry = read().get(images.name, {})
    if {k: entry.get(k) for k in head} != head:
        entry = head | {"methods": {}}
    pixels, labels = images.split("validation")
    for name in methods:
        tried = entry["methods"].get(name, {}).get("tried", [])
        for options in TRIALS[name]:
            if options in [t["options"] for t in tried]:
                continue
            model, ledger = unlearning.unlearn(name, bench.model, (cls,), access, **options)
            z = evaluation.predict(model, pixels, images.mean, images.std)[1]
            kept, gone = requests.retained_and_forgotten(z, labels, (cls,))
            seconds = {k: round(v, 4) for k, v in ledger.seconds.items()}
            tried.append({"options": options, "retained": round(kept, 4),
                          "forgotten": round(gone, 4), "seconds": seconds})
            entry["methods"][name] = {"chosen": best(tried), "tried": tried}
            write(images.name, entry)
            if log:
                log(f"{name:13} {options}  retained {100 * kept:.2f} %  forgotten "
                    f"{100 * gone:.2f} %  {sum(ledger.seconds.values()):.1f} s")
    return entry


def write(dataset: str, entry: dict) -> None:
    """Put one data set's entry into the file, whole or not at all."""
    whole = read() | {dataset: entry}
    with artifacts.atomic(path()) as temporary:
        temporary.write_text("# written by `softprune tune`, not by hand\n"
                             + yaml.safe_dump(whole, sort_keys=True, default_flow_style=None,
                                              width=100))
