"""Baselines on toys where the right outcome is known, and all of them on a small digits model."""

import copy
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from softprune import (
    baselines,
    distances,
    evaluation,
    finetuning,
    headtohead,
    models,
    notebooks,
    requests,
    training,
    tuning,
    unlearning,
)
from softprune.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
QUICK = {"steps": 6, "retained": 32, "forgotten": 16}
REGISTERED = sorted(unlearning.registry())


@pytest.fixture(scope="module")
def access(smoke):
    return unlearning.Access.of(smoke)


def quick(name):
    """Options that make a method short."""
    if name == "retrain":
        return {"epochs": 1}
    return QUICK if name in headtohead.TRAINED else {}


def run(name, smoke, access, cls=3, **options):
    return unlearning.unlearn(name, smoke.model, (cls,), access, **options)[0]


# --- closed forms, by hand -----------------------------------------------------------------------


def test_ssd_dampens_only_what_matters_more_for_the_class():
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0])
    own, whole = torch.tensor([8.0, 20.0, 5.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    baselines.dampen(weight, own, whole, alpha=5.0, strength=1.0)
    # 8 > 5: times 1/8; 20 > 5: times 1/20; 5 is not above 5; nothing at all stays
    assert weight.tolist() == pytest.approx([1 / 8, 1 / 20, 1, 1])
    weight = torch.ones(1)  # never amplified: min(1, 30 / 8)
    baselines.dampen(weight, torch.tensor([8.0]), torch.tensor([1.0]), 5.0, 30.0)
    assert weight.tolist() == [1]


def test_importance_is_the_mean_squared_gradient_of_batches():
    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2, 1))

        def forward(self, x):  # (N, 1, 1, 1) -> (N, 2)
            return x.flatten(1) @ self.w.T

    pixels = torch.full((4, 1, 1, 1), 255, dtype=torch.uint8)  # x = 1 after normalisation
    labels = torch.tensor([0, 0, 0, 0])
    found = baselines.importances(Line(), pixels, labels, (0.0,), (1.0,), batch=2)["w"]
    # softmax of (0, 0) is ½: the gradient of -ln p_0 is (-½, ½), squared ¼ in every batch
    assert found.flatten().tolist() == pytest.approx([0.25, 0.25])


def test_svd_projection_by_hand():
    # the class uses axis 0 alone, the others axis 1 alone: s = 1 there, Λ = 1; P removes axis 0
    gram_f, gram_r = torch.diag(torch.tensor([4.0, 0.0])), torch.diag(torch.tensor([0.0, 9.0]))
    p = baselines.svd_projection(gram_f.double(), gram_r.double(), 3.0, 100.0)
    assert torch.allclose(p, torch.diag(torch.tensor([0.0, 1.0])).double())
    # what both use alike stays: M_f - M_f M_r = 0 where M_r = 1
    p = baselines.svd_projection(gram_f.double(), gram_f.double(), 3.0, 100.0)
    assert torch.allclose(p, torch.eye(2).double())
    # s = (.75, .25), α = 3: Λ = 3 s / (2 s + 1) = (.9, .5); a rotated space is rotated back
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]]).double()
    space = baselines.scaled_space(turn @ torch.diag(torch.tensor([3.0, 1.0])).double() @ turn.T, 3)
    assert torch.allclose(space, turn @ torch.diag(torch.tensor([0.9, 0.5])).double() @ turn.T)


def test_svd_writes_w_p_transposed(smoke, access):
    options = unlearning.configure("svd", images=60)
    after = run("svd", smoke, access, images=60)
    spaces = []
    for retained in (False, True):
        pixels, labels = access.part((3,), retained)
        few = baselines.ladder.pick(labels, options.images, options.seed)
        spaces.append(baselines.grams(smoke.model, pixels[few], access.images.mean,
                                      access.images.std, options.patches))
    assert set(spaces[0]) == {"conv1", "conv2", "conv3", "fc"}
    p = baselines.svd_projection(spaces[0]["conv2"], spaces[1]["conv2"], 3.0, 100.0)
    expected = smoke.model.conv2.weight.flatten(1) @ p.T
    assert torch.allclose(after.conv2.weight.flatten(1), expected, atol=1e-5)


def test_patches_are_what_a_convolution_multiplies():
    conv = nn.Conv2d(2, 3, 3, 2, 1, bias=False)
    x = torch.randn(4, 2, 6, 6)
    rows = baselines.patches(conv, x, 10**6)
    made = (rows @ conv.weight.flatten(1).T).view(4, 9, 3).transpose(1, 2).reshape(4, 3, 3, 3)
    assert torch.allclose(made, conv(x), atol=1e-5)
    assert len(baselines.patches(conv, x, 10)) == 8  # two positions of each of four images


