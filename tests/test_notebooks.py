"""The strict runner and the publisher, then the four templates through nbval and through a run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from softprune import guarding, notebooks, stages
from softprune.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
MADE = {"wall_s": 1.0, "device": "cpu", "peak_memory_bytes": 2**20, "commit": "abc", "torch": "2"}
VALUES = {"dataset": "digits", "profile": "smoke"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The parts of the repository that a run needs, and a cache of its own."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    (root / "data").mkdir()
    for name in ("catalog.yml", "paper.yml"):
        shutil.copy(ROOT / "data" / name, root / "data")
    environment = os.environ | {"SOFTPRUNE_ROOT": str(root), "SOFTPRUNE_CACHE": str(root / "cache")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return root, environment


def softprune(clone, *words):
    return subprocess.run([sys.executable, "-m", "softprune.cli", *words], capture_output=True,
                          text=True, env=clone[1], cwd=clone[0])


def test_templates_are_stripped_and_short():
    for stage in notebooks.EVERY:
        notebook = notebooks.read(notebooks.template(stage))
        code = [c for c in notebook.cells if c.cell_type == "code"]
        assert all(not c.outputs and c.execution_count is None for c in code), stage
        assert len(notebook.cells) <= 25, f"{stage} has {len(notebook.cells)} cells"
        assert notebook.metadata.kernelspec.name == "python3"


def test_a_stage_opens_with_exactly_its_parameters():
    for stage in notebooks.EVERY:
        path = notebooks.template(stage)
        opening = notebooks.read(path).cells[2].source
        named = opening.split('names = "')[1].split('"')[0].split()
        assert named == list(notebooks.parameters(path)), stage


def test_a_notebook_beside_the_walkthrough_needs_the_training_alone():
    for stage, number in notebooks.BESIDE.items():
        assert notebooks.needed(stage) == ["orthogonal-training", stage]
        assert notebooks.template(stage).name.startswith(f"{number:02d}-")
    assert notebooks.needed("all") == list(notebooks.STAGES)
    with pytest.raises(UserError, match="unknown stage"):
        notebooks.needed("five")


def executed(output=None, count=1):
    cell = new_code_cell("1 + 1", execution_count=count, outputs=[output] if output else [])
    cell["metadata"] = {"papermill": {"start_time": str(os.urandom(4))}}
    injected = new_code_cell("seed = 3", metadata={"tags": ["injected-parameters"]})
    return new_notebook(cells=[new_markdown_cell("(stage-x)=\n# A title"), injected, cell])


def test_publisher_is_byte_stable_and_retitles(tmp_path):
    for name in ("a", "b"):
        output = new_output("execute_result", {"text/plain": f"<thing at 0x{name * 8}>"},
                            execution_count=7)
        notebooks.publish(executed(output), tmp_path / f"{name}.ipynb", VALUES, {"p": "1"}, MADE)
    first, second = ((tmp_path / f"{n}.ipynb").read_bytes() for n in "ab")
    assert first == second
    page = nbformat.reads(first.decode(), 4)
    assert page.cells[0].source == "(digits-stage-x)=\n# Handwritten digits: A title"
    assert "smoke profile" in page.cells[1].source and "injected" not in first.decode()


def test_two_real_runs_publish_the_same_bytes(tmp_path):
    import papermill

    source = tmp_path / "toy.ipynb"
    parameters = new_code_cell("seed = 1", metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell("# Toy"), parameters, new_code_cell("print(seed)\nobject()")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), source)
    for name in ("a", "b"):
        out = tmp_path / f"run-{name}.ipynb"
        papermill.execute_notebook(source, out, parameters={"seed": 3}, progress_bar=False)
        notebooks.publish(notebooks.read(out), tmp_path / f"{name}.ipynb", VALUES, {}, MADE)
    runs = [(tmp_path / f"run-{n}.ipynb").read_bytes() for n in "ab"]
    pages = [(tmp_path / f"{n}.ipynb").read_bytes() for n in "ab"]
    assert runs[0] != runs[1] and pages[0] == pages[1] and b'"3\\n"' in pages[0]


@pytest.mark.parametrize(("output", "count", "message"), [
    (new_output("error", ename="ValueError", evalue="", traceback=[]), 1, "ended in ValueError"),
    (None, None, "not executed"),
    (new_output("display_data", {"image/png": "AA=="}), 1, "without alt text"),
    (new_output("display_data", {"text/html": '<img src="x"/>'}), 1, "without alt text"),
])
def test_publisher_refuses(output, count, message, tmp_path):
    with pytest.raises(UserError, match=message):
        notebooks.publish(executed(output, count), tmp_path / "x.ipynb", VALUES, {}, MADE)
    assert not list(tmp_path.iterdir())


def test_another_choice_of_rung_settings_makes_a_page_stale(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks.paths, "root", lambda: tmp_path)
    (tmp_path / "data").mkdir()
    told = [notebooks.rung_settings("digits", "laptop")]
    for margin, record in ((1.0, "a"), (2.0, "a"), (2.0, "b")):
        (tmp_path / "data/ladder.json").write_text(json.dumps(
            {"digits": {"best": {"set": {"margin": margin}, "record": record}}}))
        told.append(notebooks.rung_settings("digits", "laptop"))
    assert len(set(told[:3])) == 3 and told[3] == told[2], "only the setting counts"
    assert notebooks.rung_settings("cifar10", "laptop") == told[0]


def test_a_profile_with_a_choice_of_its_own_counts_that(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks.paths, "root", lambda: tmp_path)
    (tmp_path / "data").mkdir()
    chosen = {"cifar10": {"best": {"set": {"margin": 1.0}, "record": "a"}}}

    def told(profile):
        (tmp_path / "data/ladder.json").write_text(json.dumps(chosen))
        return notebooks.rung_settings("cifar10", profile)

    assert told("paper") == told("laptop"), "without its own a profile takes the set's"
    before = told("laptop")
    chosen["cifar10/paper"] = {"best": {"set": {"margin": 2.0}, "record": "b"}}
    assert told("laptop") == before != told("paper")


def test_settings_of_the_baselines_are_in_the_key(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks.paths, "root", lambda: tmp_path)
    (tmp_path / "data").mkdir()
    file = tmp_path / "data/baselines.yml"
    told = [notebooks.baseline_settings("digits")]
    for text in ("{digits: {methods: {ssd: {chosen: {alpha: 10.0}}}}}",
                 "{digits: {steps: 4, methods: {ssd: {chosen: {alpha: 10.0}}}}}",
                 "{digits: {steps: 4, methods: {ssd: {chosen: {alpha: 10.0}, tried: [1]}}}}"):
        file.write_text(text)
        told.append(notebooks.baseline_settings("digits"))
    assert len(set(told[:3])) == 3 and told[3] == told[2], "what was tried does not count"


def test_only_the_page_that_runs_baselines_depends_on_their_settings(monkeypatch):
    stages_ = ("head-to-head", "soft-pruning")
    values = {s: notebooks.check(s, {"dataset": "digits"}) for s in stages_}

    def told():
        return {s: notebooks.key_parts(s, v, "hash") for s, v in values.items()}

    before = told()
    monkeypatch.setattr(notebooks, "baseline_settings", lambda dataset: "others")
    monkeypatch.setattr(guarding, "options", lambda *of: guarding.GuardOptions(pairs=3))
    now = told()
    assert now["soft-pruning"] == before["soft-pruning"]
    changed = {k for k, v in now["head-to-head"].items() if v != before["head-to-head"][k]}
    assert changed == {"baseline settings", "guard settings"}


def test_a_stage_depends_on_what_its_imports_import():
    first, third = (notebooks.modules_of(notebooks.STAGES[i]) for i in (0, 2))
    # `training.finish` writes the class-by-channel table, which later stages read
    assert {"training", "orthogonality", "channels", "evaluation", "profiles"} <= first
    assert not {"ladder", "membership"} & first
    assert {"requests", "ladder", "pruning", "devices"} <= third
    assert "plots" not in third, "a change of a figure makes no number stale"
    assert {"headtohead", "tuning", "roc"} <= notebooks.modules_of("head-to-head")


def test_text_around_a_progress_line_is_one_text(tmp_path):
    page = executed()
    page.cells[2].outputs = [
        new_output("stream", name="stdout", text="a\n"),
        new_output("stream", name="stderr", text="10 %\n"),
        new_output("stream", name="stdout", text="b\n"),
        new_output("execute_result", {"text/plain": "2"}, execution_count=1),
        new_output("stream", name="stdout", text="c\n")]
    notebooks.publish(page, tmp_path / "x.ipynb", VALUES, {}, MADE)
    outputs = notebooks.read(tmp_path / "x.ipynb").cells[2].outputs
    assert [o.get("text") for o in outputs] == ["a\nb\n", None, "c\n"]


def test_parameters_are_literals_only(tmp_path):
    cell = new_code_cell("a = 1\nb = a + 1", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    with pytest.raises(UserError, match="more than literals"):
        notebooks.parameters(tmp_path / "n.ipynb")


def test_types_are_checked_and_recipe_paper_reads_the_file():
    values = notebooks.check("soft-pruning", {"fraction": "0.3", "seed": 2, "alpha": 1})
    assert values["fraction"] == 0.3 and values["alpha"] == 1.0
    with pytest.raises(UserError, match="expected int"):
        notebooks.check("soft-pruning", {"seed": 1.5})
    paper = notebooks.resolve(["soft-pruning"], "digits", "smoke", {"recipe": "paper"})
    assert paper["soft-pruning"]["statistic"] == "max" and paper["soft-pruning"]["sites"] == "all"


def test_run_all_then_nothing_then_only_what_changed(clone):
    done = softprune(clone, "run", "all", "--dataset", "digits", "--profile", "smoke")
    assert done.returncode == 0, done.stderr[-3000:]
    pages = sorted(p.name for p in (clone[0] / "book/digits").iterdir())
    assert pages == [notebooks.template(s).name for s in notebooks.STAGES]
    # four stages, the network, and two that were retrained without the class
    assert len(list((clone[0] / "data/results/digits/smoke").glob("*.json"))) == 7
    again = softprune(clone, "run", "all", "--dataset", "digits", "--profile", "smoke")
    assert again.stdout.count("is up to date") == 4
    template = clone[0] / "notebooks" / "04-membership-inference.ipynb"
    edited = json.loads(template.read_text())
    edited["cells"][-1]["source"] = [*edited["cells"][-1]["source"], "\nassert True"]
    template.write_text(json.dumps(edited))
    why = softprune(clone, "why", "all", "--dataset", "digits").stdout.splitlines()
    assert [line.split(": ")[1] for line in why] == ["up to date"] * 3 + ["notebook code changed"]


def test_a_kernel_that_fails_is_one_line(monkeypatch, digits):
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError

    values = notebooks.resolve(["orthogonal-training"], "digits", "smoke", {})
    for error, message in ((NoSuchKernel("python3"), "is not installed: type"),
                           (DeadKernelError("Kernel died"), "out of memory"),
                           (RuntimeError("Kernel died before replying"), "did not start")):
        def fails(*args, error=error, **named):
            raise error

        monkeypatch.setattr(papermill, "execute_notebook", fails)
        with pytest.raises(UserError, match=message):
            notebooks.run("orthogonal-training", values["orthogonal-training"])


def test_an_imported_folder_runs_through_the_same_notebooks(clone, digits, tmp_path):
    from PIL import Image

    for split, count in (("train", 24), ("test", 12)):
        pixels, labels = digits.split(split)
        for cls, name in enumerate(("Null", "one thing", "two")):
            folder = tmp_path / "mine" / split / name
            folder.mkdir(parents=True)
            for i, one in enumerate(pixels[labels == cls][:count]):
                Image.fromarray(one[0].numpy()).save(folder / f"{i}.png")
    done = softprune(clone, "data", "import", str(tmp_path / "mine"), "--name", "mine")
    assert done.returncode == 0, done.stderr
    # stage 4's forests take a minute; the digits go through that
    words = ("run", "soft-pruning", "--dataset", "mine", "--profile", "smoke", "-p",
             "forget=one_thing", "-p", "width=8")
    done = softprune(clone, *words, "-p", "epochs=1")
    assert done.returncode == 2 and "raise -p epochs" in done.stderr  # 69 images: a step
    done = softprune(clone, *words, "-p", "epochs=150")  # enough on any processor
    assert done.returncode == 0, done.stderr[-3000:]
    pages = sorted(p.name for p in (clone[0] / "book/mine").iterdir())
    assert pages == [notebooks.template(s).name for s in notebooks.STAGES[:3]]
    (record,) = (clone[0] / "data/results/mine/smoke").glob("soft-pruning-*.json")
    assert {r["forget"] for r in json.loads(record.read_text())["rows"] if "forget" in r} >= {
        "one_thing"}


def test_a_failing_cell_leaves_the_old_page(clone):
    template = clone[0] / "notebooks" / "02-channel-identification.ipynb"
    page = clone[0] / "book/digits" / template.name
    if not page.exists():  # the test that made it ran on another worker
        softprune(clone, "run", "channel-identification", "--dataset", "digits", "--profile",
                  "smoke")
    others = len(list(page.parent.iterdir()))
    before, source = page.read_bytes(), template.read_text()
    broken = json.loads(source)
    broken["cells"][-1]["source"] = ["raise RuntimeError('no')"]
    template.write_text(json.dumps(broken))
    done = softprune(clone, "run", "channel-identification", "--dataset", "digits")
    template.write_text(source)
    assert done.returncode == 2 and "RuntimeError: no" in done.stderr
    assert page.read_bytes() == before and len(list(page.parent.iterdir())) == others


def test_templates_pass_nbval_at_smoke(clone):
    folder = clone[0] / "nbval"
    folder.mkdir()
    for stage in notebooks.EVERY:
        path = notebooks.template(stage)
        text = path.read_text().replace('profile = \\"laptop\\"', 'profile = \\"smoke\\"')
        assert text != path.read_text()
        (folder / path.name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=300",
         "--nbval-current-env", "-q", "-p", "no:cacheprovider", str(folder)],
        capture_output=True, text=True, env=clone[1], cwd=clone[0],
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("classes, fitted", [(2, 2), (10, 10), (15, 15), (100, 20), (200, 20)])
def test_gates_are_fitted_for_all_of_few_classes_and_some_of_many(classes, fitted):
    stage = SimpleNamespace(images=SimpleNamespace(class_names=[str(c) for c in range(classes)]),
                            config=SimpleNamespace(profile="laptop"))
    chosen = stages.Stage.rung_classes(stage, 0)
    assert len(chosen) == fitted and chosen[0] == 0 and chosen[-1] < classes
    assert stages.Stage.rung_classes(stage, 0, [1]) == sorted({*chosen, 1})
    assert stages.Stage.rung_classes(stage, 7) == list(range(0, classes, 7))
