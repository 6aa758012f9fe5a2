"""A strength searched for each class: what it is by hand, and what it does."""

import json
import sys

import pytest
import torch

from softprune import artifacts, evaluation, ladder, paths, prototypes, pruning, searching
from softprune.cli import main
from softprune.searching import Found, SearchOptions

sys.path.insert(0, str(paths.root() / "benchmarks"))
import from_table


class Told(searching.Search):
    """A search in which images lead by what a function of the strength says, at any spread, and an
    edit costs what a function of spread and strength says."""

    def __init__(self, lead, cost=lambda spread, strength: spread):
        self.told, self.costs = lead, cost

    def lead(self, cls, found):
        return torch.tensor(self.told(found.strength))

    def cost(self, cls, found):
        return self.costs(*found)

    def at(self, margin):
        """Strength, and share left, at spread 1."""
        found, left = self.strength(0, 1.0, margin)
        assert found.spread == 1.0
        return found.strength, left


def test_the_least_strength_at_which_the_class_is_gone_by_the_margin():
    """One image that leads by 3 - 2 alpha: 0 at 1.5, half below at 1.75, one below at 2."""
    one = Told(lambda alpha: [3.0 - 2 * alpha])
    assert [one.at(m) for m in (0.0, 0.5, 1.0)] == [(1.5, 0), (1.75, 0), (2.0, 0)]
    assert Told(lambda alpha: [-5.0]).at(1.0) == (1.0, 0), "it was gone to begin with"


def test_one_image_of_a_hundred_may_stay():
    def all_but(stay):
        return Told(lambda alpha: [5.0] * stay + [3.0 - 2 * alpha] * (100 - stay))

    assert all_but(1).at(0.5) == pytest.approx((1.75, 0.01))
    assert all_but(0).at(0.5) == (1.75, 0)
    # two stay at any strength: the first whole step that leaves fewest, not the last one tried
    assert all_but(2).at(0.5) == pytest.approx((2.0, 0.02))


def test_where_more_strength_brings_images_back_it_stops_before():
    """Of three images one goes at 2, all come back at 3."""
    turned = Told(lambda alpha: [1.0 if alpha >= 3 or (n or alpha < 2) else -1.0
                                 for n in range(3)])
    assert turned.at(0.0) == (2.0, pytest.approx(2 / 3))
    assert Told(lambda alpha: [1.0]).at(0.0) == (searching.STRENGTHS[0], 1), "none helps"


def test_of_the_spreads_that_leave_least_the_one_that_costs_the_others_least():
    """At spread .5 an image stays at any strength; of the others the cheapest is taken."""
    class BySpread(Told):
        def lead(self, cls, found):
            return torch.tensor([1.0 if found.spread == 0.5 else -1.0])

    cost = {0.1: 4.0, 0.2: 2.0, 0.5: 0.0, 1.0: 3.0, 3.0: 5.0}
    found = BySpread(None, lambda spread, strength: cost[spread]).find(0, 0.0)
    assert found == (0.2, 1.0)
    # where each leaves some, cost decides between those that leave as little
    stays = Told(lambda alpha: [1.0, -1.0], lambda spread, strength: abs(spread - 1))
    assert stays.find(0, 0.0) == (1.0, 1.0)


def test_an_edit_writes_times_the_strength_and_reads_the_same(smoke):
    search = searching.Search(smoke, 2)
    one, three = (search.edit(3, Found(1.0, s)) for s in (1.0, 3.0))
    assert set(one) == {"direction:conv1", "direction:conv2"}
    for name, pairs in one.items():
        torch.testing.assert_close(three[name][:, 0], 3 * pairs[:, 0])
        assert torch.equal(three[name][:, 1], pairs[:, 1])
    setting = prototypes.PrototypeOptions(sites=2, alpha=3.0, spread=1.0)
    known = prototypes.request(prototypes.prepare(smoke, setting), (3,))
    for name, pairs in known.items():
        torch.testing.assert_close(three[name], pairs)


def test_an_edit_that_does_nothing_to_the_others_costs_nothing(smoke):
    """What changes the class's own logit alone is the teacher's answer with the class masked."""
    search = searching.Search(smoke, 1)
    masked = search.others[2].clone()
    masked[:, 3] = -30.0
    search.logits = lambda m, edit: masked
    assert search.cost(3, Found(1.0, 1.0)) == pytest.approx(0, abs=1e-5)
    search = searching.Search(smoke, 1)
    costs = [search.cost(3, Found(1.0, s)) for s in (1.0, 4.0, 8.0)]
    assert 0 <= costs[0] < costs[1] < costs[2]


