"""Every class in turn as numbers of one kind, and whether they meet the bar."""

import statistics

from softprune import requests, runs


def turn_over(own: dict) -> dict:
    """Of `runs.test_values`, as in `across.networks`: means and worst over classes, points; and how
    many lose more than a point, `below`."""
    return {"classes": len(own["accuracy"]), "forgotten": 100 * statistics.fmean(own["accuracy"]),
            "worst": 100 * max(own["accuracy"]), "change": statistics.fmean(own["change"]),
            "change-worst": min(own["change"]), "below": sum(v < -1 for v in own["change"])}


def turn_of(told: dict) -> dict:
    """The numbers of `summaries.in_turn` or `comparisons.compared_turns` under the names of
    `networks`."""
    return {"forgotten": told["forgotten-mean"], "worst": told["forgotten-worst"],
            "change": told["change-mean"], "change-worst": told["change-worst"],
            "classes": told["n"]}


def met(dataset: str, told: dict) -> bool:
    """Whether one method's numbers in `networks` meet the whole bar."""
    return all(bars(dataset, told))


def bars(dataset: str, told: dict) -> tuple[bool, bool]:
    """Whether such numbers meet its first half, forgotten, and its second, the others spared."""
    key = {"key": runs.page_key(dataset), "stage": "soft-pruning"}
    images = runs.rows(**key, metric="accuracy", split="forgotten-test")[0]["n"]
    told = {"forgotten-mean": told["forgotten"], "forgotten-worst": told["worst"],
            "change-mean": told["change"], "change-worst": told["change-worst"]}
    told = {k: v / 100 for k, v in told.items()}
    return requests.forgets(told, images), requests.spares(told)


def at_most(images: int, found: int = 0, level: float = 0.95) -> float:
    """Percent of a class's images, of those not asked too, that may still be recognised where
    `found` of `images` were: the upper end of a Clopper-Pearson interval.

    Example:
        >>> round(at_most(10_000), 3), round(at_most(50), 1)
        (0.037, 7.1)
    """
    from scipy.stats import beta

    return 100 * float(beta.ppf((1 + level) / 2, found + 1, images - found))


def helpers() -> dict:
    """What pages may call."""
    return {"met": met, "at_most": at_most}
