"""The heavy runs, once: data set x architecture x penalty x strength x seed x class left out.

    python workflow/matrix.py            # the commands, in order
    python workflow/matrix.py paper      # the same for one GPU

Each job is a plain `softprune` command. The order is that of the pages: each gets its first numbers
early; whoever stops in the middle has a book with fewer rows, not a broken one.
"""

import itertools
import sys
from dataclasses import dataclass, replace

# what fits two cores in half an hour; `paper` takes its own recipe instead
NARROW = {"cifar10": {"width": 16, "epochs": 14}, "cifar100": {"width": 16, "epochs": 14},
          "tiny-imagenet-200": {"width": 16, "epochs": 14}}
# gates inside take a training's time for all of 100 classes: pages have a fifth or a tenth of them
EVERY = {"cifar100": " --every 5", "tiny-imagenet-200": " --every 10"}
# at the length of its recipe CIFAR-10 missed the goal that was set for it (`profiles.GOALS`)
LONGER = {"cifar10": {"epochs": 60}}
# five poolings leave little of an image of 16 pixels: begun there, it learned late; 66 epochs
# missed its goal by an image, and 76 with a longer first part did no better
VGG_SIDES = {"sides": "0.6:24", "cutout": 8}  # at any width
VGG = {"epochs": 90} | VGG_SIDES
# where penalties stand side by side, as `ablations.STRENGTHS`, which this cannot import: workflows
# start in an environment without the package
STRENGTHS = {"digits": {"so": 0.01, "srip": 0.1, "ocnn": 0.01, "feature": 0.1},
             "cifar10": {"so": 0.01, "srip": 0.1, "ocnn": 0.001, "feature": 0.001}}
# what they were chosen from on the small networks of CIFAR-10; of `so` 1.0 has no row: at the
# recipe's rate the loss is not a number within the first epoch
TRIED = {"so": (1e-6, 1e-5, 1e-4, 1e-3, 1e-1), "ocnn": (1e-6, 1e-5, 1e-4, 1e-2, 1e-1),
         "feature": (1e-6, 1e-5, 1e-4, 1e-2, 1e-1), "srip": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)}
# these had been set side by side before, with every seed, and cost the network too much
STRONG = {"ocnn": 1e-2, "feature": 1e-1}
SMALL = {"width": 8, "epochs": 5}  # for grids over penalties and seeds
# the half-width checkpoint that travels with the book, without the long recipe's augmentation
SHIPPED = {"width": 32, "epochs": 32, "pad": 2, "cutout": 0}
# head to head: the classes of each page, and where a hundred classes or more would take days, less
AGAINST = {"digits": ("three,five,eight", ""), "cifar10": ("cat,airplane,automobile", ""),
           "cifar100": ("apple", " -p every=10 -p trained=fine-tune,salun"),
           "tiny-imagenet-200": ("goldfish", " -p every=20 -p trained=fine-tune,salun")}
# networks retrained without a class beside the page's: the readers' page compares with them
DIGITS = ("zero", "one", "two", "four", "five", "six", "seven", "eight", "nine")
OF_A_HUNDRED = ("couch", "mouse", "skunk", "bowl", "chair", "dolphin", "lamp", "plain",
                "rose")
OF_TWO_HUNDRED = ("bison", "dumbbell", "sombrero")
CLASSES = ("cat", "airplane", "automobile", "bird", "deer", "dog", "frog", "horse", "ship", "truck")
# what other pages quote of each page's network: a file of benchmarks/ and what it takes; `{}` is
# the classes that a network was retrained without. `readers` first: it chooses for `guarded`
RETRAINED = {"digits": ("three", *DIGITS), "cifar10": CLASSES,
             "cifar100": ("apple", *OF_A_HUNDRED),
             "tiny-imagenet-200": ("goldfish", *OF_TWO_HUNDRED)}
ALL = ("readers", "from_table {}", "from_table {} --rung searched", "directions")
BESIDE_PAGE = {
    "digits": (*ALL, "deep {}", "again guarded,deep", "each --rungs best,searched", "lira three",
               "trials", "sites", "strengths", "several 2,3"),
    "cifar10": (*ALL, "deep {}", "again guarded,deep", "each --rungs best,searched", "lira cat",
                "trials", "sites", "strengths", "several 2,3",
                "longer cat,airplane,automobile --epochs 1"),
    "cifar100": ("readers 10", *ALL[1:], "deep {}", "again guarded,deep", "guarded", "each",
                 "lira apple", "fits", "strengths", "scores"),
    "tiny-imagenet-200": ("readers 40", *ALL[1:], "again guarded,deep", "guarded",
                          "each", "strengths", "scores")}
