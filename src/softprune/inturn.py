"""The headline numbers of one checkpoint: every class in turn, plain, hard and both rungs.

    softprune in-turn --dataset cifar10 -p width=16 -p epochs=14 -p seed=1

One record (stage `seeds`) a checkpoint, with the accuracies of every request and their means and
worst cases; the book takes means and intervals over seeds, and sets architectures side by side.
Where the same seed was also retrained without a class, its retained accuracy, and what a refitted
classifier finds in it, stand beside the request's.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from softprune import artifacts, completing, evaluation, ladder, pruning, requests, training

METHODS = ("soft", "hard", *ladder.RUNGS)
TURN = ("forgotten-mean", "forgotten-worst", "retained-mean", "change-mean", "change-worst")


def settings(bench: requests.Bench) -> dict[str, dict]:
    """Each method's fraction, chosen on the validation split with its own gates."""
    found = requests.fractions(bench)
    return {m: {"fraction": found[m]} if m in found else {} for m in METHODS}


def in_turn_rows(bench: requests.Bench, said: dict[str, dict], some,
                 log=None) -> tuple[list[dict], dict]:
    """Rows of every class in turn (fitted gates: of `some`), and each method's turn for later."""
    seconds = {rung: bench.prepare(rung, some, log) for rung in ladder.RUNGS}
    labels = bench.images.test_labels
    right = (bench.outputs("test")[1].argmax(1) == labels)
    rows = [artifacts.row("original", "accuracy", right.double().mean(), split="test",
                          n=len(labels)),
            artifacts.row("original", "parameters",
                          sum(p.numel() for p in bench.model.parameters()))]
    rows += [artifacts.row(rung, "time-prepare", sum(s.values()) / len(s), "s", n=len(s))
             for rung, s in seconds.items()]
    turns = {m: requests.in_turn(bench, lambda c, m=m: bench.method_logits(
        m, (c,), "test", **said[m]), classes=some if m in ladder.RUNGS else None)
        for m in METHODS if m != "best"}
    # class by class, so that both classifiers read the features while they are there
    turns["best"], under = {}, {}
    for c in some:
        gates = bench.method_gates("best", (c,))
        requests.add(turns["best"], bench, c, gates, "test")
        requests.add(under, bench, c, bench.inside(gates), "test")
    for method in METHODS:
        rows += tell(method, turns[method], sites="each", **said[method])
        rows += class_rows(bench, method, turns[method], **said[method])
    rows += tell("best", under, sites="inside")
    return rows + class_rows(bench, "best", under, "accuracy-inside-only"), turns


def class_rows(bench: requests.Bench, method: str, turn: dict, metric: str = "accuracy",
               **said) -> list[dict]:
    """Rows of each request of a turn: the class, and under the network's own classifier the others,
    which the other one changes little."""
    labels, rows = bench.images.test_labels, []
    for cls, kept, gone in zip(turn["classes"], turn["retained"], turn["forgotten"], strict=True):
        told = {"forget": bench.images.class_names[cls], "sites": "each", **said}
        own = int((labels == cls).sum())
        rows.append(artifacts.row(method, metric, gone, split="forgotten-test", n=own, **told))
        if metric == "accuracy":
            rows.append(artifacts.row(method, metric, kept, split="retained-test",
                                      n=len(labels) - own, **told))
    return rows


def tell(method: str, turn: dict, **said) -> list[dict]:
    """Rows of one method's turn."""
    made = requests.summarise(turn)
    return [artifacts.row(method, f"all-classes-{k}", 100 * made[k], "points", split="test",
                          n=made["n"], **said) for k in TURN]


def edit_rows(bench: requests.Bench, said: dict[str, dict]) -> list[dict]:
    """Select and edit of a request for the first class, medians."""
    copy, rows = bench.fold_into_copy({}), []
    for method in METHODS:
        def select(m=method):
            return bench.method_gates(m, (0,), **said[m])

        gates = select()
        times = {"select": evaluation.median_time(select),
                 "edit": evaluation.median_time(lambda g=gates: pruning.fold(copy, g))}
        rows += [artifacts.row(method, f"time-{part}", t, "s") for part, t in times.items()]
    return rows