def test_the_cost_is_the_divergence_from_the_masked_original_by_hand(smoke):
    search, found = searching.Search(smoke, 1), Found(0.5, 2.0)
    pixels, labels = smoke.images.split("train")
    few = ladder.pick(labels, searching.SAMPLE, 0)
    both = smoke.model, smoke.fold_into_copy(search.edit(3, found))
    own, edited = (evaluation.predict(m, pixels[few], smoke.images.mean, smoke.images.std)[1]
                   for m in both)
    own = own.clone()
    own[:, 3] = -torch.inf
    p, q, kept = own.softmax(1), edited.softmax(1), labels[few] != 3
    terms = torch.where(p > 0, p * (p.clamp_min(1e-30).log() - q.log()), 0.0)
    assert search.cost(3, found) == pytest.approx(terms.sum(1)[kept].mean().item(), rel=1e-3)


def test_it_looks_at_what_the_folded_network_answers(smoke):
    search, found = searching.Search(smoke, 1), Found(1.0, 2.0)
    pixels, labels = smoke.images.split("train")
    z = evaluation.predict(smoke.fold_into_copy(search.edit(3, found)), pixels[labels == 3],
                           smoke.images.mean, smoke.images.std)[1]
    torch.testing.assert_close(search.lead(3, found), prototypes.lead(z, 3), atol=1e-3, rtol=1e-3)


def test_stored_by_class_and_made_again_for_another_setting(smoke, monkeypatch):
    setting = SearchOptions(sites=2, margin=0.5)
    said = []
    found, seconds = searching.prepare(smoke, (3, 8), said.append, setting)
    assert len(said) == 2 and set(found) == set(seconds) == {3, 8}
    search = searching.Search(smoke, 2)
    for name, pairs in search.edit(3, search.find(3, 0.5)).items():
        torch.testing.assert_close(found[3][name], pairs.half().float())
    with monkeypatch.context() as nothing:
        nothing.setattr(searching, "Search", None)
        assert searching.prepare(smoke, (3,), setting=setting)[1] == pytest.approx(seconds)
    again = searching.prepare(smoke, (3,), setting=SearchOptions(sites=1))[0]
    assert set(again) == {3} and set(again[3]) == {"direction:conv2"}


def test_chosen_once_fitted_and_folded_by_the_tool(smoke, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    for name, few in (("SITES", (1, 9)), ("SPREADS", (1.0, 3.0)), ("MARGINS", (0.0, 1.0))):
        monkeypatch.setattr(searching, name, few)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SOFTPRUNE_ROOT", str(tmp_path))
        taken = searching.choose(smoke)
        record, = artifacts.read_records("digits", "smoke", "searched-choice")
    told = json.loads((tmp_path / "data" / searching.FILE).read_text())
    assert told["digits"] == {"set": taken.told(), "record": record["key"]}
    assert len(record["extra"]["trials"]) == 4 and {r["method"] for r in record["rows"]} == {
        searching.RUNG}
    monkeypatch.setattr(prototypes, "chosen", lambda file: told)
    assert searching.options("digits", "smoke") == taken
    words = ["fit", "--dataset", "digits", "--profile", "smoke", "--rung", "searched"]
    assert main([*words, "--classes", "three"]) == 0
    assert "of 10 classes are fitted" in capsys.readouterr().out
    out = tmp_path / "s.safetensors"
    assert main(["forget", "--checkpoint", str(smoke.checkpoint), "--classes", "three", "--rung",
                 "searched", "--out", str(out)]) == 0
    edit = ladder.request(searching.prepare(smoke, (3,))[0], (3,))
    torch.testing.assert_close(artifacts.load_checkpoint(out)[0].conv3.weight,
                               smoke.fold_into_copy(edit).conv3.weight)


def test_a_dear_request_is_not_taken_where_there_is_a_choice():
    def trial(left, mean, worst):
        return {"left": left, "change-mean": mean, "change-worst": worst, "n": 5}

    cheap, dear = trial(0.02, 0.0, -0.001), trial(0.0, -0.002, -0.02)
    assert prototypes.prefer([cheap, dear]) is dear
    assert prototypes.prefer([cheap, dear], 0.008) is cheap
    assert prototypes.prefer([dear], 0.008) is dear


def test_a_set_without_a_choice_has_the_base():
    assert searching.options("nowhere") == SearchOptions()


def test_the_record_has_every_class_and_its_seconds(smoke):
    rows = from_table.rows_of(smoke, [3], lambda text: None, searching.RUNG)
    assert {r["method"] for r in rows} == {searching.RUNG}
    assert all(r["value"] in searching.STRENGTHS for r in rows if r["metric"] == "strength")
    for metric in ("accuracy", "change", "time-prepare", "strength"):
        assert {r["forget"] for r in rows if r["metric"] == metric and "+" not in r["forget"]
                } == set(smoke.images.class_names)
    stored = searching.prepare(smoke, range(10))[0]
    pixels, labels = smoke.images.split("test")
    with pruning.gated(smoke.model, stored[3]), torch.no_grad():
        z = evaluation.predict(smoke.model, pixels, smoke.images.mean, smoke.images.std)[1]
    own, = (r["value"] for r in rows if r["metric"] == "accuracy" and r["forget"] == "three")
    assert own == pytest.approx(evaluation.accuracy(z[labels == 3], labels[labels == 3]), abs=0.03)
