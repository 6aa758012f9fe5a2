"""The `softprune` command. torch is imported late, so help and refusals answer within a second."""

import argparse
import os
import sys
from pathlib import Path

from softprune import __version__
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
    except BrokenPipeError:  # `softprune results | head`
        sys.stderr.close()
        return 0
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
    train.add_argument("--dataset", required=True, metavar="NAME")
    train.add_argument("--profile", default="laptop", metavar="|".join(PROFILES))
    train.add_argument("--without", default="", metavar="CLASS,...",
                       help="leave classes out: a retrained reference")
    train.add_argument("--threads", type=int, default=0, metavar="N",
                       help="CPU threads (the same bits need the same number)")
    _parameters(train)

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


def _bar(**options):
    from tqdm import tqdm

    return tqdm(unit="B", unit_scale=True, unit_divisor=1024, **options)


# --- train ---------------------------------------------------------------------------------------


def _train(arguments) -> None:
    choose("profile", arguments.profile, PROFILES)
    texts = assignments(arguments.parameters)
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import dataclasses

    from softprune import datasets, training

    choose("data set", arguments.dataset, datasets.known())
    fields = {f.name: f.type for f in dataclasses.fields(training.TrainConfig)
              if f.type in (bool, int, float, str) and f.name not in ("dataset", "profile")}
    for name in texts:
        choose("parameter", name, fields)
    values = {n: typed(n, t, fields[n]) for n, t in texts.items()}
    images = datasets.load(arguments.dataset)
    if arguments.without:
        left_out = sorted(images.class_indices(arguments.without))
        values["without"] = tuple(images.class_names[c] for c in left_out)
    config = training.configure(arguments.dataset, arguments.profile, **values)
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    def log(entry):
        print(f"epoch {entry['epoch']}/{config.epochs}  loss {entry['loss']:.3f}  "
              f"penalty {entry['penalty']:.2f}  validation {entry['validation']:.4f}  "
              f"{entry['seconds']:.0f} s", flush=True)

    print(training.train(config, log=log))


# --- data ----------------------------------------------------------------------------------------


def _data_list(_arguments) -> None:
    from softprune import datasets

    entries = datasets.catalog()
    for name in datasets.known():
        entry = entries.get(name, {"images": "imported"})
        here = (datasets.store(name) / "meta.json").exists()
        state = "here" if here else "bundled" if name == "digits" else "not here"
        print(f"{name:20} {state:9} {entry['images']}")


def _data_fetch(arguments) -> None:
    from softprune import datasets

    source = Path(arguments.source).expanduser() if arguments.source else None
    print(datasets.fetch(arguments.name, source, progress=_bar))


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

    from softprune import datasets

    print(datasets.import_folder(Path(arguments.path).expanduser(), arguments.name,
                                 arguments.size, progress=tqdm))


if __name__ == "__main__":
    sys.exit(main())
