"""Directions in closed form from the class-by-channel table: what they are and what they do."""

import dataclasses
import json
import sys
import types

import pytest
import torch

from softprune import artifacts, channels, evaluation, models, paths, prototypes, pruning
from softprune.cli import main
from softprune.prototypes import PrototypeOptions

sys.path.insert(0, str(paths.root() / "benchmarks"))
import from_table


def table_of(mean, within=0.0, counts=None):
    """A table of one site, `here`, from prototypes (C, J) and a variance within classes."""
    mean = torch.tensor(mean)
    return channels.ClassChannelTable(
        counts=torch.ones(len(mean)) if counts is None else torch.tensor(counts),
        mean={"mean": {"here": mean}}, square={"mean": {"here": mean.square() + within}})


HERE = [types.SimpleNamespace(name="here")]


def test_two_classes_by_hand():
    """Prototypes (2, 0) and (1, 1): the first is read along (1, -1), on which the second has 0."""
    u, v = prototypes.directions(table_of([[2.0, 0.0], [1.0, 1.0]]), HERE,
                                 PrototypeOptions(alpha=3.0))["direction:here"][0]
    torch.testing.assert_close(v, torch.tensor([1.0, -1.0]) / 2 ** 0.5, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(u, -3 * v)


def test_with_much_spread_within_classes_it_is_the_prototype_itself():
    """C is a multiple of I then, and v the prototype's direction."""
    found = prototypes.directions(table_of([[3.0, 4.0], [1.0, 1.0]], within=1.0), HERE,
                                  PrototypeOptions(spread=1e6))["direction:here"]
    torch.testing.assert_close(found[0, 1], torch.tensor([0.6, 0.8]), atol=1e-4, rtol=1e-4)


def test_of_all_directions_that_read_the_class_it_reads_least_of_the_others():
    draws = torch.Generator().manual_seed(0)
    mean = torch.rand(5, 8, generator=draws)
    counts = [10.0, 20.0, 5.0, 30.0, 10.0]
    table = table_of(mean.tolist(), within=0.05, counts=counts)
    v = prototypes.directions(table, HERE, PrototypeOptions(spread=1.0))["direction:here"][2, 1]

    def read(w):  # power on the others where the class is read with 1
        w = w / (w @ mean[2])
        share = torch.tensor(counts) / sum(counts)
        power = share * ((mean @ w).square() + 0.05 * w.square().sum())
        return (power.sum() - share[2] * (mean[2] @ w) ** 2).item()

    assert all(read(v) <= read(v + 0.1 * torch.randn(8, generator=draws)) + 1e-6
               for _ in range(50))


def test_a_channel_that_is_never_active_is_left_alone():
    table = table_of([[2.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    pair = prototypes.directions(table, HERE, PrototypeOptions())["direction:here"]
    assert pair.isfinite().all() and pair[:, :, 1].abs().max() == 0


def test_strength_rises_along_the_last_sites_inside():
    model = models.build("resnet18", classes=10, channels=3, width=4)
    sites = prototypes.where(model, 3)
    assert [s.name for s in sites] == ["layer3", "layer4.0.conv1", "layer4.1.conv1"]
    assert [s.name for s in prototypes.where(model, 1)] == ["layer4.1.conv1"]
    draws = torch.Generator().manual_seed(0)
    mean = {s.name: torch.rand(10, s.channels, generator=draws) for s in sites}
    table = channels.ClassChannelTable(counts=torch.ones(10), mean={"mean": mean}, square={
        "mean": {n: m.square() + 0.1 for n, m in mean.items()}})
    found = prototypes.directions(table, sites, PrototypeOptions(sites=3, alpha=3.0))
    for number, site in enumerate(sites, 1):
        u, v = found[pruning.DIRECTION + site.name].unbind(1)
        torch.testing.assert_close(v.norm(dim=1), torch.ones(10))
        torch.testing.assert_close(u, -number * v)


def test_it_forgets_without_a_fit_and_folds_exactly(smoke):
    found = prototypes.prepare(smoke, PrototypeOptions(sites=2, alpha=4.0, spread=1.0))
    edit = prototypes.request(found, (3,))
    assert set(edit) == {"direction:conv1", "direction:conv2"}
    assert edit["direction:conv2"].shape == (1, 2, 16)
    pixels, labels = smoke.images.split("test")
    model, before = smoke.fold_into_copy(edit), smoke.outputs("test")[1]
    z = evaluation.predict(model, pixels, smoke.images.mean, smoke.images.std)[1]
    own = labels == 3
    assert evaluation.accuracy(z[own], labels[own]) < 0.5 * evaluation.accuracy(
        before[own], labels[own])
    assert torch.equal(model.fc.weight, smoke.model.fc.weight), "the classifier is as it was"
    with pruning.gated(smoke.model, edit), torch.no_grad():
        explicit = evaluation.predict(smoke.model, pixels, smoke.images.mean, smoke.images.std)[1]
    torch.testing.assert_close(z, explicit, atol=1e-3, rtol=1e-3)


def test_how_far_a_class_leads():
    z = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    assert prototypes.lead(z, 0).tolist() == [1.0, -5.0]
    assert prototypes.lead(z, 1).tolist() == [-2.0, 4.0]


def test_a_request_for_several_is_the_same_in_any_order():
    found = {"direction:here": torch.arange(24.0).view(4, 2, 3)}
    one, other = (prototypes.request(found, f)["direction:here"] for f in ((1, 3), (3, 1)))
    assert torch.equal(one, other) and one.shape == (2, 2, 3)


def test_the_rule_takes_what_leaves_least_of_what_others_can_pay_for():
    def trial(left, change, n=5, alpha=1.0):
        return {"left": left, "change-mean": change, "change-worst": 3 * change, "n": n,
                "options": PrototypeOptions(alpha=alpha)}

    cheap, good, dear = trial(0.1, 0.01), trial(0.02, -0.003), trial(0.0, -0.01)
    assert prototypes.prefer([cheap, good, dear]) is good
    assert prototypes.prefer([good, same := trial(0.02, -0.001)]) is same
    assert prototypes.prefer([dear, worse := trial(0.2, -0.02)]) is dear and worse["n"] == 5
    assert prototypes.prefer([trial(0.0, 0.0, n=2), good]) is good, "it was not carried on"


def test_chosen_once_and_folded_by_the_tool(smoke, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    for name, few in (("SITES", (1, 9)), ("ALPHAS", (2.0, 4.0)), ("SPREADS", (1.0,))):
        monkeypatch.setattr(prototypes, name, few)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SOFTPRUNE_ROOT", str(tmp_path))
        taken = prototypes.choose(smoke)
        record, = artifacts.read_records("digits", "smoke", "prototype-choice")
    told = json.loads((tmp_path / "data" / "prototypes.json").read_text())
    monkeypatch.setattr(prototypes, "chosen", lambda file="": told)
    assert told["digits"]["set"] == taken.told() and prototypes.options("digits", "smoke") == taken
    assert prototypes.options("digits", "paper") == taken, "where it has no choice of its own"
    assert record["key"] == told["digits"]["record"]
    assert {t["sites"] for t in record["extra"]["trials"]} == {1, 2}, "as many as there are"
    out = tmp_path / "p.safetensors"
    assert main(["forget", "--checkpoint", str(smoke.checkpoint), "--classes", "three", "--rung",
                 "prototype", "--out", str(out)]) == 0
    edit = prototypes.request(prototypes.prepare(smoke), (3,))
    torch.testing.assert_close(artifacts.load_checkpoint(out)[0].conv3.weight,
                               smoke.fold_into_copy(edit).conv3.weight)
    assert main(["fit", "--dataset", "digits", "--profile", "smoke", "--rung", "prototype"]) == 2
    assert "nothing to fit" in capsys.readouterr().err


def test_a_set_without_a_choice_has_the_base():
    assert prototypes.options("nowhere") == PrototypeOptions()
    assert dataclasses.asdict(PrototypeOptions()) == PrototypeOptions().told()


def test_the_record_has_every_class_and_readers_of_some(smoke):
    rows = from_table.rows_of(smoke, [3], lambda text: None)
    own = [r for r in rows if r["method"] == prototypes.RUNG]
    assert own == rows
    single = {r["forget"] for r in rows if r["metric"] == "change" and "+" not in r["forget"]}
    assert single == set(smoke.images.class_names)
    assert len({r["forget"] for r in rows if "+" in r.get("forget", "")}) > 3
    refit, = (r for r in rows if r["metric"] == "accuracy-head-refit")
    assert refit["forget"] == "three" and 0 <= refit["value"] <= 1
    assert {"recall-t4-10-nn", "time-edit", "time-prepare", "time-select"} <= {
        r["metric"] for r in rows}


def test_wrong_words_are_told_in_a_line(smoke):
    with pytest.raises(SystemExit, match="unknown class 'owl'"):
        from_table.main("digits", str(smoke.checkpoint), "three,owl")
