"""The page with sliders: what it embeds of the digits model, and the same answer in Python.

The page recomputes, in the reader's browser, gates at the last site: class, number of channels and
strength give g = 1 - strength at the channels with the highest `difference`, and logits
W (g * h) + b of the 500 test images from their stored features h.
"""

import base64
import functools
import json

import torch

from softprune import datasets, paths, requests

_NAME = "digits-cnn-w16-so-0.01-s0.safetensors"


@functools.cache
def bench() -> requests.Bench:
    """The shipped digits model."""
    return requests.Bench(paths.shipped() / "digits" / "laptop" / _NAME, datasets.load("digits"))


def packed(values: torch.Tensor, kind: str = "<f4") -> str:
    """Base64 of the values in row order, little-endian."""
    return base64.b64encode(values.detach().numpy().astype(kind).tobytes()).decode()


def data() -> dict:
    """What the page needs, JSON-able: arrays in base64, about 130 kB.

    Features are 16-bit, each channel with its own scale (`scale` times 0 … 65535): an error of a
    hundred-thousandth of a channel's largest value. Pictures are of digits, 16 shades.
    """
    here = bench()
    features, _, labels = here.outputs("test")
    scale = features.amax(0).clamp_min(1e-12) / 65535
    site = here.table.sites[-1]
    pixels = here.images.split("test")[0].float()
    return {
        "names": list(here.images.class_names),
        "labels": labels.tolist(),
        "counts": here.table.counts.tolist(),
        "channels": features.shape[1],
        "side": pixels.shape[-1],
        "features": packed((features / scale).round(), "<u2"),
        "scale": packed(scale),
        "table": packed(here.table.mean["mean"][site]),
        "weight": packed(here.model.fc.weight),
        "bias": packed(here.model.fc.bias),
        "pictures": packed((pixels * 15 / pixels.max()).round(), "u1"),
    }


def embedded() -> str:
    """`data` as JSON that may stand inside a `<script>` element."""
    return json.dumps(data(), separators=(",", ":")).replace("<", "\\u003c")


def answer(cls: int, channels: int, strength: float) -> dict[str, float]:
    """The page's numbers, by the method's own code: shares in [0, 1].

    Returns:
        `forgotten`, `retained`: accuracies; `confidence`: mean probability of the class on its own
        images; `masked`: the others' accuracy under a head mask.
    """
    from softprune import evaluation

    here = bench()
    _, plain, labels = here.outputs("test")
    gates = {}
    if channels:
        gates = here.gates((cls,), gate="constant", alpha=1 - strength,
                           fraction=channels / here.table.mean["mean"][here.last].shape[1])
    logits = here.gated_outputs(gates, "test")[1]
    kept, gone = requests.retained_and_forgotten(logits, labels, (cls,))
    mine = labels == cls
    masked = requests.retained_and_forgotten(evaluation.head_mask(plain, (cls,)), labels, (cls,))
    return {"forgotten": gone, "retained": kept, "masked": masked[0],
            "confidence": logits[mine].softmax(1)[:, cls].double().mean().item()}
