"""Assignments for a class: release them, grade a folder of submissions, write the grades as CSV.

    softprune class release course      # course/release: no solutions, no hidden tests
    softprune class grade course        # course/submitted/STUDENT/NAME/NAME.ipynb -> grades.csv

Thin over nbgrader's Python API, without a server; `course` is an ordinary nbgrader course, so its
command line and formgrader work there too. Every submission is graded by a process of its own
(`softprune.grading`): whatever it does, it ends with its time, and the next one starts.
"""

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from softprune import artifacts, limits, paths
from softprune.errors import UserError, choose

GRADES = ("student", "assignment", "points", "of", "by_tests", "by_hand", "to_mark", "state")


def source() -> Path:
    """The assignments of this repository, `<name>/<name>.ipynb`."""
    return paths.root() / "assignments" / "source"


def names(folder: Path | None = None) -> list[str]:
    """Assignments in a `source` folder: those whose notebook has the folder's name."""
    folder = folder or source()
    return sorted(p.parent.name for p in folder.glob("*/*.ipynb") if p.stem == p.parent.name)


def configuration(course: Path):
    """nbgrader's settings for a course, from `assignments/nbgrader_config.py`.

    Raises:
        UserError: nbgrader is not installed.
    """
    try:
        import nbgrader  # noqa: F401
    except ImportError as error:
        raise UserError("nbgrader is not installed: type `pip install 'softprune[class]'`, or "
                        "`pip install -e '.[class]'` in the clone") from error
    from traitlets.config import Config

    config = Config()
    exec(compile((source().parent / "nbgrader_config.py").read_text(), "nbgrader_config.py",
                 "exec"), {"get_config": lambda: config})
    config.CourseDirectory.root = str(course)
    # two graders may write at one time: the second waits
    config.CourseDirectory.db_url = f"sqlite:///{course / 'gradebook.db'}?timeout=60"
    # it calls alembic, which need not be on a user's PATH
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return config


def api(course: Path):
    """nbgrader's API on a course."""
    config = configuration(course)
    from nbgrader.apps import NbGraderAPI

    return NbGraderAPI(config=config)


def release(course: Path, wanted: list[str] | None = None,
            log: Callable[[str], None] = lambda text: None) -> list[Path]:
    """Write `release/<name>/<name>.ipynb`: what students get.

    A source that the course already has is kept, so that a teacher may change it there.

    Args:
        wanted: names; None is all.

    Raises:
        UserError: unknown assignment, or one that nbgrader refuses.
    """
    course = Path(course).resolve()
    known = sorted({*names(), *names(course / "source")})
    for name in wanted or []:
        choose("assignment", name, known)
    grader = api(course)
    made = []
    for name in wanted or known:
        if not (course / "source" / name).exists():
            shutil.copytree(source() / name, course / "source" / name)
        done = grader.generate_assignment(name, create=True, force=True)
        if not done["success"]:
            raise UserError(f"{name} cannot be released: {last_line(done)}")
        made.append(course / "release" / name / f"{name}.ipynb")
        log(f"{name} → {made[-1].relative_to(course)}")
    shutil.copy(source().parent / "nbgrader_config.py", course / "nbgrader_config.py")
    return made


def released(notebook: Path) -> str:
    """A source notebook as students get it, by nbgrader's own steps, without a gradebook."""
    import nbformat

    config = configuration(notebook.parent)
    from nbgrader import preprocessors as steps

    made = nbformat.read(notebook, 4)
    for step in (steps.ClearSolutions, steps.ClearOutput, steps.ClearHiddenTests,
                 steps.ClearMarkScheme):
        made, _ = step(config=config).preprocess(made, {})
    return nbformat.writes(made) + "\n"


