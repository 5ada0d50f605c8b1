"""What runs a diffusion network: the C core on the processor, or its CUDA engine on a GPU, behind one protocol."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from diffence import _core

__all__ = ["Backend", "Mode", "Precision"]

Mode = Literal["paper", "official"]
Precision = Literal["fp32", "bf16", "fp16"]


class Backend(Protocol):
    """A planned and packed network. Tensors are float32, contiguous, and lie on `device`.

    device: where images go in and come out. isa: the instruction set, None on a GPU. threads: 0 on a GPU.
    """

    device: torch.device
    shape: tuple[int, int, int]
    isa: str | None
    precision: Precision
    batch: int
    threads: int
    direct: bool

    def memory(self) -> dict[str, int]:
        """Bytes taken, by what they are for."""

    def predict(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """eps (B, C, H, W) = network(x (B, C, H, W), t (B,) integers)."""

    def predict_array(self, x: NDArray[Any], t: NDArray[Any]) -> NDArray[np.float32]:
        """The same of arrays, which need not be contiguous."""

    def hashes(self, key: bytes, images: torch.Tensor) -> Any:
        """The images' identities under the key, as `reconstruct` takes them."""

    def reconstruct(
        self,
        sampler: _core.Sampler,
        images: torch.Tensor,
        index: NDArray[np.int32],
        draws: NDArray[np.int32],
        hashes: Any,
        noise: torch.Tensor | None,
    ) -> torch.Tensor:
        """Item m: image index[m] with its draw draws[m], (M, C, H, W) in [0, 1]."""

    def phi(self, logits: torch.Tensor, mode: Mode) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """`diffence.selection.phi` of logits (B, classes) on any device, where they lie if they lie here."""

    def profile(self, images: int) -> list[tuple[Any, ...]]:
        """The plan's steps, as `_core.Engine.profile` gives them, of one evaluation."""
