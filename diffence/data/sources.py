"""`load`: from the name of a source to its images."""

from __future__ import annotations

import inspect
import os
import pathlib
from collections.abc import Sequence
from typing import Any, cast

from diffence.data import cifar, digits, folder, npz, svhn
from diffence.data.dataset import Dataset, Reader, concatenate

__all__ = ["READERS", "load"]

# The first that recognises a path reads it, so the extracted CIFAR folders come before folders of pictures.
READERS = cast(tuple[Reader, ...], (digits, npz, svhn, cifar, folder))

Source = str | os.PathLike[str]


def load(source: Source | Sequence[Source], **options: Any) -> Dataset:
    """Read a data set, or several of the same classes one behind the other (a train and a test file, say).

    | source | options |
    |---|---|
    | "digits": scikit-learn's handwritten digits | |
    | a `.npz` with `images` and `labels` | layout="NHWC" or "NCHW", classes |
    | a folder with one sub-folder of pictures a class | size |
    | CIFAR-10 or CIFAR-100: official archive, its folder, or a `.bin` | part="train", "test" or "all"; labels |
    | SVHN cropped digits, `.mat` | |

    Raises FileNotFoundError; ValueError that names the file when it is truncated or of another format; TypeError for
    an option that the source does not have.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not sources:
        raise ValueError("source: expected at least one, got none")
    return concatenate([_load_one(pathlib.Path(one), options) for one in sources])


def _load_one(path: pathlib.Path, options: dict[str, Any]) -> Dataset:
    reader = next((reader for reader in READERS if reader.recognises(path)), None)
    if not (digits.recognises(path) or path.exists()):
        raise FileNotFoundError(f'source: no file or folder {path}; expected one, or "{digits.NAME}"')
    if reader is None:
        raise ValueError(
            f'{path}: expected "{digits.NAME}", a .npz, a .mat (SVHN), a .tar.gz or .bin (CIFAR), or a folder'
        )
    known = [name for name in inspect.signature(reader.read).parameters if name != "path"]
    surplus = sorted(set(options) - set(known))
    if surplus:
        raise TypeError(f"{surplus[0]}: not an option of {path}, which has {', '.join(known) or 'none'}")
    return reader.read(path, **options)
