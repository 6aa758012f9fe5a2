"""A cache of its own for the whole run, so that tests neither see nor touch a user's models."""

import os
import tempfile
from pathlib import Path

# digits are so small that a second thread only waits; kernels started by tests inherit it
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["SOFTPRUNE_CACHE"] = tempfile.mkdtemp(prefix="softprune-tests-")

import pytest
import torch

from softprune import datasets, models, paths, requests, training


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Side by side a file's tests stay together, and those that read the built book: it is built
    once."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            group = "html" if "html" in item.fixturenames else item.path.name
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", autouse=True)
def own_results(tmp_path_factory):
    """Run records written by tests go to a folder of their own."""
    folder = tmp_path_factory.mktemp("results")
    patch = pytest.MonkeyPatch()
    patch.setattr(paths, "results", lambda: folder)
    yield folder
    patch.undo()


@pytest.fixture(scope="session")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="session")
def smoke(digits, own_results):
    """A bench over a smoke-trained digits model."""
    return requests.Bench(training.train(training.configure("digits", "smoke")), digits)


@pytest.fixture(params=["digits-cnn", "resnet18", "vgg16"])
def lively(request):
    """A random model whose batch norms are in no special state, and a batch for it."""
    torch.manual_seed(1)
    side, colours = {"digits-cnn": (8, 1), "resnet18": (16, 3), "vgg16": (32, 3)}[request.param]
    model = models.build(request.param, classes=5, channels=colours, width=4).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1, 0.5)
            torch.nn.init.normal_(module.bias, 0, 0.5)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.3, 2)
    return model, torch.randn(6, colours, side, side)


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """Built from the committed pages and records into a folder of its own."""
    from softprune import book, comparisons, runs, summaries

    root = Path(__file__).resolve().parents[1]
    with pytest.MonkeyPatch.context() as patch:  # undone where the build fails, too
        patch.setattr(paths, "results", lambda: root / "data" / "results")
        for cached in (runs.records, runs.table, runs.page_record, runs.identity,
                       summaries.summary, summaries.in_turn, summaries.request,
                       comparisons.own_rows, comparisons.classes, comparisons.compared_methods):
            cached.cache_clear()
        index = book.build(tmp_path_factory.mktemp("book"))
    return index.parent
