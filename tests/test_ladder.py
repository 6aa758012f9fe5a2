import dataclasses
import json

import pytest
import torch

from softprune import artifacts, evaluation, guarding, ladder, models, paths, pruning, requests
from softprune.errors import UserError

QUICK = {"steps": 60, "rate": 0.1, "rounds": 3, "pool": 400}


def test_hinge_by_hand():
    z = torch.tensor([[3.0, 1, 2], [0, 5, 1]])
    assert ladder.hinge(z, (0,), 2.0).tolist() == [3.0, 0.0]
    assert ladder.hinge(z, (1,), 0.0).tolist() == [0.0, 4.0]


def test_hinge_of_several_classes_has_no_rival_among_them():
    z = torch.tensor([[3.0, 1, 2], [0, 5, 1]])
    assert ladder.hinge(z, (0, 2), 1.0).tolist() == [3.0, 0.0]


def test_blends_by_hand():
    pixels = torch.tensor([0, 200], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    seeds = [s for s in range(8) if torch.randperm(
        2, generator=torch.Generator().manual_seed(s)).tolist() == [1, 0]]
    for seed in seeds:  # each is blended with the other
        mixed, labels = ladder.blends(pixels, torch.tensor([7, 9]), 0.5, seed)
        assert labels.tolist() == [9, 7] and mixed.dtype == torch.uint8
        low, high = mixed[0].unique().item(), mixed[1].unique().item()
        assert 0 < low <= 100 <= high < 200, "one weight an image, of the other at most a half"
    assert seeds
    kept, _ = ladder.blends(pixels, torch.tensor([7, 9]), 0.0, seeds[0])
    assert (kept == pixels).all()


def test_blends_are_seeded_and_longer_than_one_chunk():
    pixels = torch.randint(0, 256, (1500, 1, 2, 2), dtype=torch.uint8)
    labels = torch.arange(1500)
    mixed, other = ladder.blends(pixels, labels, 0.5, 3)
    again = ladder.blends(pixels, labels, 0.5, 3)
    assert (mixed == again[0]).all() and (other == again[1]).all()
    assert sorted(other.tolist()) == labels.tolist()
    low, high = (f(pixels, pixels[other]).int() for f in (torch.minimum, torch.maximum))
    assert ((low <= mixed.int()) & (mixed.int() <= high)).all()


def test_blends_have_no_label():
    for wrong in ({"keep": "labels"}, {"reader": 0.3}):
        with pytest.raises(UserError, match="expected keep='teacher' and no reader"):
            ladder.FitOptions(blend=0.5, **wrong)


def test_a_fit_sees_no_blend_with_an_image_of_the_class(smoke):
    options = dataclasses.replace(ladder.FitOptions(), sites="inner", blend=0.5, **QUICK)
    fitter = ladder.Fitter(smoke.model, smoke.images, options)
    plain, few = fitter.turned(dataclasses.replace(options, blend=0.0)), len(fitter.pool) // 2
    assert (plain.pool == fitter.pool[:few]).all() and (plain.blended == plain.pool_labels).all()
    assert (fitter.blended[:few] == fitter.pool_labels[:few]).all()
    touched = (fitter.pool_labels == 3) | (fitter.blended == 3)
    assert touched.sum() > (fitter.pool_labels == 3).sum() > 0
    fitter.pool = fitter.pool.clone()
    fitter.pool[touched] = torch.nan
    gates = fitter.fit((3,))
    assert all(g.isfinite().all() for g in gates.values())
    logits, labels = smoke.gated_outputs(gates, "test")[1], smoke.images.test_labels
    assert requests.retained_and_forgotten(logits, labels, (3,))[1] < 0.05


def test_gates_that_turn_up_are_multiplied_and_others_take_the_minimum():
    stored = {0: {"a": torch.tensor([0.5, 2.0])}, 1: {"a": torch.tensor([0.5, 0.5])},
              2: {"a": torch.tensor([0.25, 1.0])}}
    assert ladder.request(stored, (0, 1))["a"].tolist() == [0.25, 1.0]
    assert ladder.request(stored, (1, 2))["a"].tolist() == [0.25, 0.5]
    assert ladder.request(stored, (2, 1))["a"].tolist() == [0.25, 0.5]
    assert ladder.request(stored, (0,))["a"].tolist() == [0.5, 2.0]


def test_shifts_are_added_whether_gates_close_or_turn_up():
    def stored(gate):
        return {c: {"a": torch.tensor([gate]), "shift:b": torch.tensor([2.0, -1.0 + c])}
                for c in (0, 1)}

    closing = ladder.request(stored(0.5), (0, 1))
    assert closing["a"].tolist() == [0.5] and closing["shift:b"].tolist() == [4.0, -1.0]
    turning = ladder.request(stored(2.0), (1, 0))
    assert turning["a"].tolist() == [4.0] and turning["shift:b"].tolist() == [4.0, -1.0]


def test_directions_are_fitted_stored_and_read_as_they_were_fitted(smoke, tmp_path):
    options = dataclasses.replace(ladder.FitOptions(), sites="inner", **QUICK | {
        "rate": 0.0, "direction": 0.02, "shift": 0.1})
    fitter = ladder.Fitter(smoke.model, smoke.images, options)
    gates = fitter.fit((3,))
    assert gates.keys() == {"direction:conv1", "direction:conv2", "shift:bn3"}
    assert all(d.shape[:2] == (1, 2) and d[:, 0].abs().max() > 0
               for n, d in gates.items() if pruning.is_direction(n))
    with torch.no_grad():  # the kept maps, and what a request does
        fitter.fast = False
        seen = fitter.answer(gates, fitter.before(smoke.images.split("test")[0]))
    told = smoke.gated_outputs(gates, "test")[1]
    torch.testing.assert_close(seen, told, rtol=1e-2, atol=1e-2)
    ladder.save_gates(tmp_path / "g.safetensors", {3: dict(gates), 5: dict(gates)},
                      {3: 1.0, 5: 1.0}, {"a": "b"})
    stored = ladder.load_gates(tmp_path / "g.safetensors")[0]
    for name, g in gates.items():
        torch.testing.assert_close(stored[5][name], g, rtol=1e-2, atol=1e-3)
    both = ladder.request(stored, (5, 3))
    assert both["direction:conv1"].shape[0] == 2
    assert ladder.FitOptions.of_told(options.told()) == options


def test_masked_divergence_is_zero_at_the_head_masks_answer_and_positive_elsewhere():
    teacher = torch.randn(5, 4)
    masked = teacher.clone()
    masked[:, 2] = -30.0  # as good as masked, and finite
    assert ladder.masked_divergence(masked, teacher, (2,)).abs().max() < 1e-5
    # by hand: the target is (1/2, 1/2) on the others, the answer 1/4 for each of four
    flat = torch.zeros(1, 3)
    expected = torch.log(torch.tensor(0.5 / (1 / 3)))
    assert ladder.masked_divergence(flat, flat, (0,)).item() == pytest.approx(expected.item())


def test_pick_is_balanced_and_seeded():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 9)
    chosen = ladder.pick(labels, 27, 0)
    assert torch.bincount(labels[chosen]).tolist() == [9, 9, 9]
    assert torch.equal(chosen, ladder.pick(labels, 27, 0))
    assert len(set(chosen.tolist())) == 27


