"""Diffusion models as files: what the engine and the fence need of one, whichever family it comes from."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffence import _core
from diffence.files import load_tensors, save_tensors
from diffence.unets import pytorch_ddpm
from diffence.unets.ddpm import DDPMConfig, DDPMUNet, program, state_shapes
from diffence.unets.program import Program

__all__ = ["DiffusionModel", "load", "save"]

_KIND = "ddpm"


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A noise predictor with its schedule, ready for the core.

    config: the network. program: the same, as the core runs it.
    alpha_bar: float64 (steps,), the cumulative products of the noise schedule.
    max_t: the largest T of a reconstruction that the network was trained for.
    fingerprint: hexadecimal SHA-256 of config and weights; equal models have equal fingerprints.
    trained: how it was trained, where the file says so (steps, batch, seed, loss curve, ...).
    """

    config: DDPMConfig
    program: Program
    alpha_bar: NDArray[np.float64]
    max_t: int
    fingerprint: str
    trained: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it was trained on."""
        return self.program.shape

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> DiffusionModel:
        """The model whose `tensors()` and `config.to_dict()` these are; ValueError where they do not fit."""
        return _assemble("diffusion", DDPMConfig.from_dict(config), tensors, {})

    def tensors(self) -> dict[str, Tensor]:
        """The state dict of the network: float32 views of the program's weights."""
        return {name: torch.from_numpy(array) for name, array in self.program.weights.items()}

    def check_T(self, T: int) -> None:
        """ValueError unless the network was trained for reconstructions from step `T` (1-based)."""
        if not 1 <= T <= self.max_t:
            raise ValueError(f"T: expected 1..{self.max_t}, the noise levels that the diffusion model knows, got {T}")


def load(source: str | PathLike[str] | DDPMUNet | DiffusionModel, *, image_size: int | None = None) -> DiffusionModel:
    """The diffusion model in a file or in memory.

    source: a file of `save` or `train_diffusion`; a checkpoint of pytorch-ddpm, SecMI or the Diffence release
        (.pt, read without unpickling anything but tensors; its EMA weights); a DDPMUNet; a DiffusionModel (returned).
    image_size: side of the images of a .pt checkpoint that does not show it (no x_T inside); 32 where None.

    Raises FileNotFoundError, or ValueError for a truncated or foreign file, for missing, surplus or wrongly shaped
    tensors (named), and for weights that are not finite.
    """
    if isinstance(source, DiffusionModel):
        return source
    if isinstance(source, DDPMUNet):
        tensors = {name: tensor.detach().clone() for name, tensor in source.state_dict().items()}
        return _assemble("diffusion", source.config, tensors, {})
    if not isinstance(source, str | PathLike):
        raise ValueError(f"diffusion: expected a path, a DDPMUNet or a DiffusionModel, got {type(source).__name__}")
    path = pathlib.Path(source)
    if pytorch_ddpm.is_torch_file(path):
        config, tensors = pytorch_ddpm.read(path, image_size)
        return _assemble(str(path), config, tensors, {})
    tensors, note = load_tensors(path, _KIND)
    try:
        config, trained = DDPMConfig.from_dict(note["model"]), note["trained"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: a {_KIND} file whose config cannot be used: {error}") from error
    return _assemble(str(path), config, tensors, trained)


def save(
    path: str | PathLike[str],
    model: DDPMUNet | Mapping[str, Tensor],
    config: DDPMConfig | None = None,
    *,
    trained: Mapping[str, Any] | None = None,
) -> None:
    """Write a network (or its state dict and config) with its config inside, whole or not at all.

    trained: JSON values that say how it came about; `load` gives them back.
    Raises ValueError when the tensors are not those of the config.
    """
    if isinstance(model, DDPMUNet):
        config, state = model.config, model.state_dict()
    else:
        state = dict(model)
    if config is None:
        raise ValueError("config: expected a DDPMConfig with a state dict, got None")
    tensors = {name: tensor.detach().float() for name, tensor in state.items()}
    _check(str(path), config, tensors)
    save_tensors(path, _KIND, tensors, {"model": config.to_dict(), "trained": dict(trained or {})})


def _assemble(
    origin: str, config: DDPMConfig, tensors: Mapping[str, Tensor], trained: Mapping[str, Any]
) -> DiffusionModel:
    _check(origin, config, tensors)
    weights = {name: tensors[name].to("cpu", torch.float32).contiguous().numpy() for name in state_shapes(config)}
    return DiffusionModel(
        config=config,
        program=program(config, weights),
        alpha_bar=_core.schedule_linear(config.steps, config.beta_first, config.beta_last),
        max_t=config.steps if config.max_t is None else config.max_t,
        fingerprint=_fingerprint(config, weights),
        trained=trained,
    )


def _check(origin: str, config: DDPMConfig, tensors: Mapping[str, Tensor]) -> None:
    expected = state_shapes(config)
    problems = [
        ("missing", [name for name in expected if name not in tensors]),
        ("surplus", [name for name in tensors if name not in expected]),
        (
            "of another shape",
            [
                f"{name} (expected {shape}, got {tuple(tensors[name].shape)})"
                for name, shape in expected.items()
                if name in tensors and tuple(tensors[name].shape) != shape
            ],
        ),
        ("not finite", [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]),
    ]
    found = [f"{len(names)} {what}: {_first(names)}" for what, names in problems if names]
    if found:
        raise ValueError(f"{origin}: not the {len(expected)} tensors of this DDPM UNet; {'; '.join(found)}")


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _fingerprint(config: DDPMConfig, weights: Mapping[str, NDArray[np.float32]]) -> str:
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for name, array in weights.items():
        digest.update(f"{name} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
