"""The book: pages whose numbers come from run records, rendered by Sphinx with warnings as errors.

    python -m softprune.book            # build; prints the path of index.html

Pages in `book/` may hold `[[ … ]]`: Jinja expressions over the run records. A record that is
missing, or a filter that fits two values, stops the build. Rendered sources go to `_build/source`.
"""

import functools
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

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


def rows(**where) -> list[dict]:
    """Rows whose columns equal `where`; a fraction is compared as a number."""
    return [r for r in table() if all(r[k] == v for k, v in where.items())]


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


def pages() -> list[str]:
    """Data sets with all four pages published, digits first."""
    order = list(catalog.catalog())
    found = [d for d in order if all(notebooks.published(s, d).exists() for s in notebooks.STAGES)]
    return found


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


@functools.cache
def summary(dataset: str) -> dict[str, float]:
    """The headline numbers of a data set, from its four records."""
    key, same = page_key(dataset), identity(dataset)
    trained = {"key": page_key(dataset, "orthogonal-training"), "stage": "orthogonal-training"}
    name = {"key": key, "stage": "soft-pruning"}
    forget = next(r for r in rows(**name) if r["metric"] == "time-edit")["forget"]
    made = {m: one(**name, method="soft", metric=f"all-classes-{m}")
            for m in ("forgotten-mean", "forgotten-worst", "change-mean", "change-worst")}
    made["n"] = rows(**name, metric="all-classes-change-mean")[0]["n"]
    made["fraction"] = rows(**name, metric="all-classes-change-mean")[0]["fraction"]
    made["forget"] = forget
    made["test"] = one(**trained, method="original", metric="accuracy", split="test")
    for part in ("select", "edit"):
        made[part] = one(**name, method="soft", metric=f"time-{part}")
    made["request"] = made["select"] + made["edit"]
    made["train"] = one(**trained, metric="time-train")
    retrain = rows(**same, stage="train", method="retrained", forget=forget, metric="time-train")
    made["retrain"] = retrain[0]["value"] if retrain else None
    made["refit"] = one(**name, method="soft", metric="accuracy-head-refit")
    made["refit-original"] = one(**name, method="original", metric="accuracy-head-refit")
    mia = page_key(dataset, "membership-inference")
    for method in ("original", "soft", "retrained"):
        found = rows(key=mia, stage="membership-inference", method=method, forget=forget,
                     metric="auc-t1-modified-entropy")
        made[f"auc-{method}"] = found[0] if found else None
    made["mask-change"] = mask_change(key)
    return made


def mask_change(key: str) -> float:
    """Mean change (points) of the retained classes under the head mask: the ceiling's neighbour."""
    where = {"key": key, "stage": "soft-pruning", "metric": "accuracy", "split": "retained-test",
             "sites": "each"}
    masked = {r["forget"]: r["value"] for r in rows(**where, method="head-mask")}
    before = {r["forget"]: r["value"] for r in rows(**where, method="original")}
    return 100 * sum(masked[c] - before[c] for c in masked) / len(masked)


# --- the claims ----------------------------------------------------------------------------------


def claims() -> list[dict]:
    """Every claim of `data/paper.yml` beside ours and a verdict, one entry a data set."""
    settings = yaml.safe_load((paths.root() / "data" / "paper.yml").read_text())
    return [
        {"claim": c["claim"], "source": c["source"], "bar": c["bar"],
         "ours": [{"dataset": d, **judge(c, summary(d))} for d in pages()]}
        for c in settings["claims"]
    ]


def judge(claim: dict, s: dict) -> dict:
    """Our measurement of one claim and whether it holds."""
    kind = claim["id"]
    if kind == "complete":
        text = f"{s['forgotten-mean']:.1f} % mean, {s['forgotten-worst']:.1f} % worst of {s['n']}"
        holds = s["forgotten-mean"] <= 0.05 and s["forgotten-worst"] <= 1
    elif kind == "retained":
        text = f"{s['change-mean']:+.2f} points mean, {s['change-worst']:+.2f} worst of {s['n']}"
        holds = s["change-mean"] >= -0.5 and s["change-worst"] >= -1
    elif kind == "milliseconds":
        text = f"{1000 * s['request']:.2f} ms (select and edit, median)"
        holds = s["request"] < 0.01
    elif kind == "faster":
        if s["retrain"] is None:
            return {"text": "no retrained model yet", "verdict": "open"}
        # the shorter of two trainings: they are timed beside other work
        times = min(s["retrain"], s["train"]) / s["request"]
        text = f"{times:,.0f} times as fast as retraining (nothing else compared yet)"
        holds = times >= 1000
    else:
        o, a = s["auc-original"], s["auc-soft"]
        text = (f"AUC {o['value']:.3f} [{o['low']:.3f}, {o['high']:.3f}] → {a['value']:.3f} "
                f"[{a['low']:.3f}, {a['high']:.3f}] ({s['forget']})")
        if o["low"] <= 0.5:
            return {"text": text, "verdict": "no evidence: nothing leaked before"}
        holds = a["high"] < o["low"]
    return {"text": text, "verdict": "holds" if holds else "does not hold"}


