"""Can a class be taken out of the features, and at what price? The page quotes these records.

    python benchmarks/readers.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors
    python benchmarks/readers.py cifar100 data/checkpoints/cifar100/laptop/NAME.safetensors 10

For every N-th class (by default all) and every one whose retrained reference is here: `best`, and
directions guarded against a *reader* (`guarding`), beside the original and the network that never
saw the class. Several numbers of pairs and weights of the reader are tried (`TRIALS`), of which a
rule takes one on the validation split (`chosen`) and puts it into `data/guarded.json`; a set that
has no trials has the setting of `guarding.options`. What a classifier refitted afterwards finds of
the class is measured for all; of the chosen also what others find: ten nearest neighbours and a
linear classifier at every depth (two that learn by steps: `benchmarks/again.py`).
"""

import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path

from one_checkpoint import config_of, opened, record, step_of
from torch import Tensor

from softprune import (
    artifacts,
    audit,
    evaluation,
    guarding,
    inturn,
    ladder,
    profiles,
    pruning,
    requests,
)

# where a setting is searched: (pairs a site, weight of the reader); the other sets show whether it
# carries over
TRIALS = {"cifar10": ((1, 0.05), (8, 0.05), (32, 0.0), (32, 0.02), (32, 0.05)),
          "cifar100": ((1, 0.01), (32, 0.01), (32, 0.015), (32, 0.02))}


def name_of(pairs: int, weight: float) -> str:
    """A trial's name in the record.

    Example:
        >>> name_of(32, 0.05)
        'guarded-32-0.05'
    """
    return f"guarded-{pairs}-{weight:g}"


def trials(setting: guarding.GuardOptions, dataset: str) -> dict[str, guarding.GuardOptions]:
    """What is fitted, by name: all trials where a setting is searched, else the setting alone."""
    tried = TRIALS.get(dataset, ((setting.pairs, setting.reader),))
    return {name_of(*t): dataclasses.replace(setting, pairs=t[0], reader=t[1]) for t in tried}


Read = dict[str, tuple[Tensor, Tensor, Tensor]]  # split -> labels, logits, those of a refitted head


def read_anew(model, images, total: int = 10_000, splits=("validation", "test")) -> Read:
    """What a network answers, and what a classifier that is refitted on its features does."""
    pixels, labels = images.split("train")
    few = ladder.pick(labels, total, 0)
    features = evaluation.predict(model, pixels[few], images.mean, images.std)[0]
    head = evaluation.head_refit(features, labels[few], len(images.class_names))
    made = {}
    for split in splits:
        pixels, labels = images.split(split)
        features, z = evaluation.predict(model, pixels, images.mean, images.std)
        made[split] = labels, z, head(features)
    return made


def readers(model, evidence: audit.Evidence) -> dict[str, float]:
    """What readers of other kinds find of the class's test images."""
    train, test = (audit.pooled(model, x) for x in (evidence.train, evidence.test[evidence.own]))
    labels, cls = evidence.train_labels, evidence.forget
    *_, last = train
    near = audit.nearest(train[last], labels, test[last])
    made = {"recall-t4-10-nn": (near == cls).double().mean().item()}
    for site in train:
        found = audit.probe(train[site], labels, test[site], cls, evidence.classes)
        made[f"recall-t4-probe-{site}"] = found
    return made


def chosen(rows: list[dict]) -> str:
    """The trial that the rule takes: of those whose refit finds no more of the class than in the
    retrained networks, means over their classes on the validation split, the one that costs the
    others least; where there is none, the one of which a refit finds least."""
    references = {r["forget"] for r in rows if r["method"] == "retrained"}
    values: dict[tuple[str, str], list[float]] = {}
    for r in rows:
        if r.get("forget") in references and r.get("split", "").endswith("validation"):
            values.setdefault((r["method"], r["metric"]), []).append(r["value"])
    mean = {k: statistics.fmean(v) for k, v in values.items()}
    refit = {m: v for (m, k), v in mean.items() if k == "accuracy-head-refit"}
    tried = [m for m in refit if m.startswith(guarding.RUNG)]
    within = [m for m in tried if refit[m] <= refit["retrained"]]
    return (max(within, key=lambda m: mean[m, "change"]) if within else min(tried, key=refit.get))


def fitted_rows(bench: requests.Bench, classes, retrained: dict[int, Path],
                log=print) -> tuple[list[dict], dict]:
    """Rows of each trial, of `best`, and of the networks retrained without a class; and the edits
    by class and method."""
    images, rows, edits = bench.images, [], {}
    setting = guarding.options(images.name, config_of(bench).profile)
    wanted = trials(setting, images.name)
    guard = guarding.Guard(bench.model, images, setting)
    bench.prepare("best", classes)
    original = read_anew(bench.model, images)
    for cls in classes:
        name = images.class_names[cls]
        own = edits[cls] = {"original": {}, "best": bench.method_gates("best", (cls,))}
        for method, options in wanted.items():
            began = time.perf_counter()
            own[method] = guard.turned(options).fit((cls,))
            rows.append(artifacts.row(method, "time-prepare", time.perf_counter() - began, "s",
                                      forget=name))
        if cls == classes[0]:
            rows += cost_rows(bench, own)
        models = {method: bench.fold_into_copy(gates) for method, gates in own.items()}
        if cls in retrained:
            models["retrained"] = requests.Bench(retrained[cls], images).model
        told = {m: original if m == "original" else read_anew(model, images)
                for m, model in models.items()}
        for method, by_split in told.items():
            for split, read in by_split.items():
                told = class_rows(method, name, (cls,), split, read, original[split][1])
                gone, found, change = (r["value"] for r in told)
                rows += told
                log(f"{name:12} {method:15} {split:10} class {100 * gone:6.2f} %  refit "
                    f"{100 * found:5.1f} %  others {change:+.2f}")
    return rows, edits


