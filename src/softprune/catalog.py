"""Names: which image sets there are, where they lie, which classes they have. No torch here, so
that a refusal answers at once.
"""

import re
from pathlib import Path

import yaml

from softprune import artifacts, paths
from softprune.errors import UserError, choose


def catalog() -> dict[str, dict]:
    """Entries of `data/catalog.yml`: title, images, source, archive with MD5, licence, citation."""
    return yaml.safe_load((paths.root() / "data" / "catalog.yml").read_text())


def store(name: str) -> Path:
    """The folder of a decoded set in the cache."""
    return paths.cache() / "datasets" / name


def known() -> list[str]:
    """Names in the catalog, then imported sets found in the cache."""
    folder = paths.cache() / "datasets"
    found = folder.glob("[!.]*/meta.json") if folder.exists() else []  # .half-…: broken off
    imported = sorted(p.parent.name for p in found)
    return list(dict.fromkeys([*catalog(), *imported]))


def missing(name: str) -> str:
    """What to type when a set is not here."""
    return (f"{name} is not here yet: type `softprune data fetch {name}`, "
            f"or add --from PATH for a local archive or folder")


def meta(name: str) -> dict | None:
    """What was written when a set was decoded (class names, hash, source); None if it is not here.

    Raises:
        UserError: unknown name.
    """
    choose("data set", name, known())
    path = store(name) / "meta.json"
    if not path.exists():
        return None
    again = ("what was written when the set was decoded; type `softprune data fetch "
             f"{name}` again, or import it again")
    found = artifacts.read_json(path, again)
    if not found.get("class_names"):
        raise UserError(f"{path} names no classes: expected {again}")
    return found


def side(name: str) -> int | None:
    """Pixels of a decoded set's image side, from the header alone; None if it is not here."""
    path = store(name) / "train_images.npy"
    if not path.exists():
        return None
    import numpy

    return int(numpy.load(path, mmap_mode="r", allow_pickle=False).shape[-1])


def class_indices(class_names: tuple[str, ...], names, aliases=None) -> tuple[int, ...]:
    """Indices of classes given by name or number, in the order they were named.

    Args:
        aliases: other name -> class names: a superclass, or a WordNet id.

    Raises:
        UserError: unknown, repeated, or all of them; one line that lists what is accepted.
    """
    names = [n for n in re.split(r"[,+]", names) if n] if isinstance(names, str) else list(names)
    found = []
    for name in names:
        name = str(name).strip()
        if name.isdecimal() and name not in class_names and int(name) < len(class_names):
            found.append(int(name))
        elif name in class_names:
            found.append(class_names.index(name))
        elif name in (aliases or {}):
            found += [class_names.index(n) for n in aliases[name]]
        else:
            shown = ", ".join(class_names[:20]) + (", …" if len(class_names) > 20 else "")
            raise UserError(
                f"unknown class {name!r}: expected one of {shown} "
                f"or an index from 0 to {len(class_names) - 1}"
            )
    if len(set(found)) < len(found):
        twice = next(class_names[c] for c in found if found.count(c) > 1)
        raise UserError(f"class {twice!r} is named twice: name each class to forget once")
    if len(found) >= len(class_names):
        raise UserError("all classes are to be forgotten: leave at least one to retain")
    return tuple(found)
