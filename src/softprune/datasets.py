"""Image sets: the catalog; fetch, verify, decode once to uint8; augmentation in whole batches.

    softprune data fetch cifar10            # the official archive, resumed and MD5-checked
    softprune data import DIR --name cats   # DIR/train/<class>/*, DIR/test/<class>/*

Whatever the source, images are ordered by class and, inside a class, as in the official archive.
A seeded, stratified twentieth of the training images is the validation split; nothing trains on it.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from softprune import paths
from softprune.catalog import catalog, class_indices, known, missing, store
from softprune.errors import UserError, choose

VALIDATION_SHARE = 20  # one image in twenty of every class
VALIDATION_SEED = 0
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One decoded image set; `images` are uint8 (N, C, H, W), `labels` int64 (N,)."""

    name: str
    source: str
    class_names: tuple[str, ...]
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    mean: tuple[float, ...]  # of the training images, per colour, in [0, 1]
    std: tuple[float, ...]
    data_hash: str

    def split(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of `train` (without validation), `validation` or `test`."""
        choose("split", name, ("train", "validation", "test"))
        if name == "test":
            return self.test_images, self.test_labels
        held = validation_mask(self.train_labels)
        index = (held if name == "validation" else ~held).nonzero().squeeze(1)
        return self.train_images[index], self.train_labels[index]

    def class_indices(self, names) -> tuple[int, ...]:
        """Indices of classes given by name or number, refused if unknown, repeated or all of them.

        Raises:
            UserError: one line that lists what is accepted.
        """
        return class_indices(self.class_names, names)


# --- the catalog ---------------------------------------------------------------------------------


def load(name: str, check: bool = True) -> ImageSet:
    """The set, memory-mapped from the cache; digits are decoded on first use.

    Args:
        check: compare the arrays' SHA-256 with the one written when they were decoded.

    Raises:
        UserError: unknown name, data missing, or a cache that no longer has its hash.
    """
    choose("data set", name, known())
    folder = store(name)
    if not (folder / "meta.json").exists():
        if name != "digits":
            raise UserError(missing(name))
        _decode_digits()
    meta = json.loads((folder / "meta.json").read_text())
    arrays = {}
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        try:  # copy-on-write: torch wants a writable array, the file stays as it is
            arrays[part] = np.load(folder / f"{part}.npy", mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(_damaged(name, folder)) from error
    if check and _hash(arrays) != meta["data_hash"]:
        raise UserError(_damaged(name, folder))
    return ImageSet(
        name=name,
        source=meta["source"],
        class_names=tuple(meta["class_names"]),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        data_hash=meta["data_hash"],
        **{part: torch.from_numpy(array) for part, array in arrays.items()},
    )


def _damaged(name: str, folder: Path) -> str:
    return (
        f"the cached {name} in {folder} does not have the hash written when it was decoded: "
        "move that folder away and fetch or import the set again"
    )


def _hash(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for part in sorted(arrays):
        digest.update(f"{part}{arrays[part].shape}{arrays[part].dtype}".encode())
        digest.update(memoryview(np.ascontiguousarray(arrays[part])).cast("B"))
    return digest.hexdigest()


def write_store(name: str, source: str, class_names, train, test) -> Path:
    """Order by class, hash and write a set; a reader sees the whole of it or nothing.

    Args:
        train, test: pairs (uint8 images (N, C, H, W), integer labels (N,)) in archive order.
    """
    arrays = {}
    for split, (images, labels) in (("train", train), ("test", test)):
        order = np.argsort(labels, kind="stable")
        arrays[f"{split}_images"] = np.ascontiguousarray(images[order])
        arrays[f"{split}_labels"] = np.asarray(labels, dtype=np.int64)[order]
    pixels = arrays["train_images"]
    # chunks bound the memory; sums in float64 keep the published four decimals
    total, square = np.zeros(pixels.shape[1]), np.zeros(pixels.shape[1])
    for start in range(0, len(pixels), 5000):
        chunk = pixels[start : start + 5000].astype(np.float64) / 255
        total += chunk.sum((0, 2, 3))
        square += (chunk**2).sum((0, 2, 3))
    count = len(pixels) * pixels.shape[2] * pixels.shape[3]
    mean = total / count
    meta = {
        "name": name,
        "source": source,
        "class_names": list(class_names),
        "mean": mean.tolist(),
        "std": np.sqrt(square / count - mean**2).tolist(),
        "data_hash": _hash(arrays),
    }
    folder = store(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        for part, array in arrays.items():
            np.save(temporary / f"{part}.npy", array)
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def validation_mask(labels: torch.Tensor) -> torch.Tensor:
    """True (N,) for a seeded, stratified twentieth of the images (at least one of every class)."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    for c in range(int(labels.max()) + 1):
        members = (labels == c).nonzero().squeeze(1)
        take = max(1, round(len(members) / VALIDATION_SHARE))
        held[members[torch.randperm(len(members), generator=generator)[:take]]] = True
    return held


def subset(images: ImageSet, per_class: int) -> ImageSet:
    """The first `per_class` images of every class and split: the `smoke` profile of a big set."""

    def first(labels):
        return torch.cat([(labels == c).nonzero().squeeze(1)[:per_class] for c in labels.unique()])

    train, test = first(images.train_labels), first(images.test_labels)
    fields = {f: getattr(images, f) for f in images.__dataclass_fields__}
    fields |= {
        "train_images": images.train_images[train],
        "train_labels": images.train_labels[train],
        "test_images": images.test_images[test],
        "test_labels": images.test_labels[test],
        "data_hash": f"{images.data_hash}/{per_class}",
    }
    return ImageSet(**fields)


# --- decoding ------------------------------------------------------------------------------------


def _decode_digits() -> Path:
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


def import_folder(folder: Path, name: str, side: int | None = None, progress=None) -> Path:
    """Decode an `ImageFolder` tree, `train/<class>/*` and `test/<class>/*`, as the set `name`.

    Args:
        side: resize to `side` pixels; without it all images must have one size.
        progress: wraps the list of files, for a bar.

    Raises:
        UserError: a missing split, classes that differ, an unreadable image, mixed sizes.
    """
    from PIL import Image, UnidentifiedImageError

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
        raise UserError(
            f"{folder}: train has the classes {classes['train'][:5]}, test {classes['test'][:5]}: "
            "expected the same two or more in both"
        )
    slugs = [class_slug(c) for c in classes["train"]]
    if len(set(slugs)) < len(slugs):
        raise UserError(f"{folder}: two class folders have the same lower-case name")
    files = [
        (split, label, path)
        for split in ("train", "test")
        for label, cls in enumerate(classes[split])
        for path in sorted((folder / split / cls).iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    decoded = {"train": ([], []), "test": ([], [])}
    shape = None
    for split, label, path in progress(files) if progress else files:
        try:
            image = Image.open(path).convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{path} is not an image that can be read") from error
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
        if len(set(labels)) < len(slugs):
            raise UserError(f"{folder}/{split}: a class without images")
        decoded[split] = (np.stack(images), np.asarray(labels))
    return write_store(name, "import", slugs, decoded["train"], decoded["test"])


# --- fetching ------------------------------------------------------------------------------------

DECODERS: dict[str, Callable[[Path], Path]] = {"cifar10": _decode_cifar10}


def fetch(name: str, source: Path | None = None, progress=None) -> Path:
    """Bring a catalog set into the cache: from `source` (archive or folder), else by download.

    Raises:
        UserError: unknown or bundled set, wrong hash, broken download, missing file.
    """
    choose("data set", name, catalog())
    if name == "digits":
        return _decode_digits()
    entry = catalog()[name]["archive"]
    if source is not None and Path(source).is_dir():
        return import_folder(Path(source), name)
    archive = Path(source) if source else paths.cache() / "downloads" / entry["file"]
    if source and not archive.exists():
        raise UserError(f"{archive} does not exist: expected {entry['file']} or its folder")
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
    import urllib.error
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
    except (OSError, urllib.error.URLError) as error:
        raise UserError(
            f"download of {url} broke off ({error}): type the same command to resume, "
            f"or bring the archive and add --from PATH"
        ) from error
    os.replace(part, path)


def _md5(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


# --- batches -------------------------------------------------------------------------------------


def normalise(images: torch.Tensor, mean, std) -> torch.Tensor:
    """uint8 (N, C, H, W) to float32, channels-last, zero mean and unit deviation per colour."""
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float32, device=images.device))
    shift = torch.tensor(mean, dtype=torch.float32, device=images.device) * 255 * scale
    out = images.to(torch.float32, memory_format=torch.channels_last)
    return out.mul_(scale.view(1, -1, 1, 1)).sub_(shift.view(1, -1, 1, 1))


def crop_flip(
    images: torch.Tensor, dy: torch.Tensor, dx: torch.Tensor, flip: torch.Tensor, pad: int
) -> torch.Tensor:
    """Reflect-pad by `pad`, crop each image at its own offset, mirror where `flip`.

    One gather for the whole batch: rows, columns and the mirror are folded into one index.

    Args:
        images: uint8 (N, C, H, W). dy, dx: int64 (N,) in [0, 2 pad]. flip: bool (N,).
    """
    n, c, h, w = images.shape
    rows = _reflect(dy[:, None] + torch.arange(h, device=dy.device) - pad, h)  # (N, H)
    cols = dx[:, None] + torch.arange(w, device=dx.device) - pad  # (N, W)
    cols = torch.where(flip[:, None], cols.flip(1), cols)
    cols = _reflect(cols, w)
    index = (rows[:, :, None] * w + cols[:, None, :]).view(n, 1, h * w).expand(n, c, h * w)
    return images.reshape(n, c, h * w).gather(2, index).view(n, c, h, w)


def crop_flip_reference(images, dy, dx, flip, pad: int) -> torch.Tensor:
    """`crop_flip`, one image at a time with torch's own padding."""
    out = []
    for image, y, x, mirrored in zip(images, dy, dx, flip, strict=True):
        padded = torch.nn.functional.pad(image[None].float(), (pad,) * 4, mode="reflect")[0]
        crop = padded[:, y : y + image.shape[1], x : x + image.shape[2]].to(image.dtype)
        out.append(crop.flip(2) if mirrored else crop)
    return torch.stack(out)


def _reflect(index: torch.Tensor, size: int) -> torch.Tensor:
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
