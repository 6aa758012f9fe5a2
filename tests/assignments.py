"""What the assignment tests share: answers put into a notebook, and a notebook run cell by cell."""

import copy
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "assignments" / "source"
NAMES = sorted(p.name for p in SOURCE.iterdir())
MISTAKES = yaml.safe_load((ROOT / "tests" / "mistakes.yml").read_text())


def read(path: Path):
    return nbformat.read(path, 4)


def source(name: str):
    """The instructor's notebook."""
    return read(SOURCE / name / f"{name}.ipynb")


def mark(cell) -> dict:
    """nbgrader's metadata of a cell; {} if it has none."""
    return cell.metadata.get("nbgrader", {})


def solutions(name: str) -> dict[str, str]:
    """The instructor's answers by cell: code as it stands, and the answers in words."""
    return {mark(c)["grade_id"]: c.source for c in source(name).cells if mark(c).get("solution")}


def answered(notebook, answers: dict[str, str]):
    """A copy of the notebook with these sources in its cells."""
    made = copy.deepcopy(notebook)
    for cell in made.cells:
        cell.source = answers.get(mark(cell).get("grade_id"), cell.source)
    return made


def run(notebook, until: str = "") -> dict[str, BaseException]:
    """Run the code cells in order, each whether or not the ones before it failed.

    Args:
        until: the last cell to run; all if empty.

    Returns:
        What the cells raised, by name.
    """
    from softprune import plots

    space: dict = {"__name__": "__main__"}
    failed: dict[str, BaseException] = {}
    show, plots.show = plots.show, lambda made: None  # no test looks at the pictures
    try:
        for cell in notebook.cells:
            name = mark(cell).get("grade_id", "")
            if cell.cell_type == "code":
                try:
                    exec(compile(cell.source, name, "exec"), space)
                except Exception as error:
                    failed[name] = error
            if until and name == until:
                break
    finally:
        plots.show = show
    return failed
