"""Two tricks of fast recipes that the recipes here do without: are they worth something?

    python benchmarks/recipes.py          # CIFAR-10, three seeds
    python benchmarks/recipes.py 1

*Weights averaged*: exponential averages of all weights and of batch norm's statistics, one for each
of `DECAYS`, kept while the grid's small network trains as it always does; each is then judged as if
it were the network. *Width for depth*: half the blocks and twice, each with the width at which a
forward pass has about as many multiplications, trained alike. With `so`; validation and test split.
"""

import copy
import sys
import time

import torch
from torch import nn

from softprune import artifacts, datasets, evaluation, models, training

DECAYS = (0.9, 0.99, 0.997)  # of one step; the last looks back two epochs of the grid's five
SMALL = {"width": 8, "epochs": 5}  # as `workflow/matrix.py` trains the grid's networks
BLOCKS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


def network(blocks: tuple[int, ...], width: int, classes: int = 10) -> nn.Module:
    """A fresh residual network for CIFAR's images."""
    return models.ResNet(blocks, classes=classes, channels=3, width=width, side=32)


@torch.no_grad()
def multiplications(model: nn.Module, side: int = 32) -> int:
    """Of all convolutions in one image's forward pass.

    Example:
        >>> multiplications(nn.Conv2d(3, 8, 3, padding=1, bias=False), side=32)
        221184
    """
    found = []

    def count(conv, _, out):
        found.append(conv.weight.numel() * out.shape[2] * out.shape[3])

    handles = [m.register_forward_hook(count) for m in model.modules()
               if isinstance(m, nn.Conv2d)]
    model.eval()(torch.zeros(1, 3, side, side))
    for handle in handles:
        handle.remove()
    return sum(found)


def alike(blocks: tuple[int, ...], goal: int) -> int:
    """The width at which a network of these blocks has nearest to `goal` multiplications."""
    return min(range(2, 33), key=lambda w: abs(multiplications(network(blocks, w)) - goal))


class Averages:
    """Exponential averages of a training's weights and statistics, one for each decay.

    Like Adam's they start at zero and are scaled by what they have seen, so that the beginning
    does not weigh more than its age.
    """

    def __init__(self, model: nn.Module, decays=DECAYS):
        self.model, self.steps = model, 0
        self.sums = {d: [torch.zeros_like(v) for v in self._values()] for d in decays}

    def _values(self) -> list[torch.Tensor]:
        return [v for v in self.model.state_dict().values() if v.is_floating_point()]

    @torch.no_grad()
    def update(self, *_) -> None:
        """After a step of the optimizer, which calls it."""
        self.steps += 1
        for decay, kept in self.sums.items():
            torch._foreach_lerp_(kept, self._values(), 1 - decay)

    def network(self, decay: float) -> nn.Module:
        """A copy with the averages in place of the weights."""
        made = copy.deepcopy(self.model)
        seen = 1 - decay**self.steps
        floats = (v for v in made.state_dict().values() if v.is_floating_point())
        for value, kept in zip(floats, self.sums[decay], strict=True):
            value.copy_(kept / seen)
        return made


def trained(config: training.TrainConfig, images: datasets.ImageSet, blocks, width: int
            ) -> tuple[nn.Module, Averages, float]:
    """A network, the averages kept beside it, and the seconds of its epochs."""
    torch.manual_seed(config.seed)
    model = network(blocks, width, len(images.class_names)).to(memory_format=torch.channels_last)
    solver, averages = training.make_optimizer(model, config), Averages(model)
    solver.register_step_post_hook(averages.update)
    pixels, labels = images.split("train")
    present = torch.ones(len(images.class_names))
    seconds = [training.train_epoch(config, model, solver, pixels, labels, present, images,
                                    epoch)["seconds"] for epoch in range(config.epochs)]
    return model, averages, sum(seconds)


def accuracy_rows(method: str, model: nn.Module, images: datasets.ImageSet,
                  metric: str = "accuracy") -> list[dict]:
    """Rows of both held-out splits."""
    rows = []
    for split in ("validation", "test"):
        pixels, labels = images.split(split)
        logits = evaluation.predict(model, pixels, images.mean, images.std)[1]
        rows.append(artifacts.row(method, metric, evaluation.accuracy(logits, labels),
                                  split=split, n=len(labels)))
    return rows


def measure(config: training.TrainConfig, images: datasets.ImageSet, log=print) -> list[dict]:
    """Rows of every network; averages of the grid's own depth alone."""
    goal, rows = multiplications(network(BLOCKS["resnet18"], config.width)), []
    for name, blocks in BLOCKS.items():
        width = alike(blocks, goal)
        model, averages, seconds = trained(config, images, blocks, width)
        rows += [artifacts.row(name, "width", width),
                 artifacts.row(name, "multiplications", multiplications(network(blocks, width))),
                 artifacts.row(name, "time-train", seconds, "s")]
        rows += accuracy_rows(name, model, images)
        for decay in DECAYS if name == "resnet18" else ():
            rows += accuracy_rows(name, averages.network(decay), images,
                                  f"accuracy-averaged-{decay:g}")
    for r in rows:
        log(f"{r['method']} {r['metric']} {r.get('split', '')} {r['value']:.4g}")
    return rows


def main(seeds: str = "3") -> None:
    """Train, and write a record for each seed."""
    if not (seeds.isdecimal() and int(seeds)):
        sys.exit(f"{seeds!r}: expected how many seeds, a number from 1")
    for seed in range(int(seeds)):
        began = time.perf_counter()
        config = training.configure("cifar10", "laptop", seed=seed, **SMALL)
        rows = measure(config, training.load_images(config), lambda line: print(line, flush=True))
        made = artifacts.provenance(time.perf_counter() - began)
        told = config.as_dict()
        print(artifacts.write_record("recipes", artifacts.short_hash(told), told, rows, made).name)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("expected: python benchmarks/recipes.py [SEEDS]")
    main(*sys.argv[1:])
