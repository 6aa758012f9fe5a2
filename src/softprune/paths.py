"""Where things lie: the repository, the cache, the checkpoints, the run records."""

import os
from pathlib import Path


def root() -> Path:
    """The repository: `SOFTPRUNE_ROOT`, else the clone this module was installed from."""
    if "SOFTPRUNE_ROOT" in os.environ:
        return Path(os.environ["SOFTPRUNE_ROOT"]).resolve()
    return Path(__file__).resolve().parents[2]


def cache() -> Path:
    """Data, resumable states and models not shipped: `SOFTPRUNE_CACHE`, else `data/cache`."""
    if os.environ.get("SOFTPRUNE_CACHE"):
        return Path(os.environ["SOFTPRUNE_CACHE"]).resolve()
    return root() / "data" / "cache"


def shipped() -> Path:
    """Checkpoints that travel with the repository."""
    return root() / "data" / "checkpoints"


def results() -> Path:
    """Run records, `<dataset>/<profile>/<stage>-<key>.json`."""
    return root() / "data" / "results"


def relative(path: Path) -> str:
    """`path` as seen from the repository or the cache: no record names a machine's folder."""
    path = Path(path).resolve()
    for base in (root(), cache()):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.name
