"""A course end to end, without a server: release, submissions of every kind, marks, feedback."""

import csv
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from assignments import MISTAKES, NAMES, SOURCE, answered, mark, read, solutions
from softprune import classroom, limits, paths
from softprune.cli import main
from softprune.errors import UserError

NAME = "forget-it"


def hand_in(course, student: str, notebook, name: str = NAME, file: str = "") -> None:
    place = course / "submitted" / student / name
    place.mkdir(parents=True)
    target = place / (file or f"{name}.ipynb")
    if isinstance(notebook, str):
        target.write_text(notebook)
    else:
        nbformat.write(notebook, target)


def released(course, name: str = NAME):
    return read(course / "release" / name / f"{name}.ipynb")


def table(path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Graded: right answers written differently, a wrong one a task, and half a file."""
    course = tmp_path_factory.mktemp("course")
    classroom.release(course, [NAME])
    right, wrong = solutions(NAME), {}
    for answers in MISTAKES[NAME]["honest"]:
        right = right | answers
    for cell, edits in MISTAKES[NAME]["mistakes"].items():
        wrong[cell] = solutions(NAME)[cell].replace(*edits[0][:2])
    hand_in(course, "right", answered(released(course), right), file=f"{NAME} (1).ipynb")
    hand_in(course, "wrong", answered(released(course), wrong))
    hand_in(course, "half", '{"cells": [')
    (course / "marks.csv").write_text(
        f"student,assignment,cell,points,comment\nright,{NAME},words,4,compare with retrained\n")
    said = []
    classroom.grade(course, log=said.append)
    return course, said


def test_the_release_holds_no_solution_and_no_hidden_test(course):
    text = (course[0] / "release" / NAME / f"{NAME}.ipynb").read_text()
    for secret in ("clamp_max", "norm.bias.mul_", "weight.dim() - 2))", "HIDDEN", "0.375",
                   "two readers", "MARK SCHEME", "only the answer is withheld"):
        assert secret not in text, secret
    assert text.count("raise NotImplementedError('write this") == 5


def test_marks(course):
    rows = {r["student"]: r for r in table(course[0] / "grades.csv")}
    right, wrong, half = rows["right"], rows["wrong"], rows["half"]
    assert (right["points"], right["of"], right["by_tests"]) == ("17", "18", "13")
    assert (right["by_hand"], right["to_mark"], right["state"]) == ("4", "0", "graded")
    assert wrong["points"] == "0", "every mistake costs its task"
    assert half["points"] == "0" and half["state"] == "the notebook cannot be read: is it complete?"
    tasks = [r for r in table(course[0] / "tasks.csv") if r["student"] == "right"]
    assert {t["task"]: t["points"] for t in tasks if t["by"] == "hand"} == {"words": "4"}


def test_progress_says_who_is_done(course):
    assert len([s for s in course[1] if "/3]" in s]) == 3
    assert "1 marks read from marks.csv" in course[1]


def test_feedback_says_in_words_what_is_wrong_and_shows_no_hidden_test(course):
    page = (course[0] / f"feedback/wrong/{NAME}/{NAME}.html").read_text()
    assert "rank starts at 1" in page and "is beta scaled too" in page
    assert "HIDDEN" not in page and "planted in" not in page and "last_image_only" not in page
    assert "compare with retrained" in (
        course[0] / f"feedback/right/{NAME}/{NAME}.html").read_text()
    assert "cannot be read" in (course[0] / f"feedback/half/{NAME}/{NAME}.html").read_text()


def test_refusals_are_one_line(course, tmp_path, capsys):
    for words, message in (
        (["class", "release", str(tmp_path), "--assignment", "forget"], "unknown assignment"),
        (["class", "grade", str(tmp_path)], "type `softprune class release"),
        (["class", "grade", str(course[0]), "--jobs", "0"], "jobs=0: expected"),
        (["class", "grade", str(course[0]), "--assignment", "x"], "unknown assignment 'x'"),
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1


def test_marks_by_hand_are_checked(tmp_path):
    for text, message in (
            ("student,points\na,3\n", "no column assignment and no cell: found student, points"),
            ("student;assignment;cell;points\na;b;c;3\n", "separated by commas"),
            ("student,assignment,cell,points\n,,,\na,b,c,many\n", "line 3: points 'many'"),
            ("student,assignment,cell,points\na,b,c\n", "line 2: points None")):
        (tmp_path / "marks.csv").write_text(text)
        with pytest.raises(UserError, match=message):
            classroom.marks(tmp_path)
    (tmp_path / "marks.csv").write_text("student,assignment,cell,points\na,b,c,3\n,,,\n")
    assert [row["points"] for row in classroom.marks(tmp_path)] == [3.0]


def test_a_mark_for_what_was_not_handed_in_is_refused():
    words = SimpleNamespace(name="words", max_score=5)
    book = SimpleNamespace(assignments=[
        SimpleNamespace(name=n, notebooks=[SimpleNamespace(grade_cells=[words])]) for n in "AB"])
    row = {"line": 2, "student": "ada", "assignment": "A", "cell": "words", "points": 3.0}
    classroom.check_marks([row], book, [("ada", "A"), ("eve", "B")])
    with pytest.raises(UserError, match="line 2: ada has not handed in B: expected one of A"):
        classroom.check_marks([row | {"assignment": "B"}], book, [("ada", "A"), ("eve", "B")])


def test_a_slip_in_the_marks_costs_no_student_anything(course):
    folder, kept = course[0], (course[0] / "marks.csv").read_bytes()
    before = (folder / "grades.csv").read_bytes()
    row = f"right,{NAME},words,4\n"
    try:
        for text, message in ((row.replace("words", "word"), "line 3: unknown graded cell"),
                              (row.replace(",4", ",nan"), "expected 0 to"),
                              (row.replace(",4", ",1000"), "expected 0 to"),
                              (row.replace("right", "Right"), "student 'Right'"),
                              (row.replace(NAME, "the-audi"), "assignment 'the-audi'"),
                              ("r\xe4ght,a,b,4\n", "UTF-8")):
            (folder / "marks.csv").write_text(
                f"student,assignment,cell,points\n{row}{text}", encoding="latin-1")
            with pytest.raises(UserError, match=message):
                classroom.grade(folder)
    finally:
        (folder / "marks.csv").write_bytes(kept)
    assert (folder / "grades.csv").read_bytes() == before
    (folder / "submitted" / "right" / "the-audi").mkdir()
    with pytest.raises(UserError, match="right/the-audi is no assignment's folder"):
        classroom.grade(folder)
    (folder / "submitted" / "right" / "the-audi").rmdir()
    loose = folder / "submitted" / "right" / f"{NAME}.ipynb"
    loose.touch()
    with pytest.raises(UserError, match=f"right/{NAME}.ipynb is no assignment's folder"):
        classroom.grade(folder)
    loose.unlink()


def test_a_submission_is_made_whole():
    pytest.importorskip("nbgrader")
    from softprune.grading import whole

    def cell(name, source="released"):
        return new_code_cell(source, metadata={"nbgrader": {"grade_id": name}})

    full = new_notebook(cells=[cell("a"), cell("b"), cell("c"), cell("d")])
    own = new_code_cell("helper = 1")
    made = whole(new_notebook(cells=[own, cell("b", "mine"), cell("d", "mine")]), full)
    assert [(mark(c).get("grade_id"), c.source) for c in made.cells] == [
        ("a", "released"), (None, "helper = 1"), ("b", "mine"), ("c", "released"), ("d", "mine")]
    twice = whole(new_notebook(cells=[cell("a"), cell("b", "first"), cell("b", "again")]), full)
    assert [mark(c).get("grade_id") for c in twice.cells if c.source != "again"] == list("abcd")
    assert [mark(c) for c in twice.cells if c.source == "again"] == [{}]
    assert [mark(c)["grade_id"] for c in whole(new_notebook(), full).cells] == list("abcd")


def test_a_process_tree_is_ended():
    child = "import subprocess, sys; subprocess.Popen(['sleep', '60'], start_new_session=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{child}; print(1, flush=True); import time; time.sleep(60)"],
        stdout=subprocess.PIPE)
    import psutil

    process.stdout.readline()
    started = psutil.Process(process.pid).children()
    limits.end_tree(process.pid)
    assert process.wait(10) and len(started) == 1
    psutil.wait_procs(started, 10)
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started)


# --- make test-class -----------------------------------------------------------------------------

MISCHIEF = {
    "loops": "while True: pass",
    "loops-on": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "crashes": "import os\nos._exit(1)",
    "prints": "print('x' * 10**9)",
    "prints-lines": "for i in range(10**9 // 50): print('x' * 50)",
    "shows": "'x' * 10**9",
    "hogs": "hog = [bytearray(10**8) for _ in range(400)]",
    "writes": "with open('big', 'wb') as f:\n    for i in range(1000): f.write(b'x' * 10**6)",
}


@pytest.mark.slow
def test_mischief_costs_its_author_marks_and_never_the_run(tmp_path):
    classroom.release(tmp_path, [NAME])
    full = answered(released(tmp_path), solutions(NAME))
    for student, line in MISCHIEF.items():
        hand_in(tmp_path, student, answered(
            full, {"exact": f"{solutions(NAME)['exact']}\n{line}"}))
    tests = answered(full, {mark(c)["grade_id"]: "pass" for c in full.cells if mark(c).get("grade")
                            and c.cell_type == "code"} | {"combine": "combine = max"})
    hand_in(tmp_path, "edits-tests", tests)
    tests.cells = [c for c in tests.cells if not mark(c).get("grade")]
    hand_in(tmp_path, "deletes-tests", tests)
    hand_in(tmp_path, "deletes-all", new_notebook())
    hand_in(tmp_path, "good", full)
    (tmp_path / "submitted" / "nothing" / NAME).mkdir(parents=True)
    hand_in(tmp_path, "twice", full)
    shutil.copy(tmp_path / f"submitted/twice/{NAME}/{NAME}.ipynb",
                tmp_path / f"submitted/twice/{NAME}/again.ipynb")
    (tmp_path / "marks.csv").write_text(
        f"student,assignment,cell,points\ncrashes,{NAME},words,5\n")
    bounds = classroom.Limits(cell=20, submission=150, jobs=2)
    rows = {r["student"]: r for r in table(classroom.grade(tmp_path, bounds=bounds))}
    points = {s: float(r["points"]) for s, r in rows.items()}
    assert points["good"] == 13 and len(rows) == len(MISCHIEF) + 6
    assert rows["crashes"]["by_hand"] == "5", "marks by hand count where the tests could not run"
    assert (tmp_path / f"autograded/crashes/{NAME}/{NAME}.ipynb").exists()
    assert points["crashes"] == 5 and "ended its own kernel" in rows["crashes"]["state"]
    assert points["deletes-all"] == points["nothing"] == 0
    assert points["edits-tests"] == points["deletes-tests"] == 12, "the course's tests count"
    assert rows["nothing"]["state"] == f"0 notebooks handed in: expected one, {NAME}.ipynb"
    assert rows["nothing"]["to_mark"] == "0" and rows["good"]["to_mark"] == "1"
    assert rows["twice"]["state"] == "graded; not read: again.ipynb"
    page = (tmp_path / f"feedback/nothing/{NAME}/{NAME}.html").read_text()
    assert "not zipped" in page and "Restart" not in page
    page = (tmp_path / f"feedback/loops/{NAME}/{NAME}.html").read_text()
    assert "stopped: this cell ran for more than 20 s" in page
    for student in ("prints", "prints-lines", "shows", "writes", "hogs"):
        assert points[student] >= 10, (student, rows[student])
    for student in rows:
        page = tmp_path / "feedback" / student / NAME / f"{NAME}.html"
        assert 100 < page.stat().st_size < 5e6, student
    kept = {s: r["state"] for s, r in rows.items()}
    again = table(classroom.write_grades(tmp_path, {}))
    assert {r["student"]: r["state"] for r in again} == kept, "what was said before stays"
    largest = max(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert largest <= limits.WRITTEN


@pytest.mark.slow
def test_all_five_through_nbgrader(tmp_path):
    classroom.release(tmp_path)
    for name in NAMES:
        hand_in(tmp_path, "instructor", answered(released(tmp_path, name), solutions(name)), name)
        hand_in(tmp_path, "stub", released(tmp_path, name), name)
    for row in table(classroom.grade(tmp_path)):
        cells = [mark(c) for c in read(SOURCE / row["assignment"] / f"{row['assignment']}.ipynb")
                 .cells if mark(c).get("grade")]
        tests = sum(m["points"] for m in cells if m["cell_type"] == "code")
        assert row["state"] == "graded", row
        assert float(row["by_tests"]) == (tests if row["student"] == "instructor" else 0), row
    assert os.path.getsize(tmp_path / "tasks.csv") > 1000


@pytest.mark.slow
def test_the_grading_benchmark_counts_what_it_hands_in(tmp_path):
    sys.path.insert(0, str(paths.root() / "benchmarks"))
    import grading

    rows = grading.measure(tmp_path, {"ada": "answers", "eve": "stub"}, [NAME])
    value = {r["metric"]: r for r in rows}
    assert value["time-grade"]["n"] == 2
    assert value["time-grade"]["value"] > 0 and value["cpu-grade"]["value"] > 1
    points = {r["student"]: float(r["by_tests"]) for r in table(tmp_path / "grades.csv")}
    assert points["eve"] == 0 < points["ada"]
