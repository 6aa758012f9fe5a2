"""A network that was trained elsewhere, made a checkpoint that everything here can read.

    softprune adopt --weights resnet.pt --dataset cifar10 --architecture resnet18 --width 64 \\
        --out mine.safetensors

It must be one of `models.ARCHITECTURES` (a CIFAR stem, names as in torchvision) or be entered there
first, and have seen images normalised by the set's own mean and deviation.
"""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from softprune import artifacts, channels, datasets, evaluation, models, training
from softprune.errors import UserError

WRAPPED = ("state_dict", "model", "net")  # where a saved dictionary keeps the weights
# beginnings and parts of names that are common elsewhere, and ours
RENAMED = (("module.", ""), ("linear.", "fc."), (".shortcut.", ".downsample."))


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dictionary from `.safetensors`, or from what `torch.save` wrote; no code is run.

    Raises:
        UserError: no such file, or one that holds other things than tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file: expected weights, .safetensors or what torch.save "
                        "wrote")
    if path.suffix == ".safetensors":
        return artifacts.load_tensors(path)[0]
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path.name} holds more than tensors, or is cut short: expected what "
                        "`torch.save(model.state_dict(), PATH)` wrote") from error
    for name in WRAPPED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"{path.name}: expected a dictionary of tensors, as model.state_dict() is")
    return {_renamed(name): value for name, value in found.items()}


def _rounded(values) -> list[float]:
    return [round(v, 4) for v in values]


def _renamed(name: str) -> str:
    for theirs, ours in RENAMED:
        if theirs[0] == "." or name.startswith(theirs):
            name = name.replace(theirs, ours, 1)
    return name


def adopt(weights: dict[str, Tensor], images: datasets.ImageSet, out: Path, architecture: str,
          width: int) -> float:
    """Write a checkpoint, its sidecar and its class-by-channel table; returns its test accuracy.

    Args:
        weights: of the network, named as `models.build(architecture, …)` names them.
        images: what it was trained on. Settings are chosen on the validation split, a twentieth of
            the training images: if the network has seen them, the choice is a little optimistic.

    Raises:
        UserError: names or shapes that do not fit, or a network that recognises nothing, as it is
            when classes are in another order or images were normalised otherwise.
    """
    side = images.train_images.shape[-1]
    model = models.build(architecture, classes=len(images.class_names),
                         channels=images.train_images.shape[1], width=width, side=side)
    own = model.state_dict()
    wrong = [f"{k} is missing" for k in own if k not in weights]
    wrong += [f"{k} is not known" for k in weights if k not in own]
    wrong += [f"{k} is {tuple(weights[k].shape)}, expected {tuple(v.shape)}"
              for k, v in own.items() if k in weights and weights[k].shape != v.shape]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"the weights do not fit {architecture} of width {width} at {side} pixels: "
                        f"{'; '.join(wrong[:3])}{more}")
    model.load_state_dict(weights)
    pixels, labels = images.split("test")
    found = evaluation.accuracy(
        evaluation.predict(model.eval(), pixels, images.mean, images.std)[1], labels)
    if found < 2 / len(images.class_names):
        raise UserError(
            f"it recognises {100 * found:.1f} % of the test images: expected classes in the order "
            f"{', '.join(images.class_names[:3])}, … and images normalised by mean "
            f"{_rounded(images.mean)} and deviation {_rounded(images.std)}")
    config = training.configure(images.name, "laptop", architecture=architecture, width=width)
    channels.save_table(artifacts.companion(out, "table"),
                        channels.class_channel_table(model, images))
    artifacts.save_checkpoint(out, model, {
        "config": config.as_dict(), "class_names": list(images.class_names),
        "mean": list(images.mean), "std": list(images.std), "data_hash": images.data_hash,
        "side": side, "aliases": images.aliases, "data_source": images.source, "adopted": True,
        "companions": {"table": artifacts.sha256(artifacts.companion(out, "table"))},
    })
    return found
