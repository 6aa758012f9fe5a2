"""Notebooks: a strict papermill runner, a publisher whose output is stable, and the cache key.

papermill takes unknown parameters silently, treats braces in paths as templates, leaves the output
behind when a cell fails, and writes timestamps everywhere. So: names and types are checked against
the parameters cell first; a run goes to a temporary name; what is published has no timestamps, no
error, no unexecuted cell, no picture without a text, and deterministic cell ids.
"""

import ast
import functools
import hashlib
import json
import re
import tempfile
import time
from pathlib import Path

from softprune import artifacts, catalog, paths
from softprune.errors import UserError, choose
from softprune.profiles import PROFILES, chosen_under

# the walkthrough, in the order it is executed: what `all` means
STAGES = ("orthogonal-training", "channel-identification", "soft-pruning", "membership-inference")
# pages beside it, with the number of their notebook: each needs a trained model, not the others
BESIDE = {"head-to-head": 5, "gone-or-hidden": 6, "positive-control": 7, "known-mistakes": 8,
          "break-it": 9, "toy": 10, "own-method": 11}
EVERY = (*STAGES, *BESIDE)
# pages with numbers of fitted gates
FITTED = ("soft-pruning", "membership-inference", "gone-or-hidden", "head-to-head")
# Not in the key: figures, files and their names, texts, the command line. Little of that decides
# numbers (`stages`: which class a page takes by itself, which are fitted; `completing`: how many
# images a row is of; `artifacts`: rounding to half precision), and every page would be stale after
# each change of a text.
APART = {"artifacts", "book", "catalog", "checks", "cli", "completing", "errors", "notebooks",
         "paths", "plots", "sources", "stages", "toy_plots", "version"}
# what to do about a cell's own refusal, by a part of its words
HINTS = {"the classifier did not learn":
         "there is nothing to forget; raise -p epochs=N, or give it more images"}
KERNEL = {"NoSuchKernel": "python3 is not installed: type `python -m ipykernel install "
          "--sys-prefix`",
          "DeadKernelError": "was ended from outside, as a machine does that is out of memory: "
          "close other programs, or take a smaller -p width=N, and type the same again",
          "RuntimeError": "did not start: type `python -m ipykernel --version`, and install "
          "ipykernel again if that fails"}
BADGES = {"smoke": "smoke profile: a test run, not a result",
          "laptop": "laptop profile: 2 cores, no GPU", "paper": "paper profile: one GPU"}


def template(stage: str) -> Path:
    """The template of a stage, `notebooks/NN-<stage>.ipynb`."""
    choose("stage", stage, EVERY)
    number = BESIDE[stage] if stage in BESIDE else STAGES.index(stage) + 1
    return paths.root() / "notebooks" / f"{number:02d}-{stage}.ipynb"


def needed(stage: str) -> list[str]:
    """The stages to execute for `stage` (or for `all`), in order, itself the last."""
    if stage == "all":
        return list(STAGES)
    choose("stage", stage, [*EVERY, "all"])
    if stage in BESIDE:
        return [STAGES[0], stage]
    return list(STAGES[: STAGES.index(stage) + 1])


def published(stage: str, dataset: str) -> Path:
    """Where the executed page is committed and rendered from."""
    return paths.root() / "book" / dataset / template(stage).name


def read(path: Path):
    """A notebook, version 4, validated on the way."""
    import nbformat

    return nbformat.read(path, as_version=4)


def page_metadata(page: Path) -> dict:
    """What the publisher wrote about a page's run: parameters, key parts, commit; {} if none."""
    return json.loads(page.read_text())["metadata"].get("softprune", {}) if page.exists() else {}