def references(bench: requests.Bench, config) -> dict[int, Path]:
    """Class -> the checkpoint of the same seed retrained without it, of those that are here."""
    found = {c: training.find_checkpoint(dataclasses.replace(config, without=(name,)))
             for c, name in enumerate(bench.images.class_names)}
    return {c: path for c, path in found.items() if path}


Known = dict[int, tuple[float, float]]  # class -> what `of_retrained` returns


def of_retrained(bench: requests.Bench, retrained: dict[int, Path]) -> Known:
    """Of each reference: retained test accuracy, and the class's under a refitted classifier."""
    made = {}
    for c, path in retrained.items():
        fresh = requests.Bench(path, bench.images)
        _, logits, labels = fresh.outputs("test")
        made[c] = (requests.retained_and_forgotten(logits, labels, (c,))[0],
                   fresh.refit_recall({}, (c,)))
    return made


def beside_retrained(bench: requests.Bench, known: Known, turns: dict,
                     said: dict[str, dict]) -> list[dict]:
    """The same two numbers of each request of a class that a reference is known of; the others'
    accuracy after an edit is told with every class's."""
    rows, labels = [], bench.images.test_labels
    for c, (accuracy, refit) in known.items():
        name = bench.images.class_names[c]
        rows.append(artifacts.row("retrained", "accuracy", accuracy, split="retained-test",
                                  forget=name, sites="each", n=int((labels != c).sum())))
        found = {"retrained": refit, "original": bench.refit_recall({}, (c,))}
        for m in turns:
            found[m] = bench.refit_recall(bench.method_gates(m, (c,), **said[m]), (c,))
        rows += [artifacts.row(m, "accuracy-head-refit", v, split="forgotten-test", forget=name,
                               n=int((labels == c).sum())) for m, v in found.items()]
    return rows


def measure(bench: requests.Bench, every: int = 1,
            log: Callable[[str], None] | None = None) -> Path:
    """Measure, and write the record.

    Args:
        every: gates are fitted for every `every`-th class, and where there is a retrained
            reference; the plain method answers for all.
    """
    began = time.perf_counter()
    config = training.TrainConfig.from_dict(bench.sidecar["config"])
    key, weights = artifacts.short_hash(config.as_dict()), bench.sidecar["sha256"]
    said = settings(bench)
    known = (known_before(config, key, weights, bench.images.class_names)
             | of_retrained(bench, references(bench, config)))
    some = sorted({*range(0, len(bench.images.class_names), every), *known})
    rows, turns = in_turn_rows(bench, said, some, log)
    rows += edit_rows(bench, said)
    rows += beside_retrained(bench, dict(sorted(known.items())), turns, said)
    rows = completing.complete(rows, bench.images, lambda: bench.outputs("test")[1])
    extra = {"rungs": rungs(bench.images.name, config.profile), "weights": weights}
    return artifacts.write_record("seeds", key, config.as_dict(), rows,
                                  artifacts.provenance(time.perf_counter() - began), extra)


def known_before(config, key: str, weights: str, class_names: list[str]) -> Known:
    """What an earlier record says of references whose files may be elsewhere by now, where it is
    of the same weights."""
    made = {}
    for record in artifacts.read_records(config.dataset, config.profile, "seeds"):
        if record["key"] == key and record["extra"].get("weights") == weights:
            found = {(r["metric"], r["forget"]): r["value"] for r in record["rows"]
                     if r["method"] == "retrained"}
            made |= {class_names.index(name): (v, found["accuracy-head-refit", name])
                     for (metric, name), v in found.items() if metric == "accuracy"}
    return made


def rungs(dataset: str, profile: str) -> dict[str, dict]:
    """How each rung's gates are fitted: settings are searched anew, records stay."""
    return {rung: ladder.options(rung, dataset, profile).told() for rung in ladder.RUNGS}
