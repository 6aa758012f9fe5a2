"""Settings of the baselines, chosen by one rule and written to `data/baselines.yml`.

    softprune tune --dataset digits --classes zero,two,four,six

Rule: every method that has something to set gets the same number of trials, its paper's setting (or
our default) first; the same classes are forgotten in turn (by default one, the set's last); the
trial with the largest mean of retained - forgotten accuracy on the validation split is taken, of
equals the earlier.
"""

from collections.abc import Callable

import yaml

from softprune import artifacts, evaluation, paths, requests, unlearning
from softprune.errors import UserError

RULE = ("the largest retained - forgotten accuracy on the validation split, of equals the earlier "
        "trial; as many trials for every method; mean over the classes named")
# trials of another class, model or length are not continued
SAME = ("class", "split", "weights", "steps")
# the second four go on where the best of the first four lay at the edge of what was tried
_RATES = [{"rate": r} for r in (0.02, 0.005, 0.05, 0.1, 0.01, 0.002, 0.07, 0.2)]
TRAINED = ("fine-tune", "neggrad+", "random-label", "salun", "scrub", "delete")
TRIALS: dict[str, list[dict]] = {
    "bias-shift": [{"shift": s} for s in (5.0, 2.0, 10.0, 20.0, 3.0, 7.0, 15.0, 40.0)],
    "cdp": [{"fraction": f} for f in (0.1, 0.05, 0.2, 0.3, 0.02, 0.01, 0.03, 0.07)],
    "cse": [{"fraction": f, "alpha": a}
            for f, a in ((0.25, 0.0), (0.5, 0.0), (0.75, 0.0), (0.5, 0.25),
                         (0.1, 0.0), (0.15, 0.0), (0.9, 0.0), (0.05, 0.0))],
    "svd": [{"alpha_r": r, "alpha_f": f}
            for r, f in ((100.0, 3.0), (100.0, 30.0), (1000.0, 30.0), (30.0, 3.0),
                         (300.0, 3.0), (1000.0, 10.0), (3000.0, 30.0), (3000.0, 100.0))],
    "ssd": [{"alpha": a} for a in (10.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)],
    "fine-tune": _RATES,
    "neggrad+": [{"rate": r, "balance": b}
                 for r, b in ((0.02, 0.95), (0.02, 0.99), (0.005, 0.95), (0.05, 0.99),
                              (0.01, 0.95), (0.02, 0.9), (0.005, 0.9), (0.02, 0.97))],
    "random-label": _RATES,
    "salun": _RATES,
    "scrub": [{"rate": r} for r in (0.001, 0.0005, 0.002, 0.005, 0.0001, 0.0002, 0.0015, 0.003)],
    "delete": [{"rate": r} for r in (0.002, 0.0005, 0.001, 0.005, 0.0001, 0.0002, 0.0003, 0.0007)],
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
    return (yaml.safe_load(path().read_text()) if path().exists() else None) or {}


def tune(bench: requests.Bench, methods=tuple(TRIALS), classes=(), steps: int = 0,
         log: Callable[[str], None] | None = None) -> dict:
    """Try every setting not tried yet, write each as it is measured; the data set's entry.

    Args:
        steps: of a trained method, in its trials and when it is run; 0 is its own default.

    Raises:
        UserError: a method that has nothing to set; other classes, steps or another checkpoint
            than those of methods that are not asked for.
    """
    for name in methods:
        if name not in TRIALS:
            raise UserError(f"nothing to tune in {name!r}: expected some of {', '.join(TRIALS)}")
    images = bench.images
    classes = tuple(classes) or (len(images.class_names) - 1,)
    access = unlearning.Access.of(bench)
    head = {"rule": RULE, "class": "+".join(images.class_names[c] for c in classes),
            "split": "validation", "steps": steps, "profile": bench.sidecar["config"]["profile"],
            "checkpoint": bench.checkpoint.stem, "weights": bench.sidecar["sha256"][:12]}
    entry = read().get(images.name, {})
    same = all(entry.get(k, 0) == head[k] for k in SAME)
    if not same and (lost := [m for m in entry.get("methods", {}) if m not in methods]):
        raise UserError(
            f"settings of {', '.join(lost)} were chosen otherwise (class "
            f"{entry['class'].replace('+', ',')}, steps {entry.get('steps', 0)}, checkpoint "
            f"{entry['checkpoint']}): expected the same for all, or all methods anew, without "
            "--methods")
    entry = head | {"methods": entry["methods"] if same else {}}
    for name in methods:
        tried = entry["methods"].get(name, {}).get("tried", [])
        for options in TRIALS[name]:
            if options in [t["options"] for t in tried]:
                continue
            short = {"steps": steps} if steps and name in TRAINED else {}
            tried.append({"options": dict(options)}
                         | trial(bench, access, name, classes, options | short))
            entry["methods"][name] = {"chosen": dict(best(tried)), "tried": tried}
            write(images.name, entry)
            if log:
                log(f"{name:13} {tried[-1]}")
    return entry


def trial(bench, access, name: str, classes, options: dict) -> dict:
    """Retained and forgotten validation accuracy and seconds of a setting, means over classes."""
    pixels, labels = bench.images.split("validation")
    total = {"retained": 0.0, "forgotten": 0.0, "seconds": 0.0}
    for cls in classes:
        model, ledger = unlearning.unlearn(name, bench.model, (cls,), access, **options)
        z = evaluation.predict(model, pixels, bench.images.mean, bench.images.std)[1]
        kept, gone = requests.retained_and_forgotten(z, labels, (cls,))
        for key, value in (("retained", kept), ("forgotten", gone),
                           ("seconds", sum(ledger.seconds.values()))):
            total[key] += value / len(classes)
    return {k: round(v, 4) for k, v in total.items()}


def write(dataset: str, entry: dict) -> None:
    """Put one data set's entry into the file, whole or not at all."""
    whole = read() | {dataset: entry}
    with artifacts.atomic(path()) as temporary:
        temporary.write_text("# written by `softprune tune`, not by hand\n"
                             + yaml.safe_dump(whole, sort_keys=True, default_flow_style=None,
                                              width=100))
