"""Which readers find a class again after each edit, asked alike of every network?

    python benchmarks/again.py digits data/checkpoints/digits/laptop/NAME.safetensors
    python benchmarks/again.py cifar10 data/checkpoints/cifar10/laptop/NAME.safetensors guarded,deep

Of every class whose retrained network is here: what two readers find that learn by steps, and so
would take an edit that makes features larger for one that is easily undone. Both get features of
one size: a network with one hidden layer reads them standardised, and fine-tuning starts from
`audit.level`, with the class's row of the classifier begun anew. The hidden layer begins at random,
so its finding is a mean over `STATES` beginnings; fine-tuning draws its batches at random, so it is
a mean over `ORDERS`, of the whole curve over steps, and of what is found less the false alarms: a
network that calls everything by the class's name has learned nothing. Its rate is the one at which
the *original* learns its classes again best. Edits are `prototype`, `searched` and `best`, and
those named of `guarded` and `deep`; what is not stored beside the checkpoint is fitted first.
"""

import sys
import time
import warnings

import torch
import torch.nn.functional as F
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
STEPS = (0, 2, 5, 10, 20, 40)
RATES = (0.03, 0.01, 0.003, 0.001)
ORDERS = 3
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


def relearned(model, evidence: audit.Evidence, rate: float, order: int) -> tuple[float, float]:
    """Fine-tuning of all weights on a few images of every class.

    Returns:
        The mean over steps (of the curve through `STEPS`) of the share of the class's test images
        that are called by its name, less that of other images; and the others' accuracy at the end.
    """
    attacked = audit.level(model, evidence).eval().requires_grad_(True)
    audit.reset_row(attacked, evidence.forget)
    generator = torch.Generator().manual_seed(order)
    of = [(evidence.train_labels == c).nonzero().squeeze(1)[:SHOTS]
          for c in range(evidence.classes)]
    # of many classes this one would hardly be seen: a tenth of the draws are its own
    few = torch.cat([*of, *[of[evidence.forget]] * (round((evidence.classes - 1) / 9) - 1)])
    solver = torch.optim.SGD(attacked.parameters(), lr=rate, momentum=0.9)
    curve = []
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            told = audit.answer(attacked, evidence.test).argmax(1)
            named = (told == evidence.forget).double()
            curve.append((named[evidence.own].mean() - named[~evidence.own].mean()).item())
        batch = few[torch.randint(len(few), (128,), generator=generator)]
        solver.zero_grad()
        F.cross_entropy(attacked(evidence.train[batch]), evidence.train_labels[batch]).backward()
        solver.step()
    right = (told == evidence.test_labels)[~evidence.own].double().mean().item()
    return audit.area_between(curve, [0.0] * len(curve), STEPS), right


def rate_of(model, images, classes, log=print) -> float:
    """Of `RATES` the one at which the original learns its classes again best, one order each."""
    found = {rate: sum(relearned(model, audit.gather(images, c), rate, 0)[0] for c in classes)
             / len(classes) for rate in RATES}
    log("the original, learned again: "
        + "  ".join(f"rate {r:g} {100 * v:.1f} %" for r, v in found.items()))
    return max(found, key=found.get)


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
    rate = rate_of(bench.model, bench.images, retrained, log)
    rows.append(artifacts.row("original", "relearn-rate", rate))
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
            orders = [relearned(model, evidence, rate, order) for order in range(ORDERS)]
            areas, others = zip(*orders, strict=True)
            rows += [artifacts.row(method, "recall-t4-relearned", sum(areas) / ORDERS,
                                   low=min(areas), high=max(areas), **told),
                     artifacts.row(method, "recall-t4-others", sum(others) / ORDERS,
                                   split="retained-test", forget=name,
                                   n=int((~evidence.own).sum()))]
            log(f"{name:12} {method:10} hidden layer {100 * sum(states) / len(states):5.1f} %  "
                f"learned again {100 * sum(areas) / ORDERS:5.1f} %  others after that "
                f"{100 * sum(others) / ORDERS:5.1f} %")
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
    record("again", bench, rows, began, {
        "states": STATES, "epochs": EPOCHS, "shots": SHOTS, "orders": ORDERS, "steps": max(STEPS),
        "rate": rows[0]["value"]})


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("expected: python benchmarks/again.py DATASET CHECKPOINT.safetensors [RUNG,RUNG]")
    main(*sys.argv[1:])
