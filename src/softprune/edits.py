"""Shadow models after an edit of one's own, to be asked as `targets.ask` asks.

    edited = EditedShadows(found, lambda model, own: forget(model, own))
    told = targets.ask(edited, cls, ("original",))
    targets.attack(told, "original", "lira-others").auc
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from softprune import shadows


@dataclass(frozen=True)
class EditedShadows:
    """A set of shadow models, each after `edit`; the rest is the set's.

    `edit(model, own)` returns the edited network, of a model and the images that it was trained on
    (a `shadows.Part`, which methods and tables read as they read an image set).
    """

    whole: shadows.Shadows
    edit: Callable[[nn.Module, shadows.Part], nn.Module]

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def model(self, k: int, without: int | None = None) -> nn.Module:
        """Model k, edited."""
        seen = self.whole.seen(k, without)
        own = shadows.part(self.whole.images, self.whole.pixels[seen], self.whole.labels[seen])
        return self.edit(self.whole.model(k, without), own).eval()
