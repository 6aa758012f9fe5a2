"""Refusals: what was handed in is looked at, nothing changed, and one line says what was expected.

Called as statements where a mistake would otherwise give a wrong number without a word. None of
them decides a result, so a page that was executed is not stale when one is added
(`artifacts.source_hash`).
"""

import copy
import operator

import torch
from torch import Tensor, nn

from softprune.errors import UserError

# attribute of a network -> who reads it; `softprune.models` has four that hold it
PROTOCOL = {
    "features": "pooled features (N, J) of images (N, C, H, W)",
    "fc": "the linear classifier of these features",
    "parts": "features as a list of (name, computation), for all that starts in the middle",
    "sites": "the places where channels can be gated",
}


def classes(forget, count: int) -> None:
    """A request: some of `count` classes by number, not all."""
    try:
        named = [operator.index(c) for c in forget]
    except TypeError:
        raise UserError(f"classes {forget!r}: expected a sequence of class numbers, as "
                        "`images.class_indices(\"three\")` gives it") from None
    if not named or len(set(named)) == count or not all(0 <= c < count for c in named):
        raise UserError(f"classes {tuple(named)}: expected some of 0 to {count - 1}, not all")


def one_class(forget, count: int) -> None:
    """The number of one of `count` classes."""
    if not isinstance(forget, int) or not 0 <= forget < count:
        raise UserError(f"class {forget!r}: expected one number from 0 to {count - 1}")


def pixels(images) -> None:
    """Images as they are stored: `evaluation.predict` normalises them itself."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.dim() != 4:
        kind = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(
            images).__name__
        raise UserError(f"images: {kind}: expected uint8 (N, C, H, W), not yet normalised")


def gates(found) -> None:
    """Gates by name, tensors."""
    for name, g in found.items():
        if not isinstance(g, Tensor) or not g.dim():
            kind = "one number" if isinstance(g, Tensor) else type(g).__name__
            raise UserError(f"gates at {name}: {kind}: expected a tensor (J,), one gate a channel")


def several(name: str, values) -> None:
    """What is gone through more than once: a generator would be empty the second time."""
    if values is not None and not hasattr(values, "__len__"):
        raise UserError(f"{name}: {type(values).__name__}: expected a list or tuple")


def network(model, *more: str) -> None:
    """What this module's networks have beside `forward`; `more`, names needed here."""
    lacks = [n for n in more or PROTOCOL if not hasattr(model, n)]
    if lacks:
        said = "; ".join(f"{n}, {PROTOCOL[n]}" if n in PROTOCOL else n for n in lacks)
        raise UserError(f"{type(model).__name__} has no {said} (page *Your own network*)")


def same_images(sidecar: dict, images) -> None:
    """Whether a checkpoint was trained on images of this size and normalisation."""
    for name, own in (("mean", images.mean), ("std", images.std)):
        told = sidecar.get(name, own)
        if len(told) != len(own) or max(abs(a - b) for a, b in zip(told, own, strict=True)) > 0.02:
            told, own = ([round(v, 3) for v in values] for values in (told, own))
            raise UserError(f"the checkpoint's {name} is {told}, that of the images {own}: "
                            "expected the images it was trained on")
    side = images.train_images.shape[-1]
    if sidecar.get("side", side) != side:
        raise UserError(f"the checkpoint was trained at {sidecar['side']} pixels, the images have "
                        f"{side}")


def same_answers(model: nn.Module, features: Tensor, images, count: int = 16) -> None:
    """Whether a network computes what its weights say.

    Args:
        features: (N, J) of the test images, as they follow from the weights.
    """
    from softprune import evaluation

    _, logits = evaluation.predict(model, images.test_images[:count], images.mean, images.std)
    with torch.no_grad():
        told = model.fc(features[:count].to(model.fc.weight)).cpu()
    if not torch.allclose(logits, told, rtol=0.02, atol=0.05):
        raise UserError("the network answers otherwise than its weights say: is there a hook or a "
                        "layer without weights? Expected an edit of weights, or "
                        "`baselines.Projection` behind the pooling")


def protocol(model: nn.Module, example: Tensor) -> None:
    """A new network, tried: attributes, shapes, and gates that fold exactly at every site.

    Args:
        example: a few normalised images (N, C, H, W).

    Raises:
        UserError: what is wrong first.
    """
    from softprune import models, pruning

    network(model)
    model = copy.deepcopy(model).eval()
    for norm in model.modules():  # fresh ones would hide what a fold forgets
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.normal_()
            norm.running_mean.normal_()
    with torch.no_grad():
        logits, features = model(example), model.features(example)
        if features.dim() != 2 or model.fc.in_features != features.shape[1]:
            raise UserError(f"features {tuple(features.shape)}: expected (N, J), with J = "
                            f"{model.fc.in_features} inputs of fc")
        for what, made in (("fc of features", model.fc(features)),
                           ("fc of parts", model.fc(models.run(model.parts(), example)))):
            if not torch.allclose(made, logits, atol=1e-3):
                raise UserError(f"{what}: expected the logits of the network itself")
        there = dict(model.named_modules())
        for site in model.sites():
            named = (site.module, site.norm, site.kernel, site.feeds, site.read, *site.readers,
                     *site.consumers)
            if lost := [n for n in named if n and n not in there]:
                raise UserError(f"site {site.name}: the network has no {lost[0]}")
        for site in model.sites():
            g = torch.linspace(0.1, 1, site.channels)
            with pruning.gated(model, {site.name: g}):
                wanted = model(example)
            with pruning.folded(model, {site.name: g}):
                gap = (model(example) - wanted).abs().max().item()
            if gap > 1e-3 * max(1.0, wanted.abs().max().item()):
                raise UserError(f"site {site.name}: folded gates differ from explicit ones by "
                                f"{gap:.2g} in a logit; look at its norm, readers and module")
