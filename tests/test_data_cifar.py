"""CIFAR-10 and CIFAR-100 in their four published forms, made small: byte for byte as Python 2 pickled them."""

from __future__ import annotations

import io
import pathlib
import struct
import tarfile
from typing import Any

import numpy as np
import pytest

from diffence.data import load

N = 3


def pickled(value: Any) -> bytes:
    """`value` as Python 2's cPickle writes it in protocol 2, with NumPy 1 arrays: the form of the published files."""

    def emit(item: Any) -> bytes:
        if isinstance(item, bytes):
            return (b"U" + bytes([len(item)]) if len(item) < 256 else b"T" + struct.pack("<i", len(item))) + item
        if isinstance(item, int):
            return b"K" + bytes([item]) if item < 256 else b"J" + struct.pack("<i", item)
        if isinstance(item, list):
            return b"](" + b"".join(map(emit, item)) + b"e"
        if isinstance(item, dict):
            return b"}(" + b"".join(emit(key) + emit(one) for key, one in item.items()) + b"u"
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        minus = b"J\xff\xff\xff\xff"
        dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN" + 2 * minus + b"K\x00tb"
        shape = b"(" + b"".join(map(emit, item.shape)) + b"t"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + emit(item.tobytes()) + b"tb"

    return b"\x80\x02" + emit(value) + b"."


