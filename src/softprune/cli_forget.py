"""`softprune forget` and `adopt`: the method as a tool."""

import json
from pathlib import Path

from softprune import cli_fit
from softprune.errors import UserError, choose


def adopt(arguments) -> None:
    """Make a checkpoint of weights trained elsewhere."""
    from softprune import adoption, datasets, models

    choose("architecture", arguments.architecture, models.ARCHITECTURES)
    weights, out = Path(arguments.weights).expanduser(), _new_checkpoint(arguments.out, "adopted")
    if out.resolve() == weights.resolve():
        raise UserError(f"--out {out} is the file of the weights: expected another name")
    found = adoption.adopt(adoption.read_weights(weights), datasets.load(arguments.dataset), out,
                           arguments.architecture, arguments.width)
    print(f"test accuracy {100 * found:.2f} %")
    print(out)


def _new_checkpoint(name: str, mark: str) -> Path:
    """Where a checkpoint may be written: over nothing, or over one whose sidecar has `mark`.

    Raises:
        UserError: a folder, another ending, a companion's name, or files of something else.
    """
    out = Path(name)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: expected the name of a file in it")
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: expected a name that ends in .safetensors")
    if "." in out.stem and out.stem.rsplit(".", 1)[1].split("-")[0] in ("table", "logits", "gates"):
        raise UserError(f"--out {out.name} is the name of a checkpoint's companion file: expected "
                        "a name without .table, .logits or .gates before .safetensors")
    _refuse_other_files(out, mark)
    return out


def forget(arguments) -> None:
    """Forget classes of a checkpoint, and save it."""
    from softprune import artifacts, channels, datasets, evaluation, models, pruning

    if Path(arguments.out).resolve() == Path(arguments.checkpoint).resolve():
        raise UserError(f"--out {arguments.out} is the checkpoint itself: expected another name")
    out = _new_checkpoint(arguments.out, "forgotten")
    ledger = evaluation.TimeLedger()
    checkpoint = Path(arguments.checkpoint)
    model, sidecar = artifacts.load_checkpoint(checkpoint, architecture=arguments.architecture)
    classes = datasets.class_indices(tuple(sidecar["class_names"]), arguments.classes,
                                     _other_names(sidecar))
    if not classes:
        raise UserError(f"--classes {arguments.classes!r} names no class: expected names or "
                        "numbers joined by commas")
    if sidecar.get("forgotten"):
        both = ",".join([*sidecar["forgotten"], *arguments.classes.split(",")])
        raise UserError(f"{checkpoint.name} has forgotten {', '.join(sidecar['forgotten'])}, and "
                        f"its table with it: take the original with --classes {both}")
    table = channels.load_table(artifacts.check_companion(checkpoint, "table", sidecar), model)
    given = {name: value for name in ("score", "fraction", "gate", "sites")
             if (value := getattr(arguments, name)) is not None}
    if given and arguments.rung != "plain":
        raise UserError(f"--{next(iter(given))} belongs to the plain rung: {arguments.rung} brings "
                        "its own gates and sites")
    plain = {"sites": "last", "fraction": 0.25} | given
    sites = models.choose_sites(model, plain.pop("sites"))
    if arguments.rung == "plain":
        with ledger.part("select"):
            gates = pruning.make_gates(table, sites, classes, **plain)
    else:
        gates = _rung_gates(arguments.rung, checkpoint, model, sidecar, table, classes, ledger)
    before = _accuracies(model, sidecar, classes)
    with ledger.part("edit"):
        pruning.fold(model, gates)
        pruning.erase_closed(model, gates)
    with ledger.part("save"):
        names = [sidecar["class_names"][c] for c in classes]
        sidecar["forgotten"] = sorted({*sidecar.get("forgotten", []), *names})
        # the table names the class's channels: what travels with the model holds it no longer
        for moment in (table.mean, table.square):
            for by_site in moment.values():
                for values in by_site.values():
                    values[list(classes)] = 0
        table.counts[list(classes)] = 0
        channels.save_table(artifacts.companion(out, "table"), table)
        sidecar["companions"] = {"table": artifacts.sha256(artifacts.companion(out, "table"))}
        artifacts.save_checkpoint(out, model, sidecar)
    after = _accuracies(model, sidecar, classes)
    if before:
        for label, old, new in zip(("retained", "forgotten"), before, after, strict=True):
            print(f"{label:9} test accuracy {100 * old:6.2f} % -> {100 * new:6.2f} %")
    else:
        print(f"{sidecar['config']['dataset']} is not here, or not the data it was trained on: "
              "accuracies are not measured")
    for part, seconds in ledger.seconds.items():
        print(f"{part:9} {1000 * seconds:10.3f} ms")
    print(out)


def _refuse_other_files(out: Path, mark: str) -> None:
    """Do not overwrite what another command, or a person, made."""
    from softprune import artifacts

    sidecar = artifacts.companion(out, "sidecar")
    there = [p for p in (out, sidecar, artifacts.companion(out, "table")) if p.exists()]
    try:
        own = bool(there) and mark in json.loads(sidecar.read_text())
    except (OSError, ValueError):
        own = False
    if there and not own:
        raise UserError(f"--out {out}: {there[0]} is there, and this command did not make it: "
                        "expected another name")


def _other_names(sidecar: dict) -> dict[str, list[str]]:
    """Superclasses and other names of a checkpoint's classes; of one trained on an import that
    knew of none yet, those of the catalogue."""
    from softprune import sources

    known = sources.superclasses(sidecar["config"]["dataset"])
    if not set(sidecar["class_names"]).issuperset(n for group in known.values() for n in group):
        known = {}
    return known | sidecar.get("aliases", {})


def _rung_gates(rung: str, checkpoint: Path, model, sidecar: dict, table, classes, ledger):
    """Directions of prototypes from the table, gates that `softprune fit` stored, or of `together`,
    which is fitted now."""
    from softprune import artifacts, ladder, prototypes, requests

    choose("rung", rung, ("plain", prototypes.RUNG, *ladder.RUNGS, "searched", "guarded", "deep",
                          requests.TOGETHER))
    if rung == prototypes.RUNG:
        setting = prototypes.options(sidecar["config"]["dataset"], sidecar["config"]["profile"])
        with ledger.part("prepare"):
            found = prototypes.of_model(model, table, setting)
        with ledger.part("select"):
            return prototypes.request(found, classes)
    if rung == requests.TOGETHER:
        bench = requests.Bench(checkpoint, cli_fit.trained_on(checkpoint, sidecar))
        with ledger.part("fit"):
            return bench.together(classes)
    path = artifacts.companion(checkpoint, f"gates-{rung}")
    if not path.exists():
        raise UserError(f"{path} is missing: type `softprune fit --rung {rung} --checkpoint "
                        f"{checkpoint}`")
    stored = ladder.load_gates(path)[0]
    if artifacts.load_tensors(path)[1].get("weights") != sidecar["sha256"]:
        raise UserError(f"{path.name} was fitted for other weights: type `softprune fit` again")
    with ledger.part("select"):
        return ladder.request(stored, classes)


def _accuracies(model, sidecar, classes) -> tuple[float, float] | None:
    """Retained and forgotten test accuracy, where the data is here."""
    from softprune import datasets, evaluation, requests

    try:
        images = datasets.load(sidecar["config"]["dataset"])
    except UserError:
        return None
    if images.data_hash != sidecar["data_hash"]:
        return None
    pixels, labels = images.split("test")
    logits = evaluation.predict(model, pixels, images.mean, images.std)[1]
    return requests.retained_and_forgotten(logits, labels, classes)
