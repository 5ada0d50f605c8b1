"""Files that are written whole or not at all, and the one container that all our models use (safetensors + JSON)."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

__all__ = ["DAMAGED_NPZ", "atomic_path", "load_intact", "load_tensors", "made_with", "save_tensors", "write_text"]

_CONFIG_KEY = "diffence"

# What NumPy and zipfile raise for a damaged .npz. NotImplementedError is zipfile's, for a header that asks for a
# compression method which does not exist.
DAMAGED_NPZ = (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yield a temporary path beside `path`; move it there when the block ends well, delete it when it does not.

    A reader sees the old file or the new one, never a part: also after Ctrl-C or on a full disk (OSError).
    """
    final = pathlib.Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_tensors(path: str | os.PathLike[str], kind: str, tensors: Mapping[str, torch.Tensor], config: Any) -> None:
    """Save `tensors` with a JSON-serialisable `config` as safetensors; `kind` says what the file is.

    The file's metadata holds {"diffence": {"kind": kind, "config": config}}; it is written whole or not at all.
    Raises OSError when it cannot be written (a full disk).
    """
    note = json.dumps({"kind": kind, "config": config}, sort_keys=True)
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, metadata={_CONFIG_KEY: note})
        except SafetensorError as error:  # not an OSError, even where the system refused to write
            raise OSError(f"{path}: could not be written: {error}") from error


def load_tensors(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, torch.Tensor], Any]:
    """The tensors and the config of a file written by `save_tensors` with the same `kind`.

    Raises FileNotFoundError, or ValueError for a truncated or foreign file and for one of another kind.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a diffence {kind} file")
    try:
        with safe_open(path, framework="pt") as opened:
            notes = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file (truncated or another format): {error}") from error
    try:
        note = json.loads(notes[_CONFIG_KEY])
        found, config = note["kind"], note["config"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: a safetensors file without diffence's own metadata; expected a {kind} file"
        ) from error
    if found != kind:
        raise ValueError(f"{path}: holds a {found}, expected a {kind}")
    return tensors, config


def load_intact(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, torch.Tensor], Any] | None:
    """What `load_tensors` finds, or None where there is no file; a damaged one is put aside, with a warning."""
    try:
        return load_tensors(path, kind)
    except FileNotFoundError:
        return None
    except ValueError as error:
        given = pathlib.Path(path)
        aside = given.with_name(f"{given.name}.damaged")
        given.replace(aside)
        warnings.warn(f"{error}; it is kept as {aside.name}, and made again", stacklevel=4)
        return None


def made_with() -> dict[str, str]:
    """The versions that kept results depend on: what others made is not used."""
    return {"diffence": metadata.version("diffence"), "torch": str(torch.__version__)}