def last_line(done: dict) -> str:
    """The line of nbgrader's log that says what went wrong."""
    text = (done.get("error") or "") + "\n" + (done.get("log") or "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if "Error" in line and "NbGraderException" not in line]
    return (wrong or lines or ["no reason given"])[-1][:300]


# --- grading -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one submission may take before it is stopped."""

    # seconds a cell: then it is interrupted, and its marks are lost
    cell: int = 60
    # seconds in all, for what no interrupt stops
    submission: int = 300
    # submissions at a time
    jobs: int = 2

    def __post_init__(self):
        for field in ("cell", "submission", "jobs"):
            if getattr(self, field) < 1:
                raise UserError(f"{field}={getattr(self, field)}: expected a whole number >= 1")


def submissions(course: Path, wanted: list[str] | None = None) -> list[tuple[str, str]]:
    """(student, assignment) of every `submitted/<student>/<assignment>` folder."""
    known = names(course / "source")
    for name in wanted or []:
        choose("assignment", name, known)
    found = sorted((p.parent.name, p.name) for p in (course / "submitted").glob("*/*")
                   if p.is_dir() and not p.name.startswith(".")
                   and not p.parent.name.startswith("."))
    odd = [f"{s}/{a}" for s, a in found if a not in known]
    odd += [f"{p.parent.name}/{p.name}" for p in sorted((course / "submitted").glob("*/*.ipynb"))]
    if odd:
        raise UserError(f"{course / 'submitted'}: {', '.join(odd[:5])} is no assignment's folder: "
                        f"expected STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb, with one of "
                        f"{', '.join(known)}")
    return [(s, a) for s, a in found if a in (wanted or known)]


def grade(course: Path, wanted: list[str] | None = None, bounds: Limits | None = None,
          log: Callable[[str], None] = lambda text: None) -> Path:
    """Grade every submission, write its feedback, and the grades; returns `grades.csv`.

    Points given by hand are read from `marks.csv` (columns student, assignment, cell, points and,
    if wanted, comment), where there is one.

    Raises:
        UserError: nothing was released or submitted here; a folder of no assignment; marks that
            are not of this course. Nothing is graded then.
    """
    course, bounds = Path(course).resolve(), bounds or Limits()
    if not (course / "gradebook.db").exists():
        raise UserError(f"{course} has no gradebook: type `softprune class release {course}` first")
    work = submissions(course, wanted)
    if not work:
        raise UserError(f"{course / 'submitted'} holds no STUDENT/ASSIGNMENT folder to grade")
    rows = marks(course)
    with api(course).gradebook as book:  # here, since two graders of one student would collide
        check_marks(rows, book, submissions(course))
        for student in sorted({s for s, _ in work}):
            book.update_or_create_student(student)
    states: dict[tuple[str, str], str] = {}
    with ThreadPoolExecutor(bounds.jobs) as pool:
        jobs = {pool.submit(grade_one, course, s, a, bounds): (s, a) for s, a in work}
        for count, job in enumerate(as_completed(jobs), 1):
            at = jobs[job]
            states[at], seconds = job.result()
            log(f"[{count:3}/{len(work)}] {at[0]}  {at[1]}  {states[at]}  {seconds:.0f} s")
    if given := sum((r["student"], r["assignment"]) in work for r in rows):
        log(f"{given} marks read from marks.csv")
    return write_grades(course, states)


def grade_one(course: Path, student: str, name: str, bounds: Limits) -> tuple[str, float]:
    """Grade one submission in a process of its own; returns its state and the seconds it took.

    If the process fails or is stopped, the tests of this submission count 0, and its feedback
    page says why.
    """
    began = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SOFTPRUNE_ROOT": str(paths.root())}
    words = [sys.executable, "-m", "softprune.grading", str(course), student, name,
             str(bounds.cell)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace", env=environment, cwd=course)
    try:
        said, _ = process.communicate(timeout=bounds.submission)
        state = "graded" if process.returncode == 0 else said.strip().split("\n")[-1][-300:]
    except subprocess.TimeoutExpired:
        limits.end_tree(process.pid)
        process.communicate()
        state = f"stopped after {bounds.submission} s"
    if state != "graded":
        from softprune import grading

        grading.fail(course, student, name, state or "the grader ended without a word")
    elif others := handed_in(course, student, name)[1]:
        state += f"; not read: {', '.join(others)}"
    return state, time.perf_counter() - began


def handed_in(course: Path, student: str, name: str) -> tuple[Path | None, list[str]]:
    """The notebook to grade, None where that is not clear, and names of those that are not read."""
    found = sorted((course / "submitted" / student / name).glob("*.ipynb"))
    right = [p for p in found if p.name == f"{name}.ipynb"] or (found if len(found) == 1 else [])
    taken = right[0] if right else None
    return taken, [p.name for p in found if p != taken]


def check_marks(rows: list[dict], book, work: list[tuple[str, str]]) -> None:
    """Whether every row of `marks` has its place in the gradebook.

    Args:
        work: (student, assignment) of every submission.

    Raises:
        UserError: a student or assignment without a submission, a graded cell that there is none
            of, or points beyond those of the cell.
    """
    cells = {a.name: {c.name: c.max_score for n in a.notebooks for c in n.grade_cells}
             for a in book.assignments}
    for row in rows:
        line, student, name = f"marks.csv, line {row['line']}", row["student"], row["assignment"]
        for what, value, known in (("student", student, sorted({s for s, _ in work})),
                                   ("assignment", name, sorted(cells)),
                                   (f"graded cell of {name}", row["cell"], cells.get(name, ()))):
            if value not in known:
                raise UserError(f"{line}: unknown {what} {value!r}: expected one of "
                                f"{', '.join(known)}")
        if (student, name) not in work:
            raise UserError(f"{line}: {student} has not handed in {name}: expected one of "
                            f"{', '.join(a for s, a in work if s == student)}")
        own = cells[name]
        if not 0 <= row["points"] <= own[row["cell"]]:
            raise UserError(f"{line}: {row['points']:g} points for {row['cell']}: expected 0 to "
                            f"{own[row['cell']]:g}")


def marks(course: Path) -> list[dict]:
    """Rows of `marks.csv`, points as floats, each with its line; [] if there is none.

    Raises:
        UserError: another encoding, a column is missing, or a row has no number.
    """
    path = Path(course) / "marks.csv"
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [row | {"line": reader.line_num} for row in reader
                    if any(str(v or "").strip() for v in row.values())]
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not in UTF-8: save it so (in a spreadsheet: CSV UTF-8)"
                        ) from error
    found = list(reader.fieldnames or ())
    if lost := [c for c in ("student", "assignment", "cell", "points") if c not in found]:
        raise UserError(f"marks.csv has no column {' and no '.join(lost)}: found "
                        f"{', '.join(found)} (columns are separated by commas)")
    for row in rows:
        try:
            row["points"] = float(row["points"])
        except (TypeError, ValueError) as error:
            raise UserError(f"marks.csv, line {row['line']}: points {row['points']!r}: expected a "
                            "number") from error
    return rows


# --- grades --------------------------------------------------------------------------------------


def write_grades(course: Path, states: dict[tuple[str, str], str]) -> Path:
    """`grades.csv`, a row a submission, and `tasks.csv`, a row a task of it."""
    tasks = []
    with api(course).gradebook as book:
        for assignment in book.assignments:
            for submission in assignment.submissions:
                tasks += [
                    {"student": submission.student.id, "assignment": assignment.name,
                     "task": g.cell.name, "points": g.score, "of": g.max_score,
                     "by": "tests" if g.cell.cell_type == "code" else "hand",
                     "to_mark": g.auto_score is None and g.manual_score is None}
                    for notebook in submission.notebooks for g in notebook.grades]
    path, before = course / "grades.csv", {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            before = {(r["student"], r["assignment"]): r["state"] for r in csv.DictReader(file)}
    totals: dict[tuple[str, str], dict] = {}
    for t in tasks:
        at = t["student"], t["assignment"]
        row = totals.setdefault(at, dict.fromkeys(GRADES, 0.0) | {
            "student": at[0], "assignment": at[1], "to_mark": 0,
            "state": before.get(at, "graded before")})
        row["points"] += t["points"]
        row["of"] += t["of"]
        row[f"by_{t['by']}"] += t["points"]
        row["to_mark"] += t["to_mark"]
        row["state"] = states.get(at, row["state"])
    write_csv(course / "tasks.csv", sorted(tasks, key=lambda t: (t["student"], t["assignment"])))
    return write_csv(path, [totals[at] for at in sorted(totals)])


def write_csv(path: Path, rows: list[dict]) -> Path:
    """Rows as CSV, whole or not at all; whole numbers without a point."""
    with artifacts.atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else GRADES, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:g}" if isinstance(v, float) else v for k, v in row.items()})
    return path
