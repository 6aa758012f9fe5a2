"""Shadow models: many small trainings on random halves of one pool.

    softprune shadows --dataset cifar10 -p width=16

Every model of the set is a target once, with the others as its shadows, so members and non-members
come in equal numbers and from one distribution. Unlearned targets are attacked with unlearned
shadows. The recipe memorises on purpose (no augmentation, no label smoothing): where nothing is
remembered, an attack that finds nothing shows nothing.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from softprune import artifacts, datasets, ladder, models, paths, training
from softprune.errors import UserError
from softprune.profiles import shadow_defaults


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowConfig:
    """How a set of shadow models is trained; what it does not say is the training's own."""

    # models in the set, each of them a target once
    count: int = 64
    # of these, how many are trained a second time without the class: the retrained targets
    retrained: int = 8
    # images of the pool, equally many of each class; each model sees half. 0: the training split
    pool: int = 0
    epochs: int = 30
    batch_size: int = 64
    peak_lr: float = 0.2
    # share of the pool whose labels are drawn at random: a planted leak for positive controls
    noise: float = 0.0

    def __post_init__(self):
        for name, low in (("count", 4), ("retrained", 0), ("pool", 0), ("epochs", 1),
                          ("batch_size", 2)):
            if getattr(self, name) < low:
                raise UserError(f"{name}={getattr(self, name)}: expected a whole number >= {low}")
        if not 0 <= self.noise < 1:
            raise UserError(f"noise={self.noise}: expected a share from 0 to below 1")


class Part(datasets.ImageSet):
    """The images that one shadow was trained on; validation and test are the whole set's."""

    whole: datasets.ImageSet

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """As `ImageSet.split`, but nothing is held back from `train`."""
        return (self.train_images, self.train_labels) if name == "train" else self.whole.split(name)


def part(images: datasets.ImageSet, pixels: Tensor, labels: Tensor) -> Part:
    """`images` with other training images."""
    values = {f.name: getattr(images, f.name) for f in dataclasses.fields(images)}
    made = Part(**values | {"train_images": pixels, "train_labels": labels})
    object.__setattr__(made, "whole", images)
    return made


