"""Checkpoints and run records: written whole or not at all, hashed, with where they come from.

A checkpoint is `NAME.safetensors` (weights), `NAME.json` (the sidecar) and, where they were made,
`NAME.table.safetensors` (the class-by-channel table) and `NAME.logits.safetensors`. No pickle is
ever loaded.
"""

import ast
import errno
import functools
import hashlib
import json
import os
import platform
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from softprune import __version__, paths
from softprune.errors import UserError

FORMAT = 1


@contextmanager
def atomic(path: Path):
    """Yield a temporary path beside `path`; rename it into place only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's 600 would stay otherwise
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_json(path: Path, value) -> None:
    """Canonical JSON (sorted keys, one-space indent), atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path, expected: str = "", default=None):
    """What a JSON file holds: an object; `default`, where one is given, if there is no such file.

    Args:
        expected: what to say should be there, for one that is cut short or was changed.

    Raises:
        UserError: not JSON, or no object.
    """
    if default is not None and not path.exists():
        return default
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        found = error
    if not isinstance(found, dict):
        said = f": expected {expected}" if expected else ""
        raise UserError(f"{paths.relative(path)} is cut short or was changed{said}")
    return found


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def short_hash(value) -> str:
    """Ten hex digits that name a JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


# --- checkpoints ---------------------------------------------------------------------------------


def save_tensors(path: Path, tensors: dict, metadata: dict[str, str] | None = None) -> None:
    """safetensors, atomically; tensors are stored contiguous.

    Raises:
        UserError: one holds NaN; what the file held before stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if lost := _with_nan(tensors):
        raise UserError(f"{Path(path).name} was not written: {lost} holds NaN, so what made it "
                        "diverged: try a smaller learning rate or strength")
    with atomic(path) as temporary:
        plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        try:
            save_file(plain, temporary, metadata=metadata)
        except SafetensorError as error:  # a full disk
            raise OSError(errno.EIO, str(error), str(path)) from error


def expect_file(path: Path) -> None:
    """Refuse what is not there, and a folder.

    Raises:
        UserError: with what was expected.
    """
    path = Path(path)
    if not path.is_file():
        wrong = ("is a folder" if path.is_dir() else "is no file" if path.exists()
                 else "does not exist")
        raise UserError(f"{path} {wrong}: expected a .safetensors file that softprune wrote")


def load_tensors(path: Path) -> tuple[dict, dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        UserError: missing, a pickle, not a safetensors file, or with NaN in it.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    expect_file(path)
    with open(path, "rb") as handle:
        head = handle.read(9)
    # eight bytes of a safetensors file are the length of its header, which may begin like a pickle;
    # the header is JSON
    if head[8:] != b"{" and head[:2] in (b"PK", *(bytes([0x80, p]) for p in (2, 3, 4, 5))):
        raise UserError(
            f"{path.name} is a pickle, which can run code when loaded: "
            "expected a .safetensors checkpoint written by `softprune train`"
        )
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
            metadata = handle.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path.name} is not a safetensors file, or is cut short") from error
    if lost := _with_nan(tensors):
        raise UserError(f"{path.name}: {lost} holds NaN, expected numbers; train or fit it again")
    return tensors, metadata


def _with_nan(tensors: dict) -> str | None:
    """Name of a tensor that holds NaN: its argmax would be class 0, and count as an answer."""
    return next((k for k, v in tensors.items() if v.is_floating_point() and v.isnan().any()), None)


def companion(checkpoint: Path, kind: str) -> Path:
    """`NAME.safetensors` -> `NAME.json` for `sidecar`, `NAME.<kind>.safetensors` otherwise."""
    stem = checkpoint.name.removesuffix(".safetensors")
    ending = "json" if kind == "sidecar" else f"{kind}.safetensors"
    return checkpoint.with_name(f"{stem}.{ending}")


def check_companion(checkpoint: Path, kind: str, sidecar: dict) -> Path:
    """The path of a checkpoint's companion, which is the one that was written with it.

    Raises:
        UserError: it is not (of another training, or changed). Sidecars of before do not say.
    """
    path, wanted = companion(checkpoint, kind), sidecar.get("companions", {}).get(kind)
    if wanted and path.exists() and sha256(path) != wanted:
        raise UserError(f"{path.name} is not the one that was written with {checkpoint.name}: "
                        "expected both from one training. Move these two away, and train again")
    return path


def intact(checkpoint: Path) -> dict | None:
    """The sidecar of a checkpoint that is as it was written; None where anything of it is not.

    Weights and companions have the hashes in the sidecar. A companion that is not there is no
    fault: those of shipped checkpoints travel only where a page needs them.
    """
    try:
        sidecar = read_sidecar(checkpoint)
        for kind in sidecar.get("companions", {}):
            check_companion(checkpoint, kind, sidecar)
        return sidecar if sha256(checkpoint) == sidecar["sha256"] else None
    except (UserError, KeyError, TypeError, AttributeError):  # JSON, but not a sidecar
        return None