def test_pour_p_projects_exactly(smoke, access):
    after = run("pour-p", smoke, access)
    pixels = access.images.test_images[:40]
    z, _ = evaluation.predict(smoke.model, pixels, access.images.mean, access.images.std)
    seen, logits = evaluation.predict(after, pixels, access.images.mean, access.images.std)
    w = smoke.model.fc.weight[3].detach()
    assert torch.allclose(seen, z - (z @ w)[:, None] * w / w.square().sum(), atol=1e-5)
    assert (seen @ w).abs().max() < 1e-4  # nothing is left along the class's row
    assert torch.allclose(logits[:, 3], smoke.model.fc.bias[3].expand(40), atol=1e-4)


def test_pour_p_of_a_vgg_keeps_its_shape():
    torch.manual_seed(0)
    model = models.build("vgg16", classes=4, channels=3, width=4).eval().requires_grad_(False)
    x = torch.randn(2, 3, 32, 32)
    z, w = model.features(x), model.fc.weight[1].clone()
    baselines.pour_p(model, (1,), None, None, evaluation.TimeLedger())
    assert torch.allclose(model.features(x), z - (z @ w)[:, None] * w / w.square().sum(), atol=1e-5)


def test_cse_keeps_the_mean_output_of_the_retained(smoke, access):
    after = run("cse", smoke, access, fraction=0.5, alpha=0.25)
    features, _, labels = smoke.outputs("train")
    mean = features[labels != 3].mean(0)
    assert torch.allclose(after.fc(mean), smoke.model.fc(mean), atol=1e-3)
    ratio = (after.fc.weight / smoke.model.fc.weight)[0]
    assert sorted({round(r, 3) for r in ratio.tolist()}) == [0.25, 1.0]


def test_bias_shift_changes_one_number(smoke, access):
    after = run("bias-shift", smoke, access, shift=3.0)
    changed = {n: int((p != q).sum()) for (n, p), q in zip(
        after.named_parameters(), smoke.model.parameters(), strict=True)}
    assert {n: c for n, c in changed.items() if c} == {"fc.bias": 1}
    assert after.fc.bias[3].item() == pytest.approx(smoke.model.fc.bias[3].item() - 3)


def test_head_mask_is_the_mask_of_the_logits(smoke, access):
    pixels = access.images.test_images[:20]
    z = smoke.outputs("test")[1][:20]
    made = evaluation.predict(run("head-mask", smoke, access), pixels, access.images.mean,
                              access.images.std)[1]
    expected = evaluation.head_mask(z, (3,))
    assert torch.equal(made.isinf(), expected.isinf())
    assert torch.allclose(made[:, :3], expected[:, :3], atol=1e-5)


def test_cdp_closes_the_same_share_at_every_site(smoke, access):
    after = run("cdp", smoke, access, fraction=0.25)
    assert [int((m.weight == 0).sum()) for m in (after.bn1, after.bn2)] == [2, 4]
    assert int((after.fc.weight == 0).all(0).sum()) == 8


# --- trained -------------------------------------------------------------------------------------


def test_salun_freezes_against_decay_and_momentum(smoke, access):
    options = unlearning.configure("salun", steps=5, rate=0.1, weight_decay=0.1, momentum=0.9)
    model = copy.deepcopy(smoke.model).requires_grad_(True)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    mask = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in before.items()}
    mask["conv2.weight"][0] = True
    mask["fc.bias"][:] = True
    finetuning.relabelled(model, (3,), access, options, mask)
    for name, p in model.named_parameters():
        assert torch.equal(p[~mask[name]], before[name][~mask[name]]), name
    assert not torch.equal(model.conv2.weight[0], before["conv2.weight"][0])


def test_saliency_mask_takes_the_largest_gradients():
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    # p = (½, ½): the gradient of row 0 is -½ x, of row 1 ½ x, with x = (1, 3)
    mask = finetuning.saliency_mask(model, [(torch.tensor([[1.0, 3.0]]), torch.tensor([0]))], 0.5)
    assert mask["weight"].tolist() == [[False, True], [False, True]]


