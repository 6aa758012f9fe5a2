"""The built book: no warnings, nothing from elsewhere, no default alt text, no blank number."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

from softprune import artifacts, book, editions, notebooks, runs, stages, summaries
from softprune.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def parsed(html):
    for page in sorted(html.rglob("*.html")):
        if "_static" not in page.parts:
            yield page, BeautifulSoup(page.read_text(), "html.parser")


def test_every_page_of_the_contents_is_there_with_one_title(html):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = editions.listed_pages(toc)
    titles = []
    for name in ["index", *files]:
        soup = BeautifulSoup((html / f"{name}.html").read_text(), "html.parser")
        titles.append(soup.h1.get_text())
    assert len(set(titles)) == len(titles), "two pages have one title"


def test_every_published_page_is_in_the_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = set(editions.listed_pages(toc))
    pages = {str(p.relative_to(ROOT / "book").with_suffix("")) for p in ROOT.glob("book/*/*.ipynb")}
    assert pages and pages <= files


def test_nothing_is_loaded_from_elsewhere(html):
    for page, soup in parsed(html):
        loads = [tag.get("src") for tag in soup(["script", "img", "iframe"])]
        loads += [tag.get("href") for tag in soup("link") if "canonical" not in tag.get("rel", [])]
        outside = [u for u in loads if u and re.match(r"(https?:)?//", u)]
        assert not outside, f"{page.name} loads {outside}"
    assert list(html.rglob("tex-*.js")), "MathJax is not in the book"


def test_every_picture_has_a_computed_text(html):
    pictures = 0
    for page, soup in parsed(html):
        for image in soup.select("main img"):
            alt = image.get("alt", "")
            assert len(alt) > 30 and not re.search(r"\.(png|svg)$", alt), f"{page.name}: {alt!r}"
            pictures += 1
    assert pictures > 10


def test_links_inside_the_book_resolve(html):
    for page, soup in parsed(html):
        for link in soup.select("main a[href]"):
            target, _, anchor = link["href"].partition("#")
            if re.match(r"\w+:", target):
                continue
            file = page if not target else (page.parent / target).resolve()
            assert file.exists(), f"{page.name} links to {target}"
            if anchor and file.suffix == ".html":
                assert f'id="{anchor}"' in file.read_text(), f"{page.name} links to #{anchor}"


def test_no_blank_number_and_no_unfilled_expression(html):
    for page, soup in parsed(html):
        for code in soup.select("div.cell_input, :not(pre) > code, dt.sig"):
            code.decompose()  # a list of lists begins with [[, too, and Callable[[int], …]
        text = soup.main.get_text()
        assert "[[" not in text and "[%" not in text, page.name
        assert not re.search(r"\bnan\b|\bNone %|\*\*\*\*", text), page.name


def test_tables_are_tables_and_swallow_no_text(html):
    for page, soup in parsed(html):
        said = [p.get_text().strip() for p in soup.main.select("p")]
        raw = [t for t in said if t.startswith("| ") and t.endswith(" |")]  # a norm has bars, too
        assert not raw, (page.name, raw[0][:80])
        for row in soup.main.select("table:not(.dataframe) tbody tr"):
            cells = [c.get_text(strip=True) for c in row.select("td")]
            assert len(cells) < 3 or any(cells[1:]), (page.name, cells)


def test_a_missing_number_stops_the_build(tmp_path):
    source = tmp_path / "book"
    source.mkdir()
    (source / "a.md").write_text("[[ one(metric='no-such') ]]")
    with pytest.raises(UserError, match="expected one"):
        book.render(source, tmp_path / "out")
    (source / "a.md").write_text("[[ no_such_name ]]")
    with pytest.raises(UserError, match="no_such_name"):
        book.render(source, tmp_path / "out")


def test_every_page_has_its_own_record():
    for dataset in runs.pages():
        for stage in notebooks.STAGES:
            record = runs.page_record(stage, dataset)
            folder = ROOT / "data/results" / dataset / record["parameters"]["profile"]
            assert (folder / f"{stage}-{record['key']}.json").exists()


def launch_links(page: str) -> list[str]:
    return re.findall(r'href="(https://(?:mybinder|colab)[^"]+)"', page)


def test_without_an_address_there_are_no_launch_links(html):
    assert 'url: ""' in (ROOT / "_config.yml").read_text()
    assert not launch_links((html / "digits/01-orthogonal-training.html").read_text())


def test_with_an_address_launch_links_point_at_a_committed_file(tmp_path):
    config = (ROOT / "_config.yml").read_text()
    (tmp_path / "filled.yml").write_text(
        config.replace('url: ""', "url: https://github.com/owner/name"))
    page = "digits/01-orthogonal-training"
    source = tmp_path / "source"
    (source / "digits").mkdir(parents=True)
    shutil.copy(ROOT / f"book/{page}.ipynb", source / "digits")
    shutil.copy(ROOT / "book/references.bib", source)
    shutil.copytree(ROOT / "book/_static", source / "_static")
    (tmp_path / "_toc.yml").write_text(f"format: jb-book\nroot: {page}\n")
    book.sphinx(source, tmp_path / "filled.yml", tmp_path / "_toc.yml", tmp_path)
    links = launch_links((tmp_path / f"_build/html/{page}.html").read_text())
    assert len(links) == 2
    assert all(f"book/{page}.ipynb" in u.replace("%2F", "/") for u in links)


def test_filters_overlap_less_with_the_penalty_as_drawn(html):
    soup = BeautifulSoup((html / "orthogonality.html").read_text(), "html.parser")
    alt, = (i["alt"] for i in soup.find_all("img") if "grams" in i["src"])
    plain, penalised = (float(x) for x in re.findall(r"off the diagonal ([\d.]+)", alt))
    assert "no penalty" in alt and penalised < plain / 10


def test_committed_weights_are_small_and_whole():
    total = 0
    for path in (ROOT / "data/checkpoints").rglob("*.safetensors"):
        total += path.stat().st_size
        side = artifacts.companion(path, "sidecar")
        if side.exists():
            assert artifacts.sha256(path) == artifacts.read_sidecar(path)["sha256"]
    assert 0 < total < 35e6


def test_a_network_and_one_retrained_without_a_class_travel_for_each_data_set():
    """So that stages 2 to 4 need no training: with the class-by-channel tables that they read."""
    for record in (ROOT / "data/results").glob("*/laptop/soft-pruning-*.json"):
        page = json.loads(record.read_text())["parameters"]
        folder = ROOT / "data/checkpoints" / page["dataset"] / "laptop"
        sides = [json.loads(p.read_text()) for p in folder.glob("*.json")]
        own = [s for s in sides if all(s["config"][k] == page[k]
                                       for k in ("architecture", "width", "penalty", "epochs"))]
        without = [s["config"]["without"] for s in own]
        asked = page["forget"] or stages.default_request(own[0]["class_names"])
        assert [] in without and [asked] in without, page["dataset"]
    for path in (ROOT / "data/checkpoints").rglob("*s0*.json"):
        assert artifacts.companion(path.with_suffix(".safetensors"), "table").exists()


def test_the_book_opens_in_a_browser(html, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no browser was found")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={tmp_path}", "--virtual-time-budget=8000",
         "--dump-dom", (html / "method.html").as_uri()],
        capture_output=True, text=True, timeout=180, env=os.environ,
    )
    assert "mjx-container" in done.stdout, "the formulas were not typeset offline"


def test_a_value_with_its_interval_and_a_missing_one():
    assert runs.between(None) == "–"
    assert runs.between({"value": 0.7661, "low": "", "high": ""}) == "0.766"
    assert runs.between({"value": 0.7, "low": 0.65, "high": 0.75}, 2) == "0.70 [0.65, 0.75]"


def test_what_a_page_beside_the_walkthrough_measured_is_found():
    assert runs.audited(), "no audit page is published"
    for dataset in runs.audited():
        row = summaries.beside(dataset, "gone-or-hidden", "original", "recall-t4-as-it-is")
        assert 0.5 < row["value"] <= 1
        assert summaries.beside(dataset, "gone-or-hidden", "original", "no-such") is None
        again = summaries.beside(dataset, "gone-or-hidden", "soft", "recall-t4-u1-divide")
        assert abs(again["value"] - row["value"]) < 0.05  # dividing by known gates undoes them


def test_no_two_things_that_pages_may_call_share_a_name():
    """Modules' helpers meet in one namespace: of two alike the first would vanish in silence."""
    told = [name for module in book.TOLD for name in module.helpers()]
    assert len(told) == len(set(told)), {n for n in told if told.count(n) > 1}
