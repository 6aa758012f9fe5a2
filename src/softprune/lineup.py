"""Five anonymous checkpoints of one class's forgetting, shuffled by a seed: an audit's exhibits.

One is the original, one was retrained without the class, one only hides it behind its classifier,
one has gates inside that only close (`soft`), one has channels closed and erased at the last site
(`hard`). All are made from the digits checkpoints that ship with the repository, so nothing is
trained. The gates are those of `ladder.base`: the chosen ones may also turn channels up.
"""

import copy
import random
from pathlib import Path

import torch
from torch import nn

from softprune import artifacts, channels, ladder, models, paths, pruning

KINDS = ("original", "retrained", "head-masked", "soft", "hard")
LETTERS = "ABCDE"
CLASS = 3  # the one that a retrained reference ships for: three
_NAME = "digits-cnn-w16-so-0.01-s0"


def key(seed: str) -> dict[str, str]:
    """Which letter is which kind under this seed."""
    kinds = list(KINDS)
    random.Random(f"lineup {seed}").shuffle(kinds)
    return dict(zip(LETTERS, kinds, strict=True))


def exhibits() -> dict[str, nn.Module]:
    """The five models by kind, in evaluation mode, rounded to half precision."""
    folder = paths.shipped() / "digits" / "laptop"
    checkpoint = folder / f"{_NAME}.safetensors"
    original, _ = artifacts.load_checkpoint(checkpoint)
    retrained, _ = artifacts.load_checkpoint(folder / f"{_NAME}-without-three.safetensors")
    table = channels.load_table(artifacts.companion(checkpoint, "table"), original)
    made = {"original": original, "retrained": retrained}
    made |= {kind: copy.deepcopy(original) for kind in KINDS[2:]}
    with torch.no_grad():
        made["head-masked"].fc.bias[CLASS] -= 100  # no logit of digits comes near it
    stored = ladder.load_gates(artifacts.companion(checkpoint, "gates-closing"))[0]
    pruning.fold(made["soft"], stored[CLASS])
    gates = pruning.make_gates(table, models.choose_sites(original, "last"), (CLASS,), gate="hard")
    pruning.fold(made["hard"], gates)
    pruning.erase_closed(made["hard"], gates)
    for model in made.values():
        artifacts.round_to_half(model)
    return made


def write(seed: str, folder: Path) -> dict[str, Path]:
    """Write A to E as checkpoints whose sidecars tell nothing; returns their paths by letter."""
    sidecar = artifacts.read_sidecar(paths.shipped() / "digits" / "laptop" / f"{_NAME}.safetensors")
    kept = ("config", "class_names", "mean", "std", "data_hash", "side")
    plain = {k: sidecar[k] for k in kept if k in sidecar}
    made, found = exhibits(), {}
    for letter, kind in key(seed).items():
        model = copy.deepcopy(made[kind]).half()
        for norm in model.modules():  # counts steps, and so tells how many images there were
            if isinstance(norm, nn.BatchNorm2d):
                norm.num_batches_tracked.zero_()
        found[letter] = Path(folder) / f"{letter}.safetensors"
        artifacts.save_checkpoint(found[letter], model, plain)
    return found
