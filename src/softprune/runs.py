"""Run records as the book's pages ask for them: rows by their columns, one number, a page's own."""

import functools
import statistics

from softprune import artifacts, catalog, notebooks, paths, stages
from softprune.errors import UserError


@functools.cache
def records() -> list[dict]:
    """All run records, read and validated once a build."""
    return artifacts.read_records()


@functools.cache
def table() -> list[dict]:
    """All run records, tidy."""
    return artifacts.tidy(records())


INDEXED = ("key", "stage", "method", "metric")  # what pages ask by, most telling first
_indices: dict = {}  # of the table that `of` holds


def _index(column: str) -> dict:
    """Value of a column -> the rows that have it, in order."""
    if _indices.get("of") is not table():
        _indices.clear()
        _indices["of"] = table()
    if column not in _indices:
        found = _indices[column] = {}
        for r in table():
            found.setdefault(r[column], []).append(r)
    return _indices[column]


def rows(**where) -> list[dict]:
    """Rows whose columns equal `where`; a fraction is compared as a number."""
    among = min((_index(k).get(where[k], []) for k in INDEXED if k in where), key=len,
                default=table())
    return [r for r in among if all(r[k] == v for k, v in where.items())]


def one(**where) -> float:
    """The one value that fits, or a stop: a number in prose is a dependency of the build.

    Raises:
        UserError: none fits, or several that differ.
    """
    values = {r["value"] for r in rows(**where)}
    if len(values) != 1:
        raise UserError(f"{len(values)} values in the run records for {where}: expected one")
    return values.pop()


def pct(value: float, digits: int = 1) -> str:
    """A share as percent."""
    return f"{100 * value:.{digits}f} %"


def about(value: float) -> str:
    """Two significant digits: what a ratio of times is worth.

    Example:
        >>> about(908593), about(50.4), about(0.0473)
        ('910,000', '50', '0.047')
    """
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def between(row: dict | None, digits: int = 3) -> str:
    """`.766 [.758, .774]`, without the interval where there is none; an en dash for no row."""
    if row is None:
        return "–"
    text = f"{row['value']:.{digits}f}"
    if row["low"] == "":
        return text
    return f"{text} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


@functools.cache
def _sidecar(dataset: str) -> dict:
    """That of a committed checkpoint of a set, trained on all classes."""
    folder = paths.root() / "data" / "checkpoints" / dataset
    found = next(p for p in sorted(folder.glob("*/*.json")) if "-without-" not in p.name)
    return artifacts.read_sidecar(found.with_suffix(".safetensors"))


def class_names(dataset: str) -> list[str]:
    """A set's classes, in the order of their indices, from a committed checkpoint's sidecar."""
    return _sidecar(dataset)["class_names"]


def colours(dataset: str) -> tuple[list[float], list[float]]:
    """Mean and deviation of each colour over a set's training images, between 0 and 1."""
    return _sidecar(dataset)["mean"], _sidecar(dataset)["std"]


def pages() -> list[str]:
    """Data sets with all four pages published, digits first."""
    order = list(catalog.catalog())
    found = [d for d in order if all(notebooks.published(s, d).exists() for s in notebooks.STAGES)]
    return found


def audited() -> list[str]:
    """Data sets with a *Gone or only hidden?* page."""
    return [d for d in pages() if notebooks.published("gone-or-hidden", d).exists()]


@functools.cache
def page_record(stage: str, dataset: str) -> dict:
    """The run record that a page was published with: its parameters and data name it.

    Raises:
        UserError: there is none.
    """
    page = notebooks.page_metadata(notebooks.published(stage, dataset))
    key = stages.record_key(page["parameters"], page["parts"]["data"])
    for record in records():
        if (record["stage"], record["key"]) == (stage, key):
            return record
    raise UserError(f"no run record fits the {stage} page of {dataset}: "
                    f"type `softprune run {stage} --dataset {dataset} --force`")


def page_key(dataset: str, stage: str = "soft-pruning") -> str:
    """The key of that record, for use as a filter of `rows`."""
    return page_record(stage, dataset)["key"]


@functools.cache
def identity(dataset: str) -> dict:
    """Columns shared by all stages of the run a page shows."""
    p = page_record("soft-pruning", dataset)["parameters"]
    return {k: p[k] for k in ("dataset", "profile", "architecture", "width", "penalty",
                              "strength", "seed")}


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval over seeds; a single seed has none: the mean thrice."""
    import statistics

    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, mean, mean
    half = quantile(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def crossed(values: list[list[float]]) -> tuple[float, float, float]:
    """Mean of values [original][class] and its 95 % interval over both, by t.

    The two variances are added, with the degrees of freedom of their sum (Satterthwaite, 1946).
    What neither explains is in both of them: the interval is rather too wide than too narrow.
    """
    parts = []
    for means in ([statistics.fmean(v) for v in values],
                  [statistics.fmean(v) for v in zip(*values, strict=True)]):
        parts.append((statistics.variance(means) / len(means), len(means) - 1))
    mean, total = statistics.fmean(v for row in values for v in row), sum(v for v, _ in parts)
    if not total:
        return mean, mean, mean
    half = quantile(total**2 / sum(v**2 / n for v, n in parts)) * total**0.5
    return mean, mean - half, mean + half


@functools.cache  # a page asks thousands of times for a few degrees of freedom
def quantile(freedom: float) -> float:
    """Of Student's t, for a 95 % interval."""
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def value_in(record: dict, **where) -> float:
    """The one value of a record's row that fits."""
    return row_in(record, **where)["value"]


def row_in(record: dict, **where) -> dict:
    """The one row of a record that fits."""
    found = [r for r in record["rows"] if all(r.get(k) == v for k, v in where.items())]
    if len(found) != 1:
        raise UserError(f"{len(found)} rows for {where} in the run record {record['key']}: "
                        "expected one; type `softprune in-turn`")
    return found[0]


def mean_in(found: list[dict], method: str, metric: str, **where) -> float:
    return statistics.fmean(value_in(r, method=method, metric=metric, **where) for r in found)


def by_class(rows: list[dict], method: str) -> dict[str, dict[str, float]]:
    """Metric -> class -> a method's value on the test split; `accuracy` is the class's, that of the
    others `retained`."""
    made: dict[str, dict[str, float]] = {}
    for r in rows:
        if r["method"] == method and r.get("split", "").endswith("test"):
            others = (r["metric"], r["split"]) == ("accuracy", "retained-test")
            made.setdefault("retained" if others else r["metric"], {})[r["forget"]] = r["value"]
    return made


def test_values(record: dict, method: str) -> dict[str, list[float]]:
    """Metric -> a method's values on the test split, one a class."""
    return {k: list(v.values()) for k, v in by_class(record["rows"], method).items()}


def helpers() -> dict:
    """What pages may call."""
    return {"one": one, "rows": rows, "pct": pct, "about": about, "pages": pages,
            "audited": audited, "identity": identity, "page_key": page_key,
            "class_names": class_names, "colours": colours, "between": between}
