"""Head to head: every method on one checkpoint, timed and judged against the retrained model.

Time is kept apart from judging: nothing is evaluated inside a timed region. What takes longer than
a moment is also counted in processor seconds, so that ratios hold on a busy machine. Quality is a
distance to the model retrained without the class, two-sided: to forget more than it is no gain.
"""

import copy
import functools
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from softprune import (
    artifacts,
    channels,
    checks,
    datasets,
    evaluation,
    guarding,
    ladder,
    membership,
    prototypes,
    pruning,
    requests,
    searching,
    training,
    tuning,
    unlearning,
)
from softprune.errors import UserError, choose

FITTED = (*ladder.RUNGS, searching.RUNG, *guarding.RUNGS)  # each class beforehand
TABLE = (*requests.PLAIN, prototypes.RUNG)  # from the class-by-channel table alone
OWN = (*TABLE, *FITTED)
CLOSED = ("head-mask", "head-zero", "bias-shift", "pour-p", "cse", "cdp")
STATISTICS = ("svd", "ssd")
TRAINED = tuning.TRAINED
FAST = (*OWN, *CLOSED, *STATISTICS)
EVERY = ("original", "retrained", *FAST, *TRAINED)
SEEN = 10_000  # training images on which accuracies are measured and classifiers refitted
TIMED = 1000  # training images that a full pass is timed with
PARTS = ("prepare", "select", "edit", "save", "verify")


def trained_methods(named: str) -> tuple[str, ...]:
    """The trained baselines by `all`, `none`, or names with commas, in the order of `TRAINED`.

    Example:
        >>> trained_methods("salun,fine-tune")
        ('fine-tune', 'salun')
    """
    if named in ("all", "none"):
        return TRAINED if named == "all" else ()
    asked = named.split(",")
    for name in asked:
        choose("trained method", name, ("all", "none", *TRAINED))
    return tuple(m for m in TRAINED if m in asked)


@dataclass(kw_only=True)
class Outcome:
    """What one method made of one request. Logits are float32; train ones of a sample."""

    method: str
    cls: int
    model: nn.Module
    seconds: dict[str, float] = field(default_factory=dict)
    # the processor's seconds, where they were counted
    cpu: dict[str, float] = field(default_factory=dict)
    test: Tensor | None = None  # (N, C)
    train: Tensor | None = None  # (n, C) of `Contest.sample(cls)`
    inside: float = 0.0  # forgotten test accuracy, original classifier over the edited network
    refit: float = 0.0  # the same, classifier refitted

    @property
    def request(self) -> float:
        """Seconds from request to forgotten model: select and edit.

        The processor's where they were counted, are the fewer, and there is no GPU: a busy machine
        stretches the clock of minutes, but not of milliseconds, and no ratio may gain by that;
        nor by threads, whose processor seconds add up.
        """
        counted = {} if torch.cuda.is_available() else self.cpu
        return sum(min(counted.get(part, taken), taken) for part, taken in self.seconds.items()
                   if part in ("select", "edit"))