def class_rows(method: str, name: str, forget: tuple[int, ...], split: str,
               read: tuple[Tensor, Tensor, Tensor], before: Tensor) -> list[dict]:
    """Of a class, or several, on a split: its accuracy, what a refit finds of it, and the others'
    change.

    Args:
        read: one split of `read_anew`. before: the original's logits (N, C) of these images.
    """
    labels, z, anew = read
    kept, gone = requests.retained_and_forgotten(z, labels, forget)
    change = 100 * (kept - requests.retained_and_forgotten(before, labels, forget)[0])
    found = requests.retained_and_forgotten(anew, labels, forget)[1]
    n = int(evaluation.is_forgotten(labels, forget).sum())
    return [*(artifacts.row(method, k, v, split=f"forgotten-{split}", forget=name, n=n)
              for k, v in (("accuracy", gone), ("accuracy-head-refit", found))),
            artifacts.row(method, "change", change, "points", forget=name,
                          split=f"retained-{split}", n=len(labels) - n)]


def answer_rows(name: str, forget: tuple[int, ...], answers: dict[str, tuple], log=print
                ) -> list[dict]:
    """`class_rows` on the test split of networks that answered the same request.

    Args:
        answers: method -> one split of `read_anew`; that of `original` is what others changed.
    """
    rows = []
    for method, read in answers.items():
        told = class_rows(method, name, forget, "test", read, answers["original"][1])
        gone, found, change = (r["value"] for r in told)
        log(f"{name:20} {method:17} right {100 * gone:6.2f} %  refit {100 * found:5.1f} %  "
            f"others {change:+.2f}")
        rows += told
    return rows


def cost_rows(bench: requests.Bench, edits: dict) -> list[dict]:
    """Seconds of folding each edit, and bytes of storing it in half precision."""
    copy, rows = bench.fold_into_copy({}), []
    for method, gates in ((m, g) for m, g in edits.items() if g):
        seconds = evaluation.median_time(lambda g=gates: pruning.fold(copy, g))
        stored = sum(2 * g.numel() for g in gates.values())
        rows += [artifacts.row(method, "time-edit", seconds, "s"),
                 artifacts.row(method, "size-stored", stored, "bytes")]
    return rows


def other_rows(bench: requests.Bench, retrained: dict[int, Path], edits: dict,
               methods) -> list[dict]:
    """What other readers find of each class whose retrained network is here."""
    rows = []
    for cls, path in retrained.items():
        evidence = audit.gather(bench.images, cls)
        models = {m: bench.fold_into_copy(edits[cls][m]) for m in methods}
        models["retrained"] = requests.Bench(path, bench.images).model
        for method, model in models.items():
            rows += [artifacts.row(method, k, v, split="forgotten-test", n=int(evidence.own.sum()),
                                   forget=bench.images.class_names[cls])
                     for k, v in readers(model, evidence).items()]
    return rows


def rows_of(bench: requests.Bench, classes, retrained: dict[int, Path], log=print) -> list[dict]:
    """All rows of a record."""
    rows, edits = fitted_rows(bench, classes, retrained, log)
    taken = chosen(rows)
    log(f"chosen: {taken}")
    return rows + other_rows(bench, retrained, edits, ("original", "best", taken))


def main(dataset: str, checkpoint: str, every: str = "1") -> None:
    """Fit, measure, and write the record."""
    began = time.perf_counter()
    step = step_of(every)
    bench = opened(dataset, checkpoint)
    retrained = inturn.references(bench, config_of(bench))
    if not retrained:
        sys.exit(f"no network retrained without a class: type `softprune train --dataset {dataset} "
                 "--without CLASS` with the checkpoint's options")
    classes = sorted({*range(0, len(bench.images.class_names), step), *retrained})
    rows = rows_of(bench, classes, retrained, lambda text: print(text, flush=True))
    profile = config_of(bench).profile
    taken = trials(guarding.options(dataset, profile), dataset)[chosen(rows)]
    path = record("readers", bench, rows, began, {"options": taken.told()})
    if dataset in TRIALS:
        key = json.loads(path.read_text())["key"]
        guarding.remember(profiles.chosen_under(dataset, profile), taken, key)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("expected: python benchmarks/readers.py DATASET CHECKPOINT.safetensors [N]")
    main(*sys.argv[1:])
