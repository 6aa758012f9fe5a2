import io
import itertools
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from softprune import catalog, datasets, paths, sources
from softprune.errors import UserError


def make_tree(folder, side=6, classes=("Big Cat", "dog")):
    for split, count in (("train", 3), ("test", 2)):
        for c, name in enumerate(classes):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = np.full((side, side, 3), 10 * c + i, np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


def test_digits_sizes_order_and_stratification(digits):
    assert digits.train_images.shape == (1297, 1, 8, 8) and len(digits.test_images) == 500
    assert (digits.train_labels.diff() >= 0).all()
    assert torch.bincount(digits.test_labels).min() >= 48


def test_validation_is_a_stratified_twentieth_and_disjoint(digits):
    held = datasets.validation_mask(digits.train_labels)
    shares = [held[digits.train_labels == c].double().mean().item() for c in range(10)]
    assert all(abs(s - 0.05) < 0.01 for s in shares)
    train, validation = digits.split("train")[0], digits.split("validation")[0]
    assert len(train) + len(validation) == 1297 and len(validation) == int(held.sum())
    assert torch.equal(held, datasets.validation_mask(digits.train_labels))


def test_import_reads_a_tree(tmp_path):
    sources.import_folder(make_tree(tmp_path / "t"), "pets")
    images = datasets.load("pets")
    assert images.class_names == ("big_cat", "dog") and images.source == "import"
    assert images.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert images.mean[0] == pytest.approx(6 / 255)


def test_a_class_needs_an_image_to_learn_from_and_one_to_choose_by(tmp_path):
    tree = make_tree(tmp_path / "t")
    for path in sorted((tree / "train" / "dog").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UserError, match=r"train/dog has 1 images: expected at least 2"):
        sources.import_folder(tree, "thin")
    for path in (tree / "test" / "dog").iterdir():
        path.unlink()
    (tree / "train" / "dog" / "again.png").write_bytes(
        (tree / "train" / "dog" / "0.png").read_bytes())
    with pytest.raises(UserError, match=r"test/dog has 0 images: expected at least 1"):
        sources.import_folder(tree, "thin")
    assert not datasets.store("thin").exists()


def repainted(tree, picture):
    """The tree with picture(class, number) in place of its images."""
    for path in tree.glob("*/*/*.png"):
        picture(path.parent.name, int(path.stem)).save(path)
    return tree


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    tree = repainted(make_tree(tmp_path / "t", classes=("a", "b")), lambda cls, i: Image.fromarray(
        np.full((8, 8), 257 * (20 * i + (cls == "b")), np.uint16)))
    sources.import_folder(tree, "deep")
    assert datasets.load("deep").train_images[:, 0, 0, 0].tolist() == [0, 20, 40, 1, 21, 41]


def test_what_nothing_can_be_told_by_is_refused(tmp_path):
    tree = repainted(make_tree(tmp_path / "t"),
                     lambda cls, i: Image.new("RGB", (8, 8), (20 * i, 30 * i, 7)))
    os.mkfifo(tree / "train" / "dog" / "pipe.png")  # no file: opening it would wait for ever
    with pytest.raises(UserError, match="the blue channel has one value"):
        sources.import_folder(tree, "flat")
    with pytest.raises(UserError, match="from 1 to 4096"):
        sources.import_folder(tree, "flat", side=99999)
    assert not datasets.store("flat").exists()


def test_import_refuses_mixed_sizes_missing_splits_and_bad_files(tmp_path):
    tree = make_tree(tmp_path / "t")
    Image.new("RGB", (9, 9)).save(tree / "train" / "dog" / "odd.png")
    with pytest.raises(UserError, match="--size"):
        sources.import_folder(tree, "odd")
    (tree / "train" / "dog" / "odd.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="not an image"):
        sources.import_folder(tree, "odd")
    with pytest.raises(UserError, match="no folder 'train'"):
        sources.import_folder(tmp_path, "odd")
    assert not (datasets.store("odd")).exists(), "something was written"


def test_a_damaged_cache_is_refused_and_left(tmp_path):
    sources.import_folder(make_tree(tmp_path / "t"), "hurt")
    path = datasets.store("hurt") / "train_images.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="hash"):
        datasets.load("hurt")
    path.write_bytes(data[:40])
    with pytest.raises(UserError, match="hash"):
        datasets.load("hurt")
    assert path.exists()
    for text in ('{"class_names": []}', "[]"):
        (datasets.store("hurt") / "meta.json").write_text(text)
        with pytest.raises(UserError, match="hash"):
            datasets.load("hurt")
        with pytest.raises(UserError, match=r"names no classes|cut short or was changed"):
            catalog.meta("hurt")


def test_archive_with_wrong_hash_or_escaping_member_is_refused(tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("../outside")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(UserError, match="MD5"):
        sources.fetch("cifar10", archive)
    assert archive.exists()
    with pytest.raises(UserError, match="outside its folder"):
        sources.DECODERS["cifar10"](archive)


def test_official_archive_layout_is_read_without_building_objects(tmp_path):
    import pickle

    archive = tmp_path / "a.tar.gz"

    def batch(label):
        pixels = np.full((2, 3072), label, np.uint8)
        return {b"data": pixels, b"labels": [label, 1 - label]}

    members = {"batches.meta": {b"label_names": [b"ant", b"bee"]}, "test_batch": batch(0)}
    members |= {f"data_batch_{i}": batch(i % 2) for i in range(1, 6)}
    pack(archive, "cifar-10-batches-py", members)
    with pytest.raises(UserError, match="refused"):
        sources._plain_unpickle(io.BytesIO(pickle.dumps(print)))
    folder = sources._decode_cifar10(archive)
    images = datasets.load("cifar10")
    assert images.class_names == ("ant", "bee") and len(images.train_images) == 10
    import shutil

    shutil.rmtree(folder)  # other tests must see CIFAR-10 as missing


def pack(archive, folder, members):
    import pickle

    with tarfile.open(archive, "w:gz") as tar:
        for name, value in members.items():
            data = pickle.dumps(value, protocol=2)
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_cifar100_archive_brings_its_superclasses_as_names_for_requests(tmp_path):
    import shutil

    groups = sources.superclasses("cifar100")
    assert len(groups) == 20 and all(len(v) == 5 for v in groups.values())
    fine = sorted(itertools.chain(*groups.values()))
    coarse = sorted(groups)
    assert len(fine) == 100
    parent = [next(i for i, g in enumerate(coarse) if f in groups[g]) for f in fine]
    part = {b"data": np.zeros((100, 3072), np.uint8), b"fine_labels": list(range(100)),
            b"coarse_labels": parent}
    meta = {b"fine_label_names": [f.encode() for f in fine],
            b"coarse_label_names": [c.encode() for c in coarse]}
    members = {"meta": meta, "train": part, "test": part}
    pack(tmp_path / "a.tgz", "cifar-100-python", members)
    folder = sources.DECODERS["cifar100"](tmp_path / "a.tgz")
    images = datasets.load("cifar100")
    trees = images.class_indices("trees")
    assert [images.class_names[c] for c in trees] == groups["trees"]
    with pytest.raises(UserError, match="twice"):
        images.class_indices("trees,oak_tree")
    shutil.rmtree(folder)
    part[b"coarse_labels"] = parent[::-1]
    pack(tmp_path / "b.tgz", "cifar-100-python", members)
    with pytest.raises(UserError, match="superclasses"):
        sources.DECODERS["cifar100"](tmp_path / "b.tgz")


def make_tiny(root):
    """Two classes in TinyImageNet's own layout, one image grey, numbers out of order."""
    words = {"n02": "tabby, tabby cat", "n01": "Granny Smith"}
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "words.txt").write_text("".join(f"{k}\t{v}\n" for k, v in words.items()))
    for c, wnid in enumerate(("n01", "n02")):
        place = root / "train" / wnid / "images"
        place.mkdir(parents=True)
        for i in (0, 2, 10):
            mode, color = ("L", 40) if i == 2 else ("RGB", (100 * c + i, 0, 0))
            Image.new(mode, (64, 64), color).save(place / f"{wnid}_{i}.JPEG", quality=100)
    lines = []
    for i, wnid in enumerate(("n02", "n01")):
        Image.new("RGB", (64, 64), (i, i, i)).save(root / "val" / "images" / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t9\t9\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet_layout(tmp_path, packed):
    import shutil

    root = make_tiny(tmp_path / "tiny-imagenet-200")
    source = root
    if packed:
        source = shutil.make_archive(str(tmp_path / "t"), "zip", tmp_path, "tiny-imagenet-200")
    folder = sources.DECODERS["tiny-imagenet-200"](sources.Path(source))
    images = datasets.load("tiny-imagenet-200")
    assert images.class_names == ("granny_smith", "tabby") and images.class_indices("n02") == (1,)
    assert images.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.test_labels.tolist() == [0, 1]  # from val_annotations.txt, ordered by class
    assert images.test_images[:, 0, 0, 0].tolist() == pytest.approx([1, 0], abs=2)
    grey = images.train_images[1]  # number 2 comes before 10
    assert torch.equal(grey[0], grey[2]) and grey[0, 0, 0] == 40
    shutil.rmtree(folder)
    (root / "val" / "val_annotations.txt").unlink()
    with pytest.raises(UserError, match="val_annotations"):
        sources.DECODERS["tiny-imagenet-200"](root)


@pytest.fixture
def serving():
    """A local server that answers ranges and breaks off once at byte 8000: its address, its body
    and where each answer began."""
    import http.server
    import threading

    body, asked = bytes(range(256)) * 40, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            asked.append(start)
            self.send_response(404 if "none" in self.path else 416 if start >= len(body)
                               else 206 if start else 200)
            self.send_header("Content-Length", str(max(0, len(body) - start)))
            self.end_headers()
            self.wfile.write(body[start:] if start else body[:8000])

        def log_message(self, *words):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", body, asked
        server.shutdown()


def test_download_resumes(tmp_path, serving):
    address, body, asked = serving
    path = tmp_path / "file.bin"
    with pytest.raises(UserError, match=r"8000 of 10240 bytes came.*type the same command"):
        sources.download(f"{address}/file.bin", path)
    assert not path.exists(), "what is cut short is not the archive"
    sources.download(f"{address}/file.bin", path)
    assert path.read_bytes() == body and asked == [0, 8000]


def test_what_a_stopped_import_left_is_no_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    for name in ("flowers", ".half-abc"):
        folder = tmp_path / "datasets" / name
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text("{}")
    assert "flowers" in catalog.known() and ".half-abc" not in catalog.known()


def test_download_ends_where_all_was_here(tmp_path, serving):
    address, body, asked = serving
    path = tmp_path / "file.bin"
    path.with_name("file.bin.part").write_bytes(body)
    sources.download(f"{address}/file.bin", path)
    assert path.read_bytes() == body and asked == [len(body)]
    with pytest.raises(UserError, match="404"):
        sources.download(f"{address}/none.bin", path)


@pytest.mark.parametrize("pad", [0, 1, 2, 4])
def test_batched_augmentation_agrees_with_one_image_at_a_time(pad):
    generator = torch.Generator().manual_seed(pad)
    images = torch.randint(256, (9, 3, 12, 12), generator=generator, dtype=torch.uint8)
    dy, dx = torch.randint(2 * pad + 1, (2, 9), generator=generator)
    flip = torch.rand(9, generator=generator) < 0.5
    fast = datasets.crop_flip(images, dy, dx, flip, pad)
    assert torch.equal(fast, datasets.crop_flip_reference(images, dy, dx, flip, pad))


@pytest.mark.parametrize("side", [1, 2, 5, 30])
def test_cutout_agrees_with_one_image_at_a_time(side):
    generator = torch.Generator().manual_seed(side)
    images = torch.randn(9, 3, 8, 11, generator=generator)
    y = torch.randint(8, (9,), generator=generator)
    x = torch.randint(11, (9,), generator=generator)
    slow = images.clone()
    for image, cy, cx in zip(slow, y.tolist(), x.tolist(), strict=True):
        top, left = cy - side // 2, cx - side // 2
        image[:, max(0, top) : top + side, max(0, left) : left + side] = 0
    assert torch.equal(datasets.cutout(images, y, x, side), slow)


def test_normalise_by_hand():
    out = datasets.normalise(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8), (0.5,), (0.25,))
    assert out.flatten().tolist() == pytest.approx([2.0] * 4)


@pytest.mark.parametrize(("names", "message"), [
    ("three,three", "twice"), ("four,lion", "unknown class 'lion'"), ("10", "index from 0 to 9"),
    (",".join(map(str, range(10))), "all classes"),
])
def test_bad_classes_are_refused(digits, names, message):
    with pytest.raises(UserError, match=message):
        catalog.class_indices(digits.class_names, names)


def test_classes_by_name_and_index(digits):
    assert catalog.class_indices(digits.class_names, "three+9") == (3, 9)
