"""What a run record is given before it is written, so that no notebook has to think of it."""

from collections.abc import Callable

from torch import Tensor

from softprune import datasets, evaluation

# measured on every test image of the request, or of the others
OF_ALL_IMAGES = ("accuracy", "accuracy-inside-only", "accuracy-head-refit", "js-confusion")
# undone or refitted networks (`audit`) are asked about at most so many test images of the request,
# and so many of the others: half of what the stage's notebook has `audit.gather` take
ASKED = {"gone-or-hidden": 1000, "membership-inference": 1000, "head-to-head": 500}
UNDONE = ("accuracy-t4-", "recall-t4-")
SHARES = ("accuracy", "auc", "recall", "tpr")  # between 0 and 1, by the first word of the metric


def complete(rows: list[dict], images: datasets.ImageSet,
             original: Callable[[], Tensor] | None = None, stage: str = "") -> list[dict]:
    """Rows as the results table promises them: with the number of images, a method that fits its
    gate, intervals of shares within [0, 1], and the original beside every request.

    Args:
        original: makes the original's logits (N, C) on the test split; asked at most once, and only
            if a request has no row of the original.
        stage: whose rows they are; of those in `ASKED` it is known how many images were asked.
    """
    made = [_bounded(_counted(_named(row), images, ASKED.get(stage, 0))) for row in rows]
    asked = dict.fromkeys(r["forget"] for r in made if _of_request(r) and r["method"] != "original")
    there = {r["forget"] for r in made if _of_request(r) and r["method"] == "original"}
    lacking = [forget for forget in asked if forget not in there]
    if lacking and original:
        logits = original()
        for forget in lacking:
            made += evaluation.accuracy_rows("original", logits, images.test_labels,
                                             images.class_indices(forget), "test", forget=forget)
    return made


def _of_request(row: dict) -> bool:
    return bool(row["metric"] == "accuracy" and row.get("split") == "forgotten-test"
                and row.get("forget"))


def _named(row: dict) -> dict:
    """A gate of 0 is `hard`, whichever function made the row."""
    hard = row["method"] == "soft" and row.get("gate") == "hard"
    return row | {"method": "hard"} if hard else row


def _bounded(row: dict) -> dict:
    """A symmetric interval near 0 or 1 reaches beyond; no share does."""
    if row["metric"].partition("-")[0] not in SHARES:
        return row
    return row | {k: min(max(row[k], 0.0), 1.0) for k in ("low", "high") if k in row}


def _counted(row: dict, images: datasets.ImageSet, asked: int) -> dict:
    undone = row["metric"].startswith(UNDONE)
    split = "forgotten-test" if row["metric"] == "js-confusion" else row.get("split")
    if ("n" in row or not row.get("forget") or split not in ("forgotten-test", "retained-test")
            or not ((undone and asked) or row["metric"] in OF_ALL_IMAGES)):
        return row
    own = evaluation.is_forgotten(images.test_labels, images.class_indices(row["forget"]))
    there = int((own if split == "forgotten-test" else ~own).sum())
    return row | {"n": min(there, asked) if undone else there}
