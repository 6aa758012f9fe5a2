"""A network trained elsewhere, and the code of the book's page about it, run as it stands."""

import re
from pathlib import Path

import pytest
import torch

from softprune import adoption, artifacts, models
from softprune.cli import main
from softprune.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "data/checkpoints/digits/laptop/digits-cnn-w16-so-0.01-s0.safetensors"
WORDS = ["adopt", "--dataset", "digits", "--architecture", "digits-cnn", "--width", "16"]


@pytest.fixture(scope="module")
def weights():
    return artifacts.load_checkpoint(SHIPPED)[0].state_dict()


@pytest.mark.parametrize("shape", [
    lambda w: w, lambda w: {"epoch": 3, "state_dict": w}, lambda w: {"net": {
        f"module.{k.replace('fc.', 'linear.')}": v for k, v in w.items()}}])
def test_what_others_save_is_read(weights, tmp_path, shape):
    torch.save(shape(weights), tmp_path / "w.pt")
    found = adoption.read_weights(tmp_path / "w.pt")
    assert all(torch.equal(v, found[k]) for k, v in weights.items()) and len(found) == len(weights)


def test_shortcuts_have_our_names():
    assert adoption._renamed("module.layer2.0.shortcut.0.weight") == "layer2.0.downsample.0.weight"
    names = models.build("resnet18", classes=2, channels=3, width=4).state_dict()
    assert "layer2.0.downsample.0.weight" in names


def test_an_adopted_network_forgets(weights, tmp_path, capsys):
    torch.save(weights, tmp_path / "w.pt")
    out = tmp_path / "mine.safetensors"
    assert main([*WORDS, "--weights", str(tmp_path / "w.pt"), "--out", str(out)]) == 0
    assert "test accuracy 99." in capsys.readouterr().out
    table, own = (artifacts.load_tensors(artifacts.companion(p, "table"))[0]
                  for p in (out, SHIPPED))
    assert all(torch.allclose(v, own[k], atol=1e-4) for k, v in table.items())
    assert main(["forget", "--checkpoint", str(out), "--classes", "three", "--rung", "prototype",
                 "--out", str(tmp_path / "gone.safetensors")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"forgotten test accuracy 100\.00 % -> +0\.00 %", said)
    gone = ["forget", "--checkpoint", str(out), "--classes", "three", "--rung", "calibrated",
            "--out", str(tmp_path / "gone.safetensors")]
    assert main(gone) == 2
    assert f"softprune fit --rung calibrated --checkpoint {out}`" in capsys.readouterr().err
    fit = ["fit", "--rung", "calibrated", "--classes", "three"]
    for more, message in (([], "either --dataset"), (
            ["--checkpoint", str(out), "--dataset", "digits"], "either --dataset"), (
            ["--checkpoint", str(out), "-p", "width=4"], "-p belongs to --dataset"), (
            ["--checkpoint", str(tmp_path / "no.safetensors")], "does not exist")):
        assert main([*fit, *more]) == 2
        assert message in capsys.readouterr().err
    assert main([*fit, "--checkpoint", str(out)]) == 0 and main(gone) == 0
    assert main([*WORDS, "--weights", str(tmp_path / "w.pt"), "--out", str(out)]) == 0  # again


def test_what_cannot_be_adopted_is_one_line(weights, tmp_path, capsys):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(weights, tmp_path / "w.pt")
    shuffled = weights | {k: weights[k].roll(1, 0) for k in ("fc.weight", "fc.bias")}
    torch.save(shuffled, tmp_path / "order.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:999])
    for file, words, message in (
            ("none.pt", [], "no such file"), ("whole.pt", [], "more than tensors"),
            ("cut.pt", [], "cut short"), ("list.pt", [], "expected a dictionary of tensors"),
            ("order.pt", [], "expected classes in the order zero, one, two, …"),
            ("w.pt", ["--width", "8"], "expected (8, 1, 3, 3)"),
            ("w.pt", ["--architecture", "resnet18"], "layer1.0.conv1.weight is missing"),
            ("w.pt", ["--architecture", "alexnet"], "unknown architecture 'alexnet'"),
            ("w.pt", ["--out", str(tmp_path / "m.pt")], "ends in .safetensors")):
        out = tmp_path / "new.safetensors"
        assert main([*WORDS, "--weights", str(tmp_path / file), "--out", str(out), *words]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1, said
        assert not out.exists()
    with pytest.raises(UserError, match="no such file"):
        adoption.read_weights(tmp_path)


def test_the_code_of_the_page_runs(weights, digits, tmp_path, monkeypatch, own_results, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "ARCHITECTURES", dict(models.ARCHITECTURES))
    adoption.adopt(weights, digits, Path("mine.safetensors"), "digits-cnn", 16)
    page = (ROOT / "book" / "own-network.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 4
    space = {"__name__": "page"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"block {number}", "exec"), space)
    said = capsys.readouterr().out
    left = re.search(r"left (\S+), others (\S+), inside only (\S+), refit (\S+)", said)
    assert float(left[1]) <= 0.02 and float(left[2]) > 0.98 and float(left[3]) <= 0.02
    assert "a linear probe behind" in said and "U2 renormalise" in said
    assert Path("gone.safetensors").exists()
    assert space["bench"].sidecar["config"]["architecture"] == "four-convs"
