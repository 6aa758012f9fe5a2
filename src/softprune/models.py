"""The classifiers, and for each the one list of sites where a channel can be gated exactly.

Layer names follow torchvision's ResNet (`conv1`, `bn1`, `layer1.0.conv1`, …, `fc`) with the usual
CIFAR stem (3x3, stride 1, no max-pool), so a state dict fits the code of published methods.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from softprune.errors import UserError, choose


@dataclass(frozen=True, kw_only=True)
class Site:
    """A place where channels are gated: the post-activation map that `module` puts out.

    A gate folds either into the batch norm before the non-linearity (gamma and beta both), or
    into the input columns of every layer that reads the map.

    Attributes:
        name: what gates are named by. channels: J.
        module: the module whose output is the map.
        norm: the batch norm to scale, where the site folds backwards; else "".
        readers: the layers whose input columns are scaled, where it folds forwards.
        kernel: the last convolution before the map: its row j feeds channel j alone.
        feeds: the batch norm after `kernel`, where the site folds forwards.
        consumers: the layers whose input columns read the map; where a gate folds backwards they
            stay as they are, and the columns of a closed channel meet zeros alone.
        read: the module whose output the consumers read, and nobody else: there a linear map of
            the channels folds into their columns; "" where a shortcut reads it, too.
    """

    name: str
    channels: int
    module: str
    norm: str = ""
    readers: tuple[str, ...] = ()
    kernel: str = ""
    feeds: str = ""
    consumers: tuple[str, ...] = ()
    read: str = ""


Part = tuple[str, Callable[[Tensor], Tensor]]  # (beginning of its sites' names, computation)


def run(parts: list[Part], x: Tensor) -> Tensor:
    """The parts of a model, one after another."""
    for _, part in parts:
        x = part(x)
    return x


def shifts(model: nn.Module) -> dict[str, str]:
    """Batch norms whose beta a request may shift, each with the part of the model it lies in.

    Those that no gate folds into, so that the edits of several requests commute: none of a VGG.
    """
    return model.shifts() if hasattr(model, "shifts") else {}


def split_at(model: nn.Module, sites: list[Site]) -> tuple[list[Part], list[Part]]:
    """A model's parts before the first of `sites`, and from there to the pooled features.

    What lies before a gate does not depend on it, so it is computed once and kept.
    """
    parts = model.parts()
    first = next(i for i, (name, _) in enumerate(parts)
                 if name and any(s.name == name or s.name.startswith(f"{name}.") for s in sites))
    return parts[:first], parts[first:]


@contextmanager
def site_maps(model: nn.Module, keep: Callable[[Tensor], object]):
    """Yield a dict that fills with `keep(map)` of every site at each forward pass."""
    kept: dict[str, object] = {}
    handles = [
        model.get_submodule(s.module).register_forward_hook(
            lambda _m, _i, out, name=s.name: kept.__setitem__(name, keep(out)))
        for s in model.sites()
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


class BasicBlock(nn.Module):
    """conv-bn-relu-conv-bn, plus the shortcut, relu (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + shortcut)


class ResNet(nn.Module):
    """Four stages of basic blocks, `width` channels in the first, doubled at each.

    Images of 64 pixels and more enter through a stem of stride 2, so that the maps behind it have
    the sides they have for CIFAR, and the cost too.
    """

    def __init__(self, blocks: tuple[int, ...], classes: int, channels: int, width: int, side: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 2 if side >= 64 else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        inputs = width
        for stage, count in enumerate(blocks):
            outputs, stride = width * 2**stage, 1 if stage == 0 else 2
            layers = [BasicBlock(inputs, outputs, stride)]
            layers += [BasicBlock(outputs, outputs, 1) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
            inputs = outputs
        self.blocks = blocks
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def stem(self, x: Tensor) -> Tensor:
        """The first convolution, (N, width, H, W)."""
        return self.relu(self.bn1(self.conv1(x)))

    def pool(self, x: Tensor) -> Tensor:
        """Mean over space, (N, 8 width)."""
        return self.avgpool(x).flatten(1)

    def parts(self) -> list[Part]:
        """The stages in order of computation, each with the beginning of its sites' names."""
        stages = [f"layer{i + 1}" for i in range(len(self.blocks))]
        return [("conv1", self.stem), *((s, getattr(self, s)) for s in stages), ("", self.pool)]

    def features(self, x: Tensor) -> Tensor:
        """Pooled output of the last stage, (N, 8 width)."""
        return run(self.parts(), x)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))

    def sites(self) -> list[Site]:
        """The stem, every block's inner map, every end of a stage; the last is the last site.

        A block's output inside a stage is also read by an identity shortcut, so no layer's
        columns could take its gate: it is not offered.
        """
        found = [_norm_site("conv1", self.conv1, "bn1", "relu", "layer1.0.conv1", "")]
        for stage, count in enumerate(self.blocks, 1):
            for block in range(count):
                at = f"layer{stage}.{block}"
                conv = self.get_submodule(f"{at}.conv1")
                found.append(_norm_site(f"{at}.conv1", conv, f"{at}.bn1", f"{at}.relu1",
                                        f"{at}.conv2", f"{at}.relu1"))
            readers = ("fc",)
            if stage < len(self.blocks):
                readers = (f"layer{stage + 1}.0.conv1", f"layer{stage + 1}.0.downsample.0")
            end = f"layer{stage}.{count - 1}"
            channels = self.get_submodule(f"{end}.conv2").out_channels
            found.append(
                Site(name=f"layer{stage}", channels=channels, module=f"{end}.relu2",
                     readers=readers, kernel=f"{end}.conv2", feeds=f"{end}.bn2",
                     consumers=readers, read=f"{end}.relu2")
            )
        return found

    def shifts(self) -> dict[str, str]:
        """The last batch norm of every block, which no gate folds into, with its stage."""
        return {f"layer{stage}.{block}.bn2": f"layer{stage}"
                for stage, count in enumerate(self.blocks, 1) for block in range(count)}


