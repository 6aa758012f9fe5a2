"""Commands as a user types them: refusals are one line, exit status 2, nothing written."""

import csv
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from softprune import (
    artifacts,
    cli,
    cli_measure,
    cli_run,
    cli_words,
    ladder,
    paths,
    profiles,
    pruning,
    requests,
    training,
)
from softprune.cli import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("words", "message"), [
    ("run nonsense --dataset digits", "unknown stage 'nonsense': expected one of orthogonal"),
    ("run all --dataset mnist", "unknown data set 'mnist': expected one of digits, cifar10"),
    ("run all --dataset digits --profile big", "unknown profile 'big': expected one of smoke"),
    ("run all --dataset digits -p fractoin=0.1", "unknown parameter 'fractoin'"),
    ("run all --dataset digits -p seed=one", "expected a whole number"),
    ("run all --dataset digits -p fraction=x", "expected a number"),
    ("run all --dataset digits -p seed=1 -p seed=2", "given twice"),
    ("run all --dataset digits -p seed", "expected -p name=value"),
    ("run all --dataset digits -p recipe=mine", "unknown recipe"),
    ("run soft-pruning --dataset digits -p forget=lion", "unknown class 'lion'"),
    ("run all --dataset cifar10", "softprune data fetch cifar10"),
    ("train --dataset digits --without three,three", "named twice"),
    ("train --dataset digits --without 11", "index from 0 to 9"),
    ("train --dataset digits -p wdith=3", "unknown parameter 'wdith'"),
    ("train --dataset digits -p penalty=soo", "unknown penalty"),
    ("train --dataset cifar10", "softprune data fetch cifar10"),
    ("forget --checkpoint none.safetensors --classes 3 --out o.safetensors", "does not exist"),
    ("forget --checkpoint / --classes 3 --out o.safetensors", "/ is a folder: expected"),
    ("train --dataset digits --threads -1", "--threads -1: expected a whole number from 1"),
    ("train --dataset digits -p pad=9", "pad=9: expected less than the 8 pixels"),
    (f"train --dataset digits -p seed={10**20}", "expected a whole number below 2147483648"),
    ("train --dataset digits -p warmup=2", "warmup=2.0: expected a number from 0 to below 1"),
    ("train --dataset digits -p sides=16", "sides=16: expected SHARE:PIXELS"),
    ("train --dataset digits -p sides=0.6:16,0.2:24", "sides=0.6:16,0.2:24: expected SHARE:PIXELS"),
    ("train --dataset digits -p sides=0.5:8,0.5:9", "sides=0.5:8,0.5:9: expected SHARE:PIXELS"),
    ("train --dataset digits -p sides=1.5:8", "sides=1.5:8: expected SHARE:PIXELS"),
    ("train --dataset digits -p sides=0.5:7", "sides=0.5:7: expected SHARE:PIXELS"),
    ("measure nothing --dataset digits", "unknown measurement 'nothing': expected one of again"),
    ("measure deep", "measure deep: expected --dataset NAME"),
    ("measure ratios --dataset digits", "needs no trained network"),
    ("measure deep --dataset digits --profile smoke -p seed=9", "is not trained yet: type"),
    ("data fetch mnist", "unknown data set"),
    ("data fetch cifar10 --from /nowhere/a.tar.gz", "does not exist"),
    ("data import /nowhere --name x", "no folder 'train'"),
    ("data import /nowhere --name X!", "lower-case"),
])
def test_refusals(words, message, capsys, tmp_path, monkeypatch, digits):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_sides_are_read_as_recipes_have_them():
    assert cli_words.sides("0.25:16,0.6:24") == profiles.RECIPES["cifar10"]["laptop"]["sides"]
    assert cli_words.sides("") == ()


