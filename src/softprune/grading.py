"""One submission, graded in a process of its own: `softprune class grade` starts one for each.

What a submission may do wrong stays with it: a cell that does not end is interrupted, output and
memory are limited, cells that were deleted are put back, and a page of feedback is always written.
"""

import copy
import html
import json
import re
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.preprocessors import ClearHiddenTests, Execute, NbGraderPreprocessor

from softprune import classroom, limits
from softprune.errors import UserError

STOPPED = ("KeyboardInterrupt", "CellTimeoutError")  # what a cell's time limit raises


class LimitedExecute(Execute):
    """nbgrader's execution with a limited kernel, and a notebook that never holds much output."""

    seconds = 60  # a cell

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.shown: dict[int, int] = {}

    def start_new_kernel(self, **kwargs):
        """The kernel loads `limits` as an extension before the first cell."""
        self.extra_arguments = [
            "--HistoryManager.hist_file=:memory:",
            "--IPKernelApp.extensions=softprune.limits",
        ]
        self.iopub_timeout = self.seconds  # a busy machine is not the student's fault
        super().start_new_kernel(**kwargs)

    def _get_timeout(self, cell):
        return self.seconds

    def process_message(self, msg, cell, cell_index):
        """Drop what goes beyond the limit; errors always pass, since they decide marks."""
        if msg["msg_type"] in ("stream", "display_data", "execute_result"):
            size = len(str(msg["content"].get("text") or msg["content"].get("data")))
            self.shown[cell_index] = self.shown.get(cell_index, 0) + size
            if self.shown[cell_index] > 20 * limits.PRINTED:  # pictures are long, too
                return None
        return super().process_message(msg, cell, cell_index)


class CleanFeedback(NbGraderPreprocessor):
    """Feedback without hidden tests: a failed test says its sentence, not the code around it, and
    a cell that was stopped says so."""

    def preprocess_cell(self, cell, resources, cell_index):
        for output in cell.get("outputs", ()):
            if output.output_type == "error" and output.ename in STOPPED:
                output.evalue = f"stopped: this cell ran for more than {LimitedExecute.seconds} s"
                output.traceback = [output.evalue]
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            ClearHiddenTests().preprocess_cell(cell, resources, cell_index)
            for output in cell.outputs:
                if output.output_type == "error" and output.ename not in STOPPED:
                    output.traceback = [f"{output.ename}: {output.evalue}"]
        return cell, resources


# --- the submission ------------------------------------------------------------------------------


def stage(course: Path, student: str, name: str, folder: Path) -> None:
    """Copy a submission to `folder/<student>/<name>`, its notebook renamed and made whole.

    Raises:
        UserError: there is no notebook, several, or one that cannot be read.
    """
    import nbformat

    taken, others = classroom.handed_in(course, student, name)
    if not taken:
        raise UserError(f"{len(others)} notebooks handed in: expected one, {name}.ipynb")
    place = folder / student / name
    place.mkdir(parents=True)
    for file in (course / "submitted" / student / name).iterdir():
        if file.is_file() and file.suffix != ".ipynb" and file.stat().st_size < limits.WRITTEN:
            shutil.copy(file, place)
    try:
        notebook = nbformat.read(taken, 4)
    except Exception as error:  # whatever a file of another kind brings up
        raise UserError("the notebook cannot be read: is it complete?") from error
    released = nbformat.read(course / "release" / name / f"{name}.ipynb", 4)
    nbformat.write(whole(notebook, released), place / f"{name}.ipynb")


def whole(notebook, released):
    """The notebook with every released cell that was deleted put back behind its predecessor."""
    def ident(cell):
        return cell.metadata.get("nbgrader", {}).get("grade_id")

    cells, at = list(notebook.cells), 0
    for wanted in (c for c in released.cells if ident(c)):
        found = [i for i, c in enumerate(cells) if ident(c) == ident(wanted)]
        if not found:
            cells.insert(at, copy.deepcopy(wanted))
        for again in found[1:]:  # a copy is the student's own cell: nobody grades it
            del cells[again].metadata["nbgrader"]
        at = (found[0] if found else at) + 1
    used = set()
    for cell in cells:  # a cell that was pasted twice has an id twice
        while cell.get("id") in used:
            cell["id"] = f"{cell['id'][:50]}-again"
        used.add(cell.get("id"))
    made = copy.copy(notebook)
    made.cells, made.metadata = cells, released.metadata
    made.nbformat, made.nbformat_minor = released.nbformat, released.nbformat_minor
    return made


