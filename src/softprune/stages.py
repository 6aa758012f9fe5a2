"""What the four notebooks share: opening a stage, finding its models, closing it with a record."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from softprune import artifacts, catalog, completing, datasets, training
from softprune.errors import UserError


@dataclass
class Stage:
    """One stage of one data set: its training configuration, its rows, its record."""

    name: str
    config: training.TrainConfig
    parameters: dict
    images: datasets.ImageSet
    rows: list[dict] = field(default_factory=list)
    extra: dict = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    def add(self, method: str, metric: str, value, unit: str = "", **more) -> None:
        """Add one measured number."""
        self.rows.append(artifacts.row(method, metric, value, unit, **more))

    def original(self) -> Path:
        """The stage's own checkpoint: shipped, cached, or trained now if it is digits or smoke."""
        return self._checkpoint(self.config)

    def retrained(self, cls: str) -> Path | None:
        """The reference retrained without a class; None where it has not been trained."""
        import dataclasses

        config = dataclasses.replace(self.config, without=(cls,))
        return self._checkpoint(config, optional=True)

    def retrained_seeds(self, cls: str, most: int) -> list[Path]:
        """References retrained without a class, seeds 0, 1, …: as many as there are, `most` at
        most, and at the smoke profile two: what stage 4 asks grows with their pairs. On digits
        those missing are trained now, in seconds each.
        """
        import dataclasses

        most = min(most, 2) if self.config.profile == "smoke" else most
        configs = (dataclasses.replace(self.config, without=(cls,), seed=s) for s in range(most))
        found = (self._checkpoint(config, optional=True) for config in configs)
        return [path for path in found if path]

    def shadows(self, cls: int | None = None):
        """The shadow models of this recipe, `targets`' input, with twins retrained without a class.

        None where they are not trained yet, with a line that says what to type; on digits and at
        the smoke profile they are trained now.
        """
        from softprune import shadows

        found = shadows.open_set(self.config, self.images)
        if self.config.dataset == "digits" or self.config.profile == "smoke":
            shadows.train_missing(found, cls)
        if not found.missing():
            return found
        without = "" if cls is None else f" --without {self.images.class_names[cls]}"
        print(f"{len(found.missing(cls))} of the shadow models are not trained: type `softprune "
              f"shadows --dataset {self.config.dataset} --profile {self.config.profile}{without}`"
              " with the same -p")
        return None

    def rung_classes(self, every: int, always=()) -> list[int]:
        """Classes whose gates the ladder fits: every `every`-th, and those of the request.

        0 stands for all of fewer than 40, about 20 of more; at the smoke profile 2.
        """
        n = len(self.images.class_names)
        step = every or (n // 2 if self.config.profile == "smoke" else max(1, n // 20))
        return sorted({*range(0, n, step), *always})

    def _checkpoint(self, config, optional: bool = False) -> Path | None:
        found = training.find_checkpoint(config, self.images.data_hash)
        known = config.dataset in catalog.catalog() and config.profile != "smoke"
        if not found and known and (found := training.find_checkpoint(config)):
            # an archive and an import of one set differ in a few images: say so, and go on
            print(f"note: {found.stem} was trained on another copy of {config.dataset} "
                  "(its hash differs from the one here)")
        if found:
            return found
        if config.dataset == "digits" or config.profile == "smoke":
            return training.train(config)
        if optional:
            return None
        raise UserError(
            f"{config.name} ({config.profile}) is not trained yet: type `softprune train "
            f"--dataset {config.dataset} --profile {config.profile}` with the same -p"
        )

    def close(self) -> Path:
        """Write the run record."""
        key = record_key(self.parameters, self.images.data_hash)
        made = artifacts.provenance(time.perf_counter() - self.began)
        # the configuration last: it says what a parameter's "profile's default" came to
        parameters = self.parameters | self.config.as_dict()
        rows = completing.complete(self.rows, self.images, self._original_logits, self.name)
        return artifacts.write_record(self.name, key, parameters, rows, made, self.extra)

    def _original_logits(self):
        from softprune import requests

        return requests.Bench(self.original(), self.images).outputs("test")[1]


def open_stage(name: str, parameters: dict) -> Stage:
    """From a notebook's parameters; an empty string, 0 or -1 stands for the profile's default.

    Raises:
        UserError: data missing, or a parameter out of range.
    """
    config = configuration(parameters)
    artifacts.commit()  # read (and cached) now: the clone may move on while this runs
    return Stage(name=name, config=config, parameters=dict(parameters),
                 images=training.load_images(config))


def configuration(parameters: dict) -> training.TrainConfig:
    """The training that a notebook's parameters ask for."""
    defaults = {"architecture": "", "width": 0, "penalty": "", "strength": -1.0, "epochs": 0}
    given = {k: parameters[k] for k, v in defaults.items() if parameters[k] != v}
    return training.configure(parameters["dataset"], parameters["profile"],
                              seed=parameters["seed"], **given)


def record_key(parameters: dict, data_hash: str) -> str:
    """Names the run record of a stage: also how a page finds its own.

    Args:
        data_hash: of the whole set; a cut set's suffix is dropped, since the profile says it.
    """
    return artifacts.short_hash({"parameters": parameters, "data": data_hash.split("/")[0],
                                 "config": configuration(parameters).as_dict()})


def default_request(class_names) -> str:
    """The class that is forgotten where none is named: the fourth, or the last of fewer.

    Example:
        >>> default_request(("ant", "bee"))
        'bee'
    """
    return class_names[min(3, len(class_names) - 1)]


def say(text: str) -> None:
    """Display a sentence as markdown: prose whose numbers are this run's."""
    from IPython.display import Markdown, display

    display(Markdown(text))
