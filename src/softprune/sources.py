"""Where images come from: official archives, bundled digits, any folder; decoded once to uint8.

    softprune data fetch cifar10            # the official archive, resumed and MD5-checked
    softprune data import DIR --name cats   # DIR/train/<class>/*, DIR/test/<class>/*
"""

import hashlib
import io
import itertools
import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from softprune import paths
from softprune.catalog import catalog
from softprune.datasets import write_store
from softprune.errors import UserError, choose

COLOURS = ("red", "green", "blue")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def decode_digits() -> Path:
    """UCI handwritten digits as bundled with scikit-learn: 1,297 training and 500 test images."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    train, test = train_test_split(
        np.arange(len(pixels)), test_size=500, stratify=bunch.target, random_state=0
    )
    train, test = np.sort(train), np.sort(test)
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    return write_store(
        "digits",
        "scikit-learn",
        names,
        (pixels[train], bunch.target[train]),
        (pixels[test], bunch.target[test]),
    )


def _decode_cifar10(archive: Path) -> Path:
    """The official python archive. Its pickles are read by an unpickler that builds no objects."""
    folder = "cifar-10-batches-py"
    with tarfile.open(archive) as tar:
        _refuse_escaping(archive, tar.getnames())
        read = lambda member: _plain_unpickle(tar.extractfile(f"{folder}/{member}"))  # noqa: E731
        names = [n.decode() for n in read("batches.meta")[b"label_names"]]
        parts = [read(f"data_batch_{i}") for i in range(1, 6)]
        last = read("test_batch")
    images = np.concatenate([p[b"data"] for p in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([p[b"labels"] for p in parts])
    test = (last[b"data"].reshape(-1, 3, 32, 32), np.asarray(last[b"labels"]))
    return write_store("cifar10", "archive", names, (images, labels), test)


def _decode_cifar100(archive: Path) -> Path:
    """As CIFAR-10's; the superclasses come along as aliases, so one can be forgotten whole."""
    folder = "cifar-100-python"
    with tarfile.open(archive) as tar:
        _refuse_escaping(archive, tar.getnames())
        read = lambda member: _plain_unpickle(tar.extractfile(f"{folder}/{member}"))  # noqa: E731
        meta, train, test = read("meta"), read("train"), read("test")
    names = [n.decode() for n in meta[b"fine_label_names"]]
    found: dict[str, set[str]] = {}
    for fine, coarse in zip(train[b"fine_labels"], train[b"coarse_labels"], strict=True):
        found.setdefault(meta[b"coarse_label_names"][coarse].decode(), set()).add(names[fine])
    expected = {k: set(v) for k, v in superclasses("cifar100").items()}
    if {class_slug(k): v for k, v in found.items()} != expected:
        raise UserError(f"{archive.name}: superclasses other than data/catalog.yml says")
    pairs = [(p[b"data"].reshape(-1, 3, 32, 32), np.asarray(p[b"fine_labels"]))
             for p in (train, test)]
    return write_store("cifar100", "archive", names, *pairs, superclasses("cifar100"))


def superclasses(name: str) -> dict[str, list[str]]:
    """Superclass -> classes, for the sets whose catalog entry has them."""
    return catalog().get(name, {}).get("superclasses", {})