def save_checkpoint(path: Path, model, sidecar: dict) -> None:
    """Weights, then the sidecar with their SHA-256: a sidecar is the sign that all is there."""
    save_tensors(path, model.state_dict())
    sidecar = {"format": FORMAT, **sidecar, "sha256": sha256(path)}
    write_json(companion(path, "sidecar"), sidecar)


def read_sidecar(path: Path) -> dict:
    """The JSON beside a checkpoint.

    Raises:
        UserError: missing or unreadable.
    """
    expect_file(path)
    side = companion(Path(path), "sidecar")
    if not side.exists():
        raise UserError(f"{side} is missing: a checkpoint travels with its sidecar")
    found = read_json(side, "the sidecar that was written with the checkpoint")
    config = found.get("config")
    lacks = [k for k in ("config", "sha256", "class_names", "mean") if k not in found]
    lacks += [f"config.{k}" for k in ("architecture", "width")
              if not isinstance(config, dict) or k not in config]
    if lacks:
        raise UserError(f"{side} lacks {', '.join(lacks)}: expected the sidecar that was written "
                        "with the checkpoint; train or fetch it again")
    return found


def load_checkpoint(path: Path, *, architecture: str | None = None):
    """The model in evaluation mode, and its sidecar.

    Args:
        architecture: refuse a checkpoint of another one.

    Raises:
        UserError: hash, architecture or shapes do not agree.
    """
    import torch

    from softprune import models

    path = Path(path)
    if path.is_file() and not companion(path, "sidecar").exists():
        load_tensors(path)  # says what is wrong with a pickle or a foreign file
    sidecar = read_sidecar(path)
    config = sidecar["config"]
    if architecture and config["architecture"] != architecture:
        raise UserError(
            f"{path.name} is a {config['architecture']}: expected a checkpoint of {architecture}"
        )
    if sha256(path) != sidecar["sha256"]:
        raise UserError(
            f"{path.name} does not have the hash in its sidecar: "
            "it was changed or cut short; train or fetch it again"
        )
    tensors, _ = load_tensors(path)
    model = models.build(
        config["architecture"],
        classes=len(sidecar["class_names"]),
        channels=len(sidecar["mean"]),
        width=config["width"],
        side=sidecar.get("side", 32),
    )
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"{path.name} does not fit {config['architecture']} of width {config['width']}"
        ) from error
    return model.to(memory_format=torch.channels_last).eval(), sidecar


def round_to_half(model) -> None:
    """Round every floating tensor to half precision, in place, so what is measured is shipped."""
    import torch

    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())


# --- provenance ----------------------------------------------------------------------------------


def source_hash(modules: list[str] | None = None) -> str:
    """Hash of the syntax trees of `src/softprune` (or of some modules), of what decides a result:
    comments and docstrings do not count, nor do refusals, since a run that ended passed them."""
    folder = Path(__file__).parent
    names = modules or sorted(p.stem for p in folder.glob("*.py"))
    digest = hashlib.sha256()
    for name in sorted(names):
        tree = ast.parse((folder / f"{name}.py").read_text())
        digest.update(f"{name}\n{ast.dump(_deciding(tree))}\n".encode())
    return digest.hexdigest()[:16]


