"""The `softprune` command. torch is imported late, so help and refusals answer within a second."""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

from softprune import __version__, paths
from softprune.errors import UserError, choose
from softprune.profiles import PROFILES


def main(argv: list[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on standard error and exit status 2."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.action(arguments) or 0
    except UserError as error:
        print(f"softprune: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except json.JSONDecodeError as error:
        print(f"softprune: a JSON file that was read is cut short or was changed ({error.msg} at "
              f"line {error.lineno}): expected the one that was written with its checkpoint, its "
              "data set or under data/", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `softprune results | head`
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a folder that may not be written to
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"softprune: {where}{error.strerror}: expected a path that can be read and written, "
              "and room on its disk", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("softprune: stopped; the same command resumes", file=sys.stderr)
        return 130


def _command(commands, name: str, action, summary: str, example: str):
    parser = commands.add_parser(
        name, help=summary, description=summary,
        epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(action=action)
    return parser


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, without importing what the commands need."""
    parser = argparse.ArgumentParser(
        prog="softprune",
        description="Orthogonal soft pruning for class unlearning, and its reproducible book.",
        epilog="example:\n  softprune run all --dataset digits --profile smoke",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"softprune {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    train = _command(commands, "train", _train, "train one classifier, or resume it",
                     "softprune train --dataset cifar10 --profile laptop --without cat")
    fit = _command(commands, "fit", _fit, "fit a trained classifier's gates, class by class",
                   "softprune fit --dataset cifar10 --rung best --classes cat,dog")
    sweep = _command(commands, "sweep", _sweep, "every score, gate and fraction on one classifier",
                     "softprune sweep --dataset digits -p penalty=none -p seed=2")
    in_turn = _command(commands, "in-turn", _in_turn,
                       "forget every class in turn with every gate: a row beside other networks",
                       "softprune in-turn --dataset cifar10 -p width=16 -p epochs=14 -p seed=1")
    in_turn.add_argument("--every", type=int, default=1, metavar="N",
                         help="fit gates for every N-th class only")
    shadow = _command(commands, "shadows", _shadows, "train the shadow models of an attack",
                      "softprune shadows --dataset cifar10 --without cat -p width=16")
    shadow.add_argument("--without", metavar="CLASS",
                        help="some of them a second time without a class: the retrained targets")
    shadow.add_argument("--count", type=int, metavar="N", help="how many; default: the profile's")
    tune = _command(commands, "tune", _tune, "choose the baselines' settings on validation images",
                    "softprune tune --dataset digits --methods ssd,salun")
    tune.add_argument("--methods", metavar="NAME,...", help="default: all that have any")
    tune.add_argument("--classes", metavar="CLASS,...",
                      help="default: those tuned on before, or the set's last")
    tune.add_argument("--steps", type=int, metavar="N",
                      help="of a trained method (default: as before, or 0, its own)")
    for parser_ in (train, fit, sweep, in_turn, shadow, tune):
        parser_.add_argument("--dataset", required=parser_ is not fit, metavar="NAME")
        parser_.add_argument("--profile", default="laptop", metavar="|".join(PROFILES))
        parser_.add_argument("--threads", type=int, metavar="N",
                             help="CPU threads (the same bits need the same number)")
        _parameters(parser_)
    train.add_argument("--without", metavar="CLASS,...",
                       help="leave classes out: a retrained reference")
    fit.add_argument("--checkpoint", metavar="PATH",
                     help="of this file, instead of what --dataset, --profile and -p trained")
    fit.add_argument("--rung", default="best",
                     metavar="calibrated|best|searched|guarded|deep|prototype")
    fit.add_argument("--classes", metavar="CLASS,...", help="default: all")
    fit.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th class")
    fit.add_argument("--choose", action="store_true",
                     help="choose the rung's setting on the validation split, and remember it")

    run = _command(commands, "run", _run, "execute a stage and what it needs; publish the pages",
                   "softprune run soft-pruning --dataset digits -p forget=three")
    run.add_argument("stage", metavar="STAGE|all")
    why = _command(commands, "why", _why, "say why a stage would be executed again",
                   "softprune why soft-pruning --dataset cifar10")
    why.add_argument("stage", metavar="STAGE|all")
    for parser_ in (run, why):
        parser_.add_argument("--dataset", required=True, metavar="NAME")
        parser_.add_argument("--profile", metavar="|".join(PROFILES),
                             help="default: what the page was made with, else laptop")
        _parameters(parser_)
    run.add_argument("--force", action="store_true", help="execute even what is up to date")

    forget = _command(commands, "forget", _forget, "forget classes of a checkpoint, and save it",
                      "softprune forget --checkpoint data/checkpoints/digits/laptop/"
                      "digits-cnn-w16-so-0.01-s0.safetensors --classes three --out out.safetensors")
    forget.add_argument("--checkpoint", required=True, metavar="PATH")
    forget.add_argument("--classes", required=True, metavar="CLASS,...")
    forget.add_argument("--out", required=True, metavar="PATH")
    forget.add_argument("--rung", default="plain",
                        metavar="plain|prototype|calibrated|best|searched|guarded|deep|"
                                "together",
                        help="plain: gates by score and fraction; prototype: directions from the "
                             "table; what `softprune fit` stored; or together: fitted now for all "
                             "classes at once (takes training images, and seconds)")
    forget.add_argument("--fraction", type=float, help="default: 0.25")
    forget.add_argument("--gate", metavar="rank|constant|proportional|hard", help="default: rank")
    forget.add_argument("--score", metavar="NAME", help="default: difference")
    forget.add_argument("--sites", metavar="last|inner|late|all|NAME,...", help="default: last")
    forget.add_argument("--architecture", help="refuse a checkpoint of another architecture")

    adopt = _command(commands, "adopt", _adopt, "make a checkpoint of weights trained elsewhere",
                     "softprune adopt --weights resnet.pt --dataset cifar10 --architecture "
                     "resnet18 --width 64 --out mine.safetensors")
    adopt.add_argument("--weights", required=True, metavar="PATH",
                       help="a state dictionary: .safetensors, or what torch.save wrote")
    adopt.add_argument("--dataset", required=True, metavar="NAME")
    adopt.add_argument("--architecture", required=True, metavar="NAME")
    adopt.add_argument("--width", required=True, type=int, metavar="N",
                       help="channels of the first stage")
    adopt.add_argument("--out", required=True, metavar="PATH")

    results = _command(commands, "results", _results, "all run records as one tidy table",
                       "softprune results --csv > results.csv")
    results.add_argument("--csv", action="store_true", help="write the whole table to stdout")
    _command(commands, "doctor", _doctor, "what this machine has", "softprune doctor")

    data = commands.add_parser("data", help="list, fetch, verify or import image sets")
    verbs = data.add_subparsers(metavar="VERB", required=True)
    _command(verbs, "list", _data_list, "the catalog, and what is here", "softprune data list")
    fetch = _command(verbs, "fetch", _data_fetch, "download and decode a set, resuming",
                     "softprune data fetch cifar10 --from ~/cifar-10-python.tar.gz")
    fetch.add_argument("name", metavar="NAME")
    fetch.add_argument("--from", dest="source", metavar="PATH",
                       help="a local archive, or an unpacked folder")
    verify = _command(verbs, "verify", _data_verify, "compare decoded sets with their hashes",
                      "softprune data verify cifar10")
    verify.add_argument("name", nargs="?", metavar="NAME")
    load = _command(verbs, "import", _data_import, "import train/<class>/* and test/<class>/*",
                    "softprune data import ~/flowers --name flowers --size 32")
    load.add_argument("path", metavar="PATH")
    load.add_argument("--name", required=True)
    load.add_argument("--size", type=int, metavar="PIXELS", help="resize to a square")

    lessons = commands.add_parser("class", help="release assignments, grade submissions")
    verbs = lessons.add_subparsers(metavar="VERB", required=True)
    give = _command(verbs, "release", _class_release, "write what students get: no solutions",
                    "softprune class release course")
    mark = _command(verbs, "grade", _class_grade, "grade submitted/STUDENT/NAME/NAME.ipynb",
                    "softprune class grade course --jobs 2")
    for parser_ in (give, mark):
        parser_.add_argument("folder", metavar="DIR", help="the course: an nbgrader course folder")
        parser_.add_argument("--assignment", action="append", metavar="NAME",
                             help="only this one; may be repeated")
    mark.add_argument("--jobs", type=int, default=2, help="submissions at a time")
    mark.add_argument("--cell-seconds", type=int, default=60, metavar="S",
                      help="a cell that takes longer is interrupted")
    mark.add_argument("--seconds", type=int, default=300, metavar="S",
                      help="a submission that takes longer is stopped")
    return parser


def _parameters(parser) -> None:
    parser.add_argument("-p", dest="parameters", action="append", default=[],
                        metavar="name=value", help="override one parameter; may be repeated")


def assignments(pairs: list[str]) -> dict[str, str]:
    """`["a=1", "b=x"]` -> `{"a": "1", "b": "x"}`.

    Raises:
        UserError: a pair without `=`, or a name twice.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        name, sep, value = pair.partition("=")
        if not sep or not name:
            raise UserError(f"-p {pair!r}: expected -p name=value")
        if name in values:
            raise UserError(f"-p {name} is given twice")
        values[name] = value
    return values


def typed(name: str, text: str, kind: type):
    """`text` as `kind` (bool, int, float or str).

    Raises:
        UserError: it is not one.
    """
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError) as error:
        raise UserError(f"-p {name}={text}: expected {words[kind]}") from error


def sides(text: str) -> tuple[tuple[float, int], ...]:
    """`"0.25:16,0.6:24"` -> `((0.25, 16), (0.6, 24))`: smaller images in the first epochs.

    Args:
        text: `SHARE:PIXELS,...`, up to which share of the epochs images have that side; empty for
            images of their own size throughout.

    Raises:
        UserError: it is not that.
    """
    try:
        found = tuple((float(share), int(side)) for share, side in
                      (part.split(":") for part in text.split(",") if text))
    except ValueError:
        found = ((0.0, 0),)
    shares = [share for share, _ in found]
    rise = shares == sorted(set(shares)) and all(0 < share < 1 for share in shares)
    if not rise or any(side < 8 for _, side in found):  # less is nothing after three poolings
        raise UserError(f"-p sides={text}: expected SHARE:PIXELS,... with shares of the epochs "
                        "that rise from 0 to 1, and 8 pixels or more, as in sides=0.25:16,0.6:24")
    return found


def _bar(**options):
    from tqdm import tqdm

    return tqdm(unit="B", unit_scale=True, unit_divisor=1024, **options)


# --- train ---------------------------------------------------------------------------------------


def _named(text: str) -> list[str]:
    """The words of a `CLASS,...`."""
    return [t.strip() for t in text.replace("+", ",").split(",") if t.strip()]


def _class_names(name: str, text: str, meta: dict | None, alone: bool = False) -> None:
    """Check the `CLASS,...` of an option against a data set, as far as it is here.

    Args:
        alone: each is a request of its own, so all may be named.
    """
    from softprune import catalog

    asked = _named(text)
    if not asked:
        raise UserError(f"{name} {text!r} names no class: expected names or numbers joined by "
                        f"commas, or no {name} at all")
    if meta:
        names = tuple(meta["class_names"])
        for one in [[t] for t in asked] if alone else [asked]:
            catalog.class_indices(names, one, meta.get("aliases"))


def _configuration(arguments, classes: tuple[str, str] | None = None, alone: bool = False):
    """The training that `--dataset`, `--profile` and `-p` ask for, checked before torch is loaded.

    Args:
        classes: name and value of an option, `CLASS,...`, to check against the data set, too.
        alone: of `_class_names`.
    """
    choose("profile", arguments.profile, PROFILES)
    texts = assignments(arguments.parameters)
    if arguments.threads is not None and not 1 <= arguments.threads <= 1024:
        raise UserError(f"--threads {arguments.threads}: expected a whole number from 1 to 1024")
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    from softprune import catalog

    choose("data set", arguments.dataset, catalog.known())
    meta = catalog.meta(arguments.dataset)
    if classes and classes[1] is not None:
        _class_names(*classes, meta, alone)
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
    values = {n: sides(t) if n == "sides" else typed(n, t, fields[n]) for n, t in texts.items()}
    return training.configure(arguments.dataset, arguments.profile, **values)


def _train(arguments) -> None:
    config = _configuration(arguments, ("--without", arguments.without))
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


def _bench(config):
    """The trained classifier of a configuration, ready for requests."""
    from softprune import requests, training

    images = training.load_images(config)
    path = training.find_checkpoint(config, images.data_hash)
    if path is None:
        raise UserError(f"{config.name} ({config.profile}) is not trained yet: type `softprune "
                        f"train` with the same --dataset, --profile and -p")
    return requests.Bench(path, images)


def _bench_to_fit(arguments):
    """The classifier of a file, or of `--dataset`, `--profile` and `-p`."""
    if bool(arguments.checkpoint) == bool(arguments.dataset):
        raise UserError("fit: expected either --dataset NAME, with --profile and -p, or "
                        "--checkpoint PATH")
    if not arguments.checkpoint:
        return _bench(_configuration(arguments, ("--classes", arguments.classes), alone=True))
    if arguments.parameters:
        raise UserError("-p belongs to --dataset: a checkpoint says itself what it is")
    from softprune import artifacts, requests

    path = Path(arguments.checkpoint).expanduser()
    return requests.Bench(path, _trained_on(path, artifacts.load_checkpoint(path)[1]))


def _trained_on(checkpoint: Path, sidecar: dict):
    """The images that a checkpoint was trained on.

    Raises:
        UserError: they are not here, or others are.
    """
    from softprune import datasets

    images = datasets.load(sidecar["config"]["dataset"])
    if images.data_hash != sidecar.get("data_hash"):
        raise UserError(f"{checkpoint.name} was trained on other data than the {images.name} that "
                        "is here: expected its training images, to fit edits")
    return images


def _fit(arguments) -> None:
    rung = arguments.rung
    choose("rung", rung, ("calibrated", "best", "searched", "guarded", "deep", "prototype"))
    if rung == "prototype" and not arguments.choose:
        raise UserError("prototype has nothing to fit: type `softprune forget --rung prototype`, "
                        "or add --choose to choose its setting on the validation split")
    if arguments.choose and rung in ("guarded", "deep"):
        raise UserError("--choose: expected --rung calibrated, best, searched or prototype; "
                        "guarded directions are chosen beside retrained networks, type "
                        "`python benchmarks/readers.py`")
    _check_every(arguments.every)
    bench = _bench_to_fit(arguments)
    if arguments.choose:
        own = _choose_setting if rung in ("calibrated", "best") else _choose_direction
        return own(bench, rung)
    names = bench.images.class_names
    classes = ([c for n in _named(arguments.classes) for c in bench.images.class_indices([n])]
               if arguments.classes else range(0, len(names), arguments.every))

    def log(text):
        print(text, flush=True)

    from softprune import artifacts, guarding, searching

    with _alone(artifacts.companion(bench.checkpoint, f"gates-{rung}")):
        if rung == "searched":
            seconds = searching.prepare(bench, classes, log)[1]
        elif rung in guarding.RUNGS:
            seconds = guarding.prepare(bench, rung, classes, log)[1]
        else:
            seconds = bench.prepare(rung, classes, log)
    print(f"{len(seconds)} of {len(names)} classes are fitted")


@contextlib.contextmanager
def _alone(path: Path):
    """Refuse a second command that would write the same file, and lose what the first one adds."""
    try:
        import fcntl
    except ImportError:  # not on this system
        yield
        return
    lock = paths.cache() / "locks" / f"{path.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another command is writing {path.name}: wait for it, then type this "
                            "again; what is fitted stays") from error
        yield


def _choose_setting(bench, rung: str) -> None:
    from softprune import choosing, ladder

    base = ladder.base(rung, bench.images.name).told()

    def told(options) -> str:
        return ", ".join(f"{k}={v}" for k, v in options.told().items()
                         if v != base.get(k)) or "base"

    def log(t):
        print(f"{told(t['options']):40} left {100 * t['left']:5.2f} %  others "
              f"{100 * t['change-mean']:+6.2f} points  {t['seconds']:.1f} s a class", flush=True)

    print(f"chosen for {rung} on {bench.images.name}: {told(choosing.choose(bench, rung, log))}")


def _choose_direction(bench, rung: str) -> None:
    from softprune import prototypes, searching

    def told(options) -> str:
        return ", ".join(f"{k}={v}" for k, v in options.told().items())

    def log(t):
        print(f"{told(t['options'])}  left {100 * t['left']:6.2f} %  others "
              f"{100 * t['change-mean']:+6.2f} points", flush=True)

    own = prototypes if rung == prototypes.RUNG else searching
    print(f"chosen for {rung} on {bench.images.name}: {told(own.choose(bench, log))}")


def _sweep(arguments) -> None:
    config = _configuration(arguments)
    import time

    from softprune import artifacts, requests, training

    bench = _bench(config)
    began = time.perf_counter()
    rows = requests.sweep(bench)
    print(artifacts.write_record(
        "sweep", training.run_key(config, bench.images.data_hash), config.as_dict(), rows,
        artifacts.provenance(time.perf_counter() - began)))


def _check_every(every: int) -> None:
    if every < 1:
        raise UserError(f"--every {every}: expected a whole number >= 1")


def _in_turn(arguments) -> None:
    _check_every(arguments.every)
    bench = _bench(_configuration(arguments))
    from softprune import inturn

    print(inturn.measure(bench, arguments.every, lambda text: print(text, flush=True)))


def _shadows(arguments) -> None:
    config = _configuration(arguments, ("--without", arguments.without))
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


def _tune(arguments) -> None:
    if arguments.steps is not None and arguments.steps < 0:
        raise UserError(f"--steps {arguments.steps}: expected a whole number >= 1, or 0 for each "
                        "method's own")
    bench = _bench(_configuration(arguments, ("--classes", arguments.classes)))
    from softprune import tuning

    # what is not said stays as the set was tuned before: other words would begin all trials anew
    before = tuning.read().get(arguments.dataset, {})
    told = arguments.classes or before.get("class", "").replace("+", ",")
    steps = before.get("steps", 0) if arguments.steps is None else arguments.steps
    classes = bench.images.class_indices(told) if told else ()
    methods = arguments.methods.split(",") if arguments.methods else tuple(tuning.TRIALS)
    entry = tuning.tune(bench, methods, classes, steps, log=lambda text: print(text, flush=True))
    for name in methods:
        print(f"{name}: {entry['methods'][name]['chosen']}")


# --- run -----------------------------------------------------------------------------------------


def _wanted(arguments) -> dict[str, dict]:
    """Parameters by stage, checked before anything starts."""
    from softprune import catalog, notebooks

    stages = notebooks.needed(arguments.stage)
    choose("data set", arguments.dataset, catalog.known())
    given = assignments(arguments.parameters)
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


def _run(arguments) -> None:
    from softprune import notebooks

    stale = False
    for stage, values in _wanted(arguments).items():
        stale = stale or arguments.force or bool(notebooks.why(stage, values))
        if stale:  # what follows a stage that was executed is executed too
            notebooks.run(stage, values, log=lambda text: print(text, flush=True))
        else:
            print(f"{stage} on {arguments.dataset} is up to date")


def _why(arguments) -> None:
    from softprune import notebooks

    for stage, values in _wanted(arguments).items():
        reasons = notebooks.why(stage, values)
        print(f"{stage}: {'; '.join(reasons) if reasons else 'up to date'}")


# --- forget --------------------------------------------------------------------------------------


def _adopt(arguments) -> None:
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


def _forget(arguments) -> None:
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
        bench = requests.Bench(checkpoint, _trained_on(checkpoint, sidecar))
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


# --- results, doctor -----------------------------------------------------------------------------


def _results(arguments) -> None:
    import csv

    from softprune import artifacts

    rows = artifacts.tidy(artifacts.read_records())
    if arguments.csv:
        writer = csv.DictWriter(sys.stdout, artifacts.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    shown = [r for r in rows if r["metric"] == "accuracy" and r["stage"] == "train"]
    for r in shown:
        run = (f"{r['architecture']} w{r['width']} {r['penalty']} {r['strength']:g} "
               f"s{r['seed']}")
        print(f"{r['dataset']:10} {r['profile']:7} {run}  {r['method']} {r['forget']}  "
              f"{r['split']}: {100 * r['value']:.2f} %")
    print(f"{len(rows)} rows in all; add --csv for the whole table")


def _doctor(_arguments) -> None:
    import platform
    import statistics

    import torch

    from softprune import artifacts, catalog, paths, training

    device = training.pick_device()
    fast = "yes" if training.has_fast_bfloat16(device) else "no (float32 is used)"
    print(f"softprune {__version__}, python {platform.python_version()}, torch {torch.__version__}")
    print(f"device    {artifacts.device_name()}; fast bfloat16: {fast}")
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        print(f"memory    {total:.0f} GiB")
    print(f"cache     {paths.cache()}")
    _data_list(None)
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


# --- data ----------------------------------------------------------------------------------------


def _data_list(_arguments) -> None:
    from softprune import catalog

    entries = catalog.catalog()
    for name in catalog.known():
        entry = entries.get(name, {"images": "imported"})
        here = catalog.meta(name) is not None
        state = "here" if here else "bundled" if name == "digits" else "not here"
        print(f"{name:20} {state:9} {entry['images']}")


def _data_fetch(arguments) -> None:
    from softprune import sources

    source = Path(arguments.source).expanduser() if arguments.source else None
    print(sources.fetch(arguments.name, source, progress=_bar))


def _data_verify(arguments) -> None:
    from softprune import datasets

    names = [arguments.name] if arguments.name else [
        n for n in datasets.known() if (datasets.store(n) / "meta.json").exists()]
    for name in names:
        images = datasets.load(name)
        print(f"{name}: {len(images.train_images)} + {len(images.test_images)} images, "
              f"source {images.source}, hash {images.data_hash[:12]} holds")


def _data_import(arguments) -> None:
    from tqdm import tqdm

    from softprune import sources

    print(sources.import_folder(Path(arguments.path).expanduser(), arguments.name,
                                arguments.size, progress=tqdm))


# --- class ---------------------------------------------------------------------------------------


def _class_release(arguments) -> None:
    from softprune import classroom

    course = Path(arguments.folder).expanduser()
    classroom.release(course, arguments.assignment, log=lambda text: print(text, flush=True))


def _class_grade(arguments) -> None:
    from softprune import classroom

    limits = classroom.Limits(cell=arguments.cell_seconds, submission=arguments.seconds,
                              jobs=arguments.jobs)
    course = Path(arguments.folder).expanduser()
    print(classroom.grade(course, arguments.assignment, limits,
                          log=lambda text: print(text, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
