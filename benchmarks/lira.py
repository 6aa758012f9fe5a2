"""What shadow models tell of a class after every edit, those that the audited pages lack, too.

    python benchmarks/lira.py digits data/checkpoints/digits/laptop/NAME.safetensors three

Every shadow model of the checkpoint's recipe (`softprune shadows`; those that are missing are
trained first) is a target once, forgets the class, and is asked about by the others, which forgot
it alike: `prototype`, `searched` and `guarded` beside the methods of those pages and the twins that
never saw the class, so that all stand in one run. Channels are closed or attenuated at the
fractions that the checkpoint's own validation split chose. Intervals are over models and images.
What is stopped keeps the shadow models that it trained.
"""

import sys
import time
from dataclasses import dataclass

from one_checkpoint import classes_of, config_of, opened, record
from torch import nn

from softprune import (
    artifacts,
    channels,
    edits,
    guarding,
    intervals,
    prototypes,
    pruning,
    requests,
    roc,
    searching,
    shadows,
    targets,
)

# what `targets.ask` has itself
KNOWN = ("original", "head-mask", "pour-p", "soft", "hard", "best", "retrained")
RATE = 0.01  # the false positive rate at which true positives are told
PLAIN = {"score": "difference", "statistic": "mean", "gate": "rank", "alpha": 0.25,
         "sites": "last", "seed": 0}  # as the pages' notebooks have them
ATTACKS = ("lira-online", "lira-centred", "lira-others", "rmia")


@dataclass(frozen=True)
class Target:
    """A shadow model as a rung sees it: with the images it was trained on, and their table."""

    model: nn.Module
    images: shadows.Part
    table: channels.ClassChannelTable
    device: str = "cpu"


def prototype(target: Target, cls: int, profile: str) -> pruning.Gates:
    """Directions in closed form."""
    setting = prototypes.options(target.images.name, profile)
    return prototypes.request(prototypes.of_model(target.model, target.table, setting), (cls,))


def searched(target: Target, cls: int, profile: str) -> pruning.Gates:
    """The same, read and turned as this model's own images ask for."""
    setting = searching.options(target.images.name, profile)
    search = searching.Search(target, setting.sites)
    return search.edit(cls, search.find(cls, setting.margin))


def guarded(target: Target, cls: int, profile: str) -> pruning.Gates:
    """Directions fitted against a reader."""
    setting = guarding.options(target.images.name, profile)
    return guarding.Guard(target.model, target.images, setting).fit((cls,))


EDITS = {e.__name__: e for e in (prototype, searched, guarded)}


def edited(whole: shadows.Shadows, edit: str, cls: int) -> edits.EditedShadows:
    """A set of shadow models, each after one of `EDITS`."""
    def folded(model: nn.Module, own: shadows.Part) -> nn.Module:
        target = Target(model, own, channels.class_channel_table(model, own))
        pruning.fold(model, EDITS[edit](target, cls, whole.config.profile))
        return model

    return edits.EditedShadows(whole, folded)


def rows_of(found: shadows.Shadows, cls: int, fraction, log=print) -> list[dict]:
    """Rows of each attack on each method, and what is left of the class on unseen images.

    Args:
        fraction: of the channels, as `requests.fractions` returns it, or one for all.
    """
    known = targets.ask(found, cls, KNOWN, **PLAIN, fraction=fraction)
    answers = {m: (known, m) for m in known.pool}
    for edit in EDITS:
        answers[edit] = targets.ask(edited(found, edit, cls), cls, ("original",)), "original"
    rows, name, before = [], found.images.class_names[cls], {}
    for method, (told, key) in answers.items():
        own = told.held_labels == cls
        right = (told.held[key][:, own].argmax(2) == cls).double().mean().item()
        rows.append(artifacts.row(method, "accuracy", right, split="forgotten-test", forget=name,
                                  n=int(own.sum())))
        for attack in ATTACKS:
            against = "best" if method == "retrained" else key
            leak = targets.attack(told, key, attack, against=against)
            rows.append(artifacts.row(method, f"auc-t1-{attack}", leak.auc, split="forgotten",
                                      forget=name, low=leak.low, high=leak.high,
                                      n=len(leak.members) + len(leak.others)))
            before.setdefault(attack, leak.scores)  # the original comes first
            if method not in ("original", "retrained"):  # what the edit took, images paired
                gap, low, high = intervals.gap_over_models_and_images(before[attack], leak.scores)
                rows.append(artifacts.row(method, f"gap-t1-{attack}", gap, split="forgotten",
                                          forget=name, low=low, high=high,
                                          n=len(leak.members) + len(leak.others)))
            if roc.smallest_fpr(len(leak.others)) <= RATE:
                rows.append(artifacts.row(method, f"tpr-t1-{attack}",
                                          roc.tpr_at(leak.members, leak.others, RATE),
                                          split="forgotten", forget=name, n=len(leak.members)))
            log(f"{method:10} {attack:12} AUC {leak.auc:.3f} [{leak.low:.3f}, {leak.high:.3f}]"
                f"  class right {100 * right:.2f} %")
    return rows


def main(dataset: str, checkpoint: str, name: str) -> None:
    """Train what is missing, attack, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    classes = classes_of(bench, name)
    if len(classes) != 1:
        sys.exit(f"{name!r}: expected the name of one class")
    cls, = classes

    def log(text):
        print(text, flush=True)

    found = shadows.open_set(config_of(bench), bench.images)
    shadows.train_missing(found, cls, log)
    fraction = requests.fractions(bench, **PLAIN)
    rows = rows_of(found, cls, fraction, log)
    twins = sum(found.path(k, cls).exists() for k in range(found.plan.retrained))
    record("lira", bench, rows, began, {
        "count": found.plan.count, "retrained": twins, "pool": len(found.labels),
        "seen": len(found.seen(0)), "epochs": found.plan.epochs, "fraction": fraction,
        "rate": RATE}, of_shadows=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("expected: python benchmarks/lira.py DATASET CHECKPOINT.safetensors CLASS")
    main(*sys.argv[1:])
