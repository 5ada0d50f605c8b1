"""A folder of pictures, one sub-folder a class."""

from __future__ import annotations

import pathlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffence.data.dataset import Dataset
from diffence.progress import tqdm

__all__ = ["read", "recognises"]

_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}


def recognises(path: pathlib.Path) -> bool:
    return path.is_dir()


def read(path: pathlib.Path, *, size: int | tuple[int, int] | None = None) -> Dataset:
    """Read every picture in the sub-folders of `path`; classes and pictures are sorted by name.

    size: (H, W), or one number for both, to which every picture is resized (bilinear, with antialiasing). Without it
        all must have the same size.
    The images have one channel when all pictures are grey, else three; an alpha channel is dropped. Hidden files and
    files that are no pictures by their suffix are passed over.
    """
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        if height < 1 or width < 1:
            raise ValueError(f"size: expected at least 1 by 1, got {size}")
        size = (height, width)
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise ValueError(f"{path}: expected one sub-folder a class, found none")
    files = [(file, label) for label, folder in enumerate(folders) for file in _pictures(folder)]
    pictures = [_read_one(file, size) for file, _ in tqdm(files, desc=str(path), unit="image", delay=1)]
    for (file, _), picture in zip(files, pictures, strict=True):
        if picture.shape[:2] != pictures[0].shape[:2]:
            raise ValueError(
                f"{file}: {picture.shape[0]}x{picture.shape[1]} pixels (H x W), but {files[0][0]} has "
                f"{pictures[0].shape[0]}x{pictures[0].shape[1]}; give size= to resize all"
            )
    channels = max(picture.shape[2] for picture in pictures)
    images = np.stack([np.broadcast_to(picture, (*picture.shape[:2], channels)) for picture in pictures])
    labels = np.array([label for _, label in files], np.int64)
    names = tuple(folder.name for folder in folders)
    return Dataset(path.resolve().name, np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels, len(names), names)


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    known = Image.registered_extensions()
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    for entry in entries:
        if entry.is_dir():
            raise ValueError(f"{entry}: a folder inside a class; expected the pictures themselves")
    found = [entry for entry in entries if entry.suffix.lower() in known]
    if not found:
        raise ValueError(f"{folder}: no pictures in it; every sub-folder is a class")
    return found


def _read_one(file: pathlib.Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """uint8 (H, W, 1) or (H, W, 3)."""
    try:
        with Image.open(file) as picture:
            if picture.mode not in _GREY | _COLOUR:
                raise ValueError(f"pixels of mode {picture.mode}, expected 8 bits a channel")
            plain = picture.convert("L" if picture.mode in _GREY else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: not a readable picture: {error}") from error
    if size is not None and plain.size != (size[1], size[0]):
        plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(plain, np.uint8).reshape(plain.height, plain.width, -1)
