"""Can a class be taken out of the features, and at what price? The page quotes these records.

    python benchmarks/readers.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors
    python benchmarks/readers.py cifar100 data/checkpoints/cifar100/laptop/NAME.safetensors 5

For every N-th class (by default all) and every one whose retrained reference is here: `best`, and
directions guarded against a *reader* (`guarding`) at several numbers of pairs and weights of the
reader, beside the original and the network that never saw the class. What a classifier refitted afterwards finds of the class is
measured on the validation split, by which a setting is chosen, and on the test split; of the
setting in use, also what other readers find: ten nearest neighbours, a network of one hidden layer,
a linear classifier at every depth, and fine-tuning on a few images.
"""

import dataclasses
import sys
import time
from pathlib import Path

from one_checkpoint import config_of, opened, record
from sklearn.neural_network import MLPClassifier

from softprune import artifacts, audit, evaluation, guarding, inturn, ladder, requests

CHOSEN = guarding.GuardOptions()
# (pairs a site, weight of the reader); a data set with many classes has the chosen one alone
TRIALS = ((1, 0.05), (8, 0.05), (32, 0.0), (32, 0.02), (32, 0.05), (32, 0.1))
SHOTS = 10  # images of each class that fine-tuning has


def name_of(pairs: int, weight: float) -> str:
    """A trial's name in the record.

    Example:
        >>> name_of(32, 0.05)
        'guarded-32-0.05'
    """
    return f"guarded-{pairs}-{weight:g}"


def trials(classes: int) -> dict[str, guarding.GuardOptions]:
    """What is fitted, by name: everything where there are ten classes, else the chosen alone."""
    own = (CHOSEN.pairs, CHOSEN.reader)
    return {name_of(*t): dataclasses.replace(CHOSEN, pairs=t[0], reader=t[1])
            for t in dict.fromkeys((*(TRIALS if classes <= 10 else ()), own))}


def read_anew(model, images, cls: int, total: int = 10_000) -> dict[str, tuple[float, ...]]:
    """Split -> accuracy on the other classes, on the class, and on the class by a refitted head."""
    pixels, labels = images.split("train")
    few = ladder.pick(labels, total, 0)
    features = evaluation.predict(model, pixels[few], images.mean, images.std)[0]
    head = evaluation.head_refit(features, labels[few], len(images.class_names))
    made = {}
    for split in ("validation", "test"):
        pixels, labels = images.split(split)
        features, z = evaluation.predict(model, pixels, images.mean, images.std)
        found = requests.retained_and_forgotten(head(features), labels, (cls,))[1]
        made[split] = (*requests.retained_and_forgotten(z, labels, (cls,)), found)
    return made


def readers(model, evidence: audit.Evidence) -> dict[str, float]:
    """What readers of other kinds find of the class's test images."""
    train, test = (audit.pooled(model, x) for x in (evidence.train, evidence.test[evidence.own]))
    labels, cls = evidence.train_labels, evidence.forget
    *_, last = train
    near = audit.nearest(train[last], labels, test[last])
    hidden = MLPClassifier(128, early_stopping=True, random_state=0)
    hidden.fit(train[last].cpu(), labels.cpu())
    made = {"recall-t4-10-nn": (near == cls).double().mean().item(),
            "recall-t4-mlp": float((hidden.predict(test[last].cpu()) == cls).mean())}
    for site in train:
        found = audit.probe(train[site], labels, test[site], cls, evidence.classes)
        made[f"recall-t4-probe-{site}"] = found
    relearned = audit.relearn(model, evidence, SHOTS)
    return made | {f"recall-t4-relearn-{step}": relearned[audit.CHECKPOINTS.index(step)]
                   for step in (10, 40)}


def rows_of(bench: requests.Bench, classes, retrained: dict[int, Path], log=print) -> list[dict]:
    """Rows of each trial, of `best`, and of the networks retrained without a class."""
    images, rows = bench.images, []
    wanted = trials(len(images.class_names))
    guard = guarding.Guard(bench.model, images, CHOSEN)
    bench.prepare("best", classes)
    for cls in classes:
        name, evidence = images.class_names[cls], audit.gather(images, cls)
        edits = {"best": bench.method_gates("best", (cls,))}
        for method, options in wanted.items():
            began = time.perf_counter()
            edits[method] = guard.turned(options).fit((cls,))
            rows.append(artifacts.row(method, "time-prepare", time.perf_counter() - began, "s",
                                      forget=name))
        models = {"original": bench.model}
        if cls in retrained:
            models["retrained"] = requests.Bench(retrained[cls], images).model
        models |= {method: bench.fold_into_copy(gates) for method, gates in edits.items()}
        before = read_anew(bench.model, images, cls)
        for method, model in models.items():
            for split, (kept, gone, found) in read_anew(model, images, cls).items():
                n = int((images.split(split)[1] == cls).sum())
                rows += [artifacts.row(method, k, v, split=f"forgotten-{split}", forget=name, n=n)
                         for k, v in (("accuracy", gone), ("accuracy-head-refit", found))]
                change = 100 * (kept - before[split][0])
                rows.append(artifacts.row(method, "change", change, "points", forget=name,
                                          split=f"retained-{split}"))
                log(f"{name:12} {method:15} {split:10} class {100 * gone:6.2f} %  refit "
                    f"{100 * found:5.1f} %  others {change:+.2f}")
            if method in ("original", "retrained", "best", name_of(CHOSEN.pairs, CHOSEN.reader)):
                rows += [artifacts.row(method, k, v, split="forgotten-test", forget=name,
                                       n=int(evidence.own.sum()))
                         for k, v in readers(model, evidence).items()]
    return rows


def main(dataset: str, checkpoint: str, every: str = "1") -> None:
    """Fit, measure, and write the record."""
    began = time.perf_counter()
    if not (every.isdecimal() and int(every)):
        sys.exit(f"{every!r}: expected a number from 1, every how many classes one is taken")
    bench = opened(dataset, checkpoint)
    retrained = inturn.references(bench, config_of(bench))
    if not retrained:
        sys.exit(f"no network retrained without a class: type `softprune train --dataset {dataset} "
                 "--without CLASS` with the checkpoint's options")
    classes = sorted({*range(0, len(bench.images.class_names), int(every)), *retrained})
    rows = rows_of(bench, classes, retrained, lambda text: print(text, flush=True))
    record("readers", bench, rows, began, {"options": CHOSEN.told()})


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("expected: python benchmarks/readers.py DATASET CHECKPOINT.safetensors [N]")
    main(*sys.argv[1:])