def configure(course: Path, submitted: Path, seconds: int):
    """The course's settings with this module's limits."""
    config = classroom.configuration(course)
    config.CourseDirectory.submitted_directory = str(submitted)
    from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
    from nbgrader.converters import Autograde
    from nbgrader.preprocessors import GetGrades

    steps = Autograde().autograde_preprocessors
    config.Autograde.autograde_preprocessors = [
        LimitedExecute if step is Execute else step for step in steps]
    config.GenerateFeedback.preprocessors = [CleanFeedback, GetGrades, CSSHTMLHeaderPreprocessor]
    LimitedExecute.seconds = seconds
    return config


def enter_marks(course: Path, student: str, name: str) -> None:
    """Points from `marks.csv`, which `classroom.check_marks` has passed, into the gradebook, before
    the feedback is written."""
    rows = [m for m in classroom.marks(course)
            if (m["student"], m["assignment"]) == (student, name)]
    with gradebook(course) as book:
        for row in rows:
            known = {g.cell.name: g for n in book.find_submission(name, student).notebooks
                     for g in n.grades}
            cell = known[row["cell"]]
            cell.manual_score, cell.needs_manual_grade = row["points"], False
            if row.get("comment"):
                book.find_comment(row["cell"], name, name, student).manual_comment = row["comment"]
        book.db.commit()


def gradebook(course: Path) -> Gradebook:
    """The course's gradebook."""
    return Gradebook(classroom.configuration(course).CourseDirectory.db_url)


def grade(course: Path, student: str, name: str, seconds: int) -> None:
    """Autograde and write feedback.

    Raises:
        UserError: one line that says why it could not be done.
    """
    with tempfile.TemporaryDirectory() as folder:
        stage(course, student, name, Path(folder))
        config = configure(course, Path(folder), seconds)
        from nbgrader.apps import NbGraderAPI

        grader = NbGraderAPI(config=config)
        done = grader.autograde(name, student, force=True, create=True)
        if not done["success"]:
            text = (done.get("log") or "") + (done.get("error") or "")
            died = "DeadKernelError" in text or "Kernel died" in text
            raise UserError("the notebook ended its own kernel" if died
                            else classroom.last_line(done))
        enter_marks(course, student, name)
        done = grader.generate_feedback(name, student, force=True)
        if not done["success"]:
            raise UserError(f"no feedback: {classroom.last_line(done)}")


def fail(course: Path, student: str, name: str, reason: str) -> None:
    """No marks from tests for a submission that could not be graded, and a page that says why.

    Marks by hand count, and the notebook lies in `autograded` to be read, if there is one.
    """
    course = Path(course)
    taken, _ = classroom.handed_in(course, student, name)
    with warnings.catch_warnings(), gradebook(course) as book:
        warnings.simplefilter("ignore")  # nbgrader's own use of its database
        book.update_or_create_student(student)
        submission = book.update_or_create_submission(name, student)
        for notebook in submission.notebooks:
            for g in notebook.grades:
                if g.cell.cell_type == "code" or not taken:
                    g.auto_score, g.needs_manual_grade = 0.0, False
        book.db.commit()
    if taken:
        read = course / "autograded" / student / name
        read.mkdir(parents=True, exist_ok=True)
        shutil.copy(taken, read / f"{name}.ipynb")
    enter_marks(course, student, name)
    advice = ("Restart the kernel, run all cells from the top, and see where it stops." if taken
              else f"Hand in one file, {name}.ipynb, not zipped.")
    place = course / "feedback" / student / name
    place.mkdir(parents=True, exist_ok=True)
    said = html.escape(re.sub(r"\x1b\[[0-9;]*m", "", reason))
    (place / f"{name}.html").write_text(
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        f"<h1>{name}</h1><p>This notebook could not be graded by its tests: {said}.</p>"
        f"<p>{advice}</p></html>\n")


def main(words: list[str]) -> int:
    """Grade; the reason why not goes to standard output as its last line."""
    course, student, name, seconds = words
    limits.limit_resources()
    try:
        grade(Path(course), student, name, int(seconds))
    except UserError as error:
        print(" ".join(str(error).split()))
        return 2
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}")[1:300])
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