def _deciding(tree: ast.AST) -> ast.AST:
    """A syntax tree without its docstrings and refusals."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (isinstance(body, list) and body and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant)):
            node.body = body[1:]
        for field in ("body", "orelse", "finalbody"):
            if isinstance(part := getattr(node, field, None), list):
                setattr(node, field, [s for s in part if not _refuses(s)])
        if isinstance(node, ast.ImportFrom) and node.module == "softprune":
            node.names = [a for a in node.names if a.name != "checks"]
    return tree


def _refuses(statement: ast.stmt) -> bool:
    """An `if` that only raises (its condition must look and change nothing), a call of `choose` or
    of `checks` for its own sake, an import of what they raise."""
    if isinstance(statement, ast.If):
        names = any(isinstance(n, ast.NamedExpr) for n in ast.walk(statement.test))
        return not statement.orelse and not names and all(
            isinstance(s, ast.Raise) for s in statement.body)
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "softprune.errors"
    if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)):
        return False
    called = statement.value.func
    return (isinstance(called, ast.Name) and called.id == "choose") or (
        isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)
        and called.value.id == "checks")


@functools.cache
def commit() -> str:
    """The commit of the clone, with `+` when tracked files differ; `unknown` outside git."""
    def git(*words):
        return subprocess.run(
            ["git", "-C", str(paths.root()), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        dirty = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short=12", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name() -> str:
    """`cuda NAME` or `cpu NAME, N threads`."""
    import torch

    if torch.cuda.is_available():
        return f"cuda {torch.cuda.get_device_name()}"
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [li for li in info.read_text().splitlines() if li.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return f"cpu {name}, {torch.get_num_threads()} threads"


def provenance(wall_s: float | None = None) -> dict:
    """Commit, source hash, versions, device, peak memory: what a record says of its making."""
    import resource

    import numpy
    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
    return {
        "commit": commit(),
        "source": source_hash(),
        "softprune": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "numpy": numpy.__version__,
        "device": device_name(),
        "wall_s": wall_s,
        "peak_memory_bytes": peak,
    }


# --- run records ---------------------------------------------------------------------------------

COLUMNS = (
    "dataset", "architecture", "width", "penalty", "strength", "seed", "profile", "forget",
    "method", "metric", "split", "value", "unit", "device", "key", "stage", "score", "statistic",
    "gate", "fraction", "sites", "n", "low", "high",
)

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
ROW_SCHEMA = {
    "type": "object",
    "required": ["method", "metric", "value", "unit"],
    "additionalProperties": False,
    "properties": {
        "method": _TEXT, "metric": _TEXT, "forget": _TEXT, "split": _TEXT, "unit": _TEXT,
        "score": _TEXT, "statistic": _TEXT, "gate": _TEXT, "sites": _TEXT,
        "value": _NUMBER, "fraction": _NUMBER, "low": _NUMBER, "high": _NUMBER,
        "n": {"type": "integer"},
    },
}
RECORD_SCHEMA = {
    "type": "object",
    "required": ["format", "stage", "key", "parameters", "rows", "provenance"],
    "additionalProperties": False,
    "properties": {
        "format": {"const": FORMAT},
        "stage": _TEXT,
        "key": _TEXT,
        "parameters": {
            "type": "object",
            "required": ["dataset", "architecture", "width", "penalty", "strength", "seed",
                         "profile"],
        },
        "rows": {"type": "array", "items": ROW_SCHEMA},
        "extra": {"type": "object"},
        "provenance": {
            "type": "object",
            "required": ["commit", "source", "torch", "device", "wall_s", "peak_memory_bytes"],
        },
    },
}


def row(method: str, metric: str, value, unit: str = "", **more) -> dict:
    """One measured number. NumPy and torch scalars become Python floats here, and only here."""
    made = {"method": method, "metric": metric, "value": float(value), "unit": unit}
    for key, item in more.items():
        if item is None:
            continue
        made[key] = item if isinstance(item, str) else int(item) if key == "n" else float(item)
    return made


def write_record(
    stage: str, key: str, parameters: dict, rows: list[dict], made: dict, extra: dict | None = None
) -> Path:
    """Validate and write `data/results/<dataset>/<profile>/<stage>-<key>.json`.

    Args:
        made: `provenance(...)`. extra: curves and tables that are not single numbers.

    Raises:
        jsonschema.ValidationError: the record is not of the schema.
    """
    record = {"format": FORMAT, "stage": stage, "key": key, "parameters": parameters,
              "rows": rows, "provenance": made}
    if extra:
        record["extra"] = extra
    validate(record)
    folder = paths.results() / parameters["dataset"] / parameters["profile"]
    path = folder / f"{stage}-{key}.json"
    write_json(path, record)
    return path


@functools.cache
def _validator():
    import jsonschema

    return jsonschema.Draft202012Validator(RECORD_SCHEMA)


def validate(record: dict) -> None:
    """Check a record against `RECORD_SCHEMA`; of rows that are alike in kind, one is looked at.

    The schema of a row asks for types alone, and records have thousands of rows of few kinds.

    Raises:
        jsonschema.ValidationError: the record is not of the schema.
    """
    rows = record.get("rows") if isinstance(record, dict) else None
    if isinstance(rows, list) and all(isinstance(r, dict) for r in rows):
        # a whole number may be written 3.0, so a float's kind is whether it is one
        kinds = {tuple((k, type(v), isinstance(v, float) and v.is_integer())
                       for k, v in r.items()): r for r in rows}
        record = record | {"rows": list(kinds.values())}
    _validator().validate(record)


def read_records(dataset: str = "*", profile: str = "*", stage: str = "*") -> list[dict]:
    """Run records that match, in order of path.

    Raises:
        UserError: a file that is not a record, named.
    """
    import jsonschema

    found = []
    for path in sorted(paths.results().glob(f"{dataset}/{profile}/{stage}-*.json")):
        try:
            record = json.loads(path.read_text())
            validate(record)
        except (ValueError, jsonschema.ValidationError) as error:
            raise UserError(f"{paths.relative(path)} is not a run record") from error
        if stage == "*" or record["stage"] == stage:
            found.append(record)
    return found


def tidy(records: list[dict]) -> list[dict]:
    """One dict of `COLUMNS` for every row of every record."""
    return [
        {c: "" for c in COLUMNS}
        | {c: record["parameters"].get(c, "") for c in COLUMNS[:7]}
        | {"key": record["key"], "stage": record["stage"],
           "device": record["provenance"]["device"]}
        | measured
        for record in records
        for measured in record["rows"]
    ]
