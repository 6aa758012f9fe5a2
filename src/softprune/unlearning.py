"""Unlearning methods behind one interface, with a registry.

    model, ledger = unlearn("ssd", bench.model, (3,), access, alpha=10.0)

A method edits a copy of the model that it is given and keeps time: `prepare` does not depend on the
request and can be done before it, `select` finds what to change, `edit` changes it. Whatever
depends on the request and optimises anything is `edit`.
"""

import copy
import dataclasses
import functools
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from softprune import channels, datasets, evaluation, paths, training
from softprune.errors import UserError, choose


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Nothing to set."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """An entry of the registry.

    `run(model, forget, access, options, ledger)` edits `model` and returns it. `needs` names what a
    request reads beside the weights: `table`, `forget` or `retain` (training images). `cite` is a
    key of the book's bibliography, empty for controls.
    """

    name: str
    run: Callable[..., nn.Module]
    options: type
    needs: tuple[str, ...]
    cite: str


METHODS: dict[str, Method] = {}


def method(name: str, options: type = NoOptions, *, needs: tuple[str, ...] = (), cite: str = ""):
    """Decorator: enter a function into the registry."""

    def enter(run):
        if name in METHODS and METHODS[name].run.__module__ != run.__module__:
            raise UserError(f"there is a method {name!r} already: give yours another name")
        METHODS[name] = Method(name=name, run=run, options=options, needs=needs, cite=cite)
        return run

    return enter


@dataclass
class Ledger(evaluation.TimeLedger):
    """A time ledger that counts the processor's seconds too: a busy machine stretches the clock."""

    cpu: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str):
        """Time the block as `name`, by the clock and by the processor."""
        worked = time.process_time()
        with super().part(name):
            yield
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - worked


@dataclass
class Access:
    """What a method may read of the data: training images, the table, the training recipe.

    `prepared` keeps what does not depend on a request, with the ledger of its making.
    """

    images: datasets.ImageSet
    recipe: training.TrainConfig
    table: channels.ClassChannelTable
    prepared: dict[str, tuple[object, Ledger]] = field(default_factory=dict)

    @classmethod
    def of(cls, bench) -> "Access":
        """Of a `requests.Bench`."""
        return cls(images=bench.images, table=bench.table,
                   recipe=training.TrainConfig.from_dict(bench.sidecar["config"]))

    @functools.cached_property
    def train(self) -> tuple[Tensor, Tensor]:
        """Training images (validation left out) and labels."""
        return self.images.split("train")

    def part(self, forget, retained: bool) -> tuple[Tensor, Tensor]:
        """Training images and labels of the retained, or of the forgotten classes."""
        pixels, labels = self.train
        index = (evaluation.is_forgotten(labels, forget) ^ retained).nonzero().squeeze(1)
        return pixels[index], labels[index]

    def once(self, key: str, make: Callable[[], object], ledger: Ledger):
        """`make()`, kept under `key`; every request's ledger shows what it took as `prepare`."""
        if key not in self.prepared:
            own = Ledger()
            with own.part("prepare"):
                made = make()
            self.prepared[key] = made, own
        made, own = self.prepared[key]
        for mine, its in ((ledger.seconds, own.seconds), (ledger.cpu, own.cpu)):
            mine["prepare"] = mine.get("prepare", 0.0) + its["prepare"]
        return made


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (N, C) in float32, through bfloat16 where that is fast."""
    fast = training.has_fast_bfloat16(x.device)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=fast):
        return model(x).float()


def registry() -> dict[str, Method]:
    """All methods by name."""
    from softprune import baselines, finetuning  # noqa: F401  they enter themselves

    return METHODS


def configure(name: str, **options):
    """A method's frozen options.

    Raises:
        UserError: unknown method, option or kind of value.
    """
    choose("method", name, registry())
    kind = METHODS[name].options
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for option, value in options.items():
        choose(f"option of {name}", option, fields)
        wanted = type(fields[option].default)
        if wanted is float and type(value) is int:
            options[option] = float(value)
        elif type(value) is not wanted:
            raise UserError(f"{name}: {option}={value!r}: expected {wanted.__name__}")
    return kind(**options)


def unlearn(
    name: str, model: nn.Module, forget, access: Access, **options
) -> tuple[nn.Module, Ledger]:
    """A copy of `model` that has forgotten the classes, in evaluation mode, and the time it took.

    Raises:
        UserError: see `configure`; no class, or every class.
    """
    settings = configure(name, **options)
    forget, classes = tuple(forget), len(access.images.class_names)
    if not forget or not set(forget) < set(range(classes)):
        raise UserError(f"classes {forget}: expected some of 0 to {classes - 1}, not all")
    ledger = Ledger()
    own = copy.deepcopy(model).requires_grad_(True)
    own = METHODS[name].run(own, forget, access, settings, ledger)
    if not isinstance(own, nn.Module):
        raise UserError(f"{name} returned {type(own).__name__}: expected the edited network")
    return own.eval().requires_grad_(False), ledger


def tuned(dataset: str, name: str) -> dict:
    """Options chosen for a data set by `softprune tune`; none (the paper's) where it was not.

    A trained method is run for as many steps as it was tuned with.
    """
    import yaml

    path = paths.root() / "data" / "baselines.yml"
    found = (yaml.safe_load(path.read_text()) if path.exists() else None) or {}
    entry = found.get(dataset, {})
    chosen = dict(entry.get("methods", {}).get(name, {}).get("chosen", {}))
    fields = {f.name for f in dataclasses.fields(registry()[name].options)}
    steps = {"steps": entry["steps"]} if entry.get("steps") and "steps" in fields else {}
    return chosen | (steps if chosen else {})
