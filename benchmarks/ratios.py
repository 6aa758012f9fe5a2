"""Ratios in one run, since machines are noisy; the result is a run record, `benchmark` stage.

    make bench

edit against one bare mul_ on each tensor it touches; step with penalty against without; batched
augmentation against torchvision's transforms in a DataLoader; all-class table, and every class in
turn at twenty fractions, against a plain evaluation pass. TinyImageNet, where it is here: seconds
to start from its cache.
"""

import dataclasses
import subprocess
import sys
import time
from contextlib import nullcontext

import torch
import torch.nn.functional as F

from softprune import (
    artifacts,
    channels,
    datasets,
    evaluation,
    ladder,
    models,
    orthogonality,
    paths,
    prototypes,
    pruning,
    requests,
    searching,
)
from softprune.errors import UserError
from softprune.training import configure


def ratio(slow, fast, repeats: int = 9) -> float:
    """Median of paired ratios: both are timed one after the other, many times."""
    found = []
    for _ in range(repeats):
        seconds = []
        for action in (slow, fast):
            began = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - began)
        found.append(seconds[0] / seconds[1])
    return sorted(found)[len(found) // 2]


def fake_images(n: int = 2000) -> datasets.ImageSet:
    """Random pixels in CIFAR's shape: speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(n) % 10
    return datasets.ImageSet(
        name="random", source="generated", class_names=tuple("abcdefghij"), train_images=pixels,
        train_labels=labels, test_images=pixels[:100], test_labels=labels[:100],
        mean=(0.5,) * 3, std=(0.25,) * 3, data_hash="generated",
    )


def edit(model) -> float:
    """Fold at every site, against `mul_` by a ready tensor on each weight that is touched."""
    gates = {s.name: torch.full((s.channels,), 0.999) for s in model.sites()}
    bare = [(w.detach(), g.clone()) for w, g, _ in pruning._targets(model, gates)]

    @torch.no_grad()
    def reference():
        for weight, g in bare:
            weight.mul_(g)

    return ratio(lambda: pruning.fold(model, gates), reference, 51)


def step(model, penalty: str, batch: int = 128) -> float:
    """A training step with the penalty, against one without; it weighs more on fewer images."""
    x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.arange(batch) % 10
    model.train()

    def one(name):
        watched = (models.site_maps(model, lambda m: m.mean((2, 3))) if name == "feature"
                   else nullcontext())
        with watched as pooled:
            loss = F.cross_entropy(model(x), y)
            if name != "none":
                loss = loss + 0.01 * orthogonality.penalty(model, name, pooled)
        model.zero_grad()
        loss.backward()
        if name == "hard":
            orthogonality.project(model)

    one(penalty)
    return ratio(lambda: one(penalty), lambda: one("none"), 25)  # a goal of a twentieth


def threads(model, batch: int = 256, side: int = 32) -> float:
    """A training step with `so` on two threads, against one."""
    x = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    y = torch.arange(batch) % 10
    before = torch.get_num_threads()
    model.train()

    def one(count):
        torch.set_num_threads(count)
        loss = F.cross_entropy(model(x), y) + 0.01 * orthogonality.penalty(model, "so", None)
        model.zero_grad()
        loss.backward()

    try:
        one(2)
        return ratio(lambda: one(2), lambda: one(1), 5)
    finally:
        torch.set_num_threads(before)


def input_pipeline(images) -> float:
    """torchvision's transforms through a DataLoader, against ours; the same crops and flips."""
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from softprune.training import epoch_batches

    steps = transforms.Compose([
        transforms.ToPILImage(), transforms.RandomCrop(32, 2, padding_mode="reflect"),
        transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize(images.mean, images.std),
    ])

    class Plain(Dataset):
        def __len__(self):
            return len(images.train_images)

        def __getitem__(self, i):
            return steps(images.train_images[i]), images.train_labels[i]

    config = configure("cifar10", "laptop", sides=())
    arguments = (config, images.train_images, images.train_labels, images.mean, images.std, 0)
    return ratio(lambda: list(DataLoader(Plain(), 256, shuffle=True)),
                 lambda: list(epoch_batches(*arguments)), 3)


def table(model, images) -> float:
    """The all-class table of all sites, against one evaluation pass over the same images."""
    pixels, _ = images.split("train")
    plain = lambda: evaluation.predict(model, pixels, images.mean, images.std)  # noqa: E731
    plain()
    return ratio(lambda: channels.class_channel_table(model, images), plain, 3)


def sweep(images) -> float:
    """All classes in turn at twenty fractions, against one evaluation pass over the same images:
    gates at the last site act on features that are kept."""
    folder = paths.root() / "data" / "checkpoints" / "cifar10" / "laptop"
    checkpoint = folder / "resnet18-w16-so-0.01-s0.safetensors"
    told = artifacts.read_sidecar(checkpoint)
    as_there = dataclasses.replace(  # the pixels are random: no accuracy of this is looked at
        images, name="cifar10", class_names=tuple(told["class_names"]), mean=tuple(told["mean"]),
        std=tuple(told["std"]), test_images=images.train_images, test_labels=images.train_labels)

    def all_classes():
        bench = requests.Bench(checkpoint, as_there)
        for fraction in requests.SWEEP_FRACTIONS:
            requests.judged(bench, sites="last", score="difference", statistic="mean", gate="rank",
                            fraction=fraction)

    model = artifacts.load_checkpoint(checkpoint)[0]
    return ratio(all_classes, lambda: evaluation.predict(
        model, as_there.test_images, as_there.mean, as_there.std), 3)


def start(name: str) -> tuple[float, int] | None:
    """Seconds until the first batch of a set from its cache, checked; and the bytes of its pixels.
    None where the set is not here."""
    began = time.perf_counter()
    try:
        images = datasets.load(name)
    except UserError:
        return None
    images.train_images[:256].float()
    return (time.perf_counter() - began,
            images.train_images.numel() + images.test_images.numel())


def stored_requests(directions: bool = False, width: int = 64) -> float:
    """Seconds for all of 200 classes in turn, from stored gates on channels or along directions:
    select, fold, put back."""
    model = models.build("resnet18", classes=200, channels=3, width=width, side=64).eval()
    model = model.to(memory_format=torch.channels_last)
    sites = models.choose_sites(model, "late")
    stored = {c: {s.name: torch.rand(s.channels) for s in sites} for c in range(200)}
    if directions:
        stored = {c: {pruning.DIRECTION + site: 0.01 * torch.stack([g, g])[None]
                      for site, g in gates.items()} for c, gates in stored.items()}
    pruning.plan(model)
    began = time.perf_counter()
    for cls in stored:
        with pruning.folded(model, ladder.request(stored, (cls,))):
            pass
    return time.perf_counter() - began


def one_edit(rung: str, width: int) -> float:
    """Median seconds of one fold of a ResNet-18, along directions where `best` or `searched` have
    them, with `best`'s shifts."""
    model = models.build("resnet18", classes=10, channels=3, width=width).eval()
    model = model.to(memory_format=torch.channels_last)
    at = (models.choose_sites(model, "late") if rung == "best"
          else prototypes.where(model, searching.SearchOptions().sites))
    gates = {pruning.DIRECTION + s.name: 1e-4 * torch.rand(1, 2, s.channels) for s in at}
    if rung == "best":
        gates |= {pruning.SHIFT + norm: torch.zeros(model.get_submodule(norm).num_features)
                  for norm, part in models.shifts(model).items() if part in ("layer3", "layer4")}
    pruning.plan(model)
    return evaluation.median_time(lambda: pruning.fold(model, gates))


def command(words: list[str]) -> float:
    """Seconds of a command that should answer at once."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "softprune.cli", *words], capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print beside the goals, write the record."""
    began = time.perf_counter()
    config = configure("cifar10", "laptop")
    model = models.build("resnet18", classes=10, channels=3, width=config.width).eval()
    images = fake_images()
    found = [
        ("edit-over-mul", edit(model), "at most 3"),
        ("table-over-evaluation", table(model, images), "at most 1.2"),
        ("step-so-over-none", step(model, "so"), "at most 1.05"),
        ("step-so-over-none-recipe", step(model, "so", config.batch_size), "at most 1.05"),
        *((f"step-{p}-over-none", step(model, p), "no goal")
          for p in ("srip", "ocnn", "feature", "hard")),
        ("loader-over-ours", input_pipeline(images), "at least 10"),
        *((f"step-{name}-two-threads-over-one", threads(models.build(
            name, classes=10, channels=3, width=config.width)), "no goal")
          for name in ("resnet18", "vgg16")),
        ("sweep-over-evaluation", sweep(images), "less than 200 passes"),
    ]
    rows = [artifacts.row("original", f"ratio-{name}", value, "ratio") for name, value, _ in found]
    seconds = stored_requests()
    found.append(("200-requests", seconds, "seconds, at most 1"))
    rows.append(artifacts.row("best", "time-200-requests", seconds, "s"))
    for width in (16, 64):
        seconds = stored_requests(True, width)
        found.append((f"200-requests-directions-w{width}", seconds, "seconds, at most 1"))
        rows.append(artifacts.row("best", f"time-200-requests-directions-w{width}", seconds, "s"))
    for rung in ("best", "searched"):
        for width in (16, 32, 64):
            seconds = one_edit(rung, width)
            found.append((f"edit-{rung}-w{width}", 1000 * seconds, "ms, at most 1"))
            rows.append(artifacts.row(rung, f"time-edit-w{width}", seconds, "s"))
    name = "tiny-imagenet-200"
    if begun := start(name):
        seconds, size = begun
        found += [(f"start-{name}", seconds, "seconds"), (f"pixels-{name}", size / 1e9, "GB")]
        rows += [artifacts.row("original", f"time-start-{name}", seconds, "s"),
                 artifacts.row("original", f"size-pixels-{name}", size, "bytes")]
    for name, words in (("help", ["--help"]), ("refusal", ["run", "x", "--dataset", "digits"])):
        seconds = sorted(command(words) for _ in range(5))[2]
        found.append((name, seconds, "seconds, at most 1"))
        rows.append(artifacts.row("original", f"time-{name}", seconds, "s"))
    for name, value, goal in found:
        print(f"{name:24} {value:8.3f}   ({goal})")
    made = artifacts.provenance(time.perf_counter() - began)
    artifacts.write_record("benchmark", artifacts.short_hash(config.as_dict()), config.as_dict(),
                           rows, made)


if __name__ == "__main__":
    main()
