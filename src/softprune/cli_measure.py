"""`softprune measure`: what pages quote beside the walkthrough, on what a configuration trained."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from softprune import cli_train, paths
from softprune.errors import UserError, choose

SHARED = "one_checkpoint"  # what the scripts have in common, itself none


def scripts() -> dict[str, Path]:
    """The measurements, by name."""
    return {p.stem: p for p in sorted((paths.root() / "benchmarks").glob("*.py"))
            if p.stem != SHARED}


def measure(arguments) -> int:
    """Run one; its exit status is the command's."""
    found = scripts()
    choose("measurement", arguments.name, found)
    script, given = found[arguments.name], []
    asks = SHARED in script.read_text()
    if asks and not arguments.dataset:
        raise UserError(f"measure {arguments.name}: expected --dataset NAME, and the -p that its "
                        "network was trained with")
    if not asks and (arguments.dataset or arguments.parameters):
        raise UserError(f"measure {arguments.name} needs no trained network: expected it without "
                        "--dataset and -p")
    if asks:
        checkpoint = cli_train.checkpoint_of(cli_train.configuration(arguments))
        given = [arguments.dataset, str(checkpoint)]
    try:
        more = shlex.split(arguments.more)
    except ValueError as error:
        raise UserError(f"--with {arguments.more!r}: {error}") from error
    done = subprocess.run([sys.executable, str(script), *given, *more], check=False,
                          stderr=subprocess.PIPE, text=True)
    if done.returncode and (said := refusal(done.stderr)):
        raise UserError(f"measure {arguments.name}: {said}")
    sys.stderr.write(done.stderr)
    return done.returncode


def refusal(stderr: str) -> str:
    """The line by which a script refused its words, in those of this command; "" if it broke.

    Example:
        >>> refusal("expected: python benchmarks/guarded.py DATASET CHECKPOINT.safetensors [N]")
        'expected --with "[N]"'
    """
    last = (stderr.strip().splitlines() or [""])[-1]
    if not last or "Traceback (most recent call last)" in stderr:
        return ""
    if usage := re.fullmatch(
            r"expected: python benchmarks/\w+\.py DATASET CHECKPOINT\.safetensors ?(.*)", last):
        return f'expected --with "{usage[1]}"' if usage[1] else "expected no --with"
    last = re.sub(r"^\w+\.py: error: ", "", last)
    return f"{last} (in --with)" if "--with" not in last and "softprune " not in last else last
