"""Two books from one source: the student's holds no solution anywhere, the teacher's holds all."""

import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from assignments import NAMES, mark, source
from softprune import book, classroom, editions, paths, runs, summaries
from softprune.errors import UserError

REGION = re.compile(r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)\s*### END", re.S)


def bare(text: str) -> str:
    """Without white space, so that markup and line breaks do not hide anything."""
    return re.sub(r"\s+", "", text)


def secrets(name: str) -> list[str]:
    """Every line of 20 characters or more that a student must not see."""
    released = bare(classroom.released(classroom.source() / name / f"{name}.ipynb")
                    .replace('\\"', '"').replace("\\\\", "\\"))
    hidden = []
    for cell in source(name).cells:
        parts = REGION.findall(cell.source)
        if mark(cell).get("solution") and cell.cell_type == "markdown":
            parts = [cell.source]
        hidden += [bare(line) for part in parts for line in part.split("\n")]
    return [line for line in hidden if len(line) >= 20 and line not in released]


def texts(folder) -> dict[str, str]:
    """Everything a reader or a search engine could read in a folder, without white space."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kinds = (".html", ".ipynb", ".md", ".txt", ".js", ".json", ".rst", ".py", ".csv")
        if path.suffix not in kinds or "mathjax" in str(path).lower():
            continue
        text = re.sub(r"[A-Za-z0-9+/=]{500,}", "", path.read_text(errors="replace"))  # pictures
        if path.suffix == ".html":
            text += BeautifulSoup(text, "html.parser").get_text()
        if path.suffix == ".ipynb":
            text += "\n".join(c.source for c in nbformat.reads(text, 4).cells)
        found[path.relative_to(folder).as_posix()] = bare(text)
    return found


def leaks(folder) -> list[tuple[str, str]]:
    """(file, line) of every secret line that a folder holds."""
    lines = [line for name in NAMES for line in secrets(name)]
    return [(file, line) for file, text in texts(folder).items() for line in lines if line in text]


def words(lines: list[str], known: str) -> set[str]:
    """Words of eight letters or more that occur in secret lines only."""
    return {w for line in lines for w in re.findall(r"[a-z]{8,}", line.lower())} - set(
        re.findall(r"[a-z]{8,}", known.lower()))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """The rendered sources of the teacher's edition."""
    from softprune import paths

    root, target = paths.root(), tmp_path_factory.mktemp("teacher") / "source"
    patch = pytest.MonkeyPatch()
    patch.setattr(paths, "results", lambda: root / "data" / "results")
    runs.records.cache_clear()
    runs.table.cache_clear()
    runs.page_record.cache_clear()
    book.render(root / "book", target, "teacher")
    patch.undo()
    return target


def test_there_are_secrets_of_every_kind():
    for name in NAMES:
        assert len(secrets(name)) > 15, name
    every = "\n".join(line for name in NAMES for line in secrets(name))
    assert "assert" in every and "1point:" in every and ".clamp_max(0.5)" in every


@pytest.mark.book
def test_the_students_book_holds_no_solution_anywhere(html):
    assert list(html.rglob("_sources/class/*.ipynb")), "released notebooks can be downloaded"
    assert leaks(html) == []
    assert leaks(html.parents[1] / "source") == []
    for file, text in texts(html).items():
        if "class/" in file:
            for sign in ("BEGINSOLUTION", "HIDDENTESTS", "MARKSCHEME", "teachers-notes"):
                assert sign not in text, (file, sign)
    assert not (html / "class/teachers-notes.html").exists()


@pytest.mark.book
def test_the_search_index_knows_no_word_of_a_solution(html):
    index = (html / "searchindex.js").read_text().lower()
    pages = [BeautifulSoup(p.read_text(), "html.parser").get_text() for p in html.rglob("*.html")]
    for name in NAMES:
        assert not [w for w in words(secrets(name), " ".join(pages)) if f'"{w}"' in index], name


