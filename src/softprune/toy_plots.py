"""Figures of the toy, each with alt text: kernels, activations, regions, an attack's view."""

import numpy as np
import torch

from softprune import toy
from softprune.plots import BLUE, GREEN, GREY, INK, ORANGE, _figure

COLOURS = (BLUE, ORANGE, GREEN)
MARKERS = ("o", "s", "^")
REACH = 4.2


def _plane(axis, title: str = "") -> None:
    axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], title=title)
    axis.set_aspect("equal")


def _grid(steps: int = 121):
    """Points of a grid over the plane, (steps², 2), and its axis."""
    at = torch.linspace(-REACH, REACH, steps)
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x.ravel(), y.ravel()], 1), at.numpy()


def _scatter(axis, x, labels, size: float = 9) -> None:
    for c, (colour, marker) in enumerate(zip(COLOURS, MARKERS, strict=True)):
        mine = x[labels == c]
        axis.scatter(mine[:, 0], mine[:, 1], s=size, c=colour, marker=marker, lw=0.2,
                     edgecolors="white", label=toy.CLASSES[c])


def kernels(nets: dict, x, labels):
    """The points, and each network's kernels as arrows."""
    figure, axes = _figure(len(nets), 3.6 * len(nets), 3.6)
    parts = []
    for axis, (name, net) in zip(np.atleast_1d(axes), nets.items(), strict=True):
        _plane(axis, name)
        _scatter(axis, x, labels)
        labels_at: dict[tuple[float, float], list[str]] = {}  # arrows that end close together share
        longest_first = sorted(enumerate(net.kernel.tolist()), key=lambda k: -np.hypot(*k[1]))
        for j, (a, b) in longest_first:
            axis.annotate("", (2 * a, 2 * b), (0, 0), arrowprops={"arrowstyle": "->", "color": INK})
            at = (2.25 * a, 2.25 * b)
            near = [p for p in labels_at if np.hypot(p[0] - at[0], p[1] - at[1]) < 0.7]
            labels_at.setdefault(near[0] if near else at, []).append(str(j))
        for at, names in labels_at.items():
            axis.annotate(", ".join(names), at, ha="center", va="center", color=INK, zorder=5,
                          bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8})
        gram = net.kernel.T @ net.kernel
        off, low, high = abs(float(gram[0, 1])), *sorted(gram.diagonal().tolist())
        parts.append(f"{name}: {len(net.kernel)} arrows, K transposed K has {low:.2f} and "
                     f"{high:.2f} on its diagonal and {off:.2f} beside it")
    np.atleast_1d(axes)[0].legend(fontsize=8, loc="lower left", frameon=False)
    names = ", ".join(toy.CLASSES)
    return figure, f"Points of three classes ({names}) with kernels. " + "; ".join(parts) + "."


def activations(net, scores, cls: int):
    """Each channel's activation over the plane, best score for the class first."""
    order = scores.argsort(descending=True).tolist()
    figure, axes = _figure(len(order), 1.75 * len(order), 2.1)
    grid, at = _grid(61)
    maps = net.activations(grid).reshape(len(at), len(at), -1)
    for axis, j in zip(axes, order, strict=True):
        _plane(axis, f"{j}: {scores[j]:+.2f}")
        axis.imshow(maps[..., j], origin="lower", extent=(-REACH, REACH) * 2, cmap="Blues")
    return figure, (f"Activations of {len(order)} channels over the plane, by their score for "
                    f"{toy.CLASSES[cls]}: "
                    + ", ".join(f"channel {j} {scores[j]:+.2f}" for j in order) + ".")


def regions(panels: dict, x, labels, cls: int):
    """Decision regions, a panel a model.

    Args:
        panels: name -> function from points (N, 2) to logits (N, 3).
    """
    figure, axes = _figure(len(panels), 2.3 * len(panels), 2.6)
    grid, at = _grid()
    parts = []
    for axis, (name, answer) in zip(axes, panels.items(), strict=True):
        won = answer(grid).argmax(1).reshape(len(at), len(at))
        _plane(axis, name)
        axis.contourf(at, at, won, levels=[-0.5, 0.5, 1.5, 2.5], colors=COLOURS, alpha=0.3)
        _scatter(axis, x, labels, 5)
        share = float((won == cls).float().mean())
        own, others = toy.accuracies(answer(x), labels, cls)
        parts.append(f"{name}: {toy.CLASSES[cls]} has {100 * share:.0f} percent of the plane, "
                     f"{100 * own:.0f} percent of its points right, {100 * others:.0f} of others")
    return figure, "Decision regions. " + "; ".join(parts) + "."


def seen_by_an_attack(panels: dict):
    """Confidence of members and of others, a panel a model.

    Args:
        panels: name -> (members, others, auc).
    """
    figure, axes = _figure(len(panels), 2.9 * len(panels), 2.6)
    bins = np.linspace(0, 1, 21)
    parts = []
    for axis, (name, (members, others, auc)) in zip(axes, panels.items(), strict=True):
        for values, colour, text in ((members, INK, "training"), (others, GREY, "held out")):
            share = np.full(len(values), 1 / len(values))
            axis.hist(values, bins, weights=share, histtype="step", color=colour, label=text, lw=2)
        axis.set(title=f"{name}\nAUC {auc:.2f}", xlabel="confidence", ylim=(0, 1))
        parts.append(f"{name}: mean {np.mean(members):.2f} for training points, "
                     f"{np.mean(others):.2f} for held-out ones, AUC {auc:.2f}")
    axes[0].set_ylabel("share of points")
    axes[0].legend(frameon=False, fontsize="small", loc="upper center")
    return figure, "Histograms of the confidence in the true class. " + "; ".join(parts) + "."
