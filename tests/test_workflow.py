import json
import shlex
import sys

import pytest
import yaml

from softprune import ablations, cli, cli_words, datasets, notebooks, paths, training
from softprune.profiles import PROFILES, profile_defaults

sys.path.insert(0, str(paths.root() / "workflow"))
import matrix


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_every_job_is_a_command_that_softprune_accepts(profile):
    for job in matrix.jobs(profile):
        name, *words = shlex.split(job.command)
        arguments = cli.build_parser().parse_args(words)
        assert name == "softprune" and arguments.profile == profile in PROFILES
        assert cli_words.assignments(arguments.parameters) is not None


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_jobs_have_names_of_their_own_and_wait_only_for_earlier_ones(profile):
    seen = set()
    for job in matrix.jobs(profile):
        assert job.name not in seen and set(job.needs) <= seen
        seen.add(job.name)


KINDS = {"strength": float, "sides": cli_words.sides} | dict.fromkeys(
    ("width", "epochs", "seed", "pad", "cutout"), int)


def commands(profile):
    """The verb, the parsed words, and the configuration of every job on one network."""
    for job in matrix.jobs(profile):
        _, verb, *rest = shlex.split(job.command)
        words = cli.build_parser().parse_args([verb, *rest])
        values = cli_words.assignments(words.parameters)
        if verb == "run" or words.dataset is None:
            yield verb, words, None
            continue
        without = getattr(words, "without", None) if verb == "train" else None
        yield verb, words, training.configure(
            words.dataset, profile, without=tuple(without.split(",")) if without else (),
            **{k: KINDS.get(k, str)(v) for k, v in values.items()})


def trained(profile):
    """The configuration of every training in the matrix."""
    return [config for verb, _, config in commands(profile) if verb == "train"]


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_training_options_of_the_matrix_make_a_configuration(profile):
    assert all(config.name for config in trained(profile))


def test_the_strengths_are_those_of_the_ablations_page():
    assert matrix.STRENGTHS == ablations.STRENGTHS


def test_strengths_on_cifar10_are_those_that_cost_the_network_at_most_a_point():
    right = {}
    for path in (paths.root() / "data/results/cifar10/laptop").glob("train-*.json"):
        r = json.loads(path.read_text())
        p = r["parameters"]
        if p["width"] == ablations.SWEPT["cifar10"]:
            value, = (x["value"] for x in r["rows"]
                      if x["metric"] == "accuracy" and x["split"] == "validation")
            right.setdefault(p["penalty"], {})[p["strength"], p["seed"]] = value
    least = sum(right["none"].values()) / len(right["none"]) - 0.01
    for penalty, strength in ablations.STRENGTHS["cifar10"].items():
        if penalty != "so":  # the recipe's
            assert strength == max(s for (s, seed), v in right[penalty].items()
                                   if seed == 0 and v >= least)


def test_a_paper_run_never_takes_the_laptops_shortcuts():
    texts = [j.command for j in matrix.jobs("paper") if " train " in j.command]
    assert texts and not any("epochs=" in t for t in texts)
    assert all("--profile paper" in t for t in texts)


# networks of earlier recipes, which the pages show beside the present ones
SHORTER = {("cifar10", "resnet18", 20), ("cifar10", "resnet18", 40),
           ("cifar100", "resnet18", 20)} | {("cifar10", "vgg16", n) for n in (32, 60, 66, 76)}


def test_every_published_training_is_in_the_matrix():
    """What stands in the run records can be made again: all but other lengths, or batches, of
    recipes."""
    known = [config.as_dict() for config in trained("laptop")]
    records = [json.loads(p.read_text())["parameters"]
               for p in (paths.root() / "data" / "results").glob("*/laptop/train-*.json")]
    assert not [p for p in records if p not in known
                and (p["dataset"], p["architecture"], p["epochs"]) not in SHORTER]