def test_the_search_for_leaks_finds_them_in_the_teachers_edition(teachers):
    found = {line for _, line in leaks(teachers)}
    for name in NAMES:
        assert set(secrets(name)) <= found, f"the search overlooks solutions of {name}"
    notes = (teachers / "class/teachers-notes.md").read_text()
    assert "the larger Gram matrix" in notes and "[[" not in notes


def test_the_students_kit_holds_no_answer_in_words_and_no_hidden_test():
    root = paths.root()
    left_out = tuple(re.findall(r"':\(exclude\)([^']+)'", (root / "Makefile").read_text()))
    listed = subprocess.run(["git", "-C", str(root), "ls-files"], capture_output=True, text=True,
                            check=True).stdout.split()
    kept = [f for f in listed if not f.startswith(left_out) and Path(f).suffix in (
        ".py", ".md", ".ipynb", ".yml", ".toml", "") and not f.startswith("data/")]
    assert len(kept) > 100 and not [f for f in kept if f.startswith(("tests/", "assignments/s"))]
    answers = [bare(line) for name in NAMES for cell in source(name).cells
               if mark(cell).get("solution") and cell.cell_type == "markdown"
               for line in cell.source.split("\n") if len(bare(line)) >= 20]
    assert len(answers) > 30
    for file in kept:
        text = bare((root / file).read_text())
        assert not [a for a in answers if a in text], file
        assert "###BEGINHIDDEN" not in text, file


def test_the_teachers_contents_have_one_page_more():
    one, more = editions.contents("student"), editions.contents("teacher")
    assert set(more.split("\n")) - set(one.split("\n")) == {"  - file: class/teachers-notes"}


def test_pages_that_were_run_here_join_the_contents(tmp_path, monkeypatch):
    monkeypatch.setattr(editions.paths, "root", lambda: tmp_path)
    (tmp_path / "_toc.yml").write_text(
        "parts:\n- caption: Walkthroughs\n  chapters:\n  - file: digits/01-a\n    sections:\n"
        "    - file: digits/02-b\n- caption: Audit\n  chapters:\n  - file: digits/06-c\n")
    for page in ("digits/01-a", "digits/02-b", "digits/06-c", "digits/07-d", "flowers/01-a",
                 "flowers/02-b"):
        (tmp_path / "book" / page).with_suffix(".ipynb").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "book" / page).with_suffix(".ipynb").touch()
    toc = yaml.safe_load(editions.contents("student"))
    assert editions.listed_pages(toc) == ["digits/01-a", "digits/02-b", "digits/07-d",
                                          "flowers/01-a", "flowers/02-b", "digits/06-c"]
    assert [c["file"] for c in toc["parts"][0]["chapters"]] == ["digits/01-a", "flowers/01-a"]


def test_a_released_notebook_is_what_nbgrader_releases(tmp_path):
    path = classroom.release(tmp_path, ["forget-it"])[0]
    theirs = nbformat.read(path, 4)
    ours = nbformat.reads(classroom.released(classroom.source() / "forget-it/forget-it.ipynb"), 4)
    assert [c.source for c in ours.cells] == [c.source for c in theirs.cells]


def test_an_unknown_edition_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected one of student, teacher"):
        book.build(tmp_path, "pupil")


@pytest.mark.slow
def test_the_teachers_book_builds_without_warnings(tmp_path):
    from softprune import paths

    root = paths.root()
    patch = pytest.MonkeyPatch()
    patch.setattr(paths, "results", lambda: root / "data" / "results")
    for cached in (runs.records, runs.table, runs.page_record, runs.identity, summaries.summary,
                   summaries.in_turn, summaries.request):
        cached.cache_clear()
    html = book.build(tmp_path, "teacher").parent
    patch.undo()
    assert (html / "class/teachers-notes.html").exists()
    found = {line for _, line in leaks(html)}
    assert all(set(secrets(name)) <= found for name in NAMES)