def test_a_path_that_cannot_be_written_is_one_line(smoke, tmp_path, capsys):
    source = training.find_checkpoint(training.configure("digits", "smoke"))
    (tmp_path / "file").touch()
    words = ["forget", "--checkpoint", str(source), "--classes", "three", "--out",
             str(tmp_path / "file" / "out.safetensors")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(tmp_path / "file") in said
    (tmp_path / "folder.safetensors").mkdir()
    words[-1] = str(tmp_path / "folder.safetensors")
    assert main(words) == 2 and "is a folder" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    def full(*_args, **_more):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left") as stop:
        artifacts.save_tensors(tmp_path / "m.safetensors", {})
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(cli_run, "doctor", lambda arguments: (_ for _ in ()).throw(stop.value))
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_and_refusals_need_no_torch():
    code = ("import sys; from softprune.cli import main\n"
            "try: main(['run', '--help'])\nexcept SystemExit: pass\n"
            "main(['run', 'x', '--dataset', 'digits'])\n"
            "main(['run', 'all', '--dataset', 'digits', '-p', 'x=1'])\n"
            "assert 'torch' not in sys.modules, 'torch was imported'")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "example:" in done.stdout


def test_every_command_shows_an_example():
    for words in (["train"], ["fit"], ["sweep"], ["run"], ["why"], ["forget"], ["results"],
                  ["doctor"], ["data", "list"], ["data", "fetch"], ["data", "verify"],
                  ["data", "import"]):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
        assert stop.value.code == 0


def test_forget_as_a_tool(smoke, tmp_path, capsys):
    source = training.find_checkpoint(training.configure("digits", "smoke"))
    out = tmp_path / "forgot.safetensors"
    words = ["forget", "--checkpoint", str(source), "--classes", "three", "--out", str(out),
             "--gate", "hard", "--fraction", "0.3"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "forgotten test accuracy" in said and "edit" in said
    model, sidecar = artifacts.load_checkpoint(out)
    assert sidecar["forgotten"] == ["three"]
    closed = smoke.gates((3,), fraction=0.3, gate="hard")["conv3"] == 0
    assert (model.conv3.weight[closed] == 0).all() and (model.fc.weight[:, closed] == 0).all()
    table = artifacts.load_tensors(artifacts.companion(out, "table"))[0]
    assert all((t[3] == 0).all() for t in table.values()), "the table still holds the class"
    before = sorted(tmp_path.iterdir())
    for classes, name, message in ((",", "b", "names no class"),
                                   ("three", "forgot.table", "companion file"),
                                   ("three", "forgot.gates-best", "companion file")):
        wrong = ["forget", "--checkpoint", str(source), "--classes", classes, "--out",
                 str(tmp_path / f"{name}.safetensors")]
        assert main(wrong) == 2 and message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    again = ["forget", "--checkpoint", str(out), "--classes", "four", "--out",
             str(tmp_path / "b.safetensors")]
    assert main(again) == 2  # its table no longer holds what a second request needs
    assert "--classes three,four" in capsys.readouterr().err


def test_what_others_made_is_not_overwritten(smoke, tmp_path, capsys):
    source = training.find_checkpoint(training.configure("digits", "smoke"))
    words = ["forget", "--checkpoint", str(source), "--classes", "three", "--out"]
    for name, taken in (("mine", "mine.json"), ("net", "net.safetensors"),
                        ("old", "old.table.safetensors")):
        (tmp_path / taken).write_text("{}")
        assert main([*words, str(tmp_path / f"{name}.safetensors")]) == 2
        assert f"{taken} is there" in capsys.readouterr().err
        assert (tmp_path / taken).read_text() == "{}"
    out = str(tmp_path / "own.safetensors")
    assert main([*words, out]) == 0 and main([*words, out]) == 0, "its own output may be renewed"


def test_words_that_name_nothing_or_belong_elsewhere_are_refused(smoke, capsys):
    digits = ["--dataset", "digits", "--profile", "smoke"]
    nine = "zero,one,two,three,four,five,six,seven,eight"
    for words, message in (
        (["train", *digits, "--without", ""], "names no class"),
        (["train", *digits, "--without", nine], "leaves one class"),
        (["fit", *digits, "--classes", ","], "names no class"),
        (["tune", *digits, "--steps", "-1"], "--steps -1: expected"),
        (["run", "all", "--dataset", "digits", "-p", "profile=paper"], "expected --profile paper"),
        (["run", "all", *digits, "-p", "dataset=x"], "expected --dataset x"),
        (["run", "all", *digits, "-p", "width=-1"], "width=-1: expected"),
        (["run", "all", *digits, "-p", "gate=foo"], "unknown gate 'foo'"),
        (["train", *digits, "--without", "²"], "unknown class '²'"),
    ):
        assert main(words) == 2, words
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1, said


def test_two_fits_of_one_file_are_not_begun(smoke, monkeypatch, capsys):
    fcntl = pytest.importorskip("fcntl")
    words = ["fit", "--dataset", "digits", "--profile", "smoke", "--rung", "calibrated",
             "--classes"]
    every = ",".join(smoke.images.class_names)
    path = artifacts.companion(smoke.checkpoint, "gates-calibrated")
    lock = paths.cache() / "locks" / f"{path.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main([*words, "three"]) == 2
        assert "another command is writing" in capsys.readouterr().err
    assert main([*words, every]) == 0, "each class is a request of its own: all may be named"


def test_tuning_goes_on_where_it_was(smoke, monkeypatch):
    from softprune import tuning

    asked = []
    monkeypatch.setattr(tuning, "read", lambda: {"digits": {"class": "zero+two", "steps": 7}})
    monkeypatch.setattr(tuning, "tune", lambda bench, methods, classes, steps, log: asked.append(
        (tuple(classes), steps)) or {"methods": {m: {"chosen": {}} for m in methods}})
    words = ["tune", "--dataset", "digits", "--profile", "smoke", "--methods", "ssd"]
    assert main(words) == 0 and main([*words, "--classes", "one", "--steps", "3"]) == 0
    assert asked == [((0, 2), 7), ((1,), 3)]


def test_forget_knows_superclasses_without_the_data(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOFTPRUNE_CACHE", str(tmp_path / "cache"))
    source = paths.root() / "data/checkpoints/cifar100/laptop/resnet18-w16-so-0.01-s0.safetensors"
    out = tmp_path / "forgot.safetensors"
    words = ["forget", "--checkpoint", str(source), "--out", str(out), "--classes"]
    assert main([*words, "trees"]) == 0 and "accuracies are not measured" in capsys.readouterr().out
    told = artifacts.read_sidecar(out)["forgotten"]
    assert sorted(told) == ["maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"]


def test_forget_folds_the_gates_that_were_fitted_for_these_weights(smoke, tmp_path, capsys):
    source = training.find_checkpoint(training.configure("digits", "smoke"))
    words = ["forget", "--checkpoint", str(source), "--classes", "six", "--rung", "calibrated",
             "--out", str(tmp_path / "c.safetensors")]
    assert main(["fit", "--dataset", "digits", "--profile", "smoke", "--rung", "calibrated",
                 "--classes", "six"]) == 0
    assert "fitted" in capsys.readouterr().out
    assert main(words) == 0
    model, _ = artifacts.load_checkpoint(tmp_path / "c.safetensors")
    gates = ladder.load_gates(artifacts.companion(source, "gates-calibrated"))[0]
    expected = smoke.model.fc.weight * gates[6]["conv3"]
    torch.testing.assert_close(model.fc.weight, expected)
    path = artifacts.companion(source, "gates-calibrated")
    stored, seconds = ladder.load_gates(path)
    mark = artifacts.load_tensors(path)[1]
    ladder.save_gates(path, stored, seconds, mark | {"weights": "of another model"})
    assert main(words) == 2 and "softprune fit" in capsys.readouterr().err
    path.unlink()
    assert main(words) == 2 and "softprune fit --rung calibrated" in capsys.readouterr().err
    assert main([*words[:-1], str(source)]) == 2 and source.exists()


def test_forget_fits_gates_for_all_classes_at_once(smoke, tmp_path, capsys):
    source = training.find_checkpoint(training.configure("digits", "smoke"))
    out = tmp_path / "t.safetensors"
    words = ["forget", "--checkpoint", str(source), "--classes", "seven,three", "--rung",
             "together", "--out", str(out)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "\nfit " in told and "forgotten test accuracy" in told
    model, sidecar = artifacts.load_checkpoint(out)
    assert sidecar["forgotten"] == ["seven", "three"]
    gates = requests.Bench(source, smoke.images).together((3, 7))
    assert set(gates) == {pruning.DIRECTION + "conv2", pruning.SHIFT + "bn3"}
    assert gates[pruning.DIRECTION + "conv2"].shape[0] == 2, "a pair for each class"
    u, v = gates[pruning.DIRECTION + "conv2"].unbind(1)
    matrix, kernel = torch.eye(u.shape[1]) + u.T @ v, smoke.model.conv3.weight
    torch.testing.assert_close(model.conv3.weight, torch.einsum("ojxy,jk->okxy", kernel, matrix),
                               rtol=1e-2, atol=1e-3)  # stored in half precision
    torch.testing.assert_close(model.bn3.bias, smoke.model.bn3.bias + gates[pruning.SHIFT + "bn3"])


def test_fit_and_sweep_need_a_trained_model(capsys):
    for words in (["fit", "--dataset", "digits"], ["sweep", "--dataset", "digits"]):
        assert main([*words, "-p", "seed=77"]) == 2
        assert "softprune train" in capsys.readouterr().err


def test_results_csv_has_the_contract_columns(smoke, capsys):
    assert main(["results", "--csv"]) == 0
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    assert tuple(rows[0]) == artifacts.COLUMNS and len(rows) > 1


def test_results_without_csv_say_what_there_is(smoke, capsys):
    assert main(["results"]) == 0
    out = capsys.readouterr().out
    line, = re.findall(r"digits +smoke +digits-cnn w8 so 0.01 s0 +original +test +([\d.]+) %", out)
    assert float(line) > 50
    assert re.search(r"digits +smoke +train +\d+ rows", out) and "--csv" in out.splitlines()[-1]


def test_what_a_cell_would_refuse_is_refused_before_anything_starts(capsys):
    for text, message in (("sites=nosuch", "unknown site 'nosuch'"), ("fraction=7", "from 0 to 1"),
                          ("fraction=nan", "from 0 to 1"), ("alpha=5", "from 0 to 1"),
                          ("every=-2", "expected a number from 0 on")):
        assert main(["run", "soft-pruning", "--dataset", "digits", "-p", text]) == 2
        told = capsys.readouterr()
        assert message in told.err and not told.out and told.err.count("\n") == 1


def test_options_of_the_plain_rung_are_not_taken_for_another(capsys, tmp_path):
    shipped = paths.root() / ("data/checkpoints/digits/laptop/digits-cnn-w16-so-0.01-s0"
                              ".safetensors")
    words = ["forget", "--checkpoint", str(shipped), "--classes", "three", "--rung", "prototype",
             "--out", str(tmp_path / "x.safetensors")]
    for option in (["--gate", "hard"], ["--fraction", "0.9"], ["--sites", "last"]):
        assert main([*words, *option]) == 2
        assert f"{option[0]} belongs to the plain rung" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_doctor_and_list_run(capsys):
    assert main(["doctor"]) == 0 and main(["data", "list"]) == 0
    assert "digits" in capsys.readouterr().out


def test_help_is_quick_in_its_own_process():
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "softprune.cli", "--help"], capture_output=True,
                   check=True, cwd=ROOT)
    assert time.perf_counter() - began < 10  # the target of 1 s is measured in the benchmark


def test_records_name_no_machine_folder():
    for path in (ROOT / "data").rglob("*.json"):
        assert not re.search(r'"(/|[A-Z]:\\\\)\w', path.read_text()), f"{path} holds a path"
    assert paths.relative(Path("/somewhere/else/x.json")) == "x.json"


def test_a_page_keeps_its_parameters_but_not_those_of_another_kind(monkeypatch):
    from argparse import Namespace

    from softprune import notebooks

    page = {"parameters": {"profile": "laptop", "trained": True, "fraction": 1, "forget": "two"}}
    monkeypatch.setattr(notebooks, "page_metadata", lambda _: page)
    asked = Namespace(stage="head-to-head", dataset="digits", parameters=[], profile=None)
    values = cli_run.wanted(asked)["head-to-head"]
    assert values["trained"] == "all", "an older page's true means nothing to this template"
    assert (values["forget"], values["fraction"], values["profile"]) == ("two", 1, "laptop")


@pytest.mark.parametrize("text, said", [
    ("{}", "lacks config, sha256"), ("[1]", "cut short or was changed"), ("{", "cut short"),
    ('{"config": {}, "sha256": "", "class_names": [], "mean": []}',
     "lacks config.architecture, config.width")])
def test_a_damaged_sidecar_is_one_line(text, said, tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"weights")
    (tmp_path / "net.json").write_text(text)
    assert cli.main(["forget", "--checkpoint", str(path), "--classes", "three",
                     "--out", str(tmp_path / "out.safetensors")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error


def test_a_damaged_data_set_is_one_line(monkeypatch, tmp_path, capsys):
    folder = tmp_path / "datasets" / "shells"
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text('{"class_names": ["a"')
    monkeypatch.setenv("SOFTPRUNE_CACHE", str(tmp_path))
    assert cli.main(["data", "list"]) == 2
    error = capsys.readouterr().err
    assert "shells" in error and "data fetch" in error and error.count("\n") == 1


def test_what_a_measurement_started_ends_with_it(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "slow.py").write_text(
        "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    command = subprocess.Popen(
        [sys.executable, "-m", "softprune.cli", "measure", "slow"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | {"SOFTPRUNE_ROOT": str(tmp_path)})
    child = int(command.stdout.readline())
    command.terminate()
    assert command.wait(20) == 130 and "the same command resumes" in command.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_measurement_gets_the_network_and_its_own_words(smoke, monkeypatch):
    asked = []
    monkeypatch.setattr(cli_measure.subprocess, "run", lambda command, **_: asked.append(command)
                        or subprocess.CompletedProcess(command, 3, stderr="Traceback (most recent "
                                                       "call last):\nKeyError: 3"))
    words = ["--profile", "smoke", "--with", "three,five --rung searched"]
    assert main(["measure", "from_table", "--dataset", "digits", *words]) == 3
    command, = asked
    assert Path(command[1]) == ROOT / "benchmarks" / "from_table.py"
    assert command[2:] == ["digits", str(smoke.checkpoint), "three,five", "--rung", "searched"]


def test_a_measurement_runs_from_the_command_line(smoke):
    """The script itself answers, and what it refuses is told in this command's words."""
    done = subprocess.run([sys.executable, "-m", "softprune.cli", "measure", "deep", "--dataset",
                           "digits", "--profile", "smoke"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == 'softprune: measure deep: expected --with "CLASS,CLASS"\n'


@pytest.mark.parametrize(("said", "told"), [
    ("usage: longer.py [-h] dataset checkpoint classes\nlonger.py: error: the following arguments "
     "are required: classes\n", "the following arguments are required: classes (in --with)"),
    ("'foo': expected one of best\n", "'foo': expected one of best (in --with)"),
    ("expected: python benchmarks/fits.py DATASET CHECKPOINT.safetensors", "expected no --with"),
    ("no network retrained without a class: type `softprune train --without CLASS`",
     "no network retrained without a class: type `softprune train --without CLASS`"),
    ("Traceback (most recent call last):\nKeyError: 3\n", ""), ("", "")])
def test_a_script_that_refuses_is_told_apart_from_one_that_breaks(said, told):
    assert cli_measure.refusal(said) == told