@pytest.mark.parametrize("rung", ladder.RUNGS)
def test_a_rung_forgets_and_keeps_more_than_closing_at_random(smoke, rung):
    options = dataclasses.replace(ladder.options(rung, "digits"), **QUICK)
    gates = ladder.Fitter(smoke.model, smoke.images, options).fit((3,))
    closing = pruning.multiplied(gates).values()
    assert all(((g >= 0) & (g <= options.most)).all() for g in closing)
    _, before, labels = smoke.outputs("test")
    kept, gone = requests.retained_and_forgotten(
        smoke.gated_outputs(gates, "test")[1], labels, (3,))
    kept_before, gone_before = requests.retained_and_forgotten(before, labels, (3,))
    assert gone < 0.2 < gone_before and kept > kept_before - 0.1
    shuffled = {s: g[torch.randperm(len(g), generator=torch.Generator().manual_seed(1))]
                for s, g in gates.items()}
    wrong = requests.retained_and_forgotten(
        smoke.gated_outputs(shuffled, "test")[1], labels, (3,))
    assert kept - gone > wrong[0] - wrong[1] + 0.2, "which channels are closed does not matter"


def test_the_fit_sees_what_folding_does(smoke):
    """Logits from the kept maps, under gates, are those of the folded model on the pixels."""
    fitter = ladder.Fitter(smoke.model, smoke.images, ladder.options("best", "digits"))
    gates = {s.name: torch.rand(s.channels) for s in fitter.sites}
    fitter.fast = False  # in the precision of the folded model
    few = ladder.pick(fitter.labels, fitter.options.pool, fitter.options.seed)[:40]
    with torch.no_grad():
        seen = fitter.answer(gates, fitter.pool[:40])
    with pruning.folded(smoke.model, gates):
        from softprune import evaluation
        told = evaluation.predict(smoke.model, fitter.pixels[few], smoke.images.mean,
                                  smoke.images.std)[1]
    torch.testing.assert_close(seen, told, rtol=1e-2, atol=1e-2)  # maps in half precision
    fitter.fast = True  # bfloat16, where the machine has it: three digits of a logit
    with torch.no_grad():
        rough = fitter.answer(gates, fitter.pool[:40])
    assert (rough - told).abs().max() < 0.03 * told.abs().max()


