"""Which readers find a class again after each edit, asked alike of every network?

    python benchmarks/again.py digits data/checkpoints/digits/laptop/NAME.safetensors
    python benchmarks/again.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors guarded,deep

Of every class whose retrained network is here: what two readers find that learn by steps, and so
would take an edit that makes features larger for one that is easily undone. Both get features of
one size: a network with one hidden layer reads them standardised, and fine-tuning starts from
`audit.level`. The hidden layer begins at random, so its finding is a mean over `STATES` beginnings,
with the least and the largest. Edits are `prototype`, `searched` and `best`, and those named of
`guarded` and `deep`; what is not stored beside the checkpoint is fitted first.
"""

import sys
import time
import warnings

from one_checkpoint import config_of, opened, record
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from softprune import (
    artifacts,
    audit,
    guarding,
    inturn,
    ladder,
    prototypes,
    requests,
    searching,
)

SHOTS = 10  # images of each class that fine-tuning has
STEPS = (10, 40)
STATES = 5
EPOCHS = 60  # of the hidden layer, over at most 5,000 images


def hidden(model, evidence: audit.Evidence) -> list[float]:
    """Recall of the class by networks of one hidden layer on standardised features, one a
    beginning."""
    train, own = (audit.pooled(model, x) for x in (evidence.train, evidence.test[evidence.own]))
    *_, last = train
    found = []
    for state in range(STATES):
        reader = make_pipeline(StandardScaler(), MLPClassifier(
            128, alpha=1e-3, max_iter=EPOCHS, random_state=state))
        with warnings.catch_warnings():  # as many epochs for all, converged or not
            warnings.simplefilter("ignore", ConvergenceWarning)
            reader.fit(train[last].cpu(), evidence.train_labels.cpu())
        told = reader.predict(own[last].cpu())
        found.append(float((told == evidence.forget).mean()))
    return found


def edits_of(bench: requests.Bench, classes, guarded, log=print) -> dict[str, ladder.Stored]:
    """Rung -> what answers a request for each of `classes`."""
    bench.prepare("best", classes)
    made = prototypes.prepare(bench)
    found = {prototypes.RUNG: {c: prototypes.request(made, (c,)) for c in classes},
             searching.RUNG: searching.prepare(bench, classes, log)[0],
             "best": {c: bench.method_gates("best", (c,)) for c in classes}}
    return found | {rung: guarding.prepare(bench, rung, classes, log)[0] for rung in guarded}


def rows_of(bench: requests.Bench, retrained: dict, guarded=(), log=print) -> list[dict]:
    """Rows of each class and network."""
    rows, edits = [], edits_of(bench, list(retrained), guarded, log)
    for cls, path in retrained.items():
        name, evidence = bench.images.class_names[cls], audit.gather(bench.images, cls)
        models = {"original": bench.model} | {
            rung: bench.fold_into_copy(stored[cls]) for rung, stored in edits.items()}
        models["retrained"] = requests.Bench(path, bench.images).model
        for method, model in models.items():
            told = {"split": "forgotten-test", "forget": name, "n": int(evidence.own.sum())}
            states = hidden(model, evidence)
            rows.append(artifacts.row(method, "recall-t4-hidden", sum(states) / len(states),
                                      low=min(states), high=max(states), **told))
            curve = audit.relearn(model, evidence, SHOTS, checkpoints=STEPS)
            rows += [artifacts.row(method, f"recall-t4-levelled-{step}", value, **told)
                     for step, value in zip(STEPS, curve, strict=True)]
            log(f"{name:12} {method:10} hidden layer {100 * sum(states) / len(states):5.1f} %  "
                + "  ".join(f"{s} steps {100 * v:5.1f} %"
                            for s, v in zip(STEPS, curve, strict=True)))
    return rows


def main(dataset: str, checkpoint: str, rungs: str = "") -> None:
    """Measure, and write the record."""
    began = time.perf_counter()
    guarded = [r for r in rungs.split(",") if r]
    if wrong := set(guarded) - set(guarding.RUNGS):
        sys.exit(f"{wrong.pop()!r}: expected {' or '.join(guarding.RUNGS)}")
    bench = opened(dataset, checkpoint)
    retrained = inturn.references(bench, config_of(bench))
    if not retrained:
        sys.exit(f"no network retrained without a class: type `softprune train --dataset {dataset} "
                 "--without CLASS` with the checkpoint's options")
    rows = rows_of(bench, retrained, guarded, lambda text: print(text, flush=True))
    record("again", bench, rows, began, {"states": STATES, "epochs": EPOCHS, "shots": SHOTS})


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("expected: python benchmarks/again.py DATASET CHECKPOINT.safetensors [RUNG,RUNG]")
    main(*sys.argv[1:])
