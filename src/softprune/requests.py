"""A request "forget these classes", judged: every method's outputs, all classes in turn."""

import copy
import functools
from pathlib import Path

import torch
from torch import Tensor

from softprune import artifacts, channels, datasets, evaluation, models, pruning
from softprune.errors import UserError

# to the end of the scale: a best setting at a grid's edge would say the grid was too short
FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


class Bench:
    """A trained model with its table and data, ready to answer requests.

    Gates at the last site of a model whose classifier reads it act on pooled features, so their
    logits come from one matrix product; gates elsewhere are folded and the images run again.
    """

    def __init__(self, checkpoint: Path, images: datasets.ImageSet):
        self.model, self.sidecar = artifacts.load_checkpoint(checkpoint)
        if self.sidecar["data_hash"] != images.data_hash:
            raise UserError(
                f"{checkpoint.name} was trained on other data than the {images.name} that is here"
            )
        self.table = channels.load_table(artifacts.companion(checkpoint, "table"), self.model)
        self.images = images
        self.last = self.model.sites()[-1].name

    @functools.cache  # noqa: B019  a bench lives as long as its notebook
    def outputs(self, split: str) -> tuple[Tensor, Tensor, Tensor]:
        """Features, logits and labels of a split, before any request."""
        pixels, labels = self.images.split(split)
        features, logits = evaluation.predict(self.model, pixels, self.images.mean,
                                              self.images.std)
        return features, logits, labels

    def gates(self, forget, *, sites: str = "last", **options) -> pruning.Gates:
        """`pruning.make_gates` with this model's table."""
        return pruning.make_gates(
            self.table, models.choose_sites(self.model, sites), tuple(forget), **options
        )

    def gated_outputs(self, gates: pruning.Gates, split: str) -> tuple[Tensor, Tensor]:
        """Features and logits of a split under gates."""
        features, _, _ = self.outputs(split)
        if set(gates) <= {self.last}:
            fc = self.model.fc
            gate = gates.get(self.last, torch.ones(features.shape[1]))
            with torch.no_grad():
                return features, torch.nn.functional.linear(features * gate, fc.weight, fc.bias)
        pixels, _ = self.images.split(split)
        with pruning.folded(self.model, gates):
            return evaluation.predict(self.model, pixels, self.images.mean, self.images.std)

    def fold_into_copy(self, gates: pruning.Gates) -> torch.nn.Module:
        """An unlearned model of its own."""
        model = copy.deepcopy(self.model)
        pruning.fold(model, gates)
        return model

    def method_logits(self, method: str, forget, split: str, **options) -> Tensor:
        """Logits of `original`, `head-mask`, `soft`, `hard` or `random-channels`.

        Args:
            options: sites, score, statistic, fraction, gate, alpha, seed of the soft method;
                `hard` closes the same channels, `random-channels` draws as many.
        """
        if method == "original":
            return self.outputs(split)[1]
        if method == "head-mask":
            return evaluation.head_mask(self.outputs(split)[1], forget)
        changed = {"soft": {}, "hard": {"gate": "hard"}, "random-channels": {"score": "random"}}
        return self.gated_outputs(self.gates(forget, **options | changed[method]), split)[1]


def retained_and_forgotten(logits: Tensor, labels: Tensor, forget) -> tuple[float, float]:
    """Accuracy on the retained and on the forgotten classes."""
    gone = evaluation.is_forgotten(labels, forget)
    return (evaluation.accuracy(logits[~gone], labels[~gone]),
            evaluation.accuracy(logits[gone], labels[gone]))


def calibrate(bench: Bench, fractions=FRACTIONS, **options) -> tuple[float, list[dict]]:
    """The fraction to prune, chosen on the validation split alone; and every point tried.

    Rule: the largest mean over all classes in turn of (retained - forgotten accuracy); of equals
    the smallest fraction. One fraction serves every class.
    """
    points = []
    labels = bench.outputs("validation")[2]
    for fraction in fractions:
        pairs = []
        for cls in range(len(bench.images.class_names)):
            gates = bench.gates((cls,), fraction=fraction, **options)
            logits = bench.gated_outputs(gates, "validation")[1]
            pairs.append(retained_and_forgotten(logits, labels, (cls,)))
        retained, forgotten = torch.tensor(pairs, dtype=torch.float64).mean(0).tolist()
        points.append({"fraction": fraction, "retained": retained, "forgotten": forgotten})
    best = max(points, key=lambda p: p["retained"] - p["forgotten"])
    return best["fraction"], points


def candidates(bench: Bench, fractions=FRACTIONS) -> list[dict]:
    """What the paper leaves open at the last site: every score, statistic and gate.

    Each combination gets its own fraction on the validation split, and is judged on the test split
    for all classes in turn. Values in [0, 1], means over classes and the worst class.
    """
    return [
        judged(bench, fraction=calibrate(bench, fractions, **choice)[0], **choice)
        for choice in (
            {"score": score, "statistic": statistic, "gate": gate, "sites": "last"}
            for score in channels.SCORES for statistic in channels.STATISTICS
            for gate in pruning.GATES
        )
        if not (choice["score"] == "random" and choice["statistic"] == "max")  # the same draw
    ]


def judged(bench: Bench, **choice) -> dict:
    """One setting for all classes in turn on the test split: a dict of its numbers."""
    _, before, labels = bench.outputs("test")
    gone, change = [], []
    for cls in range(len(bench.images.class_names)):
        logits = bench.gated_outputs(bench.gates((cls,), **choice), "test")[1]
        kept, forgotten = retained_and_forgotten(logits, labels, (cls,))
        gone.append(forgotten)
        change.append(kept - retained_and_forgotten(before, labels, (cls,))[0])
    return choice | {
        "forgotten-mean": sum(gone) / len(gone), "forgotten-worst": max(gone),
        "change-mean": sum(change) / len(change), "change-worst": min(change), "n": len(gone),
    }