def test_scrub_and_delete_losses_by_hand():
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert finetuning.divergence(student, teacher, 1.0).item() == pytest.approx(by_hand)
    # at temperature 2 the teacher's odds are √3 : 1, and the loss is four times the divergence
    p = math.sqrt(3) / (math.sqrt(3) + 1)
    by_hand = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert finetuning.divergence(student, teacher, 2.0).item() == pytest.approx(by_hand)
    # class 0 masked, the teacher says (¾, ¼) of the others; the student gives each a third
    teacher = torch.tensor([[9.0, math.log(3.0), 0.0]])
    by_hand = 0.75 * math.log(0.75 * 3) + 0.25 * math.log(0.25 * 3)
    assert finetuning.delete_loss(torch.zeros(1, 3), teacher, (0,)).item() == pytest.approx(by_hand)


def test_neggrad_balances_descent_and_ascent():
    assert finetuning.neggrad_loss(torch.tensor(2.0), torch.tensor(3.0), 0.9).item() == \
        pytest.approx(0.9 * 2 - 0.1 * 3)


def test_random_labels_are_retained_ones_and_even():
    drawn = finetuning.other_labels(4000, 5, (1, 3), torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=5)
    assert counts[[1, 3]].tolist() == [0, 0] and (counts[[0, 2, 4]] > 1200).all()


def test_stream_holds_only_its_classes(access):
    for retained in (True, False):
        batches = finetuning.stream(access, (3,), retained, 64, 0)
        labels = torch.cat([next(batches)[1] for _ in range(30)])
        assert ((labels == 3).any().item(), (labels != 3).any().item()) == (not retained, retained)


def test_retrain_shares_no_tensor_and_never_sees_the_class(smoke, access, monkeypatch):
    seen, plain = [], training.train_epoch
    monkeypatch.setattr(training, "train_epoch", lambda *a: (seen.append(a[4]), plain(*a))[1])
    model = run("retrain", smoke, access, epochs=1)
    assert not (torch.cat(seen) == 3).any()
    before = dict(smoke.model.named_parameters())
    for name, p in model.named_parameters():
        assert p.data_ptr() != before[name].data_ptr()
        if p.dim() > 1:  # norms start from the same constants
            assert not torch.equal(p, before[name]), name


def test_alone_leaves_the_norms_statistics(smoke, access):
    after = run("delete", smoke, access, **QUICK)
    assert torch.equal(after.bn1.running_mean, smoke.model.bn1.running_mean)
    assert not torch.equal(after.conv1.weight, smoke.model.conv1.weight)


# --- every one of them ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGISTERED)
def test_original_stays_untouched_and_time_is_kept(name, smoke, access):
    before = copy.deepcopy(smoke.model.state_dict())
    model, ledger = unlearning.unlearn(name, smoke.model, (3,), access, **quick(name))
    after = smoke.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    held = {p.data_ptr() for p in model.parameters()}
    assert not held & {p.data_ptr() for p in smoke.model.parameters()}
    assert not model.training and isinstance(model, nn.Module)
    assert "edit" in ledger.seconds and set(ledger.seconds) <= {"prepare", "select", "edit"}
    assert not any(p.isnan().any() for p in model.parameters())


@pytest.mark.parametrize("name", REGISTERED)
def test_unknown_options_and_kinds_are_refused(name, smoke, access):
    with pytest.raises(UserError, match=r"unknown option of .*'nonsense'"):
        run(name, smoke, access, nonsense=1)
    for option in [f.name for f in dataclasses.fields(unlearning.METHODS[name].options)][:1]:
        with pytest.raises(UserError, match="expected"):
            run(name, smoke, access, **{option: "much"})


# settings that forget on this small net; the tuned ones belong to the trained-out models
FORGETS = {
    "bias-shift": {"shift": 20.0}, "cse": {"fraction": 0.6}, "cdp": {"fraction": 0.2},
    "svd": {"alpha_f": 30.0}, "ssd": {"alpha": 2.0}, "neggrad+": {"balance": 0.5, "steps": 40},
    "fine-tune": {"rate": 0.2, "steps": 150}, "random-label": {"steps": 40},
    "salun": {"steps": 40}, "scrub": {"steps": 60, "rate": 0.005},
    "delete": {"steps": 40, "rate": 0.01},
    "retrain": {"epochs": 2},
}


@pytest.mark.parametrize("name", REGISTERED)
def test_forgotten_accuracy_falls(name, smoke, access):
    model = run(name, smoke, access, **FORGETS.get(name, {}))
    _, base, labels = smoke.outputs("test")
    z = evaluation.predict(model, access.images.test_images, access.images.mean,
                           access.images.std)[1]
    before = requests.retained_and_forgotten(base, labels, (3,))[1]
    after = requests.retained_and_forgotten(z, labels, (3,))[1]
    assert after < before


