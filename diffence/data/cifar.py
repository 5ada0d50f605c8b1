"""CIFAR-10 and CIFAR-100 as their authors publish them: the Python and the binary version, packed or extracted.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009: 50,000 training and 10,000 test images of
32x32 pixels, as rows of 1,024 red, 1,024 green and 1,024 blue bytes.
"""

from __future__ import annotations

import dataclasses
import gzip
import pathlib
import tarfile
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffence.data.dataset import Dataset, as_labels
from diffence.data.unpickle import unpickle

__all__ = ["read", "recognises"]

_SHAPE = (3, 32, 32)
_ROW = 3 * 32 * 32
_PARTS = ("train", "test", "all")
_KINDS = ("fine", "coarse")


@dataclasses.dataclass(frozen=True)
class _Version:
    """One of the four published forms: the names of its files, and how its bytes are laid out."""

    name: str
    classes: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    binary: bool

    def files(self, part: str) -> tuple[str, ...]:
        return {"train": self.train, "test": self.test, "all": self.train + self.test}[part]


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_VERSIONS = (
    _Version("cifar10", 10, _BATCHES, ("test_batch",), "batches.meta", False),
    _Version("cifar10", 10, tuple(f"{name}.bin" for name in _BATCHES), ("test_batch.bin",), "batches.meta.txt", True),
    _Version("cifar100", 100, ("train",), ("test",), "meta", False),
    _Version("cifar100", 100, ("train.bin",), ("test.bin",), "{kind}_label_names.txt", True),
)


_NAMES = {name for one in _VERSIONS for name in (*one.train, *one.test, *(one.names.format(kind=k) for k in _KINDS))}


def recognises(path: pathlib.Path) -> bool:
    """An archive or a .bin file by its name; a folder by the files in it."""
    if path.is_dir():
        return _version({entry.name for entry in path.iterdir() if entry.is_file()}) is not None
    return path.suffix == ".bin" or path.name.endswith((".tar.gz", ".tgz", ".tar"))


def read(path: pathlib.Path, *, part: str = "all", labels: str = "fine") -> Dataset:
    """Read CIFAR-10 or CIFAR-100.

    path: the official archive (.tar.gz), Python or binary version; the folder it extracts to; or one .bin file with
        its official name, which is a part by itself.
    part: "train", "test", or "all", which is the training images and then the test images, in the official order.
    labels: of CIFAR-100, the "fine" 100 classes or the "coarse" 20.

    The Python version holds pickles; nothing in them is run (see `unpickle`).
    """
    if part not in _PARTS:
        raise ValueError(f"part: expected one of {', '.join(_PARTS)}, got {part!r}")
    if labels not in _KINDS:
        raise ValueError(f"labels: expected one of {', '.join(_KINDS)}, got {labels!r}")
    files = _contents(path)
    version = _version(files)
    if version is None:
        raise ValueError(f"{path}: not CIFAR-10 or CIFAR-100, it has none of their files")
    names = version.files(part)
    if path.suffix == ".bin":
        if path.name not in names:
            raise ValueError(f'part: {path} is not of the part "{part}"')
        names = (path.name,)
    missing = [name for name in names if name not in files]
    if missing:
        raise ValueError(f"{path}: incomplete, {', '.join(missing)} missing")
    read_one = _read_binary if version.binary else _read_pickle
    blocks = [read_one(files[name], version, labels, f"{path}: {name}") for name in names]
    images = np.concatenate([block for block, _ in blocks])
    targets = np.concatenate([block for _, block in blocks])
    classes = _classes(version, labels)
    if targets.max() >= classes or targets.min() < 0:
        raise ValueError(f"{path}: labels {targets.min()}..{targets.max()}, expected 0..{classes - 1}")
    return Dataset(version.name, images, targets, classes, _class_names(files, version, labels, path))


def _contents(path: pathlib.Path) -> dict[str, bytes]:
    """Name and content of the published files at `path`."""
    if path.is_dir():
        return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.name in _NAMES and entry.is_file()}
    if path.suffix == ".bin":
        return {path.name: path.read_bytes()}
    files = {}
    try:
        with tarfile.open(path) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isfile() else None
                if file is not None and (name := pathlib.PurePosixPath(entry.name).name) in _NAMES:
                    files[name] = file.read()
            while archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass  # The checksum of the compressed file comes at its end.
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: a truncated or damaged archive: {error}") from error
    return files


def _version(found: Collection[str]) -> _Version | None:
    return next((one for one in _VERSIONS if not set(one.files("all")).isdisjoint(found)), None)


def _classes(version: _Version, labels: str) -> int:
    return 20 if version.name == "cifar100" and labels == "coarse" else version.classes


def _read_binary(
    content: bytes, version: _Version, labels: str, where: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Rows of one label byte, or the coarse and the fine one, and the pixels."""
    ahead = 2 if version.name == "cifar100" else 1
    if not content or len(content) % (ahead + _ROW):
        raise ValueError(f"{where}: {len(content)} bytes, expected a multiple of {ahead + _ROW}; truncated or foreign")
    rows = np.frombuffer(content, np.uint8).reshape(-1, ahead + _ROW)
    column = 0 if labels == "coarse" else ahead - 1
    return rows[:, ahead:].reshape(-1, *_SHAPE), rows[:, column].astype(np.int64)


def _read_pickle(
    content: bytes, version: _Version, labels: str, where: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = unpickle(content, where)
    key = f"{labels}_labels" if version.name == "cifar100" else "labels"
    pixels, targets = batch.get("data"), batch.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _ROW or len(pixels) == 0:
        raise ValueError(f"{where}: expected data of shape (n, {_ROW}), found {getattr(pixels, 'shape', type(pixels))}")
    if not isinstance(targets, list) or len(targets) != len(pixels):
        raise ValueError(f"{where}: expected {len(pixels)} {key} as a list")
    return pixels.reshape(-1, *_SHAPE), as_labels(np.array(targets), f"{where}: {key}")


def _class_names(
    files: Mapping[str, bytes], version: _Version, labels: str, path: pathlib.Path
) -> tuple[str, ...] | None:
    """The published names, where the file with them is there."""
    file = version.names.format(kind=labels)
    if file not in files:
        return None
    if version.binary:
        names: Any = [line for line in files[file].splitlines() if line]
    else:
        key = f"{labels}_label_names" if version.name == "cifar100" else "label_names"
        names = unpickle(files[file], f"{path}: {file}").get(key)
    if not isinstance(names, list) or len(names) != _classes(version, labels):
        raise ValueError(f"{path}: {file} does not hold {_classes(version, labels)} names")
    return tuple(one.decode("latin1") if isinstance(one, bytes) else str(one) for one in names)
