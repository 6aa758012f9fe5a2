"""Two books from one source: the student's with assignments as released, the teacher's with all."""

import re
import shutil
from pathlib import Path

import yaml

from softprune import notebooks, paths

EDITIONS = ("student", "teacher")
# in order of teaching: what the page of assignments says about each
ASSIGNMENTS = {
    "orthogonal-kernels": "write the penalty, see Gram matrices, find a wrong padding",
    "which-channels": "class-by-channel table, three scores, a random control",
    "forget-it": "gates, exact folding, and the test that says so",
    "did-it-leak": "ROC, modified entropy, a positive control; expose a fake",
    "the-audit": "five anonymous checkpoints: which is which, with evidence",
}
TEACHERS = ("class/teachers-notes",)  # pages of the teacher's edition only


def assignments() -> list[dict]:
    """Title, minutes, points and level of each, as its notebook's first cell says them."""
    from softprune import classroom

    made = []
    for name, about in ASSIGNMENTS.items():
        head = notebooks.read(classroom.source() / name / f"{name}.ipynb").cells[0].source
        said = re.search(r"\*\*(\d+) points, about (\d+) minutes, ([\w ]+)\.\*\*", head)
        made.append({"name": name, "about": about, "title": head.split("\n")[0].lstrip("# "),
                     "points": said[1], "minutes": said[2], "level": said[3]})
    return made


def mistakes() -> dict[str, dict]:
    """The mistakes that the assignments' tests are tried on, by title and task."""
    seeded = yaml.safe_load((paths.root() / "tests" / "mistakes.yml").read_text())
    return {a["title"]: seeded[a["name"]]["mistakes"] for a in assignments()}


def place(target: Path, edition: str) -> None:
    """Put the assignments among the pages: as released, or with solutions and teacher's pages."""
    from softprune import classroom

    if edition == "student":
        for page in TEACHERS:
            (target / f"{page}.md").unlink(missing_ok=True)
    for name in ASSIGNMENTS:
        source = classroom.source() / name / f"{name}.ipynb"
        place = target / "class" / source.name
        place.parent.mkdir(exist_ok=True)
        if edition == "teacher":
            shutil.copy(source, place)
        else:
            place.write_text(classroom.released(source))


def contents(edition: str) -> str:
    """`_toc.yml`, for the teacher's edition with its own pages."""
    toc = yaml.safe_load((paths.root() / "_toc.yml").read_text())
    if edition == "teacher":
        part = next(p for p in toc["parts"] if p["caption"] == "In class")
        part["chapters"] += [{"file": page} for page in TEACHERS]
    return yaml.safe_dump(toc, sort_keys=False)