# other originals beside the same retrained networks, and beside one of their own seed: a page's
# original is one training, lucky or not
MORE_SEEDS = {"digits": (1, 2, 3, 4), "cifar10": (1, 2), "cifar100": (1, 2),
              "tiny-imagenet-200": (1, 2)}
# rungs whose settings are chosen: fitted ones share a file, the others have one each
FITTED, FROM_TABLE = ("calibrated", "best"), ("prototype", "searched")
UNFITTED = ("from_table", "from_table --rung searched")
EACH = ("each --rungs best,searched",)
# digits' pages beside the walkthrough that nothing else executes
PAGES = ("gone-or-hidden", "positive-control", "known-mistakes", "break-it", "toy", "own-method")


@dataclass(frozen=True)
class Job:
    """One command and the jobs it waits for."""

    name: str
    command: str
    needs: tuple[str, ...] = ()
    heavy: bool = True  # a training: one at a time on one machine


def grid(**options) -> list[dict]:
    """All combinations of options given as lists."""
    return [dict(zip(options, values, strict=True)) for values in itertools.product(
        *options.values())]


def train(dataset: str, profile: str, values: dict, without: str = "") -> Job:
    """A training as a job; its name says its options."""
    options = "".join(f" -p {k}={v}" for k, v in values.items())
    name = "-".join([dataset, *(f"{k}={v}".replace(":", "x") for k, v in values.items()),
                     *([f"without={without}"] if without else [])])
    left_out = f" --without {without}" if without else ""
    return Job(f"train-{name}", f"softprune train --dataset {dataset} --profile {profile}"
                                f"{left_out}{options}")


def measure(job: Job, told: str) -> Job:
    """A measurement on what a training made: a file of `benchmarks/`, then the words it takes."""
    name, _, words = told.partition(" ")
    searched = "-searched" if "searched" in words and name == "from_table" else ""
    given = f' --with "{words}"' if words else ""
    return Job(job.name.replace("train-", f"measure-{name}{searched}-", 1),
               job.command.replace("softprune train", f"softprune measure {name}") + given,
               (job.name,), heavy=True)


def in_order(jobs: list[Job]) -> list[Job]:
    """Each waits for the one before it, too."""
    return jobs[:1] + [replace(job, needs=(*job.needs, before.name))
                       for before, job in itertools.pairwise(jobs)]


def after(job: Job, verb: str, more: str = "", heavy: bool = False) -> Job:
    """`sweep`, `in-turn` or `fit-RUNG` on what a training made."""
    told = "fit" if verb.startswith("fit-") else verb
    return Job(job.name.replace("train-", f"{verb}-", 1),
               job.command.replace("softprune train", f"softprune {told}") + more,
               (job.name,), heavy)


def choose(original: Job, rungs: tuple[str, ...], settled: list[Job], tuned: bool = False
           ) -> list[Job]:
    """The settings that a data set's edits get (with `tuned` its baselines, too), on validation
    images. They wait for those `settled` before, of other sets, which write the same files in
    `data/`: the fitted edits' settings share one, those of the others follow one another.
    """
    chosen = [after(original, f"fit-{rung}", f" --choose --rung {rung}", heavy=True)
              for rung in rungs]
    chosen = [replace(job, name=job.name.replace("fit-", "choose-", 1)) for job in chosen]
    chosen += [after(original, "tune", heavy=True)] if tuned else []
    last = settled[-1:]
    return in_order([*last, *chosen])[len(last):]


