"""`softprune fit`, `in-turn` and `tune`: what is made of a trained classifier beforehand."""

import contextlib
from pathlib import Path

from softprune import cli_train, cli_words, paths
from softprune.errors import UserError, choose


def fit(arguments) -> None:
    """Fit a rung's gates class by class, or choose its setting."""
    rung = arguments.rung
    choose("rung", rung, ("calibrated", "best", "searched", "guarded", "deep", "prototype"))
    if rung == "prototype" and not arguments.choose:
        raise UserError("prototype has nothing to fit: type `softprune forget --rung prototype`, "
                        "or add --choose to choose its setting on the validation split")
    if arguments.choose and rung in ("guarded", "deep"):
        raise UserError("--choose: expected --rung calibrated, best, searched or prototype; "
                        "guarded directions are chosen beside retrained networks, type "
                        "`softprune measure readers`")
    _check_every(arguments.every)
    bench = bench_to_fit(arguments)
    if arguments.choose:
        own = _choose_setting if rung in ("calibrated", "best") else _choose_direction
        return own(bench, rung)
    names = bench.images.class_names
    asked = cli_words.named(arguments.classes or "")
    classes = ([c for name in asked for c in bench.images.class_indices([name])]
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


def bench_to_fit(arguments):
    """The classifier of a file, or of `--dataset`, `--profile` and `-p`."""
    if bool(arguments.checkpoint) == bool(arguments.dataset):
        raise UserError("fit: expected either --dataset NAME, with --profile and -p, or "
                        "--checkpoint PATH")
    if not arguments.checkpoint:
        classes = ("--classes", arguments.classes)
        return cli_train.bench_of(cli_train.configuration(arguments, classes, alone=True))
    if arguments.parameters:
        raise UserError("-p belongs to --dataset: a checkpoint says itself what it is")
    from softprune import artifacts, requests

    path = Path(arguments.checkpoint).expanduser()
    return requests.Bench(path, trained_on(path, artifacts.load_checkpoint(path)[1]))


def trained_on(checkpoint: Path, sidecar: dict):
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


def _check_every(every: int) -> None:
    if every < 1:
        raise UserError(f"--every {every}: expected a whole number >= 1")


def in_turn(arguments) -> None:
    """Forget every class in turn with every gate."""
    _check_every(arguments.every)
    bench = cli_train.bench_of(cli_train.configuration(arguments))
    from softprune import inturn

    print(inturn.measure(bench, arguments.every, lambda text: print(text, flush=True)))


def tune(arguments) -> None:
    """Choose the baselines' settings on validation images."""
    if arguments.steps is not None and arguments.steps < 0:
        raise UserError(f"--steps {arguments.steps}: expected a whole number >= 1, or 0 for each "
                        "method's own")
    bench = cli_train.bench_of(cli_train.configuration(arguments, ("--classes", arguments.classes)))
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
