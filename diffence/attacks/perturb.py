"""Images changed for a query: deterministic by seed and content, in the dtype that came in.

Everywhere: images (n, C, H, W), uint8 in 0..255 or floating point in [0, 1]; what is returned has the same shape and
dtype, and its values are clipped to that range.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from diffence.images import as_images

__all__ = [
    "Padding",
    "checked_count",
    "checked_images",
    "generators",
    "near_duplicates",
    "restored",
    "rotated",
    "translated",
]

Padding = Literal["zero", "edge"]
Images = NDArray[Any]
TRIES = 100  # for a copy that was not made before; tiny images may not have as many


def checked_images(images: Any) -> tuple[Images, NDArray[np.float32]]:
    """The images as they are, as an array, and as float32 in [0, 1]; errors of `diffence.images.as_images`."""
    values = as_images(images)
    return np.asarray(images.detach().cpu() if hasattr(images, "detach") else images), values


def checked_count(name: str, value: object, least: int = 1) -> None:
    """ValueError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")


def restored(values: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> Images:
    """Values meant for [0, 1] as images of `dtype`: clipped, and rounded to the nearest level where it is uint8."""
    clipped = np.clip(values, 0, 1)
    return np.asarray(np.rint(clipped * 255) if dtype == np.uint8 else clipped).astype(dtype)


def generators(values: NDArray[np.float32], seed: int, purpose: str) -> list[np.random.Generator]:
    """A random generator for each image, a function of its content, the seed and the purpose alone.

    values: as float32 in [0, 1], so that uint8 and float images of equal content have equal generators. Splitting or
    reordering a set changes nothing, and an image that occurs twice is treated alike.
    """
    checked_count("seed", seed, 0)
    made = []
    for image in values:
        digest = hashlib.blake2b(f"{purpose} {seed} {image.shape} ".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(image).tobytes())
        made.append(np.random.default_rng(int.from_bytes(digest.digest(), "little")))
    return made


def translated(images: Images, down: int, right: int, padding: Padding = "zero") -> Images:
    """Shifted by whole pixels; what comes in is 0 (padding "zero") or the nearest pixel ("edge")."""
    height, width = images.shape[2:]
    rows, columns = np.arange(height) - down, np.arange(width) - right
    moved = images[:, :, rows.clip(0, height - 1)][..., columns.clip(0, width - 1)]
    if padding == "zero":
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        moved[..., ~inside] = 0
    return moved


def rotated(images: Images, degrees: float, padding: Padding = "zero") -> Images:
    """Turned about the centre, bilinear; what comes in is 0 (padding "zero") or the nearest pixel ("edge")."""
    mode = "grid-constant" if padding == "zero" else "nearest"
    values = images / 255.0 if images.dtype == np.uint8 else images.astype(np.float64)
    turned = ndimage.rotate(values, degrees, axes=(3, 2), reshape=False, order=1, mode=mode, cval=0.0)
    return restored(turned, images.dtype)


def near_duplicates(images: Any, count: int, *, pixels: int, flip: bool, seed: int) -> list[Images]:
    """`count` sets of images that differ from `images` by one grey level in each of `pixels` places.

    Places and signs come from each image's own generator; a level that would leave the range moves the other way. The
    variants of an image differ from it and, where there are enough of them, from each other. flip: every second set,
    the first one included, is mirrored left to right as well. The first `count` sets do not depend on `count`.
    """
    given, values = checked_images(images)
    size = given[0].size
    if not 1 <= pixels <= size:
        raise ValueError(f"pixels: expected 1 to {size}, the values of an image, got {pixels}")
    given = np.ascontiguousarray(given)  # so that a copy's values can be reached by their number
    step = np.uint8(1) if given.dtype == np.uint8 else np.asarray(1 / 255, given.dtype)
    top = given.dtype.type(255 if given.dtype == np.uint8 else 1)
    made = [given.copy() for _ in range(count)]
    for row, rng in enumerate(generators(values, seed, "near-duplicates")):
        flat = given[row].reshape(-1)
        seen: set[bytes] = set()
        for copies in made:
            for _ in range(TRIES):
                places = np.sort(rng.choice(size, pixels, replace=False))
                changed = _nudged(flat[places], rng.random(pixels) < 0.5, step, top)
                content = places.tobytes() + changed.tobytes()
                if content not in seen:
                    break
            seen.add(content)
            copies[row].reshape(-1)[places] = changed
    return [copies[..., ::-1] if flip and number % 2 == 0 else copies for number, copies in enumerate(made)]


def _nudged(old: Images, up: NDArray[np.bool_], step: Any, top: Any) -> Images:
    """`old` one step up or down, the other way where it would leave 0 to `top`."""
    up = np.where(up, old <= top - step, old < step)
    # Both sides are computed everywhere, so each is kept inside the range before uint8 could wrap around.
    moved = np.where(up, np.minimum(old, top - step) + step, np.maximum(old, step) - step)
    return np.asarray(np.clip(moved, 0, top))  # 1 - 1 / 255 + 1 / 255 may round above 1
