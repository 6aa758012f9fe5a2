"""The toy's arithmetic by hand, and the notebooks to play with, from end to end."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from softprune import notebooks, toy

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("break-it", "toy", "own-method")


def test_a_toy_channel_by_hand():
    net = toy.ToyNet(2)
    net.kernel.data = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    net.bias.data = torch.tensor([0.5, 0.0])
    net.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert net.activations(x).tolist() == [[1.5, 0.0], [0.0, 2.0]]
    assert net(x, torch.tensor([0.5, 1.0])).tolist() == [[0.75, 0.0, 0.0], [0.0, 2.0, 0.0]]


def test_toy_scores_and_gates_by_hand():
    means = torch.tensor([[4.0, 0.0], [1.0, 2.0], [3.0, 8.0]])
    scores = toy.difference(means, 0)
    assert scores.tolist() == [2.0, -5.0]
    assert torch.allclose(toy.gates(scores, 1, 0.3), torch.tensor([0.3, 1.0]))
    assert toy.gates(scores, 0, 0.3).tolist() == [1.0, 1.0]


def test_the_toy_learns_and_its_kernels_become_a_tight_frame():
    x, y = toy.points(60, seed=3)
    net = toy.train(x, y, seed=1)
    assert min(toy.accuracies(net(x), y, 0)) > 0.9
    gram = net.kernel.T @ net.kernel
    assert (gram - torch.eye(2)).abs().max() < 0.2
    loose = toy.train(x, y, strength=0.0, seed=1)
    assert (loose.kernel.T @ loose.kernel - torch.eye(2)).abs().max() > 0.5


def test_templates_are_stripped_and_short():
    for stage in PAGES:
        notebook = notebooks.read(notebooks.template(stage))
        code = [c for c in notebook.cells if c.cell_type == "code"]
        assert all(not c.outputs and c.execution_count is None for c in code), stage
        assert len(notebook.cells) <= 25 and notebook.metadata.kernelspec.name == "python3"
        opening = next(c.source for c in code if 'names = "' in c.source)
        named = opening.split('names = "')[1].split('"')[0].split()
        assert named == list(notebooks.parameters(notebooks.template(stage)))


def test_the_pages_execute_at_the_smoke_profile(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "data").mkdir()
    for name in ("catalog.yml", "paper.yml"):
        shutil.copy(ROOT / "data" / name, tmp_path / "data")
    environment = os.environ | {"SOFTPRUNE_ROOT": str(tmp_path),
                                "SOFTPRUNE_CACHE": str(tmp_path / "cache")}
    for stage in PAGES:
        done = subprocess.run(
            [sys.executable, "-m", "softprune.cli", "run", stage, "--dataset", "digits",
             "--profile", "smoke"], capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        assert (tmp_path / "book" / "digits" / notebooks.template(stage).name).exists()
