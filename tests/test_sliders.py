"""The page with sliders: what a browser computes is what the method computes, to 1e-4."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup

from softprune import sliders

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]
SETTINGS = [(3, 13, 1.0), (8, 10, 0.8), (1, 40, 0.5), (0, 0, 1.0), (9, 64, 0.35)]


def test_what_is_embedded_is_small_and_exact_enough():
    made = sliders.data()
    assert len(sliders.embedded()) < 200_000
    features = sliders.bench().outputs("test")[0]
    whole = np.frombuffer(base64.b64decode(made["features"]), "<u2").reshape(features.shape)
    scale = np.frombuffer(base64.b64decode(made["scale"]), "<f4")
    assert np.abs(whole * scale - features.numpy()).max() < 1e-4
    assert "</" not in sliders.embedded() and json.loads(sliders.embedded()) == made


def test_embedded_pictures_are_digits():
    here = sliders.bench()
    assert here.images.name == "digits"
    shades = np.frombuffer(base64.b64decode(sliders.data()["pictures"]), "u1")
    pixels = here.images.split("test")[0].float()
    assert shades.size == pixels.numel() and shades.max() == 15
    assert torch.allclose(torch.tensor(shades / 15.0).reshape(pixels.shape),
                          (pixels / pixels.max()).double(), atol=0.04)


def test_the_python_answer_at_the_ends():
    plain = sliders.answer(3, 0, 1.0)
    assert plain == sliders.answer(3, 20, 0.0), "strength 0 changes nothing"
    assert plain["forgotten"] > 0.9 and sliders.answer(3, 13, 1.0)["forgotten"] < 0.1


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page by itself, its script and data in place."""
    root = Path(__file__).resolve().parents[1]
    folder = tmp_path_factory.mktemp("sliders")
    text = (root / "book/class/sliders.md").read_text()
    body = text.split("```{raw} html\n")[1].split("```")[0]
    body = body.replace("[[ sliders.embedded() ]]", sliders.embedded())
    (folder / "_static").mkdir()
    shutil.copy(root / "book/_static/sliders.js", folder / "_static")
    (folder / "class").mkdir()
    target = folder / "class" / "sliders.html"
    target.write_text(f'<!DOCTYPE html><html lang="en"><meta charset="utf-8">{body}</html>')
    return target


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no browser was found")
    return found


@pytest.mark.parametrize(("cls", "channels", "strength"), SETTINGS)
def test_the_browser_agrees_with_python(browser, page, tmp_path, cls, channels, strength):
    address = f"{page.as_uri()}#class={cls}&channels={channels}&strength={strength}"
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={tmp_path}", "--virtual-time-budget=8000",
         "--dump-dom", address], capture_output=True, text=True, timeout=180)
    said = BeautifulSoup(done.stdout, "html.parser").find(id="sp-said")
    for name, value in sliders.answer(cls, channels, strength).items():
        assert abs(float(said[f"data-{name}"]) - value) < 1e-4, name


class Tab:
    """A page under the DevTools protocol."""

    def __init__(self, port: int):
        import websocket

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            tab = next(t for t in json.load(answer) if t["type"] == "page")
        self.socket = websocket.create_connection(
            tab["webSocketDebuggerUrl"], suppress_origin=True, timeout=60)
        self.count = 0

    def send(self, method: str, **options):
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": options}))
        while True:
            said = json.loads(self.socket.recv())
            if said.get("id") == self.count:
                return said["result"]

    def value(self, expression: str):
        return self.send("Runtime.evaluate", expression=expression)["result"].get("value")

    def press(self, key: str, code: int):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=code)


def test_the_sliders_have_labels_and_answer_to_the_keyboard(browser, page, tmp_path):
    pytest.importorskip("websocket")
    process = subprocess.Popen(
        [browser, *FLAGS, f"--user-data-dir={tmp_path}", "--remote-debugging-port=0",
         page.as_uri()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ready = tmp_path / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (ready.exists() and ready.read_text()) and time.monotonic() < deadline:
            time.sleep(0.2)
        tab = Tab(int(ready.read_text().split()[0]))
        while tab.value("document.querySelector('#sp-said')?.dataset.forgotten") is None:
            time.sleep(0.2)
        visited = []
        for _ in range(3):
            tab.press("Tab", 9)
            visited.append(tab.value("document.activeElement.labels[0].textContent"))
        assert visited == ["Class to forget", "Channels turned down", "Gate strength"]
        tab.value("document.getElementById('sp-channels').focus()")
        for _ in range(2):
            tab.press("ArrowRight", 39)
        assert tab.value("document.getElementById('sp-channels').value") == "15"
        said = float(tab.value("document.getElementById('sp-said').dataset.retained"))
        assert abs(said - sliders.answer(3, 15, 1.0)["retained"]) < 1e-4
        spoken = tab.value("document.getElementById('sp-channels').getAttribute('aria-valuetext')")
        assert spoken.startswith("15 of 64")
    finally:
        process.terminate()
        process.wait(20)