def test_unknown_method_and_impossible_requests(smoke, access):
    with pytest.raises(UserError, match="unknown method 'magic'"):
        run("magic", smoke, access)
    for forget in ((), tuple(range(10)), (10,)):
        with pytest.raises(UserError, match="expected some of 0 to 9"):
            unlearning.unlearn("head-zero", smoke.model, forget, access)


def test_what_is_prepared_is_made_once(smoke):
    access = unlearning.Access.of(smoke)
    ledgers = [unlearning.unlearn("ssd", smoke.model, (c,), access)[1] for c in (1, 2)]
    assert len(access.prepared) == 1
    assert ledgers[0].seconds["prepare"] == ledgers[1].seconds["prepare"] > 0


# --- settings ------------------------------------------------------------------------------------


def test_committed_settings_follow_the_rule():
    entries = tuning.read()
    assert "digits" in entries
    for dataset, entry in entries.items():
        for name, made in entry["methods"].items():
            assert made["chosen"] == tuning.best(made["tried"]), (dataset, name)
            assert [t["options"] for t in made["tried"]] == tuning.TRIALS[name], (dataset, name)
            unlearning.configure(name, **made["chosen"])
    assert len({len(t) for t in tuning.TRIALS.values()}) == 1  # an equal budget


def test_an_empty_file_of_settings_has_none(tmp_path, monkeypatch):
    from softprune import comparisons, paths

    (tmp_path / "data").mkdir()
    (tmp_path / "data/baselines.yml").write_text("# none chosen\n")
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    assert tuning.read() == {} == unlearning.tuned("digits", "ssd")
    assert comparisons.tuning_of("digits") == {}


def test_tune_measures_on_validation_and_resumes(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "path", lambda: tmp_path / "baselines.yml")
    asked = []
    split = type(smoke.images).split
    monkeypatch.setattr(type(smoke.images), "split",
                        lambda self, name: (asked.append(name), split(self, name))[1])
    entry = tuning.tune(smoke, ("bias-shift",), classes=(3, 4))
    assert set(asked) <= {"train", "validation"}
    tried = entry["methods"]["bias-shift"]["tried"]
    assert entry["class"] == "three+four" and len(tried) == len(tuning.TRIALS["bias-shift"])
    monkeypatch.setattr(tuning, "trial", None)  # nothing is tried again
    assert tuning.tune(smoke, ("bias-shift",), classes=(3, 4)) == entry
    with pytest.raises(UserError, match="nothing to tune"):
        tuning.tune(smoke, ("head-zero",))
    with pytest.raises(UserError, match="bias-shift were chosen otherwise"):
        tuning.tune(smoke, ("ssd",), classes=(5,))
    assert tuning.read()["digits"] == entry, "settings of other classes were lost"


# --- the comparison ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contest(smoke):
    options = {"score": "difference", "statistic": "mean", "gate": "rank", "alpha": 0.25,
               "sites": "last", "seed": 0, "fraction": 0.25}
    return headtohead.Contest(smoke, options)


def test_shortcut_from_features_gives_the_same_logits(contest, smoke, access):
    for name in ("cse", "pour-p", "head-zero"):
        model = run(name, smoke, access)
        assert headtohead.readout(smoke.model, model) is not None
        fast = contest.outputs(model)
        slow = evaluation.predict(model, *[access.images.test_images], access.images.mean,
                                  access.images.std)
        for a, b in zip(fast, slow, strict=True):
            assert torch.allclose(a, b, atol=1e-4), name
    assert headtohead.readout(smoke.model, run("cdp", smoke, access)) is None


def test_ranks_put_the_reference_itself_first(contest, smoke):
    def outcome(method, model):
        return contest.judge(headtohead.Outcome(method=method, cls=3, model=model))

    reference = outcome("retrained", run("retrain", smoke, contest.access, epochs=3))
    twin = dataclasses.replace(reference, method="twin")
    found = distances.ranks(contest, [outcome("original", smoke.model), twin], reference, draws=20)
    for criterion, by_method in found.items():
        assert by_method["twin"][0] == 1 and by_method["original"][0] > 1, criterion
    assert distances.confusion_distance(contest, twin, reference) == 0