# --- rendering -----------------------------------------------------------------------------------


def picture(dataset: str, path: Path) -> str:
    """The front page's picture, drawn from the run record; returns its alt text."""
    from softprune import plots

    key = page_key(dataset)
    where = {"key": key, "stage": "soft-pruning", "metric": "accuracy"}
    points = []
    for method in ("soft", "hard", "random-channels"):
        mine = [r for r in rows(**where, method=method) if r["sites"] != "each"]
        by_point: dict[tuple, dict] = {}
        for r in mine:
            by_point.setdefault((r["fraction"], r["split"]), {})[r["forget"]] = r["value"]
        for fraction in sorted({f for f, _ in by_point}):
            kept, gone = (by_point[fraction, f"{s}-test"] for s in ("retained", "forgotten"))
            if len(kept) == summary(dataset)["n"]:
                mean = lambda d: 100 * sum(d.values()) / len(d)  # noqa: E731
                points.append({"method": method, "fraction": fraction, "retained": mean(kept),
                               "forgotten": mean(gone)})
    cross = tuple(
        100 * sum(v) / len(v) for v in (
            [r["value"] for r in rows(**where, method="head-mask", split=s, sites="each")]
            for s in ("forgotten-test", "retained-test"))
    )
    figure, alt = plots.frontier(points, None, cross)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return alt


def render(source: Path, target: Path) -> None:
    """Copy `source` to `target`, filling every page's numbers in."""
    import jinja2

    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    alts = {d: picture(d, target / "images" / f"{d}.png") for d in pages()}
    environment = jinja2.Environment(
        variable_start_string="[[", variable_end_string="]]", block_start_string="[%",
        block_end_string="%]", comment_start_string="[##", comment_end_string="##]",
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    paper = yaml.safe_load((paths.root() / "data" / "paper.yml").read_text())
    environment.globals |= {
        "one": one, "rows": rows, "pct": pct, "pages": pages, "summary": summary,
        "claims": claims, "paper": paper, "catalog": catalog.catalog(), "alts": alts,
        "identity": identity, "page_key": page_key,
    }
    for page in sorted(target.rglob("*.md")):
        try:
            page.write_text(environment.from_string(page.read_text()).render())
        except jinja2.TemplateError as error:
            raise UserError(f"{page.relative_to(target)}: {error}") from error


def build(out: Path | None = None) -> Path:
    """Render and build; returns the path of `index.html`.

    Raises:
        UserError: a missing number, or a warning of Sphinx.
    """
    root = paths.root()
    work = out or root / "_build"
    source = work / "source"
    render(root / "book", source)
    made_from, stamp = tree_hash([source, root / "_config.yml", root / "_toc.yml",
                                  root / "src"]), work / "built-from"
    index = work / "_build" / "html" / "index.html"
    if index.exists() and stamp.exists() and stamp.read_text() == made_from:
        return index
    stamp.unlink(missing_ok=True)
    index = sphinx(source, root / "_config.yml", root / "_toc.yml", work)
    stamp.write_text(made_from)
    return index


def tree_hash(places: list[Path]) -> str:
    """Hash of files and of all files below folders, names and contents."""
    files = [f for p in places for f in ([p] if p.is_file() else sorted(p.rglob("*")))]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.name}\0{artifacts.sha256(file)}\n".encode())
    return digest.hexdigest()


def sphinx(source: Path, config: Path, toc: Path, out: Path) -> Path:
    """Jupyter Book on rendered sources; any warning is an error.

    Raises:
        UserError: it did not build; what Sphinx said goes to standard error.
    """
    settings = yaml.safe_load(config.read_text())
    if not settings["repository"]["url"]:  # no address, so no links to it: the theme would fail
        settings.pop("launch_buttons")
        settings.pop("repository")
    config = out / "_config.yml"
    config.write_text(yaml.safe_dump(settings))
    command = [
        sys.executable, "-c", "from jupyter_book.cli.main import main; main()",
        "build", str(source), "--config", str(config), "--toc", str(toc),
        "--path-output", str(out), "-W", "-n", "--keep-going",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    index = out / "_build" / "html" / "index.html"
    if done.returncode or not index.exists():
        sys.stderr.write(done.stdout[-6000:] + done.stderr[-6000:])
        raise UserError("the book did not build without warnings: they stand above")
    return index


def main() -> int:
    """Build, print where it is."""
    try:
        print(build())
    except UserError as error:
        print(f"softprune.book: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
