"""The one training loop.

    softprune train --dataset cifar10 --profile laptop                 # the original
    softprune train --dataset cifar10 --profile laptop --without cat   # a retrained reference

SGD with Nesterov momentum, one cycle (linear up, linear down to 0), label smoothing over the
classes that are trained on, alternating flips, reflected crops, bfloat16 autocast where the
hardware has it, channels-last. State is written each epoch; every epoch draws its random numbers
from (seed, epoch), so a run that is killed and started again ends in the same weights bit for bit.
"""

import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softprune import (
    artifacts,
    catalog,
    channels,
    datasets,
    evaluation,
    models,
    orthogonality,
    paths,
)
from softprune.devices import has_fast_bfloat16, pick_device
from softprune.errors import UserError, choose
from softprune.profiles import profile_defaults


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides the weights. Defaults of a data set and profile: `configure`."""

    dataset: str
    profile: str
    architecture: str
    width: int
    # so at .01 leaves kernels orthonormal in all but name at little cost in accuracy
    penalty: str = "so"
    strength: float = 0.01
    seed: int = 0
    # names of the classes left out: a retrained reference; sorted, so that one set has one name
    without: tuple[str, ...] = ()
    epochs: int = 14
    batch_size: int = 256
    peak_lr: float = 0.25
    # share of the run in which the rate climbs
    warmup: float = 0.2
    momentum: float = 0.9
    # on weights only: batch norm's gamma and beta, and biases, are left alone
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    # pixels of reflected padding for random crops
    pad: int = 2
    flip: bool = True
    # side in pixels of a square that is greyed out in each training image
    cutout: int = 0
    # (until this share of the run, at this image side): small images first save time
    sides: tuple[tuple[float, int], ...] = ()
    # images a class and split; 0 is all of them
    per_class: int = 0

    def __post_init__(self):
        choose("architecture", self.architecture, models.ARCHITECTURES)
        choose("penalty", self.penalty, orthogonality.PENALTIES)
        for name, low in (("width", 1), ("epochs", 1), ("batch_size", 2), ("seed", 0),
                          ("pad", 0), ("cutout", 0)):
            if getattr(self, name) < low:
                raise UserError(f"{name}={getattr(self, name)}: expected a whole number >= {low}")
        if self.seed >= 2**31:  # multiplied by small primes, it has to stay a seed
            raise UserError(f"seed={self.seed}: expected a whole number below {2**31}")
        for name in ("strength", "peak_lr", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{name}={getattr(self, name)}: expected a number >= 0")
        for name in ("warmup", "momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a number from 0 to below "
                                "1")
        if self.per_class < 0 or self.per_class == 1:
            raise UserError(f"per_class={self.per_class}: expected 0 (all images), or at least 2, "
                            "of which one is for validation")
        if self.penalty in ("none", "hard") and self.strength:
            object.__setattr__(self, "strength", 0.0)  # one control, one name

    @property
    def name(self) -> str:
        """File name of the checkpoint: what a person would call the run."""
        left_out = f"-without-{'+'.join(self.without)}" if self.without else ""
        fixed = self.penalty in ("none", "hard")  # no strength in either
        penalty = self.penalty if fixed else f"{self.penalty}-{self.strength:g}"
        return f"{self.architecture}-w{self.width}-{penalty}-s{self.seed}{left_out}"

    def as_dict(self) -> dict:
        """JSON-able, tuples as lists; without `cutout` where none is used, so that what was
        trained before there was any is still found."""
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        return values if self.cutout else {k: v for k, v in values.items() if k != "cutout"}

    @classmethod
    def from_dict(cls, values: dict) -> "TrainConfig":
        """The inverse of `as_dict`."""
        values = dict(values)
        values["without"] = tuple(values["without"])
        values["sides"] = tuple((float(a), int(b)) for a, b in values["sides"])
        return cls(**values)


def configure(dataset: str, profile: str, **overrides) -> TrainConfig:
    """A data set's recipe at a profile, with overrides.

    Raises:
        UserError: unknown data set, profile, option or class.
    """
    fields = {f.name for f in dataclasses.fields(TrainConfig)}
    for name in overrides:
        choose("training option", name, sorted(fields - {"dataset", "profile"}))
    values = profile_defaults(dataset, profile, catalog.side(dataset),
                              overrides.get("architecture", ""), overrides.get("width", 0))
    values |= overrides
    return TrainConfig(dataset=dataset, profile=profile, **values)


def load_images(config: TrainConfig) -> datasets.ImageSet:
    """The data set of a configuration, cut to `per_class` images where that is set.

    Raises:
        UserError: crops reflected from beyond the image.
    """
    images = datasets.load(config.dataset)
    if config.pad >= (side := min(images.train_images.shape[-2:])):
        raise UserError(f"pad={config.pad}: expected less than the {side} pixels of an image's "
                        "shorter side")
    return datasets.subset(images, config.per_class) if config.per_class else images


def run_key(config: TrainConfig, data_hash: str) -> str:
    """Names a training: configuration and data."""
    return artifacts.short_hash({"config": config.as_dict(), "data": data_hash})


def find_checkpoint(config: TrainConfig, data_hash: str | None = None) -> Path | None:
    """The finished checkpoint of this configuration, shipped or cached.

    One whose files do not have the hashes in their sidecar (cut short, or changed on the way) is
    not there: it is trained again.

    Args:
        data_hash: demand this data too; None accepts any data.
    """
    for base in (paths.shipped(), paths.cache() / "checkpoints"):
        folder = base / config.dataset / config.profile
        for path in (folder / f"{config.name}.safetensors", folder / own_name(config)):
            if sidecar := artifacts.intact(path):
                same_data = data_hash is None or sidecar["data_hash"] == data_hash
                if sidecar["config"] == config.as_dict() and same_data:
                    return path
    return None


def own_name(config: TrainConfig) -> str:
    """The file name that no other configuration has: epochs, batches and rates are in its hash."""
    return f"{config.name}-{artifacts.short_hash(config.as_dict())}.safetensors"


def free_path(config: TrainConfig) -> Path:
    """Where to write: the plain name, unless it holds a run of another configuration."""
    folder = paths.cache() / "checkpoints" / config.dataset / config.profile
    plain = folder / f"{config.name}.safetensors"
    there = artifacts.intact(plain)
    taken = there is not None and there["config"] != config.as_dict()
    return folder / own_name(config) if taken else plain


# --- the loop ------------------------------------------------------------------------------------


def one_cycle(step: int, steps: int, peak: float, warmup: float) -> float:
    """Learning rate: linear from 0 to `peak` in the first `warmup`, linear to 0 at the end."""
    share = (step + 1) / (steps + 1)
    return peak * min(share / warmup if warmup else 1.0, (1 - share) / (1 - warmup))


def smoothed_targets(labels: Tensor, present: Tensor, smoothing: float) -> Tensor:
    """(N, C) targets: `smoothing` spread over the classes present, none on those left out."""
    spread = smoothing * present / present.sum()
    return F.one_hot(labels, len(present)) * (1 - smoothing) + spread


def epoch_batches(
    config: TrainConfig, images: Tensor, labels: Tensor, mean, std, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented, normalised batches of one epoch; random numbers from (seed, epoch) alone.

    Args:
        images: uint8 (N, C, H, W) on the device. labels: int64 (N,).
    """
    n, device = len(images), images.device
    generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch + 1)
    order = torch.randperm(n, generator=generator).to(device)
    shifts = torch.randint(2 * config.pad + 1, (2, n), generator=generator).to(device)
    # each image is mirrored in every other epoch, never twice in a row (airbench)
    first = torch.rand(n, generator=torch.Generator().manual_seed(config.seed)) < 0.5
    flip = (first.to(device) ^ bool(epoch % 2)) & config.flip
    squares = torch.randint(images.shape[-1], (2, n), generator=generator).to(device)
    side = side_at(config, epoch)
    size = min(config.batch_size, n)
    for start in range(0, n - size + 1, size):
        index = order[start : start + size]
        batch = datasets.crop_flip(
            images[index], shifts[0, index], shifts[1, index], flip[index], config.pad
        )
        batch = datasets.normalise(batch, mean, std)
        if config.cutout:
            batch = datasets.cutout(batch, *squares[:, index], config.cutout)
        if side and side != batch.shape[-1]:
            batch = F.interpolate(batch, size=(side, side), mode="bilinear", antialias=True)
        yield batch, labels[index]