def jobs(profile: str = "laptop") -> list[Job]:
    """Every heavy run of a profile, in order."""
    narrow = NARROW if profile == "laptop" else {name: {} for name in NARROW}
    small = SMALL if profile == "laptop" else {"width": 16}
    found: list[Job] = []
    ladder: list[Job] = []
    unfitted: list[Job] = []
    settings: dict[str, tuple[str, ...]] = {}  # data set -> what its edits' settings wait for
    readers: list[str] = []  # they share a file, too
    firsts = {"cifar10": "cat", "cifar100": "apple", "tiny-imagenet-200": "goldfish"}
    for dataset, left_out in firsts.items():
        original = train(dataset, profile, narrow[dataset])
        every = EVERY.get(dataset, "")
        ladder = choose(original, FITTED, ladder)
        fits = [after(original, f"fit-{rung}", f" --rung {rung}{every}", heavy=True)
                for rung in FITTED]
        reference = train(dataset, profile, narrow[dataset], left_out)
        fits = [replace(fit, needs=(*fit.needs, job.name))
                for fit, job in zip(fits, ladder, strict=True)]
        names = tuple(j.name for j in (original, *fits, reference))
        page = Job(f"pages-{dataset}", f"softprune run all --dataset {dataset} --profile {profile}"
                   f" -p forget={left_out}"
                   + "".join(f" -p {k}={v}" for k, v in narrow[dataset].items()), names)
        # what the page does not show is chosen behind it
        unfitted = choose(original, FROM_TABLE, unfitted, tuned=True)
        settings[dataset] = (ladder[-1].name, unfitted[-1].name)
        found += [original, *ladder, *fits, reference, page, *unfitted]
    # what an attacker can tell: shadow models, more retrained references, then the pages again
    for dataset, seeds, stages in (("cifar10", (1, 2), ("membership-inference", "gone-or-hidden")),
                                   ("cifar100", (1,), ("membership-inference",))):
        original, left_out = train(dataset, profile, narrow[dataset]), firsts[dataset]
        shadows = after(original, "shadows", f" --without {left_out}", heavy=True)
        more = [train(dataset, profile, narrow[dataset] | {"seed": s}, left_out) for s in seeds]
        found += [shadows, *more]
        values = "".join(f" -p {k}={v}" for k, v in narrow[dataset].items())
        waits = (f"pages-{dataset}", shadows.name, *(j.name for j in more))
        found += [Job(f"pages-{dataset}-{stage}", f"softprune run {stage} --dataset {dataset} "
                      f"--profile {profile} -p forget={left_out}{values}", waits)
                  for stage in stages]
    # does orthogonality help? penalties x seeds, then strengths over five decades
    strengths = STRENGTHS["cifar10"]
    for seed, penalty in itertools.product((0, 1, 2), ("none", *strengths, "hard")):
        told = {"strength": strengths[penalty]} if penalty in strengths else {}
        found.append(train("cifar10", profile, small | {"penalty": penalty} | told
                           | {"seed": seed}))
    for penalty, tried in TRIED.items():
        found += [train("cifar10", profile, small | {"penalty": penalty, "strength": strength})
                  for strength in tried]
    found += [train("cifar10", profile, small | {"penalty": p, "strength": s, "seed": seed})
              for p, s in STRONG.items() for seed in (1, 2)]
    found += [after(j, "sweep") for j in found if f"width={small['width']}" in j.name]
    own = STRENGTHS["digits"]
    digits = [train("digits", profile, o | ({"strength": own[o["penalty"]]}
                                            if o["penalty"] in own else {}))
              for o in grid(penalty=["none", "so", "hard", "feature", "ocnn", "srip"],
                            seed=[0, 1, 2])]
    # seconds each, so with seeds and for every penalty that has a strength
    others = grid(penalty=list(own), strength=[1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1],
                  seed=[0, 1, 2])
    digits += [train("digits", profile, {"penalty": o["penalty"], "seed": o["seed"],
                                         "strength": o["strength"]})
               for o in others if o["strength"] != own[o["penalty"]]]
    found += [*digits, *(after(j, "sweep") for j in digits)]
    # the full retrained row, seeds, the control, the other architecture, full width
    for cls in CLASSES[1:]:
        found.append(train("cifar10", profile, narrow["cifar10"], cls))
    side_by_side = [train("cifar10", profile, narrow["cifar10"] | o)
                    for o in [*grid(seed=[1, 2]), {"penalty": "none"}, {"penalty": "tied"}]]
    longer = {"architecture": "vgg16"} | (VGG if profile == "laptop" else VGG_SIDES)
    side_by_side += [train(d, profile, longer) for d in (
        ("cifar10",) if profile == "laptop" else ("cifar10", "cifar100"))]
    wide = [] if profile == "paper" else [  # the profile's own recipe: half width
        train("cifar10", profile, SHIPPED),
        *(train(d, profile, LONGER.get(d, {})) for d in firsts)]
    if wide:
        found.append(train("cifar10", profile, SHIPPED, "cat"))
        found += [train("digits", profile, {"seed": s}, "three") for s in range(1, 5)]
    found += [train("digits", profile, {}, c) for c in ("three", *DIGITS)]
    found += [train("cifar100", profile, narrow["cifar100"], c) for c in OF_A_HUNDRED]
    found += [train("tiny-imagenet-200", profile, narrow["tiny-imagenet-200"], c)
              for c in OF_TWO_HUNDRED]
    unpenalised = train("cifar100", profile, narrow["cifar100"] | {"penalty": "none"})
    found += [*side_by_side, *wide, unpenalised]
    # pages have gates for a fifth or a tenth of many classes, this for all
    all_in_turn = [after(j, "in-turn", heavy=True) for j in (
        *(train(d, profile, narrow[d]) for d in firsts), *side_by_side, *wide, unpenalised)]
    found += [replace(j, needs=(*j.needs, settings[j.command.split()[3]][0]))
              for j in all_in_turn]
    own = {d: train(d, profile, narrow.get(d, {})) for d in AGAINST}
    ladder = choose(own["digits"], FITTED, ladder)
    unfitted = choose(own["digits"], FROM_TABLE, unfitted, tuned=True)
    settings["digits"] = (ladder[-1].name, unfitted[-1].name)
    found += [own["digits"], *ladder, *unfitted]
    found += [Job(f"pages-digits-{stage}", f"softprune run {stage} --dataset digits "
                  f"--profile {profile}", settings["digits"]) for stage in ("all", *PAGES)]
    told = [(own[d], all_of) for d, all_of in BESIDE_PAGE.items()]
    told += [(job, UNFITTED if "seed=" in job.name else UNFITTED + EACH) for job in side_by_side
             if "tied" not in job.name]
    for job in wide:
        more = {"cifar10": (*EACH, "guarded", "headline cat"),
                "cifar100": ("guarded 5", "each --every 5"),
                "tiny-imagenet-200": ("each --every 10",)}
        dataset, shipped = job.command.split()[3], "pad=2" in job.name
        if "without" not in job.name and (shipped or dataset != "cifar10"):
            told.append((job, UNFITTED + more.get(dataset, ())))
    for job, all_of in told:
        dataset, turned = job.command.split()[3], job.name.replace("train-", "in-turn-", 1)
        without = ",".join(RETRAINED[dataset])
        first, *rest = [measure(job, words.format(without)) for words in all_of]
        waits = [j.name for j in found if j.name == turned or (
            f"--dataset {dataset} " in j.command and "--without" in j.command)]
        if all_of[0].startswith("readers"):
            waits, readers = waits + readers, [first.name]
        waits += settings[dataset]
        found += in_order([replace(first, needs=(*first.needs, *waits)), *rest])
    found += [Job(f"measure-{name}", f"softprune measure {name} --profile {profile}", heavy=True)
              for name in ("ratios", "grading", "recipes")]
    for dataset, seeds in MORE_SEEDS.items():
        beside = measure(own[dataset], BESIDE_PAGE[dataset][0]).name  # it chooses for `guarded`
        for seed in seeds:
            values = narrow.get(dataset, {}) | {"seed": seed}
            other, reference = (train(dataset, profile, values, without)
                                for without in ("", RETRAINED[dataset][0]))
            found += [job for job in (other, reference) if job.name not in {j.name for j in found}]
            told = measure(other, f"originals {','.join(RETRAINED[dataset])}")
            waits = (*told.needs, reference.name, beside, *settings[dataset])
            found.append(replace(told, needs=waits))
    there = {job.name for job in found}
    for dataset, (forget, less) in AGAINST.items():
        values = narrow.get(dataset, {})
        waits = [train(dataset, profile, values, c).name for c in ("", *forget.split(","))]
        # the last of these: they fit edits of the same network
        waits += [measure(own[dataset], BESIDE_PAGE[dataset][-1]).name, *settings[dataset]]
        found.append(Job(
            f"pages-{dataset}-head-to-head", f"softprune run head-to-head --dataset {dataset} "
            f"--profile {profile} -p forget={forget}{less}"
            + "".join(f" -p {k}={v}" for k, v in values.items()),
            tuple(w for w in waits if w in there), heavy=True))
    return found


if __name__ == "__main__":
    for job in jobs(*sys.argv[1:2]):
        print(job.command)
