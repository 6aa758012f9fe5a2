"""How long a class's work takes: release, tests and feedback of thirty submissions.

    python benchmarks/grading.py

Six students hand in all five assignments: four the instructor's answers, one the stubs as they were
released, one a notebook whose first answer never ends. The result is a run record (stage
`grading`): seconds by the clock, and the graders' processor seconds, which a busy machine does not
stretch.
"""

import copy
import os
import resource
import tempfile
import time
from pathlib import Path

import nbformat

from softprune import artifacts, classroom
from softprune.training import configure

STUDENTS = {"ada": "answers", "ben": "answers", "cleo": "answers", "dev": "answers",
            "eve": "stub", "fay": "loops"}


def mark(cell) -> dict:
    """nbgrader's metadata of a cell."""
    return cell.metadata.get("nbgrader", {})


def submission(kind: str, released, source):
    """A notebook to hand in: `answers`, `stub` or `loops`."""
    made = copy.deepcopy(released)
    if kind == "stub":
        return made
    known = {mark(c)["grade_id"]: c.source for c in source.cells if mark(c).get("solution")}
    for cell in made.cells:
        cell.source = known.get(mark(cell).get("grade_id"), cell.source)
    if kind == "loops":
        first = next(c for c in made.cells if c.cell_type == "code" and mark(c).get("solution"))
        first.source += "\nwhile True:\n    pass"
    return made


def measure(course: Path, students: dict[str, str], names: list[str] | None = None) -> list[dict]:
    """Rows: seconds by the clock of release and of grading, processor seconds, submissions."""
    rows, began = [], time.perf_counter()
    classroom.release(course, names)
    rows.append(artifacts.row("release", "time-release", time.perf_counter() - began, "s"))
    handed_in = names or classroom.names()
    for name in handed_in:
        released, source = (nbformat.read(course / part / name / f"{name}.ipynb", 4)
                            for part in ("release", "source"))
        for student, kind in students.items():
            place = course / "submitted" / student / name
            place.mkdir(parents=True)
            nbformat.write(submission(kind, released, source), place / f"{name}.ipynb")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    classroom.grade(course, names, log=lambda line: print(line, flush=True))
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    n = len(handed_in) * len(students)
    worked = sum(getattr(after, k) - getattr(before, k) for k in ("ru_utime", "ru_stime"))
    return [*rows, artifacts.row("grade", "time-grade", took, "s", n=n),
            artifacts.row("grade", "cpu-grade", worked, "s", n=n),
            artifacts.row("grade", "processors", os.cpu_count() or 1)]


def main() -> None:
    """Measure in a folder that is thrown away, and write the record."""
    began, config = time.perf_counter(), configure("digits", "laptop").as_dict()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), STUDENTS)
    for r in rows:
        print(f"{r['metric']:16} {r['value']:9.1f} {r['unit']}")
    made = artifacts.provenance(time.perf_counter() - began)
    print(artifacts.write_record("grading", artifacts.short_hash(config), config, rows, made).name)


if __name__ == "__main__":
    main()
