"""Checkpoints of pytorch-ddpm, of SecMI and of the Diffence release: a torch file whose "ema_model" is the UNet."""

from __future__ import annotations

import pathlib
import pickle
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffence.unets.ddpm import DDPMConfig

__all__ = ["infer_config", "is_torch_file", "read"]

_MAGIC = (b"PK\x03\x04", b"\x80\x02")  # a zip archive (torch >= 1.6), a bare pickle (before)
_DEFAULT_SIZE = 32


def is_torch_file(path: pathlib.Path) -> bool:
    """Whether `path` begins as the files of torch.save do, or has their suffix."""
    if not path.is_file():
        return False
    with path.open("rb") as opened:
        return opened.read(4).startswith(_MAGIC) or path.suffix in (".pt", ".pth", ".ckpt")


def read(path: pathlib.Path, image_size: int | None = None) -> tuple[DDPMConfig, dict[str, Tensor]]:
    """The config, found from names and shapes, and the EMA weights.

    The side of the images is that of the stored samples x_T, else `image_size`, else 32. The number of groups (32)
    and the noise schedule (1e-4 to 0.02) cannot be seen in a checkpoint; the family knows only these.

    Raises ValueError for a damaged or foreign file and for one whose pickle holds more than tensors and plain values.
    """
    content = _unpickle(path)
    state = content.get("ema_model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        found = sorted(map(str, content))[:6] if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f'{path}: expected a dictionary with the tensors of an "ema_model", found {found}')
    # Copied, because the tensors may be mapped from a file that another process can change.
    tensors = {str(name).removeprefix("module."): value.float().clone() for name, value in state.items()}
    try:
        return infer_config(tensors, _image_size(content.get("x_T"), image_size)), tensors
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _unpickle(path: pathlib.Path) -> Any:
    with path.open("rb") as opened:
        archive = opened.read(4) == _MAGIC[0]
    try:
        # Mapped, because the file also holds the raw weights and the optimizer: four times what is needed.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: refused or damaged: a checkpoint may hold tensors and plain values only, because unpickling "
            f"anything else can run code ({str(error).splitlines()[0]})"
        ) from error
    except OSError:
        raise
    except Exception as error:  # on a damaged file torch's reader fails in many ways, an IndexError among them
        raise ValueError(f"{path}: not a readable torch file (truncated or damaged): {error}") from error


def _image_size(samples: object, asked: int | None) -> tuple[int, int]:
    if isinstance(samples, Tensor) and samples.ndim == 4:
        height, width = samples.shape[2:]
        if asked is not None and (height, width) != (asked, asked):
            raise ValueError(f"image_size: the checkpoint is for {height}x{width} images, got {asked}")
        return height, width
    return (asked or _DEFAULT_SIZE,) * 2


def infer_config(tensors: Mapping[str, Tensor], size: tuple[int, int] = (32, 32)) -> DDPMConfig:
    """The config of the network whose state dict has these names and shapes; ValueError where a key tensor is missing.

    Only the tensors that decide are looked at; whether all others fit is for the caller to check.
    """
    steps, channels = _shape(tensors, "time_embedding.timembedding.0.weight", 2)
    image_channels = _shape(tensors, "head.weight", 4)[1]
    indices = {int(found[1]) for name in tensors if (found := re.match(r"downblocks\.(\d+)\.", name))}
    widths: list[list[int]] = [[]]
    attention: set[int] = set()
    for index in sorted(indices):
        prefix = f"downblocks.{index}"
        if f"{prefix}.main.weight" in tensors:
            widths.append([])
            continue
        widths[-1].append(_shape(tensors, f"{prefix}.block1.2.weight", 4)[0])
        if f"{prefix}.attn.proj.weight" in tensors:
            attention.add(len(widths) - 1)
    blocks = len(widths[0])
    if blocks == 0 or any(len(level) != blocks or level[0] % channels or len(set(level)) > 1 for level in widths):
        raise ValueError(
            f"the down path has residual blocks of widths {widths} by level; expected as many of one width on each, "
            f"multiples of {channels}"
        )
    return DDPMConfig(
        image=(image_channels, *size),
        channels=channels,
        multipliers=tuple(level[0] // channels for level in widths),
        blocks=blocks,
        attention=tuple(attention),
        steps=steps,
    )


def _shape(tensors: Mapping[str, Tensor], name: str, rank: int) -> tuple[int, ...]:
    if name not in tensors:
        raise ValueError(f"ema_model is not a DDPM UNet of the pytorch-ddpm family: no tensor {name}")
    if tensors[name].ndim != rank:
        raise ValueError(f"ema_model: expected {name} of {rank} dimensions, got shape {tuple(tensors[name].shape)}")
    return tuple(tensors[name].shape)