def test_every_run_record_is_made_by_a_job():
    """What a page quotes, `make results` measures: sweeps, choices, pages, measurements."""
    verbs = {"sweep": "sweep", "seeds": "in-turn"}
    scripts = {"benchmark": "ratios", "searched": "from_table", "from-table": "from_table"}
    made = set()
    for verb, words, config in commands("laptop"):
        told = json.dumps(config.as_dict(), sort_keys=True) if config else words.dataset
        if verb == "fit" and words.choose:
            made.add(("choose", words.rung, words.dataset))
        elif verb == "run":
            made |= {(stage, words.dataset) for stage in notebooks.needed(words.stage)}
        elif verb == "measure":
            searched = "--rung searched" in words.more
            made.add((words.name, searched, told))
        else:
            made.add((verb, told))
    lacking = []
    for path in (paths.root() / "data" / "results").glob("*/laptop/*.json"):
        r = json.loads(path.read_text())
        stage, p, dataset = r["stage"], r["parameters"], r["parameters"]["dataset"]
        own = json.dumps(p, sort_keys=True)
        if stage == "ladder":
            kinds = {("choose", rung, dataset) for rung in ("calibrated", "best")}
        elif stage.endswith("-choice"):
            kinds = {("choose", stage.removesuffix("-choice"), dataset)}
        elif stage in notebooks.EVERY:
            kinds = {(stage, dataset)}
        elif stage in ("train", *verbs):
            kinds = {(verbs.get(stage, stage), own)}
        else:
            name = scripts.get(stage, stage)
            kinds = {(name, stage == "searched", own), (name, False, None)}
        earlier = (dataset, p["architecture"], p["epochs"]) in SHORTER
        if not kinds & made and not earlier:
            lacking.append(path.name)
    assert not lacking


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_jobs_that_write_one_file_of_settings_never_run_side_by_side(profile):
    jobs = {job.name: job for job in matrix.jobs(profile)}
    waits = {}  # name -> all that it waits for, however far
    for name, job in jobs.items():
        waits[name] = {n for need in job.needs for n in (need, *waits[need])}
    files = [("choose-calibrated-", "choose-best-"), ("choose-prototype-",), ("choose-searched-",),
             ("tune-",), ("measure-readers-",)]
    assert {n.partition("-")[0] for n in jobs if n.startswith(sum(files, ()))} == {
        "choose", "tune", "measure"}
    for marks in files:
        writers = [name for name in jobs if name.startswith(marks)]
        assert len(writers) >= 4
        assert all(set(writers[:i]) <= waits[name] for i, name in enumerate(writers))


def test_no_profile_is_taken_beside_the_one_that_is_asked_for():
    """Snakemake adds `profiles/default` to any other, whose limits then hold on a cluster, too."""
    assert {p.name for p in (paths.root() / "workflow" / "profiles").iterdir()} == {
        "one-machine", "slurm"}


def test_the_clusters_page_says_what_its_profile_has():
    told = yaml.safe_load((paths.root() / "workflow/profiles/slurm/config.yaml").read_text())
    page = " ".join((paths.root() / "book" / "cluster.md").read_text().split())
    job = told["default-resources"]
    assert (f"Time ({job['runtime']} minutes), memory ({job['mem_mb']:,} MB) and processors "
            f"({job['cpus_per_task']}) of a job") in page
    assert f"queued at once ({told['jobs']})" in page
    for blank in ("slurm_account", "slurm_partition"):
        assert f"| `{blank}` | `{job[blank]}` |" in page
    assert f'| `slurm_extra` | `"{job["slurm_extra"]}"` |' in page


def test_the_page_of_own_images_says_what_their_recipe_has():
    own = profile_defaults("flowers", "laptop", side=32)
    page = " ".join((paths.root() / "book" / "own-images.md").read_text().split())
    sides = [side for _, side in own["sides"]]
    assert f"at {sides[0]}, then at {sides[1]} pixels before their own size" in page
    assert f"One step takes {own['batch_size']} images" in page
    steps = 1000 * (datasets.VALIDATION_SHARE - 1) // datasets.VALIDATION_SHARE // own["batch_size"]
    assert (steps, own["epochs"]) == (3, 40)
    assert f"three steps an epoch, {steps * own['epochs']} in the recipe's forty" in page