def side_at(config: TrainConfig, epoch: int) -> int:
    """Image side of an epoch; 0 is the images' own."""
    return next((s for until, s in config.sides if epoch < until * config.epochs), 0)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum; weight decay on matrices and kernels only."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    free = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay},
              {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, nesterov=config.momentum > 0)


def train(
    config: TrainConfig, *, log: Callable[[dict], None] | None = None,
    stop_after: int | None = None,
) -> Path | None:
    """Train, or find what was trained; returns the checkpoint's path.

    Writes the checkpoint with its sidecar, the class-by-channel table, the logits of all splits
    and a run record.

    Args:
        log: called after each epoch with its history entry.
        stop_after: stop (and return None) once this many epochs are done: for kill-and-resume
            tests.
    """
    artifacts.commit()  # read (and cached) now: the clone may move on while this trains
    images = load_images(config)
    left_out = images.class_indices(list(config.without)) if config.without else ()
    names = tuple(images.class_names[c] for c in sorted(left_out))
    config = dataclasses.replace(config, without=names)
    if found := find_checkpoint(config, images.data_hash):
        return found
    device = pick_device()
    # steps have few shapes: on a GPU kernels are tried out once for each, the fastest is kept
    torch.backends.cudnn.benchmark = True
    train_images, train_labels = images.split("train")
    present = torch.ones(len(images.class_names))
    present[list(left_out)] = 0
    keep = present[train_labels] > 0
    train_images, train_labels = train_images[keep].to(device), train_labels[keep].to(device)

    torch.manual_seed(config.seed)
    model = models.build(
        config.architecture, classes=len(images.class_names),
        channels=train_images.shape[1], width=config.width, side=train_images.shape[-1],
    ).to(device)
    optimizer = make_optimizer(model, config)
    key = run_key(config, images.data_hash)
    state_path = paths.cache() / "runs" / f"{config.dataset}-{config.profile}-{config.name}-{key}"
    state_path = state_path.with_name(state_path.name + ".safetensors")
    history = restore(state_path, model, optimizer) if state_path.exists() else []

    for epoch in range(len(history), config.epochs):
        if stop_after is not None and epoch >= stop_after:
            return None
        entry = train_epoch(config, model, optimizer, train_images, train_labels,
                            present.to(device), images, epoch)
        history.append(entry | watch(model, images, left_out))
        save_state(state_path, model, optimizer, history)
        if log:
            log(history[-1])
    path = finish(config, model, images, history)
    state_path.unlink(missing_ok=True)
    return path


