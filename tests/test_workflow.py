import sys

import pytest

from softprune import cli, paths
from softprune.profiles import PROFILES

sys.path.insert(0, str(paths.root() / "workflow"))
import matrix


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_every_job_is_a_command_that_softprune_accepts(profile):
    for job in matrix.jobs(profile):
        name, *words = job.command.split()
        arguments = cli.build_parser().parse_args(words)
        assert name == "softprune" and arguments.profile == profile in PROFILES
        assert cli.assignments(arguments.parameters) is not None


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_jobs_have_names_of_their_own_and_wait_only_for_earlier_ones(profile):
    seen = set()
    for job in matrix.jobs(profile):
        assert job.name not in seen and set(job.needs) <= seen
        seen.add(job.name)


def test_training_options_of_the_matrix_make_a_configuration():
    from softprune import training

    for job in matrix.jobs("laptop"):
        arguments = cli.build_parser().parse_args(job.command.split()[1:])
        if job.command.split()[1] == "train":
            fields = {"strength": float} | dict.fromkeys(
                ("width", "epochs", "seed", "pad", "cutout"), int)
            values = {k: fields.get(k, str)(v) for k, v in
                      cli.assignments(arguments.parameters).items()}
            config = training.configure(arguments.dataset, "laptop", **values)
            assert config.name


def test_a_paper_run_never_takes_the_laptops_shortcuts():
    texts = [j.command for j in matrix.jobs("paper") if " train " in j.command]
    assert texts and not any("epochs=" in t for t in texts)
    assert all("--profile paper" in t for t in texts)


def test_every_published_training_is_in_the_matrix():
    """What stands in the run records can be made again: all but a few first lengths of recipes."""
    import json

    from softprune import training

    known = set()
    for job in matrix.jobs("laptop"):
        if job.command.split()[1] == "train":
            told = cli.build_parser().parse_args(job.command.split()[1:])
            values = {k: v if k in ("architecture", "penalty") else json.loads(v)
                      for k, v in cli.assignments(told.parameters).items()}
            without = tuple(told.without.split(",")) if isinstance(told.without, str) else tuple(
                told.without or ())
            known.add(json.dumps(training.configure(told.dataset, "laptop", without=without,
                                                    **values).as_dict(), sort_keys=True))
    shorter = {("cifar10", "resnet18", 20), ("cifar10", "resnet18", 40), ("cifar10", "vgg16", 32),
               ("cifar100", "resnet18", 20)}
    records = [json.loads(p.read_text())["parameters"]
               for p in (paths.root() / "data" / "results").glob("*/laptop/train-*.json")]
    missing = [p for p in records if json.dumps(p, sort_keys=True) not in known
               and (p["dataset"], p["architecture"], p["epochs"]) not in shorter]
    assert not missing