def parameters(path: Path) -> dict:
    """Defaults of the parameters cell: literals only, since derived values would go stale."""
    raw = json.loads(path.read_text())  # not through nbformat, whose import takes longer
    cells = [c for c in raw["cells"] if "parameters" in c["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise UserError(f"{path.name}: expected one cell tagged parameters, got {len(cells)}")
    values = {}
    for line in ast.parse("".join(cells[0]["source"])).body:
        try:
            values[line.targets[0].id] = ast.literal_eval(line.value)
        except (AttributeError, ValueError) as error:
            raise UserError(f"{path.name}: the parameters cell holds more than literals") from error
    return values


def check(stage: str, overrides: dict) -> dict:
    """All parameters of a stage with overrides (texts are converted), or a refusal.

    Raises:
        UserError: an unknown name, with the accepted ones; a wrong type.
    """
    from softprune.cli_words import typed

    defaults = parameters(template(stage))
    for name, value in overrides.items():
        choose("parameter", name, defaults)
        kind = type(defaults[name])
        if isinstance(value, str) and kind is not str:
            value = typed(name, value, kind)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise UserError(f"{name}={value!r}: expected {kind.__name__}")
        defaults[name] = value
    choose("profile", defaults["profile"], PROFILES)
    return defaults


def resolve(stages: list[str], dataset: str, profile: str, overrides: dict) -> dict[str, dict]:
    """Parameters for every stage; each override goes to the stages that have it.

    Raises:
        UserError: an override that none of them has.
    """
    accepted = {s: parameters(template(s)) for s in stages}
    union = {name: None for values in accepted.values() for name in values}
    for name in overrides:
        choose("parameter", name, union)
    if overrides.get("recipe") == "paper":
        known = {k: v for k, v in paper_recipe().items() if k in union}
        overrides = known | overrides
    elif "recipe" in overrides:
        choose("recipe", overrides["recipe"], ("default", "paper"))
    common = {"dataset": dataset, "profile": profile}
    return {
        s: check(s, common | {k: v for k, v in overrides.items() if k in accepted[s]})
        for s in stages
    }


def paper_recipe() -> dict:
    """What `-p recipe=paper` sets, from `data/paper.yml`: the paper's value, else our choice."""
    import yaml

    settings = yaml.safe_load((paths.root() / "data" / "paper.yml").read_text())["settings"]
    return {name: entry["paper"] if entry["paper"] is not None else entry["choice"]
            for name, entry in settings.items()}


# --- the cache key -------------------------------------------------------------------------------


def key_parts(stage: str, values: dict, dataset_hash: str) -> dict[str, str]:
    """What a stage's result depends on, each part hashed apart so that `why` can name it."""
    from importlib.metadata import version

    code = "\n".join(c.source for c in read(template(stage)).cells if c.cell_type == "code")
    modules = {m for s in needed(stage) for m in modules_of(s)}
    return {
        "notebook code": hashlib.sha256(code.encode()).hexdigest()[:16],
        "parameters": artifacts.short_hash(values),
        "data": dataset_hash,
        "torch version": version("torch").split("+")[0],
        **{f"module {m}": artifacts.source_hash([m]) for m in sorted(modules)},
        **({"rung settings": rung_settings(values["dataset"], values["profile"])}
           if stage in FITTED else {}),
        **({"baseline settings": baseline_settings(values["dataset"]),
            "guard settings": guard_settings(values["dataset"], values["profile"])}
           if "headtohead" in modules else {}),
    }


@functools.cache
def modules_of(stage: str) -> frozenset[str]:
    """The modules that a stage's numbers depend on: what its template imports and what those do,
    but for `APART`, so that a change of a figure does not make a training stale."""
    code = "\n".join(c.source for c in read(template(stage)).cells if c.cell_type == "code")
    seen, open_ = set(), _imported(code)
    while open_:
        module = open_.pop()
        if module not in seen:
            seen.add(module)
            open_ |= _imported((Path(__file__).parent / f"{module}.py").read_text())
    return frozenset(seen)


def _imported(code: str) -> set[str]:
    """Modules of `softprune` that code imports anywhere, without `APART`."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == "softprune":
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("softprune."):
            found.add(node.module.split(".")[1])
    return {m for m in found if (Path(__file__).parent / f"{m}.py").exists()} - APART


def rung_settings(dataset: str, profile: str) -> str:
    """Hash of what `softprune fit --choose` chose for a set: its gates are fitted by it.

    As `ladder.options` takes it: a profile's own choice, else the set's.
    """
    path = paths.root() / "data" / "ladder.json"
    chosen = json.loads(path.read_text()) if path.exists() else {}
    own = chosen.get(chosen_under(dataset, profile), {})
    return artifacts.short_hash(
        {rung: c["set"] for rung, c in (chosen.get(dataset, {}) | own).items()})


def baseline_settings(dataset: str) -> str:
    """Hash of what `softprune tune` chose for a set, and for how many steps."""
    import yaml

    path = paths.root() / "data" / "baselines.yml"
    found = (yaml.safe_load(path.read_text()) if path.exists() else None) or {}
    entry = found.get(dataset, {})
    chosen = {name: m["chosen"] for name, m in entry.get("methods", {}).items()}
    return artifacts.short_hash([entry.get("steps", 0), chosen])


def guard_settings(dataset: str, profile: str) -> str:
    """Hash of what guarded directions are fitted with, and of where and how strong those of
    prototypes are, or what that is searched for."""
    from softprune import guarding, prototypes, searching

    return artifacts.short_hash([own.options(dataset, profile).told()
                                 for own in (guarding, prototypes, searching)])


def data_hash(dataset: str) -> str:
    """The data's hash as written when it was decoded, without reading the images again."""
    if found := catalog.meta(dataset):
        return found["data_hash"]
    if dataset != "digits":
        raise UserError(catalog.missing(dataset))
    from softprune import datasets

    return datasets.load(dataset).data_hash


def why(stage: str, values: dict) -> list[str]:
    """Reasons to execute a stage again; empty if its page is up to date."""
    page = published(stage, values["dataset"])
    if not page.exists():
        return ["it has never been executed"]
    before = page_metadata(page).get("parts", {})
    now = key_parts(stage, values, data_hash(values["dataset"]))
    return [f"{part} changed" for part in now if before.get(part) != now[part]]


# --- running and publishing ----------------------------------------------------------------------


def run(stage: str, values: dict, log=lambda text: None) -> Path:
    """Execute a stage and publish its page, whole or not at all."""
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError

    parts = key_parts(stage, values, data_hash(values["dataset"]))
    began = time.perf_counter()
    log(f"{stage} on {values['dataset']} ({values['profile']}) …")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.ipynb"
        try:
            papermill.execute_notebook(
                str(template(stage)), str(out), parameters=values, kernel_name="python3",
                progress_bar=False, cwd=str(paths.root()), log_output=False,
                # the kernel warns of its own transport, which never leaves this machine, and of
                # being interrupted when it is done
                extra_arguments=["--log-level=CRITICAL"],
            )
        except papermill.PapermillExecutionError as error:
            advice = next((f": {HINTS[k]}" for k in HINTS if k in str(error.evalue)), "")
            raise UserError(
                f"{stage}, cell {error.cell_index}: {error.ename}: {error.evalue}{advice}"
            ) from error
        except (NoSuchKernel, DeadKernelError, RuntimeError) as error:
            if type(error) is RuntimeError and "Kernel died" not in str(error):
                raise
            raise UserError(f"{stage}: the notebook's kernel "
                            + KERNEL.get(type(error).__name__, KERNEL["RuntimeError"])) from error
        executed = read(out)
    made = artifacts.provenance(time.perf_counter() - began)
    made["peak_memory_bytes"] = executed_peak(executed) or made["peak_memory_bytes"]
    page = published(stage, values["dataset"])
    publish(executed, page, values, parts, made)
    log(f"  {made['wall_s']:.0f} s → {paths.relative(page)}")
    return page


def executed_peak(notebook) -> int:
    """The kernel's own peak memory, that the last cell prints into the record; 0 if it did not."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", []):
            found = re.search(r"peak_memory_bytes=(\d+)", output.get("text", ""))
            if found:
                return int(found.group(1))
    return 0


def publish(executed, page: Path, values: dict, parts: dict, made: dict) -> None:
    """Clean an executed notebook and write it, byte for byte the same for the same run.

    Raises:
        UserError: an error output, an unexecuted cell, or a picture without alternative text.
    """
    import nbformat

    cells, prefix = [], f"{values['dataset']}-"
    for cell in executed.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cells.append(nbformat.v4.new_markdown_cell(run_card(values, made)))
            continue
        if cell.cell_type == "code":
            refuse_unfit(cell, page)
            cell.outputs = joined([clean(o) for o in cell.outputs if not is_noise(o)])
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
            if "parameters" in tags:
                continue  # the run card shows them
        else:
            cell.source = localise(cell.source, prefix)
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        cells.append(cell)
    title(cells, values["dataset"])
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02d}"
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "softprune": {"parameters": values, "parts": parts, "commit": made["commit"]},
    })
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    with artifacts.atomic(page) as temporary:
        text = json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False)
        temporary.write_text(text + "\n")


def is_noise(output) -> bool:
    """Standard error, and the line that tells the peak memory."""
    if output.output_type != "stream":
        return False
    return output.name == "stderr" or output.text.startswith("peak_memory_bytes=")


def joined(outputs: list) -> list:
    """Pieces of standard output that only noise stood between are one text again."""
    found = []
    for output in outputs:
        if output.output_type == "stream" and found and found[-1].output_type == "stream":
            found[-1]["text"] += output["text"]
        else:
            found.append(output)
    return found


def refuse_unfit(cell, page: Path) -> None:
    """See `publish`."""
    head = cell.source.strip().split("\n")[0][:60]
    if cell.source.strip() and cell.execution_count is None:
        raise UserError(f"{page.name}: the cell {head!r} was not executed")
    for output in cell.outputs:
        if output.output_type == "error":
            raise UserError(f"{page.name}: the cell {head!r} ended in {output.ename}")
        data = output.get("data", {})
        pictures = [k for k in data if k.startswith("image/")]
        html = "".join(data.get("text/html", ""))
        unnamed = [i for i in re.findall(r"<img\b[^>]*>", html) if not re.search(r'alt="[^"]+"', i)]
        if pictures or unnamed:
            raise UserError(f"{page.name}: the cell {head!r} shows a picture without alt text: "
                            "use softprune.plots.show")


def clean(output):
    """Drop what changes from run to run: object addresses and metadata."""
    if "metadata" in output:
        output["metadata"] = {}
    if "text/plain" in output.get("data", {}):
        text = output["data"]["text/plain"]
        output["data"]["text/plain"] = re.sub(r"0x[0-9a-f]{6,}", "0x…", text)
    return output


def localise(source: str, prefix: str) -> str:
    """Prefix labels and references, so that one template serves several pages of one book."""
    source = re.sub(r"^\((stage-[\w-]+)\)=", rf"({prefix}\1)=", source, flags=re.M)
    return re.sub(r"(\{(?:ref|numref)\}`[^`<]*<?)(stage-)", rf"\1{prefix}\2", source)


def title(cells, dataset: str) -> None:
    """`# Title` of the first markdown cell becomes `# CIFAR-10: Title`."""
    name = catalog.catalog().get(dataset, {}).get("title", dataset)
    for cell in cells:
        if cell.cell_type == "markdown" and "# " in cell.source:
            cell.source = re.sub(r"^# ", f"# {name}: ", cell.source, count=1, flags=re.M)
            return


def run_card(values: dict, made: dict) -> str:
    """What this page was made with, in place of papermill's injected cell."""
    profile = values["profile"]
    shown = ", ".join(f"`{k}={v}`" for k, v in values.items() if v not in ("", 0, -1.0))
    return (
        f"```{{admonition}} {BADGES[profile]}\n:class: note softprune-{profile}\n"
        f"{made['wall_s']:.0f} s on {made['device']}; peak memory "
        f"{made['peak_memory_bytes'] / 2**20:.0f} MiB; commit `{made['commit']}`; torch "
        f"{made['torch']}.\n\nParameters: {shown}. Those not shown have the profile's default.\n```"
    )