def test_best_changes_the_features_and_calibrated_only_the_head(smoke):
    smoke.prepare("calibrated", (3,))
    gates = smoke.method_gates("calibrated", (3,))
    assert gates and smoke.inside(gates) == {}
    for name in ("digits", "cifar10"):
        sites = models.choose_sites(smoke.model, ladder.options("best", name).sites)
        assert sites and smoke.model.sites()[-1] not in sites


def test_stored_gates_resume_compose_and_refuse(smoke, tmp_path):
    path = tmp_path / "m.gates-best.safetensors"
    stored = {c: {"conv1": torch.rand(4)} for c in (1, 4)}
    mark = {"options": "{}", "weights": "abc"}
    ladder.save_gates(path, stored, {1: 2.0, 4: 3.0}, mark)
    back, seconds = ladder.load_gates(path, mark)
    assert seconds == {1: 2.0, 4: 3.0}
    for c in stored:  # rounded before it is measured
        assert torch.equal(back[c]["conv1"], stored[c]["conv1"])
    assert ladder.load_gates(path, mark | {"weights": "other"}) == ({}, {})
    both = ladder.request(back, (1, 4))["conv1"]
    assert torch.equal(both, torch.minimum(back[1]["conv1"], back[4]["conv1"]))
    with pytest.raises(UserError, match="no gates stored"):
        ladder.request(back, (2,))
    calls = []
    smoke.prepare("calibrated", (5,))
    smoke.prepare("calibrated", (5,), log=calls.append)
    assert calls == [], "fitted again what was stored"


def test_a_model_splits_where_the_first_gate_is(lively):
    model, batch = lively
    with torch.no_grad():
        whole = model.features(batch)
        for sites in ("inner", "late", "last"):
            before, after = models.split_at(model, models.choose_sites(model, sites))
            torch.testing.assert_close(models.run(after, models.run(before, batch)), whole)


def test_summaries_by_hand():
    turn = {"classes": [0, 1], "retained": [0.9, 0.8], "forgotten": [0.0, 0.1],
            "before": [0.85, 0.9]}
    made = requests.summarise(turn)
    assert made["change-mean"] == pytest.approx(-0.025) and made["n"] == 2
    assert made["change-worst"] == pytest.approx(-0.1) and made["forgotten-worst"] == 0.1