def _decode_tiny_imagenet(archive: Path, progress=None) -> Path:
    """The official zip, or its unpacked folder: train/<wnid>/images, val/val_annotations.txt.

    The validation images are the test split (the test images have no labels). Some are grey.
    """
    from PIL import Image, UnidentifiedImageError

    top = "tiny-imagenet-200"
    if archive.is_dir():
        root = archive / top if (archive / top).is_dir() else archive
        members = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        read = lambda member: (root / member).read_bytes()  # noqa: E731
    else:
        packed = zipfile.ZipFile(archive)
        _refuse_escaping(archive, packed.namelist())
        members = [m.removeprefix(f"{top}/") for m in packed.namelist()]
        read = lambda member: packed.read(f"{top}/{member}")  # noqa: E731
    for needed in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        if needed not in members:
            raise UserError(f"{archive} has no {needed}: expected the layout of {top}.zip")
    wnids = sorted(read("wnids.txt").decode().split())
    words = dict(line.split("\t") for line in read("words.txt").decode().splitlines())
    names = [class_slug(words[w].split(",")[0]) for w in wnids]  # the first synonym
    label = {w: i for i, w in enumerate(wnids)}
    number = lambda m: int(re.search(r"_(\d+)\.", m)[1])  # noqa: E731
    train = sorted((label[m.split("/")[1]], number(m), m) for m in members
                   if m.startswith("train/") and m.endswith(".JPEG"))
    lines = [line.split("\t") for line in read("val/val_annotations.txt").decode().splitlines()]
    there = set(members)
    test = [(label[w], i, f"val/images/{name}") for i, (name, w, *_) in enumerate(lines)
            if f"val/images/{name}" in there]
    pairs = []
    for items in (train, test):
        images = np.empty((len(items), 3, 64, 64), np.uint8)
        for i, (_, _, member) in enumerate(progress(items) if progress else items):
            try:
                pixels = np.asarray(Image.open(io.BytesIO(read(member))).convert("RGB"))
                images[i] = pixels.transpose(2, 0, 1)
            except (UnidentifiedImageError, OSError, ValueError) as error:
                raise UserError(f"{member} is not an image of 64x64 pixels") from error
        pairs.append((images, np.asarray([c for c, _, _ in items])))
    if any(len(np.unique(labels)) < len(wnids) for _, labels in pairs):
        raise UserError(f"{archive}: a class without images in train or val")
    source = "archive" if archive.is_file() else "folder"
    return write_store(top, source, names, *pairs, {w: [names[i]] for w, i in label.items()})


def _plain_unpickle(handle):
    """Arrays and plain containers only: any other name in the pickle is refused."""
    import pickle

    allowed = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    class Plain(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) not in allowed:
                raise UserError(f"the archive's pickle asks for {module}.{name}: refused")
            return super().find_class(module, name)

    return Plain(io.BytesIO(handle.read()), encoding="bytes").load()


def _refuse_escaping(archive: Path, members: list[str]) -> None:
    for member in members:
        path = PurePosixPath(member)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{archive.name}: member {member!r} would land outside its folder")


def class_slug(folder: str) -> str:
    """A class name as the project writes it: lower case, underscores."""
    return re.sub(r"[^a-z0-9]+", "_", folder.lower()).strip("_")


def _eight_bits(image):
    """The image with 8 bits a channel: one of 16 bits is scaled, where Pillow would clip it."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise OSError("more than 16 bits a pixel")
    return Image.fromarray((values // 257).astype(np.uint8))


def import_folder(folder: Path, name: str, side: int | None = None, progress=None) -> Path:
    """Decode an `ImageFolder` tree, `train/<class>/*` and `test/<class>/*`, as the set `name`.

    Args:
        side: resize to `side` pixels; without it all images must have one size.
        progress: wraps the list of files, for a bar.

    Raises:
        UserError: a missing split, classes that differ, an unreadable image, mixed sizes.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    folder = Path(folder)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise UserError(f"data set name {name!r}: expected lower-case letters, digits, - and _")
    if name == "digits":
        raise UserError("digits are bundled and cannot be replaced: choose another --name")
    for split in ("train", "test"):
        if not (folder / split).is_dir():
            raise UserError(
                f"{folder} has no folder {split!r}: expected train/<class>/* and test/<class>/*"
            )
    classes = {s: sorted(p.name for p in (folder / s).iterdir() if p.is_dir()) for s in
               ("train", "test")}
    if classes["train"] != classes["test"] or len(classes["train"]) < 2:
        odd = sorted(set(classes["train"]) ^ set(classes["test"]))[:5]
        raise UserError(f"{folder}: expected the same two or more classes in train and test; "
                        + (f"only in one of them: {', '.join(odd)}" if odd else "found fewer"))
    slugs = [class_slug(c) for c in classes["train"]]
    if len(set(slugs)) < len(slugs) or "" in slugs:
        raise UserError(f"{folder}: expected class folders whose names differ in a-z and 0-9")
    if side is not None and not 1 <= side <= 4096:
        raise UserError(f"--size {side}: expected a whole number of pixels from 1 to 4096")
    files = [
        (split, label, path)
        for split in ("train", "test")
        for label, cls in enumerate(classes[split])
        for path in sorted((folder / split / cls).iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    ]
    decoded = {"train": ([], []), "test": ([], [])}
    shape = None
    for split, label, path in progress(files) if progress else files:
        try:
            image = _eight_bits(ImageOps.exif_transpose(Image.open(path))).convert("RGB")
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is not an image that can be read: take it out or make it "
                            "smaller") from error
        if side:
            image = image.resize((side, side), Image.Resampling.BILINEAR)
        shape = shape or image.size
        if image.size != shape:
            raise UserError(
                f"{path} is {image.size}, the images before it {shape}: add --size PIXELS"
            )
        decoded[split][0].append(np.asarray(image).transpose(2, 0, 1))
        decoded[split][1].append(label)
    for split, (images, labels) in decoded.items():
        least = 2 if split == "train" else 1  # validation takes one of the training images
        for label, cls in enumerate(classes[split]):
            if labels.count(label) < least:
                raise UserError(f"{folder}/{split}/{cls} has {labels.count(label)} images: "
                                f"expected at least {least}")
        decoded[split] = (np.stack(images), np.asarray(labels))
    # the pipeline divides by each channel's spread
    pixels = decoded["train"][0]
    flat = pixels.min((0, 2, 3)) == pixels.max((0, 2, 3))
    if flat.any():
        named = " and the ".join(itertools.compress(COLOURS, flat))
        raise UserError(f"{folder}/train: the {named} channel has one value in all images: "
                        "expected pictures that differ in every colour; save them in grey if they "
                        "have but one")
    groups = superclasses(name)
    aliases = groups if set(itertools.chain(*groups.values())) == set(slugs) else None
    return write_store(name, "import", slugs, decoded["train"], decoded["test"], aliases)