class DigitsNet(nn.Module):
    """Three convolutions for 8x8 digits: width, 2 width, 4 width channels; pooled, classified."""

    def __init__(self, classes: int, channels: int, width: int, side: int = 8):
        super().__init__()
        inputs = channels
        for i in (1, 2, 3):
            outputs = width * 2 ** (i - 1)
            self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
            self.add_module(f"relu{i}", nn.ReLU())
            inputs = outputs
        self.pool = nn.MaxPool2d(2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def parts(self) -> list[Part]:
        """The convolutions in order, each with its site's name."""
        return [
            ("conv1", lambda x: self.relu1(self.bn1(self.conv1(x)))),
            ("conv2", lambda x: self.pool(self.relu2(self.bn2(self.conv2(x))))),
            ("conv3", lambda x: self.avgpool(self.relu3(self.bn3(self.conv3(x)))).flatten(1)),
        ]

    def features(self, x: Tensor) -> Tensor:
        """Pooled output of the third convolution, (N, 4 width)."""
        return run(self.parts(), x)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))

    def sites(self) -> list[Site]:
        """The three convolutions. The last folds into the classifier, as a ResNet's does."""
        found = [_norm_site(f"conv{i}", getattr(self, f"conv{i}"), f"bn{i}", f"relu{i}",
                            f"conv{i + 1}", read) for i, read in ((1, "relu1"), (2, "pool"))]
        channels = self.conv3.out_channels
        return [*found, Site(name="conv3", channels=channels, module="relu3", readers=("fc",),
                            kernel="conv3", feeds="bn3", consumers=("fc",), read="relu3")]

    def shifts(self) -> dict[str, str]:
        """The third batch norm: the last site's gates fold into the classifier."""
        return {"bn3": "conv3"}


class VGG(nn.Module):
    """VGG with batch norm (Simonyan & Zisserman, 2015), one linear layer as the classifier.

    `features` is torchvision's sequence (the same names), then the pooled vector, (N, 8 width).
    """

    def __init__(self, convolutions: tuple[int, ...], classes: int, channels: int, width: int,
                 side: int):
        super().__init__()
        layers, inputs = [], channels
        for block, count in enumerate(convolutions):
            outputs = width * min(8, 2**block)
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
                           nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            # rounded up: the small images of a training's first epochs end in one pixel, too
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(inputs, classes)

    def parts(self) -> list[Part]:
        """Every layer by itself, named as a site by the convolution before it."""
        found, name = [], ""
        for i, layer in enumerate(self.features):
            name = f"features.{i}" if isinstance(layer, nn.Conv2d) else name
            found.append((name, layer))
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))

    def sites(self) -> list[Site]:
        """Every convolution: there is no shortcut, so each folds into its batch norm."""
        at = [i for i, m in enumerate(self.features) if isinstance(m, nn.Conv2d)]
        after = [*(f"features.{i}" for i in at[1:]), "fc"]
        pooled = [isinstance(self.features[i + 3], nn.MaxPool2d) for i in at]
        return [
            _norm_site(f"features.{i}", self.features[i], f"features.{i + 1}",
                       f"features.{i + 2}", following, f"features.{i + 2 + pools}")
            for i, following, pools in zip(at, after, pooled, strict=True)
        ]


def _norm_site(name: str, conv: nn.Conv2d, norm: str, module: str, consumer: str,
               read: str) -> Site:
    return Site(name=name, channels=conv.out_channels, module=module, norm=norm, kernel=name,
                consumers=(consumer,), read=read)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "digits-cnn": DigitsNet,
    "resnet18": lambda **kw: ResNet((2, 2, 2, 2), **kw),
    "resnet34": lambda **kw: ResNet((3, 4, 6, 3), **kw),
    "vgg16": lambda **kw: VGG((2, 2, 3, 3, 3), **kw),
}


def build(
    architecture: str, *, classes: int, channels: int, width: int, side: int = 32
) -> nn.Module:
    """A fresh model, channels-last.

    Args:
        side: pixels of the images' side, which decides a ResNet's stem.

    Example:
        >>> build("resnet18", classes=10, channels=3, width=16).fc.in_features
        128
    """
    choose("architecture", architecture, ARCHITECTURES)
    if not 1 <= width <= 1024:
        raise UserError(f"width {width}: expected a whole number from 1 to 1024")
    model = ARCHITECTURES[architecture](classes=classes, channels=channels, width=width, side=side)
    return model.to(memory_format=torch.channels_last)


def kernels(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Every convolution by name, in order of computation."""
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def choose_sites(model: nn.Module, which: str) -> list[Site]:
    """Sites by `last`, `inner` (all but the last), `late`, `all`, names, or several by commas.

    `late` is the second half of the network without its last site: the two last stages of a
    ResNet.
    """
    sites = model.sites()
    half = next((i for i, s in enumerate(sites) if s.name.startswith("layer3")), len(sites) // 2)
    groups = {"last": sites[-1:], "inner": sites[:-1], "late": sites[half:-1], "all": sites}
    named = groups | {s.name: [s] for s in sites}
    for name in which.split(","):
        choose("site", name, named)
    chosen = {s.name for name in which.split(",") for s in named[name]}
    if not chosen:
        raise UserError(f"sites={which}: this network has none there; expected one of its sites, "
                        f"{', '.join(s.name for s in sites)}")
    return [s for s in sites if s.name in chosen]
