"""The book: pages whose numbers come from run records, rendered by Sphinx with warnings as errors.

    python -m softprune.book                      # the student's; prints the path of index.html
    python -m softprune.book --edition teacher    # with solutions and teacher's notes

Pages in `book/` may hold `[[ … ]]`: Jinja expressions over the run records. A record that is
missing, or a filter that fits two values, stops the build. Rendered sources go to `_build/source`.
"""

import argparse
import ast
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from softprune import (
    ablations,
    across,
    artifacts,
    bar,
    catalog,
    checks,
    choices,
    comparisons,
    editions,
    findings,
    front,
    glance,
    models,
    paths,
    recovered,
    runs,
    sliders,
    summaries,
    unfitted,
    verdicts,
)
from softprune.errors import UserError, choose

# what pages may call: each module's `helpers`
TOLD = (runs, summaries, verdicts, ablations, choices, across, bar, front, unfitted, recovered,
        findings, comparisons, glance)


def picture(dataset: str, path: Path) -> str:
    """The front page's picture, drawn from the run record; returns its alt text."""
    from softprune import plots

    where = {"key": runs.page_key(dataset), "stage": "soft-pruning"}

    def mean(row, part):
        return runs.one(**where, method=row["method"], fraction=row["fraction"],
                        sites=row["sites"], metric=f"all-classes-{part}-mean")

    points = [
        {"method": r["method"], "fraction": r["fraction"], "forgotten": r["value"],
         "retained": mean(r, "retained")}
        for r in runs.rows(**where, metric="all-classes-forgotten-mean")
        if r["sites"] not in ("each", "inside")
    ]
    lone = {m: tuple(runs.one(**where, method=m, sites="each", metric=f"all-classes-{part}-mean")
                     for part in ("forgotten", "retained"))
            for m in ("head-mask", "calibrated", "best")}
    cross = lone.pop("head-mask")
    figure, alt = plots.frontier(points, recovered.retrained_mean(dataset), cross,
                                 [(m, *at) for m, at in lone.items()])
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.save(figure, path)
    return alt


def render(source: Path, target: Path, edition: str = "student") -> None:
    """Copy `source` to `target`, filling every page's numbers in.

    What the student's edition must not hold is taken out before anything is rendered.
    """
    import jinja2

    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    if (source / "class").exists():
        editions.place(target, edition)
    images = target / "images"
    alts = {d: picture(d, images / f"{d}.png") for d in runs.pages()}
    for drawn in (ablations, comparisons, glance):
        alts |= drawn.pictures(images)
    environment = jinja2.Environment(
        variable_start_string="[[", variable_end_string="]]", block_start_string="[%",
        block_end_string="%]", comment_start_string="[##", comment_end_string="##]",
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    paper, site = (yaml.safe_load((paths.root() / name).read_text())
                   for name in ("data/paper.yml", "_config.yml"))
    environment.filters["zip"] = zip
    environment.globals |= {
        "paper": paper, "catalog": catalog.catalog(), "alts": alts, "edition": edition,
        "assignments": editions.assignments, "mistakes": editions.mistakes, "sliders": sliders,
        "purpose": purpose, "architectures": sorted(models.ARCHITECTURES.items()),
        "protocol": checks.PROTOCOL, "repository": site["repository"]["url"],
    }
    for module in TOLD:
        environment.globals |= module.helpers()
    for page in sorted(target.rglob("*.md")):
        try:
            page.write_text(without_negative_zero(
                environment.from_string(page.read_text()).render()))
        except jinja2.TemplateError as error:
            raise UserError(f"{page.relative_to(target)}: {error}") from error


def build(out: Path | None = None, edition: str = "student") -> Path:
    """Render and build; returns the path of `index.html`.

    Args:
        edition: `student`, assignments as released; `teacher`, with solutions and notes, in a
            folder of its own, so that nothing of it can stay behind in the student's.

    Raises:
        UserError: a missing number, or a warning of Sphinx.
    """
    choose("edition", edition, editions.EDITIONS)
    root = paths.root()
    work = out or root / "_build" / ("teacher" if edition == "teacher" else "")
    source = work / "source"
    render(root / "book", source, edition)
    toc = work / "_toc.yml"
    toc.write_text(editions.contents(edition))
    made_from, stamp = tree_hash([source, root / "_config.yml", toc, root / "src"]
                                 ), work / "built-from"
    index = work / "_build" / "html" / "index.html"
    if index.exists() and stamp.exists() and stamp.read_text() == made_from:
        return index
    stamp.unlink(missing_ok=True)
    index = sphinx(source, root / "_config.yml", toc, work)
    stamp.write_text(made_from)
    return index


def without_negative_zero(text: str) -> str:
    """A number that rounds to zero has no sign.

    Example:
        >>> without_negative_zero("-0.00 [-0.00, +0.02], -0.01, 10-0.0")
        '0.00 [0.00, +0.02], -0.01, 10-0.0'
    """
    return re.sub(r"(?<![\w.])[-−](0\.0+)(?!\d)", r"\1", text)


def purpose(module: str) -> str:
    """The first sentence of a module's docstring, without its end."""
    source = (Path(__file__).parent / f"{module}.py").read_text()
    return ast.get_docstring(ast.parse(source)).split("\n\n")[0].replace("\n", " ").split(". ")[0]


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
        told = done.stdout + done.stderr  # hundreds of lines of progress: what matters comes last
        wrong = [line for line in told.splitlines() if "WARNING" in line or "ERROR" in line]
        sys.stderr.write(done.stdout[-6000:] + done.stderr[-6000:] + "\n".join(["", *wrong, ""]))
        raise UserError("the book did not build without warnings: they stand above")
    return index


def main(words: list[str] | None = None) -> int:
    """Build, print where it is."""
    parser = argparse.ArgumentParser(prog="softprune.book", description="Build the book.")
    parser.add_argument("--edition", default="student", metavar="|".join(editions.EDITIONS))
    try:
        print(build(edition=parser.parse_args(words).edition))
    except UserError as error:
        print(f"softprune.book: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