def test_reused_prefixes_give_the_outputs_of_the_whole_network(smoke):
    from softprune import evaluation

    pixels = smoke.images.test_images
    for sites in ("all", "inner", "conv2", "conv2,conv3"):
        gates = smoke.gates((3,), sites=sites, fraction=0.4)
        features, logits = smoke.gated_outputs(gates, "test")
        with pruning.folded(smoke.model, gates):
            whole = evaluation.predict(smoke.model, pixels, smoke.images.mean, smoke.images.std)
        torch.testing.assert_close(features, whole[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits, whole[1], rtol=1e-4, atol=1e-4)


def test_features_that_are_kept_belong_to_their_gates(smoke, monkeypatch):
    """Both classifiers read one pass; other values, another split or an edit in place is a new one.
    """
    passes = []
    whole = requests.Bench._from
    monkeypatch.setattr(requests.Bench, "_from",
                        lambda self, *a: passes.append(a[0]) or whole(self, *a))
    smoke.latest = None
    gates = smoke.gates((3,), sites="conv2,conv3", fraction=0.4)
    edited = smoke.gated_outputs(gates, "test")
    under = smoke.gated_outputs(smoke.inside(gates), "test")
    assert passes == ["test"] and (edited[0] == under[0]).all()
    assert (edited[1] - under[1]).abs().max() > 0.01
    smoke.gated_outputs(gates, "validation")
    assert passes == ["test", "validation"]
    gates["conv2"] = gates["conv2"] * 0.5
    other = smoke.gated_outputs(gates, "test")
    assert passes == ["test", "validation", "test"] and (other[0] != edited[0]).any()
    gates["conv2"] *= 0.5
    assert (smoke.gated_outputs(gates, "test")[0] != other[0]).any()


def test_options_that_are_not_used_leave_no_mark():
    plain = ladder.FitOptions()
    assert not {"most", "under", "shift", "blend"} & plain.told().keys()
    assert plain.told()["seed"] == 0
    other = ladder.FitOptions(most=3.0, under=0.3)
    assert ladder.FitOptions(**other.told()) == other
    assert other.told().keys() - plain.told().keys() == {"most", "under"}


def test_features_read_by_the_classifier_are_what_the_gated_network_answers(smoke):
    fitter = ladder.Fitter(smoke.model, smoke.images,
                           dataclasses.replace(ladder.FitOptions(), sites="all", pool=100))
    fitter.fast = False
    gates = {s.name: torch.rand(s.channels) + 0.5 for s in fitter.sites}
    with pruning.gated(smoke.model, gates), torch.no_grad():
        whole = torch.cat([smoke.model(x) for x, _ in evaluation.batches(
            fitter.pixels[:50], smoke.images.mean, smoke.images.std, fitter.device)])
    parts = fitter.answer(gates, fitter.before(fitter.pixels[:50])).detach()
    assert (whole - parts).abs().max() < 0.03  # maps are kept in half precision
    under = smoke.model.fc(fitter.features(gates, fitter.before(fitter.pixels[:50])))
    assert (under - parts).abs().max() > 0.1


def test_gates_may_turn_up_and_push_the_class_out_under_the_untouched_classifier(smoke):
    def inside(gates):
        left = {name: g for name, g in gates.items() if name != smoke.last}
        logits, labels = smoke.gated_outputs(left, "test")[1], smoke.images.test_labels
        return requests.retained_and_forgotten(logits, labels, (3,))[1]

    plain = dataclasses.replace(ladder.FitOptions(), sites="all", **QUICK)
    told = ladder.Fitter(smoke.model, smoke.images,
                         dataclasses.replace(plain, most=3.0, under=1.0)).fit((3,))
    asked = ladder.Fitter(smoke.model, smoke.images, plain).fit((3,))
    assert max(float(g.max()) for g in asked.values()) <= 1
    assert 1 < max(float(g.max()) for g in told.values()) <= 3
    assert min(float(g.min()) for g in told.values()) >= 0
    assert inside(told) < 0.05 and inside(told) <= inside(asked)
    logits = smoke.gated_outputs(told, "test")[1]
    assert requests.retained_and_forgotten(logits, smoke.images.test_labels, (3,))[1] < 0.05


def test_shifts_are_fitted_beside_gates_stored_and_left_out_where_there_are_none(smoke, tmp_path):
    plain = dataclasses.replace(ladder.FitOptions(), sites="inner,last", **QUICK)
    fitter = ladder.Fitter(smoke.model, smoke.images, dataclasses.replace(plain, shift=0.1))
    gates = fitter.fit((3,))
    shift = gates["shift:bn3"]
    assert shift.abs().max() > 0 and shift.min() < 0  # not held in the gates' range
    with torch.no_grad():  # the kept maps, and what a request does
        fitter.fast = False
        seen = fitter.answer(gates, fitter.before(smoke.images.split("test")[0]))
    told = smoke.gated_outputs(gates, "test")[1]
    torch.testing.assert_close(seen, told, rtol=1e-2, atol=1e-2)
    alone = smoke.gated_outputs({"shift:bn3": shift}, "test")[1]
    assert (alone - smoke.outputs("test")[1]).abs().max() > 0.01
    ladder.save_gates(tmp_path / "g.safetensors", {3: dict(gates)}, {3: 1.0}, {"a": "b"})
    again = ladder.load_gates(tmp_path / "g.safetensors")[0][3]
    assert again.keys() == gates.keys()
    torch.testing.assert_close(again["shift:bn3"], shift, rtol=1e-2, atol=1e-3)
    head = ladder.Fitter(smoke.model, smoke.images,
                         dataclasses.replace(plain, sites="last", shift=0.1))
    assert head.fit((3,)).keys() == {smoke.last}
    assert not any(map(pruning.is_shift, fitter.turned(plain).fit((3,))))


def test_a_reader_counts_every_class_the_same_and_learns_what_it_is_shown():
    """One image of the class among many: the reader still learns to name it."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([1] * 40 + [2] * 40 + [0] * 2)
    features = torch.eye(3)[labels] + 0.1 * torch.randn(82, 3, generator=generator)
    fc = torch.nn.Linear(3, 3)
    torch.nn.init.zeros_(fc.weight)
    torch.nn.init.zeros_(fc.bias)
    reader = ladder.Reader(fc, (0,))
    assert reader.finds(features[80:]).tolist() == [0.0, 0.0]
    for _ in range(60):
        reader.learn(features, labels)
    assert (reader.finds(features[80:]) > 0).all() and (reader.finds(features[:80]) == 0).all()
    assert (fc.weight == 0).all(), "the network's own classifier was taught"
    asked = features[80:].clone().requires_grad_()
    reader.finds(asked).sum().backward()
    assert asked.grad.abs().sum() > 0


def test_what_is_fitted_against_a_reader_is_harder_to_read(smoke):
    plain = dataclasses.replace(ladder.options("best", "digits"), **QUICK | {"steps": 150})
    against = dataclasses.replace(plain, reader=0.3, most=3.0)
    assert "reader" not in plain.told() and against.told()["reader"] == 0.3
    guard = guarding.Guard(smoke.model, smoke.images, guarding.GuardOptions(
        steps=150, pairs=8, pool=2000, rounds=1, reader=0.3))
    fitter = ladder.Fitter(smoke.model, smoke.images, plain)
    fitters = [fitter, fitter.turned(against), guard]
    # a class of this small network has fifty test images: one alone tells little
    found = [sum(smoke.refit_recall(f.fit((c,)), (c,)) for c in range(1, 7)) / 6 for f in fitters]
    assert max(found[1:]) < found[0] - 0.01


def test_the_audits_gates_are_of_the_base_and_of_the_weights_that_ship():
    checkpoint = paths.shipped() / "digits" / "laptop" / "digits-cnn-w16-so-0.01-s0.safetensors"
    tensors, mark = artifacts.load_tensors(artifacts.companion(checkpoint, "gates-closing"))
    assert json.loads(mark["options"]) == ladder.base("best", "digits").told()
    assert mark["weights"] == artifacts.sha256(checkpoint)
    assert all((tensors[site] <= 1).all() for site in ("conv1", "conv2"))