def train_epoch(config, model, optimizer, images, labels, present, image_set, epoch) -> dict:
    """One pass over the training images; returns loss, penalty, rate, seconds."""
    model.train()
    device = images.device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device))
    size = min(config.batch_size, len(images))
    steps_an_epoch = len(images) // size
    sums, step = torch.zeros(2, device=device), epoch * steps_an_epoch
    times = [time.perf_counter()]
    batches = epoch_batches(config, images, labels, image_set.mean, image_set.std, epoch)
    watched = contextlib.nullcontext()
    if config.penalty in ("feature", "tied"):
        watched = models.site_maps(model, lambda m: m.mean((2, 3)))
    with watched as pooled:
        for batch, target in batches:
            rate = one_cycle(step, config.epochs * steps_an_epoch, config.peak_lr, config.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with autocast:
                logits = model(batch)
            goal = smoothed_targets(target, present, config.label_smoothing)
            loss = F.cross_entropy(logits.float(), goal)
            penalised = orthogonality.penalty(model, config.penalty, pooled, target)
            optimizer.zero_grad(set_to_none=True)
            (loss + config.strength * penalised).backward()
            optimizer.step()
            if config.penalty == "hard":
                orthogonality.project(model)
            sums += torch.stack([loss.detach(), penalised.detach()])
            step += 1
            times.append(time.perf_counter())
    loss, penalised = (sums / steps_an_epoch).tolist()
    if loss != loss:
        raise UserError(
            f"the loss is not a number in epoch {epoch + 1}: lower peak_lr ({config.peak_lr:g}) "
            f"or strength ({config.strength:g})"
        )
    times[-1] = time.perf_counter()  # with what a GPU still had to do
    seconds, paused = without_pauses([b - a for a, b in itertools.pairwise(times)])
    return {"epoch": epoch + 1, "loss": loss, "penalty": penalised, "lr": rate,
            "seconds": seconds, "paused": paused}


def without_pauses(steps: list[float], factor: float = 30, least: float = 5) -> tuple[float, float]:
    """Seconds of an epoch, and seconds in which the process was stopped, told from its steps.

    A step `factor` times as long as the median one, and longer than `least` seconds, was
    interrupted (a suspended machine, a stopped job): it counts as a median step.

    Example:
        >>> without_pauses([1.0, 1.0, 101.0])
        (3.0, 100.0)
    """
    usual = sorted(steps)[len(steps) // 2]
    paused = sum(s - usual for s in steps if s > max(least, factor * usual))
    return sum(steps) - paused, paused


@torch.no_grad()
def watch(model: nn.Module, images: datasets.ImageSet, left_out=()) -> dict:
    """What is measured after each epoch, on the validation split: accuracy, kernels, channels."""
    pixels, labels = images.split("validation")
    keep = torch.ones(len(labels), dtype=torch.bool)
    for c in left_out:
        keep &= labels != c
    features, logits = evaluation.predict(model, pixels[keep], images.mean, images.std)
    labels = labels[keep]
    means = torch.stack([features[labels == c].mean(0) for c in labels.unique()])
    kernel = orthogonality.kernel_measures(model)
    return {
        "validation": (logits.argmax(1) == labels).double().mean().item(),
        "norm": kernel["norm"], "coherence": kernel["coherence"], "so": kernel["so"],
        "correlation": orthogonality.feature_correlation(features),
        "selectivity": orthogonality.class_selectivity(means).mean().item(),
    }


def save_state(path: Path, model, optimizer, history: list[dict]) -> None:
    """Model, optimizer and history in one safetensors file: whole or not there at all."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in slots.items() if v is not None}
    artifacts.save_tensors(path, tensors, {"history": json.dumps(history)})


def restore(path: Path, model, optimizer) -> list[dict]:
    """Load what `save_state` wrote; returns the history."""
    tensors, metadata = artifacts.load_tensors(path)
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    state = optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
    return json.loads(metadata["history"])


def finish(config, model, images: datasets.ImageSet, history: list[dict]) -> Path:
    """Round the weights, then measure and write everything that later stages read."""
    artifacts.round_to_half(model)
    model.eval()
    seconds = sum(h["seconds"] for h in history)
    path = free_path(config)
    table = channels.class_channel_table(model, images)
    channels.save_table(artifacts.companion(path, "table"), table)
    rows, logits = [], {}
    left_out = images.class_indices(list(config.without)) if config.without else ()
    method, forget = ("retrained", "+".join(config.without)) if left_out else ("original", None)
    for split in ("train", "validation", "test"):
        pixels, labels = images.split(split)
        logits[split] = evaluation.predict(model, pixels, images.mean, images.std)[1].half()
        rows += evaluation.accuracy_rows(
            method, logits[split].float(), labels, left_out, split, forget=forget
        )
    artifacts.save_tensors(artifacts.companion(path, "logits"), logits)
    last = watch(model, images, left_out)
    rows += [artifacts.row(method, m, last[m], split="validation", forget=forget)
             for m in ("norm", "coherence", "so", "correlation", "selectivity")]
    rows.append(artifacts.row(method, "time-train", seconds, "s", forget=forget))
    key = run_key(config, images.data_hash)
    made = artifacts.provenance(seconds)
    # the sidecar comes last: it is the sign that all is there
    artifacts.write_record("train", key, config.as_dict(), rows, made, {"history": history})
    artifacts.save_checkpoint(path, half(model), {
        "config": config.as_dict(), "class_names": list(images.class_names),
        "mean": list(images.mean), "std": list(images.std), "data_hash": images.data_hash,
        "side": images.train_images.shape[-1], "aliases": images.aliases,
        "data_source": images.source, "seed": config.seed, "key": key, "history": history,
        "provenance": made,
        "companions": {kind: artifacts.sha256(artifacts.companion(path, kind))
                       for kind in ("table", "logits")},
    })
    return path


def half(model: nn.Module) -> nn.Module:
    """A copy in half precision: the same values, since they were rounded before."""
    import copy

    return copy.deepcopy(model).half()
