"""The three profiles: what each data set is trained with, by size of machine."""

from softprune.errors import choose

PROFILES = ("smoke", "laptop", "paper")

_DIGITS = {"architecture": "digits-cnn", "width": 16, "batch_size": 64, "peak_lr": 0.2, "pad": 1,
           "flip": False, "label_smoothing": 0.0}
_RESNET = {"architecture": "resnet18", "batch_size": 256, "peak_lr": 0.25}
_SMOKE = _RESNET | {"width": 4, "epochs": 1, "batch_size": 64, "per_class": 40}

RECIPES: dict[str, dict[str, dict]] = {
    "digits": {
        "smoke": _DIGITS | {"width": 8, "epochs": 4},
        "laptop": _DIGITS | {"epochs": 30},
        "paper": _DIGITS | {"width": 32, "epochs": 60},
    },
    # small images first: a third of the time saved (compute budget of 2 cores)
    "cifar10": {
        "smoke": _SMOKE,
        # 20 epochs with light augmentation gave 91.9 %, 32 gave 92.8 %, and knew their training
        # images by heart
        "laptop": _RESNET | {"width": 32, "epochs": 40, "sides": ((0.25, 16), (0.6, 24)),
                             "pad": 4, "cutout": 12},
        "paper": _RESNET | {"width": 64, "epochs": 40, "sides": ((0.25, 16), (0.6, 24)),
                            "pad": 4, "cutout": 12},
    },
    "cifar100": {
        "smoke": _SMOKE | {"per_class": 10},
        "laptop": _RESNET | {"width": 32, "epochs": 24, "sides": ((0.25, 16), (0.6, 24))},
        "paper": _RESNET | {"width": 64, "epochs": 50, "sides": ((0.25, 16), (0.6, 24)),
                            "pad": 4, "cutout": 8},
    },
    "tiny-imagenet-200": {
        "smoke": _SMOKE | {"per_class": 4},
        "laptop": _RESNET | {"width": 32, "epochs": 14, "sides": ((0.3, 32), (0.65, 48)),
                             "pad": 4},
        "paper": _RESNET | {"width": 64, "epochs": 40, "sides": ((0.3, 32), (0.65, 48)),
                            "pad": 8, "cutout": 16, "batch_size": 512, "peak_lr": 0.4},
    },
}

# test accuracy that a recipe is to reach with the `so` penalty, set before it was trained: by data
# set, profile and architecture
GOALS: dict[tuple[str, str, str], float] = {
    ("cifar10", "laptop", "resnet18"): 0.935,
    ("cifar10", "laptop", "vgg16"): 0.92,
    ("cifar100", "laptop", "resnet18"): 0.71,
    ("tiny-imagenet-200", "laptop", "resnet18"): 0.48,
    ("cifar10", "paper", "resnet18"): 0.947,
    ("cifar10", "paper", "vgg16"): 0.935,
    ("cifar100", "paper", "resnet18"): 0.756,
    ("cifar100", "paper", "vgg16"): 0.72,
    ("tiny-imagenet-200", "paper", "resnet18"): 0.60,
}

# what changes where a set's residual network is replaced: at the residual networks' peak rate a net
# without shortcuts hardly learned while the rate was high (first looks, no record)
INSTEAD: dict[str, dict] = {"vgg16": {"peak_lr": 0.1, "pad": 4}}

# what changes where a set's network is made narrower than its recipe has it: it does not learn its
# training images by heart, and in few epochs strong augmentation would only cost it. An imported
# set has it too: a square of 12 pixels may be all there is on a picture
GENTLE = {"pad": 2, "cutout": 0}
NARROWER: dict[str, dict] = {"cifar10": GENTLE}


def profile_defaults(dataset: str, profile: str, side: int | None = None,
                     architecture: str = "", width: int = 0) -> dict:
    """Training options of a data set at a profile; an imported set is trained as CIFAR-10 is.

    Args:
        architecture: another one than the set's own.
        width: another one than the recipe's; 0 is the recipe's.
        side: pixels of an imported set's images. Below 32 they are not shrunk in the first epochs.
    """
    choose("profile", profile, PROFILES)
    values = dict(RECIPES.get(dataset, RECIPES["cifar10"])[profile])
    if dataset not in RECIPES:
        values |= GENTLE if profile == "laptop" else {}
        if (side or 0) < 32:
            values.pop("sides", None)
    if profile == "laptop" and 0 < width < values["width"]:
        values |= NARROWER.get(dataset, {})
    if values["architecture"] == "resnet18":
        values |= INSTEAD.get(architecture, {})
    return values


# shadow models: a recipe that memorises, so that an attack has something to find
SHADOWS: dict[str, dict[str, dict]] = {
    "digits": {
        "smoke": {"count": 8, "retrained": 2, "epochs": 4},
        "laptop": {"count": 64, "retrained": 8, "epochs": 30},
        "paper": {"count": 256, "retrained": 32, "epochs": 60},
    },
    "cifar10": {
        "smoke": {"count": 4, "retrained": 2, "epochs": 1},
        "laptop": {"count": 16, "retrained": 4, "pool": 10_000, "epochs": 24, "batch_size": 128},
        "paper": {"count": 64, "retrained": 16, "epochs": 60, "batch_size": 256},
    },
}


def shadow_defaults(dataset: str, profile: str) -> dict:
    """Options of `shadows.ShadowConfig`; sets without their own are treated as CIFAR-10."""
    choose("profile", profile, PROFILES)
    return dict(SHADOWS.get(dataset, SHADOWS["cifar10"])[profile])


def chosen_under(dataset: str, profile: str) -> str:
    """The entry of `data/ladder.json` that a profile's choice stands in: full-size networks have
    their own, `<data set>/paper`.

    Example:
        >>> chosen_under("cifar10", "paper"), chosen_under("cifar10", "laptop")
        ('cifar10/paper', 'cifar10')
    """
    return f"{dataset}/paper" if profile == "paper" else dataset
