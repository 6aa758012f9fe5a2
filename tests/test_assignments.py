"""Every assignment: right answers pass, seeded mistakes are caught, stubs fail where they should.

The mistakes take minutes: `make test-class` runs them; `make test` leaves them out.
"""

import pytest

from assignments import MISTAKES, NAMES, answered, mark, run, solutions, source
from softprune import classroom

CASES = [(name, cell, *edit) for name in NAMES
         for cell, edits in MISTAKES[name]["mistakes"].items() for edit in edits]


def test_five_assignments_with_eight_mistakes_and_two_honest_answers_each():
    assert len(NAMES) == 5
    for name in NAMES:
        edits = [e for cell in MISTAKES[name]["mistakes"].values() for e in cell]
        assert len(edits) >= 8 and len(MISTAKES[name]["honest"]) >= 2, name


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_well_formed(name):
    cells = source(name).cells
    ids = [mark(c)["grade_id"] for c in cells if mark(c)]
    assert len(ids) == len(set(ids))
    assert all(not c.get("outputs") for c in cells), "outputs are stripped"
    head = cells[0].source
    points = sum(mark(c).get("points", 0) for c in cells)
    assert f"**{points} points, about " in head, "the first cell says how many points there are"
    for cell in cells:
        if cell.cell_type == "markdown" and mark(cell).get("solution"):
            given = [int(line.split()[0]) for line in cell.source.split("\n")
                     if line.split()[1:2] in (["point:"], ["points:"])]
            assert sum(given) == mark(cell)["points"], "the mark scheme adds up to the points"
        if cell.cell_type == "code" and mark(cell).get("grade"):
            assert "BEGIN HIDDEN TESTS" in cell.source, mark(cell)["grade_id"]
            assert cell.source.index('"') < cell.source.index("BEGIN HIDDEN"), "tests speak"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_instructors_answers_pass(name):
    assert run(source(name)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", [0, 1])
def test_right_answers_written_differently_pass(name, which):
    answers = MISTAKES[name]["honest"][which]
    assert set(answers) <= set(solutions(name)), "an answer to a cell that is not there"
    assert run(answered(source(name), answers)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cell", "find", "replace", "what"), CASES)
def test_a_seeded_mistake_is_caught(name, cell, find, replace, what):
    right = solutions(name)[cell]
    assert find in right, f"the solution of {cell} no longer holds {find!r}"
    wrong = answered(source(name), {cell: right.replace(find, replace)})
    assert f"test-{cell}" in run(wrong, until=f"test-{cell}"), what


@pytest.mark.slow
def test_a_stub_runs_to_its_first_unsolved_cell_and_says_what_to_do(tmp_path):
    from assignments import read

    for path in classroom.release(tmp_path / "course"):
        notebook = read(path)
        failed = run(notebook)
        code = [mark(c).get("grade_id") for c in notebook.cells if c.cell_type == "code"]
        first = next(iter(failed))
        assert isinstance(failed[first], NotImplementedError), (path.stem, first)
        assert "write this: the task above says what" in str(failed[first])
        asked = next(c for c in code if c in solutions(path.stem))
        assert code.index(first) - code.index(asked) <= 1, "it fails where the first answer is due"
