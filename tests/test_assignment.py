"""The assignment end to end, without a server: release, submit, autograde, feedback, grades."""

import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

HERE = Path(__file__).resolve().parents[1] / "assignments"
SOLVED = {
    "rank-gates": """def rank_gates(scores, k):
    gates = torch.ones_like(scores)
    for rank, j in enumerate(scores.sort(descending=True).indices[:k].tolist(), 1):
        gates[j] = min(0.5, rank / k)
    return gates""",
    "fold-norm": """def fold_into_norm(norm, g):
    norm.weight.data = norm.weight.data * g
    norm.bias.data = norm.bias.data * g""",
    "fold-readers": """def fold_into_readers(model, site, g):
    for name in site.readers:
        w = model.get_submodule(name).weight
        w.data = torch.einsum("oj...,j->oj...", w.data, g)""",
}
WRONG = SOLVED | {
    "rank-gates": SOLVED["rank-gates"].replace("[:k].tolist(), 1)", "[:k].tolist(), 0)"),
    "fold-norm": "def fold_into_norm(norm, g):\n    norm.weight.data = norm.weight.data * g",
    "fold-readers": SOLVED["fold-readers"].replace("site.readers", "site.readers[:1]"),
}


def submit(course: Path, student: str, answers: dict[str, str]) -> None:
    notebook = nbformat.read(course / "release/forget-it/forget-it.ipynb", 4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in answers:
            cell.source = answers[name]
    place = course / "submitted" / student / "forget-it"
    place.mkdir(parents=True)
    nbformat.write(notebook, place / "forget-it.ipynb")


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A course with one right and one wrong submission, graded."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    course = tmp_path_factory.mktemp("course")
    shutil.copytree(HERE / "source", course / "source")
    config = Config()
    exec((HERE / "nbgrader_config.py").read_text(), {"get_config": lambda: config})
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.db_url = f"sqlite:///{course}/gradebook.db"
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"  # it calls alembic
    api = NbGraderAPI(config=config)
    assert api.generate_assignment("forget-it", create=True)["success"]
    submit(course, "right", SOLVED)
    submit(course, "wrong", WRONG)
    for student in ("right", "wrong"):
        done = api.autograde("forget-it", student, create=True)
        assert done["success"], done.get("log", "")[-2000:]
        assert api.generate_feedback("forget-it", student)["success"]
    with api.gradebook as book:
        marks = {
            student: {g.cell.name: g.auto_score for g in
                      book.find_submission_notebook("forget-it", "forget-it", student).grades}
            for student in ("right", "wrong")
        }
    os.environ["PATH"] = before
    return course, marks


def test_the_release_holds_no_solution_and_no_hidden_test(graded):
    text = (graded[0] / "release/forget-it/forget-it.ipynb").read_text()
    for secret in ("clamp_max", "norm.bias.mul_", "weight.dim() - 2", "HIDDEN", "0.375",
                   "two readers", "MARK SCHEME", "a refitted classifier on the features"):
        assert secret not in text, secret
    assert text.count("raise NotImplementedError('write this')") == 3


def test_a_differently_written_right_solution_gets_all_marks(graded):
    marks = graded[1]["right"]
    assert [marks[f"test-{n}"] for n in SOLVED] == [3, 3, 3]


def test_seeded_mistakes_get_none(graded):
    marks = graded[1]["wrong"]
    assert [marks[f"test-{n}"] for n in SOLVED] == [0, 0, 0]


def test_feedback_says_in_words_what_is_wrong(graded):
    page = (graded[0] / "feedback/wrong/forget-it/forget-it.html").read_text()
    assert "rank starts at 1" in page and "is beta scaled too" in page
