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
    """`_toc.yml`, with pages that were run here, and for the teacher's edition with its own."""
    toc = yaml.safe_load((paths.root() / "_toc.yml").read_text())
    parts = {part["caption"]: part["chapters"] for part in toc["parts"]}
    if edition == "teacher":
        parts["In class"] += [{"file": page} for page in TEACHERS]
    listed, sets = set(listed_pages(toc)), parts["Walkthroughs"]
    for page in sorted((paths.root() / "book").glob("*/*.ipynb")):
        name = f"{page.parent.name}/{page.stem}"
        if name in listed:
            continue
        first = next((c for c in sets if c["file"].startswith(f"{page.parent.name}/")), None)
        if first:
            first.setdefault("sections", []).append({"file": name})
        else:
            sets.append({"file": name})
    return yaml.safe_dump(toc, sort_keys=False)


def listed_pages(toc: dict) -> list[str]:
    """Every page of a table of contents but the front page, in reading order."""
    return [page["file"] for part in toc["parts"] for chapter in part["chapters"]
            for page in (chapter, *chapter.get("sections", ()))]