def test_run_times_first_and_judges_all(contest):
    said = []
    made = headtohead.run(contest, (3,), ("soft", "bias-shift"), lambda c: None, lambda m: 2,
                          log=said.append)
    assert [m for m, _ in made] == ["original", "soft", "bias-shift"]
    assert [s.split()[-1] for s in said] == ["s", "s", "judged", "judged", "judged"]
    rows = contest.rows(made["soft", 3])
    metrics = {r["metric"] for r in rows}
    assert {"time-prepare", "time-select", "time-edit", "time-save", "time-verify", "accuracy",
            "accuracy-inside-only", "accuracy-head-refit", "auc-t1-modified-entropy"} <= metrics
    assert {r["split"] for r in rows if r["metric"] == "accuracy"} == {
        "retained-test", "forgotten-test", "retained-train", "forgotten-train"}


def test_a_request_counts_the_fewer_of_clock_and_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def of(seconds, cpu):
        return headtohead.Outcome(method="x", cls=0, model=None, seconds=seconds, cpu=cpu).request

    assert of({"select": 1.0, "edit": 2.0, "save": 9.0}, {}) == 3
    assert of({"select": 1.0, "edit": 2.0}, {"select": 0.5, "edit": 1.5}) == 2  # a busy machine
    assert of({"select": 1.0, "edit": 2.0}, {"select": 0.5, "edit": 4.0}) == 2.5  # two threads


def test_retraining_is_counted_in_steps_and_sides(contest, monkeypatch):
    recipe = dataclasses.replace(contest.access.recipe, epochs=4, batch_size=50,
                                 sides=((0.5, 4),))
    monkeypatch.setattr(contest.access, "recipe", recipe)

    def epoch(config, model, solver, pixels, labels, present, images, number):
        # a step takes 1 at the small side and 2 at the full one
        return {"seconds": len(labels) // 50 * (1 if training.side_at(config, number) else 2)}

    monkeypatch.setattr(training, "train_epoch", epoch)
    steps = len(contest.access.part((0,), True)[1]) // 50
    assert contest.retrain_time(steps=2)[0] == pytest.approx(2 * steps + 2 * 2 * steps)


def test_trained_methods_are_not_run_for_every_class(contest):
    with pytest.raises(UserError, match="too long"):
        headtohead.in_turn(contest, "salun", [0])


def test_moved_counts_numbers_and_tells_head_from_inside(smoke, access):
    numbers = sum(p.numel() for p in smoke.model.parameters())
    share, head, inside = distances.moved(smoke.model, run("bias-shift", smoke, access))
    assert share == pytest.approx(1 / numbers) and head > 0 and inside == 0
    share, head, inside = distances.moved(smoke.model, run("head-mask", smoke, access))
    assert share == pytest.approx(1 / numbers) and head == 0 and inside == 0
    assert distances.moved(smoke.model, run("cdp", smoke, access))[2] > 0


def test_template_is_stripped_short_and_opens_with_its_parameters():
    path = notebooks.template("head-to-head")
    cells = notebooks.read(path).cells
    assert all(not c.outputs and c.execution_count is None for c in cells if c.cell_type == "code")
    assert len(cells) <= 25
    named = cells[2].source.split('names = "')[1].split('"')[0].split()
    assert named == list(notebooks.parameters(path))


def test_notebook_runs_at_smoke_and_writes_the_contracts_rows(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "data").mkdir()
    for name in ("catalog.yml", "paper.yml", "baselines.yml"):
        shutil.copy(ROOT / "data" / name, tmp_path / "data")
    environment = os.environ | {"SOFTPRUNE_ROOT": str(tmp_path),
                                "SOFTPRUNE_CACHE": str(tmp_path / "cache")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    code = ("from softprune import notebooks as n; n.run('head-to-head', n.check('head-to-head', "
            "{'dataset': 'digits', 'profile': 'smoke', 'trained': 'none'}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    record = next((tmp_path / "data/results/digits/smoke").glob("head-to-head-*.json"))
    rows = json.loads(record.read_text())["rows"]
    methods = {r["method"] for r in rows}
    assert methods == {"original", "retrained", *headtohead.FAST}
    for method in methods - {"original"}:
        mine = {r["metric"] for r in rows if r["method"] == method}
        assert {"time-edit", "time-request", "accuracy", "accuracy-inside-only",
                "accuracy-head-refit", "js-confusion", "auc-t1-modified-entropy"} <= mine, method


def test_which_trained_methods_are_asked_for():
    assert headtohead.trained_methods("all") == headtohead.TRAINED
    assert headtohead.trained_methods("none") == ()
    assert headtohead.trained_methods("salun,fine-tune") == ("fine-tune", "salun")
    with pytest.raises(UserError, match="slun"):
        headtohead.trained_methods("slun")
