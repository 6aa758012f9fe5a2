"""Edits of a rung, made for one class after another and kept beside the checkpoint."""

import json
import time
from collections.abc import Callable

from softprune import artifacts, ladder, pruning, requests


def prepare(bench: requests.Bench, rung: str, setting: dict,
            ready: Callable[[], Callable[[int], pruning.Gates]], classes,
            log: Callable[[str], None] | None = None
            ) -> tuple[ladder.Stored, dict[int, float]]:
    """Edits of `classes`, and the seconds that each took.

    Each class is written as soon as it is made, so what is stopped resumes. Edits of another
    setting, or of other weights, are made anew.

    Args:
        setting: what the edits depend on, as JSON.
        ready: returns what makes the edit of a class; called if there is one to make.
    """
    path = artifacts.companion(bench.checkpoint, f"gates-{rung}")
    mark = {"options": json.dumps(setting, sort_keys=True), "weights": bench.sidecar["sha256"]}
    stored, seconds = ladder.load_gates(path, mark) if path.exists() else ({}, {})
    make = None
    for cls in (c for c in classes if c not in stored):
        make = make or ready()
        began = time.perf_counter()
        stored[cls] = make(cls)
        seconds[cls] = time.perf_counter() - began
        ladder.save_gates(path, stored, seconds, mark)
        if log:
            log(f"{rung}: {bench.images.class_names[cls]} fitted in {seconds[cls]:.1f} s")
    return stored, seconds