class Contest:
    """One checkpoint, its data and the settings of all methods.

    Args:
        options: of the plain method (`requests.Bench.gates`), its fraction included.
    """

    def __init__(self, bench: requests.Bench, options: dict):
        self.bench, self.images, self.options = bench, bench.images, options
        self.access = unlearning.Access.of(bench)
        self.settings = {m: unlearning.tuned(self.images.name, m) for m in unlearning.registry()}
        self.stored: dict[str, ladder.Stored] = {}  # directions of rungs beside the ladder's

    @functools.cached_property
    def prototypes(self) -> dict[str, Tensor]:
        """Directions of all classes, from the table."""
        return prototypes.prepare(self.bench)

    def prepare(self, rung: str, classes) -> dict[int, float]:
        """Fit (or find) the edits of one of `FITTED` for `classes`; the seconds each class took."""
        if rung in ladder.RUNGS:
            return self.bench.prepare(rung, classes)
        self.stored[rung], seconds = (searching.prepare(self.bench, classes)
                                      if rung == searching.RUNG
                                      else guarding.prepare(self.bench, rung, classes))
        return seconds

    def gates(self, method: str, cls: int) -> pruning.Gates:
        """What one of `OWN` does for a class: looked up where it was fitted (`prepare`)."""
        if method == prototypes.RUNG:
            return prototypes.request(self.prototypes, (cls,))
        if method in (searching.RUNG, *guarding.RUNGS):
            return ladder.request(self.stored[method], (cls,))
        return self.bench.method_gates(method, (cls,), **self.options)

    # --- time ------------------------------------------------------------------------------------

    @functools.cached_property
    def table_time(self) -> tuple[float, float]:
        """What the class-by-channel table takes, once a model: seconds, and the processor's.

        Of some images, scaled to all.
        """
        each = max(1, TIMED // len(self.images.class_names))
        few = datasets.subset(self.images, each)
        ledger = unlearning.Ledger()
        for part in ("warm", "prepare"):
            with ledger.part(part):
                channels.class_channel_table(self.bench.model, few)
        share = len(few.train_labels) / len(self.images.train_labels)
        return ledger.seconds["prepare"] / share, ledger.cpu["prepare"] / share

    def edited(self, method: str, cls: int, repeats: int = 1) -> Outcome:
        """The model a method makes, and the median seconds of its parts over `repeats`."""
        choose("method", method, (*OWN, *unlearning.registry()))
        own = self._gated if method in OWN else self._unlearned
        model, seconds, cpu = own(method, cls, repeats)
        if method in (*TABLE, "cse", "cdp"):
            seconds["prepare"], cpu["prepare"] = self.table_time
        if method == prototypes.RUNG:
            seconds["prepare"] += evaluation.median_time(lambda: prototypes.prepare(self.bench), 3)
        with tempfile.TemporaryDirectory() as folder:
            seconds["save"] = evaluation.median_time(lambda: artifacts.save_tensors(
                f"{folder}/m.safetensors", model.state_dict()), min(repeats, 5))
        pixels, labels = self.images.split("validation")
        few = pixels[labels == cls]
        seconds["verify"] = evaluation.median_time(lambda: evaluation.predict(
            model, few, self.images.mean, self.images.std), min(repeats, 3))
        return Outcome(method=method, cls=cls, model=model, seconds=seconds, cpu=cpu)

    def _gated(self, method: str, cls: int, repeats: int):
        fitted = self.prepare(method, (cls,))[cls] if method in FITTED else None
        own = self.bench.fold_into_copy({})
        before = copy.deepcopy(own.state_dict())
        pruning.plan(own)  # where to write is looked up once a model
        find = functools.partial(self.gates, method, cls)
        gates = find()
        seconds = {
            "select": evaluation.median_time(find, repeats),
            "edit": evaluation.median_time(lambda: pruning.fold(own, gates), repeats,
                                           undo=lambda: own.load_state_dict(before))}
        if fitted is not None:
            seconds["prepare"] = fitted
        pruning.fold(own, gates)
        return own, seconds, {}

    def _unlearned(self, method: str, cls: int, repeats: int):
        runs = []
        for _ in range(repeats):
            model, ledger = unlearning.unlearn(method, self.bench.model, (cls,), self.access,
                                               **self.settings[method])
            runs.append(ledger)
        seconds, cpu = ({part: sorted(getattr(r, clock).get(part, 0.0) for r in runs)[repeats // 2]
                         for part in runs[0].seconds} for clock in ("seconds", "cpu"))
        return model, seconds, cpu

    @functools.cache  # noqa: B019  a contest lives as long as its notebook
    def retrain_time(self, steps: int = 4) -> tuple[float, float]:
        """What retraining without a class takes here and now: seconds, and the processor's.

        From `steps` steps at each of the schedule's image sides, the first `steps` of all not
        counted; one class left out is as good as another.
        """
        recipe, labels = self.access.recipe, self.access.train[1]
        pixels, labels = self.access.part((int(labels[0]),), True)
        full = len(labels) // min(recipe.batch_size, len(labels))
        few = torch.randperm(len(labels))[: recipe.batch_size * min(steps, full)]
        device = self.bench.device
        pixels, labels = pixels[few].to(device), labels[few].to(device)
        model = copy.deepcopy(self.bench.model).requires_grad_(True)
        solver = training.make_optimizer(model, recipe)
        present = torch.ones(len(self.images.class_names), device=device)
        total, sides = [0.0, 0.0], [training.side_at(recipe, e) for e in range(recipe.epochs)]
        for side in set(sides):
            for _ in range(2):
                worked = time.process_time()
                entry = training.train_epoch(recipe, model, solver, pixels, labels, present,
                                             self.images, sides.index(side))
                worked = time.process_time() - worked
            for i, taken in enumerate((entry["seconds"], worked)):
                total[i] += taken * full / min(steps, full) * sides.count(side)
        return total[0], total[1]

    # --- quality ---------------------------------------------------------------------------------

    def outputs(self, model: nn.Module, cls: int | None = None) -> tuple[Tensor, Tensor]:
        """Features and logits of the test images, or of a class's `sample` of training images.

        Where only what reads the features changed they come from the original's.
        """
        if (after := readout(self.bench.model, model)) is not None:
            checks.same_answers(model, after(self.bench.outputs("test")[0][:16]), self.images)
            features = after(self.bench.outputs("test")[0] if cls is None else self._seen(cls))
            with torch.inference_mode():
                return features, read(model, features)
        pixels = self.images.test_images if cls is None else self.access.train[0][self.sample(cls)]
        return evaluation.predict(model, pixels, self.images.mean, self.images.std)

    @functools.lru_cache(maxsize=2)  # noqa: B019  a contest lives as long as its notebook
    def _seen(self, cls: int) -> Tensor:
        """The original's features of a class's sample."""
        pixels = self.access.train[0][self.sample(cls)]
        return evaluation.predict(self.bench.model, pixels, self.images.mean, self.images.std)[0]

    @functools.cache  # noqa: B019  a contest lives as long as its notebook
    def sample(self, cls: int, total: int = SEEN) -> Tensor:
        """Training images looked at: equally many of a class, a quarter more forgotten."""
        labels = self.access.train[1]
        own = (labels == cls).nonzero().squeeze(1)[: total // 4]
        return torch.cat([ladder.pick(labels, total, 0), own]).unique()

    def judge(self, outcome: Outcome) -> Outcome:
        """Fill in logits and the two accuracies that tell gone from hidden."""
        cls, model = outcome.cls, outcome.model
        index = self.sample(cls)
        labels, own = self.access.train[1], self.images.test_labels == cls
        seen, outcome.train = self.outputs(model, cls)
        features, outcome.test = self.outputs(model)
        if outcome.method in OWN:  # a gate at the last site belongs to the network's features
            gates = self.gates(outcome.method, cls)
            outcome.refit = self.bench.refit_recall(gates, (cls,), SEEN)
            under = self.bench.gated_outputs(self.bench.inside(gates), "test")[1]
        else:
            few = torch.isin(index, ladder.pick(labels, SEEN, 0))
            head = evaluation.head_refit(seen[few], labels[index][few], outcome.test.shape[1])
            outcome.refit = evaluation.accuracy(head(features[own]), self.images.test_labels[own])
            with torch.no_grad():
                under = read(self.bench.model, features)
        if outcome.method == "retrained":  # its features were never read by the other classifier
            under = outcome.test
        outcome.inside = evaluation.accuracy(under[own], self.images.test_labels[own])
        return outcome

    def scores(self, outcome: Outcome, attack: str) -> membership.AttackResult:
        """T1: training images of the forgotten class against its test images."""
        labels = self.access.train[1][self.sample(outcome.cls)]
        own, held = labels == outcome.cls, self.images.test_labels == outcome.cls
        return membership.attack(attack, outcome.train[own], labels[own], outcome.test[held],
                                 self.images.test_labels[held])

    def rows(self, outcome: Outcome) -> list[dict]:
        """Run-record rows of one outcome: times, accuracies, attacks."""
        name, labels = self.images.class_names[outcome.cls], self.images.test_labels
        said = {"forget": name}
        rows = [artifacts.row(outcome.method, f"time-{k}", v, "s", **said)
                for k, v in outcome.seconds.items()]
        rows += [artifacts.row(outcome.method, f"cpu-{k}", v, "s", **said)
                 for k, v in outcome.cpu.items()]
        rows += evaluation.accuracy_rows(outcome.method, outcome.test, labels, (outcome.cls,),
                                         "test", **said)
        rows += evaluation.accuracy_rows(
            outcome.method, outcome.train, self.access.train[1][self.sample(outcome.cls)],
            (outcome.cls,), "train", **said)
        rows += [artifacts.row(outcome.method, f"accuracy-{k}", v, split="forgotten-test", **said)
                 for k, v in (("inside-only", outcome.inside), ("head-refit", outcome.refit))]
        for attack in membership.ATTACKS:
            r = self.scores(outcome, attack)
            rows.append(artifacts.row(
                outcome.method, f"auc-t1-{attack}", r.auc, split="forgotten", low=r.low,
                high=r.high, n=len(r.members) + len(r.others), **said))
        return rows


def readout(original: nn.Module, model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """How `model`'s features come from the original's, if all before them is the same; or None."""
    before, now = original.state_dict(), dict(model.state_dict())
    if not before.keys() <= now.keys():
        raise UserError(f"the network has no {sorted(before.keys() - now.keys())[0]}: expected "
                        "the original's layers, edited")
    extra = [k for k in now if k not in before]
    if any(not k.endswith(".matrix") for k in extra):
        return None
    matrix = now[extra[0]] if extra else None
    if any(not torch.equal(v, now[k]) for k, v in before.items() if not k.startswith("fc.")):
        return None
    return (lambda f: f) if matrix is None else (lambda f: f @ matrix.to(f))


def read(model: nn.Module, features: Tensor) -> Tensor:
    """The classifier's logits (N, C) of features (N, d) that lie on the CPU, on the CPU."""
    return model.fc(features.to(model.fc.weight)).cpu()


def run(contest: Contest, classes: Iterable[int], methods, reference: Callable[[int], nn.Module],
        repeats: Callable[[str], int], log=lambda text: None) -> dict[tuple[str, int], Outcome]:
    """All methods on all classes: first everything is timed, then everything is judged.

    Args:
        reference: a function, class -> the model retrained without it, or None.
        repeats: a function, method -> how often it is timed.
    """
    checks.several("methods", methods)
    checks.several("classes", classes)
    made: dict[tuple[str, int], Outcome] = {}
    for cls in classes:
        name = contest.images.class_names[cls]
        own = Outcome(method="original", cls=cls, model=contest.bench.model)
        made["original", cls] = own
        if (fresh := reference(cls)) is not None:
            clock, worked = contest.retrain_time()
            made["retrained", cls] = Outcome(method="retrained", cls=cls, model=fresh,
                                             seconds={"edit": clock}, cpu={"edit": worked})
        for method in methods:
            made[method, cls] = contest.edited(method, cls, repeats(method))
            log(f"{name}: {method} {made[method, cls].request:.3g} s")
    for (method, cls), outcome in made.items():
        contest.judge(outcome)
        log(f"{contest.images.class_names[cls]}: {method} judged")
    return made


def in_turn(contest: Contest, method: str, classes, made=None) -> dict[str, list]:
    """`requests.in_turn` of any method that takes no training.

    Args:
        made: outcomes of `run`, used where they are there.
    """
    if method in TRAINED:
        raise UserError(f"{method} is trained: every class in turn would take too long")

    def logits_of(cls):
        if (found := (made or {}).get((method, cls))) is not None:
            return found.test
        if method in OWN:
            return contest.bench.gated_outputs(contest.gates(method, cls), "test")[1]
        model, _ = unlearning.unlearn(method, contest.bench.model, (cls,), contest.access,
                                      **contest.settings[method])
        return contest.outputs(model)[1]

    return requests.in_turn(contest.bench, logits_of, classes=classes)
