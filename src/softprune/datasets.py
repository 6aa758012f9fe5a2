"""Image sets: uint8 arrays decoded once, splits, augmentation in whole batches.

Whatever the source, images are ordered by class and, inside a class, as in the official archive.
A seeded, stratified twentieth of the training images is the validation split; nothing trains on it.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from softprune.catalog import class_indices, known, missing, store
from softprune.errors import UserError, choose

VALIDATION_SHARE = 20  # one image in twenty of every class
VALIDATION_SEED = 0


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
    # other names a request may use: a superclass for its classes, a WordNet id for its class
    aliases: dict[str, list[str]] = field(default_factory=dict)

    def split(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of `train` (without validation), `validation` or `test`."""
        choose("split", name, ("train", "validation", "test"))
        if name == "test":
            return self.test_images, self.test_labels
        held = validation_mask(self.train_labels)
        index = (held if name == "validation" else ~held).nonzero().squeeze(1)
        return self.train_images[index], self.train_labels[index]

    def class_indices(self, names) -> tuple[int, ...]:
        """Indices of classes given by name, alias or number; unknown or repeated ones are refused.

        Raises:
            UserError: one line that lists what is accepted.
        """
        return class_indices(self.class_names, names, self.aliases)


# --- the store -----------------------------------------------------------------------------------


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
        from softprune.sources import decode_digits

        decode_digits()
    meta = json.loads((folder / "meta.json").read_text())
    if not isinstance(meta, dict) or not {"source", "class_names", "mean", "std",
                                          "data_hash"} <= meta.keys():
        raise UserError(_damaged(name, folder))
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
        aliases=meta.get("aliases", {}),
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


def write_store(name: str, source: str, class_names, train, test, aliases=None) -> Path:
    """Order by class, hash and write a set; a reader sees the whole of it or nothing.

    Args:
        train, test: pairs (uint8 images (N, C, H, W), integer labels (N,)) in archive order.
        aliases: other name -> class names, for requests.
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
        "aliases": aliases or {},
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


def cutout(images: torch.Tensor, y: torch.Tensor, x: torch.Tensor, side: int) -> torch.Tensor:
    """Grey out a square of each normalised image (DeVries & Taylor, 2017): 0 is the mean colour.

    Args:
        images: float (N, C, H, W). y, x: int64 (N,), the square's middle; at a border it is cut.

    Example:
        >>> y, x = torch.tensor([0]), torch.tensor([3])
        >>> cutout(torch.ones(1, 1, 3, 4), y, x, 2)[0, 0, 0].tolist()
        [1.0, 1.0, 0.0, 0.0]
    """
    def within(middle: torch.Tensor, length: int) -> torch.Tensor:
        start = middle[:, None] - side // 2
        at = torch.arange(length, device=middle.device)
        return (at >= start) & (at < start + side)

    hole = within(y, images.shape[2])[:, None, :, None] & within(x, images.shape[3])[:, None, None]
    return images.masked_fill(hole, 0)


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
