"""The headline numbers of each data set's own page: a request, and every class in turn."""

import functools

from softprune import inturn, notebooks, runs
from softprune.errors import UserError

TURN = ("forgotten-mean", "forgotten-worst", "change-mean", "change-worst")


@functools.cache
def in_turn(dataset: str, method: str) -> dict:
    """Numbers of a method over classes forgotten in turn, in points; `n` classes.

    Of the page's own run, or of `softprune in-turn` on the same network where that had more.
    """
    return _turn(_longest(dataset, method), method, "each")


def inside_turn(dataset: str) -> dict | None:
    """What `best` leaves under the untouched classifier, classes in turn, in points."""
    where = _longest(dataset, "best")
    if not runs.rows(**where, method="best", sites="inside"):
        return None
    return _turn(where, "best", "inside")


def _turn(where: dict, method: str, sites: str) -> dict:
    where = where | {"method": method, "sites": sites}
    made = {m: runs.one(**where, metric=f"all-classes-{m}") for m in TURN}
    return made | {"n": runs.rows(**where, metric="all-classes-change-mean")[0]["n"]}


def _longest(dataset: str, method: str) -> dict:
    """The record in which a method forgot most classes of a page's network in turn, as a filter of
    `rows`: gates fitted by an earlier setting do not count."""
    page = runs.page_record("soft-pruning", dataset)
    found = [{"stage": "soft-pruning", "key": page["key"]}]
    fitted = inturn.rungs(dataset, page["parameters"]["profile"])
    for r in runs.records():
        alike = r["stage"] == "seeds" and r["parameters"].items() <= page["parameters"].items()
        if alike and r["extra"]["rungs"] == fitted:
            found.append({"stage": "seeds", "key": r["key"]})

    def classes(where: dict) -> int:
        told = runs.rows(**where, method=method, sites="each", metric="all-classes-change-mean")
        return told[0]["n"] if told else 0

    return max(found, key=classes)


@functools.cache
def request(dataset: str, method: str) -> dict:
    """One class's request: accuracies, what a refit finds (shares), select and edit (seconds)."""
    key = {"key": runs.page_key(dataset), "stage": "soft-pruning", "method": method}
    forget = requested(dataset)
    made = {"refit": runs.one(**key, metric="accuracy-head-refit"),
            "inside": runs.one(**key, metric="accuracy-inside-only")}
    for split in ("retained", "forgotten"):
        made[split] = runs.one(**key, metric="accuracy", split=f"{split}-test", forget=forget)
    for part in ("select", "edit", "prepare"):
        found = runs.rows(**key, metric=f"time-{part}")
        made[part] = found[0]["value"] if found else None
    return made


def requested(dataset: str) -> str:
    """The class that a page's request names."""
    where = {"key": runs.page_key(dataset), "stage": "soft-pruning", "metric": "time-edit"}
    return next(r for r in runs.rows(**where))["forget"]


def has(dataset: str, method: str) -> bool:
    """Whether a page has a method: a retrained reference may not be there yet."""
    return bool(runs.rows(key=runs.page_key(dataset), stage="soft-pruning", method=method,
                     metric="accuracy-head-refit"))


@functools.cache
def summary(dataset: str) -> dict:
    """The headline numbers of a data set, from its four records."""
    same = runs.identity(dataset)
    forget = requested(dataset)
    trained = {"key": runs.page_key(dataset, "orthogonal-training"), "stage": "orthogonal-training"}
    soft = request(dataset, "soft")
    made = {
        "n": in_turn(dataset, "soft")["n"], "forget": forget,
        "fraction": runs.rows(key=runs.page_key(dataset), method="soft",
                         metric="accuracy-head-refit")[0]["fraction"],
        "test": runs.one(**trained, method="original", metric="accuracy", split="test"),
        "request": soft["select"] + soft["edit"],
        "train": runs.one(**trained, metric="time-train"),
    }
    retrain = runs.rows(**same, stage="train", method="retrained", forget=forget,
                        metric="time-train")
    made["retrain"] = retrain[0]["value"] if retrain else None
    mia = runs.page_key(dataset, "membership-inference")
    for method in ("original", "soft", "best", "retrained"):
        found = runs.rows(key=mia, stage="membership-inference", method=method, forget=forget,
                          metric="auc-t1-modified-entropy")
        made[f"auc-{method}"] = found[0] if found else None
        made[f"lira-{method}"] = beside(dataset, "membership-inference", method,
                                        "auc-t1-lira-online")
    return made


def beside(dataset: str, stage: str, method: str, metric: str, **where) -> dict | None:
    """One row of the record that a page was published with; None where it was not measured.

    Raises:
        UserError: several rows fit, and differ.
    """
    if not notebooks.published(stage, dataset).exists():
        return None
    found = runs.rows(key=runs.page_key(dataset, stage), stage=stage, method=method, metric=metric,
                      **where)
    if len({r["value"] for r in found}) > 1:
        raise UserError(f"{metric} of {method} on the {stage} page of {dataset} is not one number")
    return found[0] if found else None


def helpers() -> dict:
    """What pages may call."""
    return {"summary": summary, "in_turn": in_turn, "inside_turn": inside_turn,
            "request": request, "has": has, "beside": beside}