class Made:
    """A small CIFAR: for every part the pixels and labels, and the published files that hold them."""

    def __init__(self, name: str, binary: bool) -> None:
        rng = np.random.default_rng(len(name) + binary)
        ten = name == "cifar10"
        self.folder = {
            ("cifar10", False): "cifar-10-batches-py",
            ("cifar10", True): "cifar-10-batches-bin",
            ("cifar100", False): "cifar-100-python",
            ("cifar100", True): "cifar-100-binary",
        }[name, binary]
        parts = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"] if ten else ["train", "test"]
        self.images: list[np.ndarray] = []
        self.fine: list[np.ndarray] = []
        self.coarse: list[np.ndarray] = []
        self.files: dict[str, bytes] = {"readme.html": b"hello"}
        for part in parts:
            pixels = rng.integers(0, 256, (N, 3072), np.uint8)
            fine, coarse = rng.integers(0, 10 if ten else 100, N, np.uint8), rng.integers(0, 20, N, np.uint8)
            self.images.append(pixels.reshape(N, 3, 32, 32))
            self.fine.append(fine)
            self.coarse.append(coarse)
            if binary:
                columns = [fine[:, None], pixels] if ten else [coarse[:, None], fine[:, None], pixels]
                self.files[f"{part}.bin"] = np.concatenate(columns, 1).tobytes()
            else:
                labels = {b"labels": fine.tolist()}
                if not ten:
                    labels = {b"fine_labels": fine.tolist(), b"coarse_labels": coarse.tolist()}
                names = [b"one.png"] * N
                self.files[part] = pickled({b"batch_label": b"a batch", **labels, b"data": pixels, b"filenames": names})
        self.names = [f"class {i}" for i in range(10 if ten else 100)]
        self.coarse_names = [f"group {i}" for i in range(20)]
        lines = {"": self.names, "fine_": self.names, "coarse_": self.coarse_names}
        if binary and ten:
            self.files["batches.meta.txt"] = ("\n".join(self.names) + "\n\n").encode()
        elif binary:
            for kind in ("fine", "coarse"):
                self.files[f"{kind}_label_names.txt"] = ("\n".join(lines[f"{kind}_"]) + "\n").encode()
        else:
            kinds = [""] if ten else ["fine_", "coarse_"]
            meta = {f"{kind}label_names".encode(): [one.encode() for one in lines[kind]] for kind in kinds}
            self.files["batches.meta" if ten else "meta"] = pickled(meta)

    def archive(self, path: pathlib.Path) -> pathlib.Path:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in self.files.items():
                entry = tarfile.TarInfo(f"{self.folder}/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return path

    def extracted(self, path: pathlib.Path) -> pathlib.Path:
        folder = path / self.folder
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder


@pytest.fixture(params=["cifar10-py", "cifar10-bin", "cifar100-py", "cifar100-bin"])
def made(request: pytest.FixtureRequest) -> Made:
    name, form = request.param.split("-")
    return Made(name, form == "bin")


def test_archive_and_folder_in_the_official_order(made: Made, tmp_path: pathlib.Path) -> None:
    for path in (made.archive(tmp_path / "cifar.tar.gz"), made.extracted(tmp_path)):
        data = load(path)
        np.testing.assert_array_equal(data.images, np.concatenate(made.images))
        np.testing.assert_array_equal(data.labels, np.concatenate(made.fine))
        assert data.class_names == tuple(made.names)
        assert data.classes == len(made.names)
        assert data.name == f"cifar{len(made.names)}"
        np.testing.assert_array_equal(load(path, part="train").images, np.concatenate(made.images[:-1]))
        np.testing.assert_array_equal(load(path, part="test").labels, made.fine[-1])
    with pytest.raises(ValueError, match=r"part: .*valid"):
        load(path, part="valid")


@pytest.mark.parametrize("binary", [False, True])
def test_coarse_labels(binary: bool, tmp_path: pathlib.Path) -> None:
    made = Made("cifar100", binary)
    data = load(made.archive(tmp_path / "c.tgz"), labels="coarse")
    np.testing.assert_array_equal(data.labels, np.concatenate(made.coarse))
    assert data.class_names == tuple(made.coarse_names)
    assert data.classes == 20
    with pytest.raises(ValueError, match=r"labels: .*middle"):
        load(tmp_path / "c.tgz", labels="middle")


def test_single_binary_files(tmp_path: pathlib.Path) -> None:
    made = Made("cifar10", True)
    folder = made.extracted(tmp_path)
    data = load([folder / "data_batch_2.bin", folder / "test_batch.bin"])
    np.testing.assert_array_equal(data.images, np.concatenate([made.images[1], made.images[5]]))
    np.testing.assert_array_equal(load(folder / "test_batch.bin", part="test").labels, made.fine[5])
    with pytest.raises(ValueError, match=r'test_batch.bin is not of the part "train"'):
        load(folder / "test_batch.bin", part="train")
    (tmp_path / "mine.bin").write_bytes(bytes(3073))
    with pytest.raises(ValueError, match=r"mine.bin: not CIFAR"):
        load(tmp_path / "mine.bin")


def test_truncated_archives(made: Made, tmp_path: pathlib.Path) -> None:
    path = made.archive(tmp_path / "cifar.tar.gz")
    whole = path.read_bytes()
    for length in (len(whole) // 4, len(whole) // 2, len(whole) - 40, 100, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cifar\.tar\.gz: "):
            load(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 50] = bytes(50)
    for content in (bytes(damaged), b"hello" * 400):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cifar\.tar\.gz: "):
            load(path)


def test_truncated_files(made: Made, tmp_path: pathlib.Path) -> None:
    folder = made.extracted(tmp_path)
    name = next(name for name in made.files if name.startswith(("test", "test_batch")))
    for content in (made.files[name][:-1], made.files[name][:1000], b""):
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{folder.name}: {name}: "):
            load(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{folder.name}: incomplete, {name} missing"):
        load(folder)
    assert len(load(folder, part="train")) == N * (len(made.images) - 1)


def test_another_archive(tmp_path: pathlib.Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("hello"))
    with pytest.raises(ValueError, match=r"a\.tar\.gz: not CIFAR-10 or CIFAR-100"):
        load(tmp_path / "a.tar.gz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"labels": [0, 1, 10]}, r"labels 0\.\.10, expected 0\.\.9"),
        ({b"labels": [0, 1]}, "expected 3 labels as a list"),
        ({b"labels": [b"a", b"b", b"c"]}, "labels: expected integer"),
        ({b"labels": b"abc"}, "expected 3 labels as a list"),
        ({b"data": np.zeros((3, 3071), np.uint8)}, "expected data of shape"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, "expected data of shape"),
        ({b"data": [1, 2, 3]}, "expected data of shape"),
    ],
)
def test_foreign_batches(changes: dict[bytes, Any], message: str, tmp_path: pathlib.Path) -> None:
    made = Made("cifar10", False)
    pixels = made.images[-1].reshape(N, -1)
    made.files["test_batch"] = pickled({b"labels": [0, 1, 2], b"data": pixels, **changes})
    with pytest.raises(ValueError, match=message):
        load(made.extracted(tmp_path), part="test")
