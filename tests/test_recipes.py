"""What tricks of fast recipes are worth: averages by hand, networks of one size, the rows."""

import sys

import pytest
import torch
from torch import nn

from softprune import across, artifacts, paths, runs, training

sys.path.insert(0, str(paths.root() / "benchmarks"))
import ratios
import recipes


def test_averages_are_those_of_the_weights_after_each_step():
    model = nn.Linear(1, 1, bias=False)
    averages = recipes.Averages(model, (0.5,))
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            model.weight.fill_(value)
        averages.update()
    # weights 1/4, 1/2, 1 by age, of 7/4 in all
    expected = (1 / 4 * 1 + 1 / 2 * 2 + 4) / (7 / 4)
    assert averages.network(0.5).weight.item() == pytest.approx(expected)
    assert model.weight.item() == 4.0


def test_a_convolution_is_counted_by_its_places():
    assert recipes.multiplications(nn.Conv2d(3, 5, 1, bias=False), side=4) == 3 * 5 * 16


def test_networks_of_other_depths_multiply_about_as_often():
    goal = recipes.multiplications(recipes.network(recipes.BLOCKS["resnet18"], 8))
    for blocks in recipes.BLOCKS.values():
        width = recipes.alike(blocks, goal)
        # a step of the width changes the product by up to twice its share
        assert abs(recipes.multiplications(recipes.network(blocks, width)) / goal - 1) < 2 / width
    assert recipes.alike(recipes.BLOCKS["resnet18"], goal) == 8


def test_every_network_and_average_has_its_rows(monkeypatch):
    monkeypatch.setattr(recipes, "BLOCKS", {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2)})
    config = training.configure("cifar10", "laptop", width=2, epochs=1, batch_size=50)
    rows = recipes.measure(config, ratios.fake_images(300), lambda line: None)
    of = {(r["method"], r["metric"], r.get("split")) for r in rows}
    assert len(of) == len(rows)
    averaged = {k[1] for k in of if k[1].startswith("accuracy-averaged")}
    assert averaged == {f"accuracy-averaged-{d:g}" for d in recipes.DECAYS}
    assert {k[0] for k in of if k[1] in averaged} == {"resnet18"}
    for name in ("resnet10", "resnet18"):
        assert {(name, "accuracy", s) for s in ("validation", "test")} <= of
    made = artifacts.provenance(0.0)
    artifacts.validate({"format": artifacts.FORMAT, "stage": "recipes", "key": "k", "rows": rows,
                        "parameters": config.as_dict(), "provenance": made})


def test_a_page_reads_gains_paired_by_seed(monkeypatch):
    def record(seed, luck):
        told = [("resnet10", "accuracy", 0.70), ("resnet18", "accuracy", 0.72),
                ("resnet18", "accuracy-averaged-0.9", 0.721)]
        rows = [artifacts.row(m, k, v + luck, split="test") for m, k, v in told]
        rows += [artifacts.row("resnet10", "time-train", 30.0 + seed, "s"),
                 artifacts.row("resnet18", "time-train", 60.0 + 2 * seed, "s")]
        rows += [artifacts.row(m, "width", w) for m, w in (("resnet10", 12), ("resnet18", 8))]
        return {"stage": "recipes", "parameters": {"epochs": 5}, "key": str(seed), "rows": rows}

    monkeypatch.setattr(runs, "records", lambda: [record(0, 0.0), record(1, 0.05)])
    told = across.tricks()
    assert (told["seeds"], told["epochs"]) == (2, 5)
    assert told["averaged"] == {0.9: pytest.approx((0.1, 0.1, 0.1))}
    ten = told["depths"]["resnet10"]
    assert ten["gap"] == pytest.approx((-2, -2, -2)) and ten["accuracy"] == pytest.approx(72.5)
    assert (ten["width"], ten["pace"]) == (12, pytest.approx(0.5))
    monkeypatch.setattr(runs, "records", lambda: [])
    assert across.tricks() is None
