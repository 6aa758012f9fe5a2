"""`softprune data`: list, fetch, verify, import."""

from pathlib import Path


def _bar(**options):
    from tqdm import tqdm

    return tqdm(unit="B", unit_scale=True, unit_divisor=1024, **options)


def show(_arguments) -> None:
    """The catalog, and what is here."""
    from softprune import catalog

    entries = catalog.catalog()
    for name in catalog.known():
        entry = entries.get(name, {"images": "imported"})
        here = catalog.meta(name) is not None
        state = "here" if here else "bundled" if name == "digits" else "not here"
        print(f"{name:20} {state:9} {entry['images']}")


def fetch(arguments) -> None:
    """Download and decode a set."""
    from softprune import sources

    source = Path(arguments.source).expanduser() if arguments.source else None
    print(sources.fetch(arguments.name, source, progress=_bar))


def verify(arguments) -> None:
    """Compare decoded sets with their hashes."""
    from softprune import datasets

    names = [arguments.name] if arguments.name else [
        n for n in datasets.known() if (datasets.store(n) / "meta.json").exists()]
    for name in names:
        images = datasets.load(name)
        print(f"{name}: {len(images.train_images)} + {len(images.test_images)} images, "
              f"source {images.source}, hash {images.data_hash[:12]} holds")


def load(arguments) -> None:
    """Import a folder of images."""
    from tqdm import tqdm

    from softprune import sources

    print(sources.import_folder(Path(arguments.path).expanduser(), arguments.name,
                                arguments.size, progress=tqdm))
