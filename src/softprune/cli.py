"""The `softprune` command. torch is imported late, so help and refusals answer within a second."""

import argparse
import json
import signal
import sys
import threading

from softprune import __version__, cli_data, cli_fit, cli_forget, cli_measure, cli_run, cli_train
from softprune.errors import UserError
from softprune.profiles import PROFILES


def main(argv: list[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on standard error and exit status 2."""
    arguments = build_parser().parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        # a scheduler ends a job by SIGTERM: as Ctrl-C, so that what the command started ends, too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
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

    train = _command(commands, "train", cli_train.train, "train one classifier, or resume it",
                     "softprune train --dataset cifar10 --profile laptop --without cat")
    fit = _command(commands, "fit", cli_fit.fit, "fit a trained classifier's gates, class by class",
                   "softprune fit --dataset cifar10 --rung best --classes cat,dog")
    sweep = _command(commands, "sweep", cli_train.sweep,
                     "every score, gate and fraction on one classifier",
                     "softprune sweep --dataset digits -p penalty=none -p seed=2")
    in_turn = _command(commands, "in-turn", cli_fit.in_turn,
                       "forget every class in turn with every gate: a row beside other networks",
                       "softprune in-turn --dataset cifar10 -p width=16 -p epochs=14 -p seed=1")
    in_turn.add_argument("--every", type=int, default=1, metavar="N",
                         help="fit gates for every N-th class only")
    shadow = _command(commands, "shadows", cli_train.shadow, "train the shadow models of an attack",
                      "softprune shadows --dataset cifar10 --without cat -p width=16")
    shadow.add_argument("--without", metavar="CLASS",
                        help="some of them a second time without a class: the retrained targets")
    shadow.add_argument("--count", type=int, metavar="N", help="how many; default: the profile's")
    tune = _command(commands, "tune", cli_fit.tune,
                    "choose the baselines' settings on validation images",
                    "softprune tune --dataset digits --methods ssd,salun")
    tune.add_argument("--methods", metavar="NAME,...", help="default: all that have any")
    tune.add_argument("--classes", metavar="CLASS,...",
                      help="default: those tuned on before, or the set's last")
    tune.add_argument("--steps", type=int, metavar="N",
                      help="of a trained method (default: as before, or 0, its own)")
    measure = _command(commands, "measure", cli_measure.measure,
                       "one of benchmarks/, on a trained classifier: numbers of the other pages",
                       "softprune measure deep --dataset digits --with three,five")
    measure.add_argument("name", metavar="NAME", help="a file of benchmarks/, without .py")
    measure.add_argument("--with", dest="more", default="", metavar="WORDS",
                         help="what it takes besides data set and checkpoint")
    for parser_ in (train, fit, sweep, in_turn, shadow, tune, measure):
        parser_.add_argument("--dataset", required=parser_ not in (fit, measure), metavar="NAME")
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

    run = _command(commands, "run", cli_run.run,
                   "execute a stage and what it needs; publish the pages",
                   "softprune run soft-pruning --dataset digits -p forget=three")
    run.add_argument("stage", metavar="STAGE|all")
    why = _command(commands, "why", cli_run.why, "say why a stage would be executed again",
                   "softprune why soft-pruning --dataset cifar10")
    why.add_argument("stage", metavar="STAGE|all")
    for parser_ in (run, why):
        parser_.add_argument("--dataset", required=True, metavar="NAME")
        parser_.add_argument("--profile", metavar="|".join(PROFILES),
                             help="default: what the page was made with, else laptop")
        _parameters(parser_)
    run.add_argument("--force", action="store_true", help="execute even what is up to date")

    forget = _command(commands, "forget", cli_forget.forget,
                      "forget classes of a checkpoint, and save it",
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

    adopt = _command(commands, "adopt", cli_forget.adopt,
                     "make a checkpoint of weights trained elsewhere",
                     "softprune adopt --weights resnet.pt --dataset cifar10 --architecture "
                     "resnet18 --width 64 --out mine.safetensors")
    adopt.add_argument("--weights", required=True, metavar="PATH",
                       help="a state dictionary: .safetensors, or what torch.save wrote")
    adopt.add_argument("--dataset", required=True, metavar="NAME")
    adopt.add_argument("--architecture", required=True, metavar="NAME")
    adopt.add_argument("--width", required=True, type=int, metavar="N",
                       help="channels of the first stage")
    adopt.add_argument("--out", required=True, metavar="PATH")

    results = _command(commands, "results", cli_run.results, "all run records as one tidy table",
                       "softprune results --csv > results.csv")
    results.add_argument("--csv", action="store_true", help="write the whole table to stdout")
    _command(commands, "doctor", cli_run.doctor, "what this machine has", "softprune doctor")

    data = commands.add_parser("data", help="list, fetch, verify or import image sets")
    verbs = data.add_subparsers(metavar="VERB", required=True)
    _command(verbs, "list", cli_data.show, "the catalog, and what is here", "softprune data list")
    fetch = _command(verbs, "fetch", cli_data.fetch, "download and decode a set, resuming",
                     "softprune data fetch cifar10 --from ~/cifar-10-python.tar.gz")
    fetch.add_argument("name", metavar="NAME")
    fetch.add_argument("--from", dest="source", metavar="PATH",
                       help="a local archive, or an unpacked folder")
    verify = _command(verbs, "verify", cli_data.verify, "compare decoded sets with their hashes",
                      "softprune data verify cifar10")
    verify.add_argument("name", nargs="?", metavar="NAME")
    load = _command(verbs, "import", cli_data.load, "import train/<class>/* and test/<class>/*",
                    "softprune data import ~/flowers --name flowers --size 32")
    load.add_argument("path", metavar="PATH")
    load.add_argument("--name", required=True)
    load.add_argument("--size", type=int, metavar="PIXELS", help="resize to a square")

    lessons = commands.add_parser("class", help="release assignments, grade submissions")
    verbs = lessons.add_subparsers(metavar="VERB", required=True)
    give = _command(verbs, "release", cli_run.release, "write what students get: no solutions",
                    "softprune class release course")
    mark = _command(verbs, "grade", cli_run.grade, "grade submitted/STUDENT/NAME/NAME.ipynb",
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


if __name__ == "__main__":
    sys.exit(main())
