"""What a run record is given before it is written, so that no notebook has to think of it."""

import re
from collections.abc import Callable

from torch import Tensor

from softprune import datasets, evaluation

# measured on every test image of the request, or of the others
OF_ALL_IMAGES = ("accuracy", "accuracy-inside-only", "accuracy-head-refit", "js-confusion",
                 "change")
# undone or refitted networks (`audit`) are asked about at most so many test images of the request,
# and so many of the others: half of what the stage's notebook has `audit.gather` take
ASKED = {"gone-or-hidden": 1000, "membership-inference": 1000, "head-to-head": 500}
# fitted for all classes of a request when it comes
AT_REQUEST = ("together", "guarded-together")
PLAIN = ("soft", "hard")
SPLITS = (KEPT, GONE) = ("retained-test", "forgotten-test")
UNDONE = ("accuracy-t4-", "recall-t4-")
SHARES = ("accuracy", "auc", "recall", "tpr")  # between 0 and 1, by the first word of the metric


def complete(rows: list[dict], images: datasets.ImageSet,
             original: Callable[[], Tensor] | None = None, stage: str = "") -> list[dict]:
    """Rows as the results table promises them: with the number of images, a method that fits its
    gate and score, fits at request counted as edits, intervals of shares within [0, 1], the
    original beside every request, and the others' accuracy where only its change was told.

    Args:
        original: makes the original's logits (N, C) on the test split; asked at most once, and only
            if a request lacks a row of the original.
        stage: whose rows they are; of those in `ASKED` it is known how many images were asked.
    """
    made = [_bounded(_counted(_named(row), images, ASKED.get(stage, 0))) for row in rows]
    asked = dict.fromkeys(r["forget"] for r in made if _judged(r) and r["method"] != "original")
    there = {(r["forget"], r["split"]) for r in made
             if _judged(r) and (r["method"], r["metric"]) == ("original", "accuracy")}
    lacking = [f for f in asked if not {(f, split) for split in SPLITS} <= there]
    if lacking and original:
        logits = original()
        for forget in lacking:
            told = evaluation.accuracy_rows("original", logits, images.test_labels,
                                            images.class_indices(forget), "test", forget=forget)
            made += [r for r in told if (forget, r["split"]) not in there]
    return made + _kept(made)


def _judged(row: dict) -> bool:
    return bool(row["metric"] in ("accuracy", "change") and row.get("split") in SPLITS
                and row.get("forget"))


def _named(row: dict) -> dict:
    """A gate of 0 is `hard` and channels drawn by lot are `random-channels`, whichever function
    made the row; what is fitted when a request comes is no preparation."""
    if row["method"] in PLAIN and row.get("score") == "random":
        row = row | {"method": "random-channels"}
    if row["method"] == "soft" and row.get("gate") == "hard":
        row = row | {"method": "hard"}
    if row["method"] in AT_REQUEST:
        row = row | {"metric": re.sub("time-(prepare|select)$", "time-edit", row["metric"])}
    return row


def _kept(rows: list[dict]) -> list[dict]:
    """The others' accuracy on test images after each request of which a row has the `change` alone:
    the original's and the change, a whole number of images."""
    before = {r["forget"]: r["value"] for r in rows if r["method"] == "original"
              and r["metric"] == "accuracy" and r.get("split") == KEPT and r.get("forget")}

    def of(row: dict) -> tuple:
        return tuple(row.get(k) for k in ("method", "forget", "gate", "fraction", "sites"))

    there = {of(r) for r in rows if r["metric"] == "accuracy" and r.get("split") == KEPT}
    found = [r for r in rows if r["metric"] == "change" and r.get("split") == KEPT
             and "n" in r and r.get("forget") in before and of(r) not in there]
    return [{k: v for k, v in r.items() if k not in ("low", "high")}
            | {"metric": "accuracy", "unit": "", "value": round(
                r["n"] * (before[r["forget"]] + r["value"] / 100)) / r["n"]} for r in found]


def _bounded(row: dict) -> dict:
    """A symmetric interval near 0 or 1 reaches beyond; no share does."""
    if row["metric"].partition("-")[0] not in SHARES:
        return row
    return row | {k: min(max(row[k], 0.0), 1.0) for k in ("low", "high") if k in row}


def _counted(row: dict, images: datasets.ImageSet, asked: int) -> dict:
    undone = row["metric"].startswith(UNDONE)
    split = GONE if row["metric"] == "js-confusion" else row.get("split")
    if ("n" in row or not row.get("forget") or split not in SPLITS
            or not ((undone and asked) or row["metric"] in OF_ALL_IMAGES)):
        return row
    own = evaluation.is_forgotten(images.test_labels, images.class_indices(row["forget"]))
    there = int((own if split == GONE else ~own).sum())
    return row | {"n": min(there, asked) if undone else there}