def halves(labels: Tensor, count: int, seed: int = 0) -> np.ndarray:
    """Membership (count, N): every image is in exactly half of the models, balanced by class.

    A fair coin for each would leave some images with too few models on one side; models are drawn
    in pairs instead, the second holding what the first left out.
    """
    rng = np.random.default_rng(seed)
    member = np.zeros((count, len(labels)), bool)
    for k in range(0, count, 2):
        for c in labels.unique().tolist():
            own = rng.permutation(np.flatnonzero(labels.numpy() == c))
            member[k, own[: len(own) // 2]] = True
        if k + 1 < count:
            member[k + 1] = ~member[k]
    return member


@dataclass(frozen=True, kw_only=True)
class Shadows:
    """A trained set: models on disk, the pool, and who saw what."""

    config: training.TrainConfig
    plan: ShadowConfig
    images: datasets.ImageSet
    folder: Path
    pixels: Tensor  # (N, C, H, W) uint8, the pool
    labels: Tensor  # (N,) as trained on: with noise, not all of them are right
    member: np.ndarray  # (count, N)

    def path(self, k: int, without: int | None = None) -> Path:
        """The weights of model k, or of its retrained twin."""
        left_out = "" if without is None else f"-without-{without}"
        return self.folder / f"{k:03d}{left_out}.safetensors"

    def seen(self, k: int, without: int | None = None) -> Tensor:
        """Indices into the pool of what model k was trained on."""
        keep = torch.from_numpy(self.member[k])
        if without is not None:
            keep = keep & (self.labels != without)
        return keep.nonzero().squeeze(1)

    def model(self, k: int, without: int | None = None) -> nn.Module:
        """Model k in evaluation mode, its weights rounded to half precision as they are stored."""
        model = build(self.config, self.images)
        tensors, _ = artifacts.load_tensors(self.path(k, without))
        model.load_state_dict({n: t.float() if t.is_floating_point() else t
                               for n, t in tensors.items()})
        return model.eval()

    def missing(self, without: int | None = None) -> list[tuple[int, int | None]]:
        """(model, class left out) not trained yet, in the order they are trained."""
        wanted = [(k, None) for k in range(self.plan.count)]
        if without is not None:
            wanted += [(k, without) for k in range(self.plan.retrained)]
        return [w for w in wanted if not self.path(*w).exists()]


def build(config: training.TrainConfig, images) -> nn.Module:
    """An untrained network of a configuration."""
    return models.build(config.architecture, classes=len(images.class_names),
                        channels=images.train_images.shape[1], width=config.width,
                        side=images.train_images.shape[-1])


def open_set(config: training.TrainConfig, images, **overrides) -> Shadows:
    """The set of a training's recipe and profile: pool and membership; nothing is trained yet.

    Raises:
        UserError: an unknown option, or one out of range.
    """
    plan = ShadowConfig(**shadow_defaults(config.dataset, config.profile) | overrides)
    config = dataclasses.replace(
        config, epochs=plan.epochs, batch_size=plan.batch_size, peak_lr=plan.peak_lr, pad=0,
        flip=False, cutout=0, label_smoothing=0.0, sides=(), without=(), seed=0)
    pixels, labels = images.split("train")
    few = ladder.pick(labels, plan.pool, 0) if plan.pool else torch.arange(len(labels))
    pixels, labels = pixels[few], labels[few].clone()
    if plan.noise:
        rng = torch.Generator().manual_seed(1)
        wrong = torch.rand(len(labels), generator=rng) < plan.noise
        drawn = torch.randint(len(images.class_names), (len(labels),), generator=rng)
        labels[wrong] = drawn[wrong]
    # how many models there are does not change what the first ones are
    made = dataclasses.asdict(plan) | {"count": 0, "retrained": 0}
    key = artifacts.short_hash({"training": config.as_dict(), "plan": made,
                                "data": images.data_hash})
    folder = paths.cache() / "shadows" / f"{config.dataset}-{config.profile}-{key}"
    return Shadows(config=config, plan=plan, images=images, folder=folder, pixels=pixels,
                   labels=labels, member=halves(labels, plan.count))


def train_missing(shadows: Shadows, without: int | None = None,
                  log: Callable[[str], None] | None = None) -> float:
    """Train what is not there yet, one after another; returns the seconds it took.

    What is stopped goes on with the model it was at.
    """
    todo, began = shadows.missing(without), time.perf_counter()
    for done, (k, left_out) in enumerate(todo):
        model = train_one(shadows, k, left_out)
        artifacts.save_tensors(shadows.path(k, left_out), training.half(model).state_dict(),
                               {"training": json.dumps(shadows.config.as_dict())})
        if log:
            spent = time.perf_counter() - began
            log(f"shadow {done + 1} of {len(todo)}: {spent / (done + 1):.1f} s each")
    return time.perf_counter() - began


def train_one(shadows: Shadows, k: int, without: int | None = None) -> nn.Module:
    """Model k of a set: seed k, its half of the pool, with or without a class."""
    config = dataclasses.replace(shadows.config, seed=k)
    device = training.pick_device()
    seen = shadows.seen(k, without)
    pixels, labels = shadows.pixels[seen].to(device), shadows.labels[seen].to(device)
    torch.manual_seed(k)
    model = build(config, shadows.images).to(device)
    optimizer = training.make_optimizer(model, config)
    present = torch.ones(len(shadows.images.class_names), device=device)
    for epoch in range(config.epochs):
        training.train_epoch(config, model, optimizer, pixels, labels, present, shadows.images,
                             epoch)
    artifacts.round_to_half(model)
    return model.eval()
