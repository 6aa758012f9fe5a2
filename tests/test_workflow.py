import json
import sys

import pytest

from softprune import ablations, cli, cli_words, paths, training
from softprune.profiles import PROFILES

sys.path.insert(0, str(paths.root() / "workflow"))
import matrix


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_every_job_is_a_command_that_softprune_accepts(profile):
    for job in matrix.jobs(profile):
        name, *words = job.command.split()
        arguments = cli.build_parser().parse_args(words)
        assert name == "softprune" and arguments.profile == profile in PROFILES
        assert cli_words.assignments(arguments.parameters) is not None


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_jobs_have_names_of_their_own_and_wait_only_for_earlier_ones(profile):
    seen = set()
    for job in matrix.jobs(profile):
        assert job.name not in seen and set(job.needs) <= seen
        seen.add(job.name)


def trained(profile):
    """The configuration of every training in the matrix."""
    kinds = {"strength": float, "sides": cli_words.sides} | dict.fromkeys(
        ("width", "epochs", "seed", "pad", "cutout"), int)
    for job in matrix.jobs(profile):
        words = cli.build_parser().parse_args(job.command.split()[1:])
        if job.command.split()[1] == "train":
            values = {k: kinds.get(k, str)(v) for k, v in
                      cli_words.assignments(words.parameters).items()}
            without = tuple(words.without.split(",")) if words.without else ()
            yield training.configure(words.dataset, profile, without=without, **values)


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_training_options_of_the_matrix_make_a_configuration(profile):
    assert all(config.name for config in trained(profile))


def test_the_strengths_are_those_of_the_ablations_page():
    assert matrix.STRENGTHS == ablations.STRENGTHS


def test_a_paper_run_never_takes_the_laptops_shortcuts():
    texts = [j.command for j in matrix.jobs("paper") if " train " in j.command]
    assert texts and not any("epochs=" in t for t in texts)
    assert all("--profile paper" in t for t in texts)


def test_every_published_training_is_in_the_matrix():
    """What stands in the run records can be made again: all but other lengths, or batches, of
    recipes."""
    known = [config.as_dict() for config in trained("laptop")]
    shorter = {("cifar10", "resnet18", 20), ("cifar10", "resnet18", 40),
               ("cifar100", "resnet18", 20)} | {("cifar10", "vgg16", n) for n in (32, 60, 66, 76)}
    records = [json.loads(p.read_text())["parameters"]
               for p in (paths.root() / "data" / "results").glob("*/laptop/train-*.json")]
    assert not [p for p in records if p not in known
                and (p["dataset"], p["architecture"], p["epochs"]) not in shorter]
