import pytest
import torch

from softprune import channels, evaluation, pruning, requests


def test_js_is_zero_for_equals_and_one_bit_for_opposites():
    p, q = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1])
    assert evaluation.jensen_shannon(p, p) == 0
    assert evaluation.jensen_shannon(p, q) == pytest.approx(1)


def test_confusion_row_by_hand():
    z = torch.eye(3)[[0, 1, 1, 2]]
    row = evaluation.confusion_row(z, torch.tensor([0, 0, 0, 1]), 0)
    assert row.tolist() == pytest.approx([1 / 3, 2 / 3, 0])


def test_head_mask_never_answers_the_class_and_leaves_the_rest():
    z = torch.randn(50, 4)
    masked = evaluation.head_mask(z, (1, 2))
    assert not torch.isin(masked.argmax(1), torch.tensor([1, 2])).any()
    assert torch.equal(masked[:, [0, 3]], z[:, [0, 3]])


def test_head_refit_ignores_attenuation_but_not_erasure():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    x = torch.eye(3)[labels] + 0.1 * torch.randn(300, 3, generator=generator)
    soft, hard = x * torch.tensor([0.01, 1, 1]), x * torch.tensor([0.0, 1, 1])
    for features in (x, soft):
        head = evaluation.head_refit(features, labels, 3)
        assert evaluation.accuracy(head(features), labels) == 1
    same = x.clone()
    same[labels == 0] = same[labels == 1][: (labels == 0).sum()]  # class 0 looks like class 1
    head = evaluation.head_refit(same * torch.tensor([0.0, 1, 1]), labels, 3)
    assert evaluation.accuracy(head(same), labels) < 0.9
    assert torch.isfinite(evaluation.head_refit(hard, labels, 3).weight).all()


def test_ledger_adds_parts():
    ledger = evaluation.TimeLedger()
    with ledger.part("edit"):
        pass
    with ledger.part("edit"):
        pass
    assert list(ledger.seconds) == ["edit"] and ledger.rows("soft")[0]["metric"] == "time-edit"


def test_calibration_reads_the_validation_split_only(smoke, monkeypatch):
    asked = []
    whole = requests.Bench.gated_outputs
    monkeypatch.setattr(requests.Bench, "gated_outputs",
                        lambda self, g, split: asked.append(split) or whole(self, g, split))
    fraction, points = requests.calibrate(smoke, (0.1, 0.3))
    assert set(asked) == {"validation"} and fraction in (0.1, 0.3) and len(points) == 2
    best = max(points, key=lambda p: p["retained-mean"] - p["forgotten-mean"])
    assert best["fraction"] == fraction


def test_candidates_cover_every_choice_once(smoke):
    rows = requests.candidates(smoke, (0.2, 0.5))
    named = {(r["score"], r["statistic"], r["gate"]) for r in rows}
    scores, gates = len(channels.SCORES) - 1, len(pruning.GATES)  # random has one statistic
    assert len(rows) == len(named) == scores * 2 * gates + gates
    gates = smoke.gates((4,), score="margin", statistic="max", gate="hard", sites="last",
                        fraction=0.2)
    logits, labels = smoke.gated_outputs(gates, "test")[1], smoke.outputs("test")[2]
    one = requests.judged(smoke, score="margin", statistic="max", gate="hard", sites="last",
                          fraction=0.2)
    assert requests.retained_and_forgotten(logits, labels, (4,))[1] <= one["forgotten-worst"]


def test_shares_by_hand_and_a_choice_over_some_classes(smoke):
    right = torch.tensor([True, False, True, True])
    labels = torch.tensor([0, 0, 1, 2])
    assert requests.shares(right, labels, (0,)) == (1.0, 0.5)
    assert requests.shares(right, labels, (1, 2)) == (0.5, 1.0)
    logits = torch.randn(50, 4)
    labels = torch.arange(50) % 4
    gone = labels == 2
    assert requests.retained_and_forgotten(logits, labels, (2,)) == (
        evaluation.accuracy(logits[~gone], labels[~gone]),
        evaluation.accuracy(logits[gone], labels[gone]))
    rows = requests.candidates(smoke, (0.2,), scores=("difference",), classes=[1, 4])
    assert {r["n"] for r in rows} == {2}
    _, points = requests.calibrate(smoke, (0.2,), classes=[1, 4])
    assert points[0]["n"] == 2
