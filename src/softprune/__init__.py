"""Orthogonal soft pruning for class unlearning: the method, its measures and its book."""

from softprune.version import __version__

__all__ = ["__version__"]
