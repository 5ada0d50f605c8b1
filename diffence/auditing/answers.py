"""Files of what a model answered, from whatever framework: logits or probabilities, and true labels."""

from __future__ import annotations

import os
import pathlib
import zipfile
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffence.attacks import Outputs
from diffence.files import DAMAGED_NPZ

__all__ = ["holds_answers", "read_answers"]

_KINDS = ("logits", "probabilities")


def holds_answers(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a .csv, or an .npz that holds answers rather than images."""
    name = pathlib.Path(path)
    if name.suffix.lower() == ".csv":
        return True
    if name.suffix.lower() != ".npz" or not name.is_file():
        return False
    try:
        with zipfile.ZipFile(name) as archive:
            return any(f"{kind}.npy" in archive.namelist() for kind in _KINDS)
    except zipfile.BadZipFile:
        return False  # whoever reads it as images says what is wrong


def read_answers(path: str | os.PathLike[str], kind: str = "logits") -> Outputs:
    """Outputs from a file.

    .npz: `logits` or `probabilities` (n, classes), and `labels` (n,) or (n, 1) where they are known. .csv: one column a
    class in their order, and a column "label" where they are known; kind says what the others hold, "logits" or
    "probabilities". Raises FileNotFoundError, or ValueError that names the file and what is wrong with it.
    """
    name = pathlib.Path(path)
    if kind not in _KINDS:
        raise ValueError(f"kind: expected one of {', '.join(_KINDS)}, got {kind!r}")
    if not name.is_file():
        raise FileNotFoundError(f"{name}: no such file; expected answers of a model")
    try:
        values, labels, kind = _csv(name, kind) if name.suffix.lower() == ".csv" else _npz(name)
        make = Outputs if kind == "logits" else Outputs.from_probabilities
        return make(values, labels)
    except (TypeError, *DAMAGED_NPZ) as error:
        raise ValueError(f"{name}: {error}") from error


def _npz(path: pathlib.Path) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    with np.load(path, allow_pickle=False) as opened:
        kinds = [kind for kind in _KINDS if kind in opened.files]
        if len(kinds) != 1:
            raise ValueError(f"expected an array logits or probabilities, found {sorted(opened.files)}")
        labels = opened["labels"] if "labels" in opened.files else None
        if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        return opened[kinds[0]], labels, kinds[0]


def _csv(path: pathlib.Path, kind: str) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    table = pd.read_csv(path)
    labels = table.pop("label").to_numpy() if "label" in table else None
    return table.to_numpy(), labels, kind
