import dataclasses
import math

import pytest
import torch

from softprune import channels, models
from softprune.errors import UserError


def toy_table(activations, labels):
    classes = int(labels.max()) + 1
    parts = [torch.stack([moment[labels == c].mean(0) for c in range(classes)])
             for moment in (activations, activations.square())]
    return channels.ClassChannelTable(
        counts=torch.bincount(labels),
        mean={"mean": {"s": parts[0]}, "max": {"s": parts[0]}},
        square={"mean": {"s": parts[1]}, "max": {"s": parts[1]}},
    )


def test_select_by_hand():
    assert channels.select(torch.tensor([5.0, 6, 0, 1, 7]), 0.4).tolist() == [4, 1]
    assert channels.select(torch.tensor([1.0, 2]), 0.01).tolist() == [1]
    with pytest.raises(UserError, match="above 0"):
        channels.select(torch.ones(3), 0)


def test_scores_by_hand():
    labels = torch.tensor([0, 0, 1, 2])
    table = toy_table(torch.tensor([[4.0], [2.0], [1.0], [2.0]]), labels)
    assert channels.score(table, "s", (0,)).item() == pytest.approx(1.5)
    assert channels.score(table, "s", (0,), "margin").item() == pytest.approx(1.0)
    # variances 1 and .25, two samples each: 1.5 / sqrt(.625)
    assert channels.score(table, "s", (0,), "standardized").item() == pytest.approx(1.897367, 1e-5)


def test_ratio_tfidf_and_contribution_by_hand():
    labels = torch.tensor([0, 1, 2])
    a = torch.tensor([[6.0, 1, 1], [2.0, 4, 2], [2.0, 1, 9]])
    table = toy_table(a, labels)
    # means of the retained: 2, 2.5, 5.5; their mean 10/3, of which a hundredth is added
    expected = [6 / (2 + 0.1 / 3), 1 / (2.5 + 0.1 / 3), 1 / (5.5 + 0.1 / 3)]
    assert channels.score(table, "s", (0,), "ratio").tolist() == pytest.approx(expected, 1e-5)
    # shares of class 0: .75, .125, .125; above 1/3 in 1, 1, 1 classes: log(4 / 2) each
    expected = [s * math.log(2) for s in (0.75, 0.125, 0.125)]
    assert channels.score(table, "s", (0,), "tfidf").tolist() == pytest.approx(expected, 1e-5)
    with pytest.raises(UserError, match="last site"):
        channels.score(table, "s", (0,), "contribution")
    weight = torch.tensor([[1.0, 2, 0], [0.0, 1, 1], [2.0, 1, 1]])
    table = dataclasses.replace(table, head=("s", weight))
    # differences 4, -1.5, -4.5; weights of class 0 less the others' mean: 0, 1, -1
    found = channels.score(table, "s", (0,), "contribution").tolist()
    assert found == pytest.approx([0, -1.5, 4.5])


@pytest.mark.parametrize("name", ["difference", "margin", "standardized", "ratio"])
@pytest.mark.parametrize("forget", [(1,), (0, 3)])
def test_scores_from_the_table_agree_with_scores_from_activations(name, forget):
    generator = torch.Generator().manual_seed(3)
    a = torch.rand(60, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (60,), generator=generator)
    fast = channels.score(toy_table(a, labels), "s", forget, name)
    slow = channels.score_reference(a, labels, forget, name)
    torch.testing.assert_close(fast.double(), slow, rtol=1e-4, atol=1e-5)


def test_tfidf_from_the_table_agrees_with_its_definition():
    labels = torch.arange(40) % 4
    a = torch.rand(40, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 3
    fast = channels.score(toy_table(a, labels), "s", (1, 2), "tfidf")
    slow = channels.score_reference(a, labels, (1, 2), "tfidf")
    torch.testing.assert_close(fast.double(), slow, rtol=1e-4, atol=1e-6)


def test_a_class_the_table_does_not_hold_is_refused():
    table = toy_table(torch.rand(6, 4), torch.arange(6) % 3)
    table.counts[1] = 0
    with pytest.raises(UserError, match="knows nothing of class 1"):
        channels.score(table, "s", (1,))
    assert torch.isfinite(channels.score(table, "s", (0,), "margin")).all()


def test_random_score_is_a_seeded_permutation():
    table = toy_table(torch.rand(10, 5), torch.arange(10) % 2)
    first, again = (channels.score(table, "s", (0,), "random", seed=4) for _ in range(2))
    assert torch.equal(first, again) and sorted(first.tolist()) == list(range(5))


@pytest.mark.parametrize("statistic", channels.STATISTICS)
def test_the_one_pass_table_agrees_with_image_by_image(smoke, digits, statistic):
    for site in smoke.model.sites():
        mean, square = channels.class_channel_table_reference(smoke.model, digits, site, statistic)
        torch.testing.assert_close(smoke.table.mean[statistic][site.name], mean, rtol=1e-3,
                                   atol=1e-4)
        torch.testing.assert_close(smoke.table.square[statistic][site.name], square, rtol=1e-3,
                                   atol=1e-4)


def test_table_counts_training_images_only(smoke, digits):
    assert int(smoke.table.counts.sum()) == len(digits.split("train")[1])


def test_table_round_trip_and_refusal(smoke, tmp_path):
    channels.save_table(tmp_path / "t.safetensors", smoke.table)
    back = channels.load_table(tmp_path / "t.safetensors", smoke.model)
    assert back.sites == smoke.table.sites
    other = models.build("digits-cnn", classes=10, channels=1, width=4)
    with pytest.raises(UserError, match="another model"):
        channels.load_table(tmp_path / "t.safetensors", other)