# --- fetching ------------------------------------------------------------------------------------

DECODERS: dict[str, Callable[[Path], Path]] = {
    "cifar10": _decode_cifar10, "cifar100": _decode_cifar100,
    "tiny-imagenet-200": _decode_tiny_imagenet,
}


def fetch(name: str, source: Path | None = None, progress=None) -> Path:
    """Bring a catalog set into the cache: from `source` (archive or folder), else by download.

    Raises:
        UserError: unknown or bundled set, wrong hash, broken download, missing file.
    """
    choose("data set", name, catalog())
    if name == "digits":
        return decode_digits()
    entry = catalog()[name]["archive"]
    if source is not None and Path(source).is_dir():
        own_layout = name == "tiny-imagenet-200"
        if not own_layout and not (Path(source) / "train").is_dir():
            raise UserError(f"{source}: expected {entry['file']}, or a folder with "
                            "train/<class>/* and test/<class>/*")
        return DECODERS[name](Path(source)) if own_layout else import_folder(Path(source), name)
    archive = Path(source) if source else paths.cache() / "downloads" / entry["file"]
    if source and not archive.exists():
        raise UserError(f"{archive} does not exist: expected {entry['file']}")
    if not source and not archive.exists():
        download(entry["url"], archive, progress)
    found = _md5(archive)
    if found != entry["md5"]:
        raise UserError(
            f"{archive} has the MD5 {found}, expected {entry['md5']}: left there for inspection; "
            "remove it and fetch again"
        )
    return DECODERS[name](archive)


def download(url: str, path: Path, progress=None) -> None:
    """Download to `path`, resuming `path.part` where an earlier attempt broke off."""
    import urllib.request

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            if have and answer.status != 206:  # the server does not resume: start over
                have = 0
            total = have + int(answer.headers.get("Content-Length", 0))
            bar = progress(total=total, initial=have) if progress else None
            with open(part, "ab" if have else "wb") as out:
                while chunk := answer.read(1 << 20):
                    out.write(chunk)
                    if bar is not None:
                        bar.update(len(chunk))
        if part.stat().st_size < total:  # the server closed early: what came stays
            raise OSError(f"{part.stat().st_size} of {total} bytes came")
    except OSError as error:  # `urllib.error` has its own kinds of it
        if not (have and getattr(error, "code", 0) == 416):  # all was here: its MD5 is judged next
            raise UserError(
                f"download of {url} broke off ({error}): type the same command to resume, "
                f"or bring the archive and add --from PATH"
            ) from error
    os.replace(part, path)


def _md5(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
