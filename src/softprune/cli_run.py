"""`softprune run`, `why`, `results`, `doctor` and `class`."""

import os
import sys
from pathlib import Path

from softprune import __version__, cli_data, cli_words, paths
from softprune.errors import UserError, choose
from softprune.profiles import PROFILES


def wanted(arguments) -> dict[str, dict]:
    """Parameters by stage, checked before anything starts."""
    from softprune import catalog, notebooks

    stages = notebooks.needed(arguments.stage)
    choose("data set", arguments.dataset, catalog.known())
    given = cli_words.assignments(arguments.parameters)
    for name in ("dataset", "profile"):
        if name in given:
            raise UserError(f"-p {name}={given[name]}: expected --{name} {given[name]}")
    pages = {s: notebooks.page_metadata(notebooks.published(s, arguments.dataset)).get(
        "parameters", {}) for s in stages}
    profile = arguments.profile or pages[stages[-1]].get("profile", "laptop")
    wanted = notebooks.resolve(stages, arguments.dataset, profile, given)
    for stage, before in pages.items():  # a page of this profile keeps what it was made with
        if before.get("profile") == profile and "recipe" not in given:
            kept = {k: v for k, v in before.items() if k in wanted[stage] and k not in given
                    and _of_kind(v, wanted[stage][k])}  # a template's parameters may change
            wanted[stage] = notebooks.check(stage, wanted[stage] | kept)
    notebooks.data_hash(arguments.dataset)  # a missing data set is said now
    _check_values({n: v for s in stages for n, v in wanted[s].items() if n in given and v},
                  arguments.dataset, profile)
    if wanted[stages[-1]].get("forget"):
        meta = catalog.meta(arguments.dataset)
        catalog.class_indices(tuple(meta["class_names"]), wanted[stages[-1]]["forget"],
                              meta.get("aliases"))
    return wanted


def _check_values(given: dict, dataset: str, profile: str) -> None:
    """Refuse a value that a cell would refuse after earlier stages were published."""
    import dataclasses

    from softprune import channels, models, pruning, training

    for name, most in (("fraction", 1.0), ("alpha", 1.0), ("every", float("inf"))):
        if name in given and not 0 <= given[name] <= most:
            raise UserError(f"{name}={given[name]}: expected a number from 0"
                            + (" to 1" if most == 1 else " on"))
    for name, accepted in (("score", channels.SCORES), ("statistic", channels.STATISTICS),
                           ("gate", pruning.GATES)):
        if name in given:
            choose(name, given[name], accepted)
    fields = {f.name for f in dataclasses.fields(training.TrainConfig)}
    config = training.configure(dataset, profile,
                                **{k: v for k, v in given.items() if k in fields})
    if "sites" in given:
        models.choose_sites(models.build(config.architecture, classes=2, channels=1,
                                         width=config.width), given["sites"])


def _of_kind(value, like) -> bool:
    return type(value) is type(like) or (type(value), type(like)) == (int, float)


def run(arguments) -> None:
    """Execute a stage and what it needs, where it is not up to date."""
    from softprune import notebooks

    stale = False
    for stage, values in wanted(arguments).items():
        stale = stale or arguments.force or bool(notebooks.why(stage, values))
        if stale:  # what follows a stage that was executed is executed too
            notebooks.run(stage, values, log=lambda text: print(text, flush=True))
        else:
            print(f"{stage} on {arguments.dataset} is up to date")


def why(arguments) -> None:
    """Say why a stage would be executed again."""
    from softprune import notebooks

    for stage, values in wanted(arguments).items():
        reasons = notebooks.why(stage, values)
        print(f"{stage}: {'; '.join(reasons) if reasons else 'up to date'}")


def results(arguments) -> None:
    """All run records: test accuracies and how many rows each stage has, or the whole table."""
    import collections
    import csv

    from softprune import artifacts

    rows = artifacts.tidy(artifacts.read_records())
    if arguments.csv:
        writer = csv.DictWriter(sys.stdout, artifacts.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    for r in rows:
        if (r["metric"], r["stage"]) == ("accuracy", "train") and r["split"].endswith("test"):
            run = f"{r['architecture']} w{r['width']} {r['penalty']} {r['strength']:g} s{r['seed']}"
            print(f"{r['dataset']:17} {r['profile']:7} {run:32} {r['method']:9} {r['forget']:11} "
                  f"{r['split']:14} {100 * r['value']:6.2f} %")
    counts = collections.Counter((r["dataset"], r["profile"], r["stage"]) for r in rows)
    for (dataset, profile, stage), count in sorted(counts.items()):
        print(f"{dataset:17} {profile:7} {stage:24} {count:7} rows")
    print(f"{len(rows)} rows in all; add --csv for the whole table")


def doctor(_arguments) -> None:
    """What this machine has, and how long trainings took."""
    import platform
    import statistics

    import torch

    from softprune import artifacts, catalog, training

    device = training.pick_device()
    fast = "yes" if training.has_fast_bfloat16(device) else "no (float32 is used)"
    print(f"softprune {__version__}, python {platform.python_version()}, torch {torch.__version__}")
    print(f"device    {artifacts.device_name()}; fast bfloat16: {fast}")
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        print(f"memory    {total:.0f} GiB")
    print(f"cache     {paths.cache()}")
    cli_data.show(None)
    found = [p for base in (paths.shipped(), paths.cache() / "checkpoints")
             for p in sorted(base.rglob("*.safetensors")) if p.name.count(".safetensors") == 1
             and artifacts.companion(p, "sidecar").exists()]
    for path in found:
        print(f"model     {paths.relative(path)}")
    taken: dict[tuple, list[float]] = {}
    for record in artifacts.read_records(stage="train"):
        p, made = record["parameters"], record["provenance"]
        kind = (p["dataset"], p["profile"], p["architecture"], p["width"], p["epochs"],
                made["device"].split()[0])
        taken.setdefault(kind, []).append(made["wall_s"])
    for (name, profile, architecture, width, epochs, where), seconds in sorted(taken.items()):
        print(f"training  {name} {profile} {architecture} w{width}, {epochs} epochs: "
              f"{statistics.median(seconds):.0f} s on a {where} (median of {len(seconds)})")
    measured = {(name, profile) for name, profile, *_ in taken}
    for name in catalog.catalog():
        for profile in (p for p in PROFILES if (name, p) not in measured):
            print(f"training  {name} {profile}: not measured")


def release(arguments) -> None:
    """Write what students get."""
    from softprune import classroom

    course = Path(arguments.folder).expanduser()
    classroom.release(course, arguments.assignment, log=lambda text: print(text, flush=True))


def grade(arguments) -> None:
    """Grade what they handed in."""
    from softprune import classroom

    limits = classroom.Limits(cell=arguments.cell_seconds, submission=arguments.seconds,
                              jobs=arguments.jobs)
    course = Path(arguments.folder).expanduser()
    print(classroom.grade(course, arguments.assignment, limits,
                          log=lambda text: print(text, flush=True)))
