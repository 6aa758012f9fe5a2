"""`softprune train`, `sweep` and `shadows`."""

import os
from pathlib import Path

from softprune import cli_words
from softprune.errors import UserError, choose
from softprune.profiles import PROFILES


def configuration(arguments, classes: tuple[str, str] | None = None, alone: bool = False):
    """The training that `--dataset`, `--profile` and `-p` ask for, checked before torch is loaded.

    Args:
        classes: name and value of an option, `CLASS,...`, to check against the data set, too.
        alone: of `cli_words.check_classes`.
    """
    choose("profile", arguments.profile, PROFILES)
    texts = cli_words.assignments(arguments.parameters)
    if arguments.threads is not None and not 1 <= arguments.threads <= 1024:
        raise UserError(f"--threads {arguments.threads}: expected a whole number from 1 to 1024")
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    from softprune import catalog

    choose("data set", arguments.dataset, catalog.known())
    meta = catalog.meta(arguments.dataset)
    if classes and classes[1] is not None:
        cli_words.check_classes(*classes, meta, alone)
    if meta is None and arguments.dataset != "digits":
        raise UserError(catalog.missing(arguments.dataset))

    import dataclasses

    import torch

    from softprune import training

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    fields = {f.name: f.type for f in dataclasses.fields(training.TrainConfig)
              if f.type in (bool, int, float, str) and f.name not in ("dataset", "profile")}
    for name in texts:
        choose("parameter", name, [*fields, "sides"])
    values = {n: cli_words.sides(t) if n == "sides" else cli_words.typed(n, t, fields[n])
              for n, t in texts.items()}
    return training.configure(arguments.dataset, arguments.profile, **values)


def checkpoint_of(config, data_hash: str | None = None) -> Path:
    """Where the trained classifier of a configuration is.

    Raises:
        UserError: it is not trained yet.
    """
    from softprune import training

    path = training.find_checkpoint(config, data_hash)
    if path is None:
        raise UserError(f"{config.name} ({config.profile}) is not trained yet: type `softprune "
                        f"train` with the same --dataset, --profile and -p")
    return path


def bench_of(config):
    """The trained classifier of a configuration, ready for requests."""
    from softprune import requests, training

    images = training.load_images(config)
    return requests.Bench(checkpoint_of(config, images.data_hash), images)


def train(arguments) -> None:
    """Train one classifier, or resume it."""
    config = configuration(arguments, ("--without", arguments.without))
    import dataclasses

    from softprune import catalog, training

    if arguments.without:
        config = dataclasses.replace(config, without=tuple(arguments.without.split(",")))
        meta = catalog.meta(arguments.dataset)
        if meta and len(meta["class_names"]) - len(catalog.class_indices(
                tuple(meta["class_names"]), arguments.without, meta.get("aliases"))) < 2:
            raise UserError(f"--without {arguments.without} leaves one class: expected two or more "
                            "that a network can tell apart")

    def log(entry):
        print(f"epoch {entry['epoch']}/{config.epochs}  loss {entry['loss']:.3f}  "
              f"penalty {entry['penalty']:.2f}  validation {entry['validation']:.4f}  "
              f"{entry['seconds']:.0f} s", flush=True)

    print(training.train(config, log=log))


def sweep(arguments) -> None:
    """Every score, gate and fraction on one classifier."""
    config = configuration(arguments)
    import time

    from softprune import artifacts, completing, requests, training

    bench = bench_of(config)
    began = time.perf_counter()
    rows = completing.complete(requests.sweep(bench), bench.images)
    print(artifacts.write_record(
        "sweep", training.run_key(config, bench.images.data_hash), config.as_dict(), rows,
        artifacts.provenance(time.perf_counter() - began)))


def shadow(arguments) -> None:
    """Train the shadow models of an attack."""
    config = configuration(arguments, ("--without", arguments.without))
    from softprune import shadows, training

    images = training.load_images(config)
    without = None
    if arguments.without:
        without, *more = images.class_indices(arguments.without)
        if more:
            raise UserError(f"--without {arguments.without}: expected one class")
    counted = {} if arguments.count is None else {"count": arguments.count}
    made = shadows.open_set(config, images, **counted)
    shadows.train_missing(made, without, log=lambda text: print(text, flush=True))
    twins = "" if without is None else f", {made.plan.retrained} also without {arguments.without}"
    print(f"{made.plan.count} shadow models of {len(made.labels) // 2} images each{twins}")
