"""`softprune measure`: what pages quote beside the walkthrough, on what a configuration trained."""

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
    return subprocess.run([sys.executable, str(script), *given, *more], check=False).returncode
