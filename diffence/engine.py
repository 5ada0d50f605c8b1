"""Engine: images in, reconstructions out. The only door to the C core's network."""

from __future__ import annotations

import os
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from diffence import _core
from diffence.backends import Backend, Mode, Precision
from diffence.backends.cpu import CpuBackend, memory_needed
from diffence.images import as_image_tensor
from diffence.unets import DDPMUNet, DiffusionModel, load

__all__ = ["Engine", "Mode", "Precision", "key_bytes"]

Array = TypeVar("Array", torch.Tensor, NDArray[Any])


def key_bytes(key: int | bytes) -> bytes:
    """The 128-bit key of the noise as 16 bytes; an integer in 0..2^128-1 is taken little-endian.

    Raises TypeError or ValueError for anything else.
    """
    if isinstance(key, bool) or not isinstance(key, int | bytes):
        raise TypeError(f"key: expected 16 bytes or an integer in 0..2**128-1, got {type(key).__name__}")
    if isinstance(key, int):
        if not 0 <= key < 1 << 128:
            raise ValueError(f"key: expected an integer in 0..2**128-1, got {key}")
        return key.to_bytes(16, "little")
    if len(key) != 16:
        raise ValueError(f"key: expected 16 bytes, got {len(key)}")
    return key


class Engine:
    """A diffusion model, planned and packed, that predicts noise and reconstructs images.

    diffusion: path of a checkpoint, or a loaded `diffence.unets.DiffusionModel` (or reference module).
    device: "cpu", or "cuda" (a GPU of compute capability 8.0 or newer, by number as "cuda:1").
    precision: what convolutions and attention multiply; they add in float32. "fp32"; "bf16", on the processor where it
        has instructions for that; "fp16", on a GPU. None: "fp32" on the processor, "bf16" on a GPU, where "fp32" is for
        comparisons: it uses no tensor cores.
    threads: None for $DIFFENCE_NUM_THREADS, else the processors at hand. Of no use on a GPU.
    batch: network evaluations at a time (None: 32, on a GPU 1024); more is faster up to a point and takes more
        `memory()`. Where a GPU has no room for it, it is halved, with a warning.
    isa: instruction set by name (None: $DIFFENCE_ISA, else the fastest that runs here); see `diffence.isas()`.
    memory_limit: bytes that `memory()` may add up to; None for no limit. Where they do not suffice, the batch is
        halved, down to one image, and then, on the processor, 3x3 convolutions do without Winograd's transforms, whose
        weights take four times as much (`direct`: slower, and its results differ from the others by rounding).

    The same input gives the same bits for any batch, order, company and number of threads. Calls on one engine from
    several threads are safe and take turns; the GIL is released while they compute. Engines of equal models share
    their packed weights. On a GPU, work goes to torch's current stream.
    Raises ValueError for a damaged or foreign checkpoint and for options out of range, RuntimeError for a device,
    precision or instruction set that this machine or build does not have, MemoryError where memory_limit is too small.
    """

    def __init__(
        self,
        diffusion: str | os.PathLike[str] | DiffusionModel | DDPMUNet,
        *,
        device: str | torch.device = "cpu",
        precision: Precision | None = None,
        threads: int | None = None,
        batch: int | None = None,
        isa: str | None = None,
        memory_limit: int | None = None,
    ) -> None:
        self.options: dict[str, Any] = {
            "device": device,
            "precision": precision,
            "threads": threads,
            "batch": batch,
            "isa": isa,
            "memory_limit": memory_limit,
        }
        if memory_limit is not None and (
            isinstance(memory_limit, bool) or not isinstance(memory_limit, int) or memory_limit < 1
        ):
            raise ValueError(f"memory_limit: expected a number of bytes, at least 1, or None; got {memory_limit!r}")
        place = torch.device(device)
        self.diffusion = load(diffusion)
        self._backend: Backend
        if place.type == "cpu":
            self._backend = CpuBackend(self.diffusion, precision or "fp32", threads, batch, isa, memory_limit)
        elif place.type == "cuda":
            from diffence.backends.cuda import CudaBackend  # importing it is no error where it is missing

            if isa is not None:
                raise ValueError(f"isa: instruction sets are the processor's; got {isa!r} for {device!s}")
            self._backend = CudaBackend(self.diffusion, place, precision or "bf16", batch, memory_limit)
        else:
            raise RuntimeError(f"device: there is no engine for {device!s}; use 'cpu' or 'cuda'")
        # Not a method: a cycle would keep the memory of an engine that nobody has any more.
        self._sampler = lru_cache(maxsize=8)(partial(_make_sampler, self.diffusion))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self._backend.shape

    @property
    def device(self) -> torch.device:
        """Where images go in and come out."""
        return self._backend.device

    @property
    def isa(self) -> str | None:
        """The instruction set whose kernels run; None on a GPU."""
        return self._backend.isa

    @property
    def direct(self) -> bool:
        """Whether `memory_limit` left no room for Winograd's transforms."""
        return self._backend.direct

    @property
    def precision(self) -> Precision:
        """What is multiplied: "fp32", "bf16" or "fp16"."""
        return self._backend.precision

    @property
    def batch(self) -> int:
        return self._backend.batch

    @property
    def threads(self) -> int:
        return self._backend.threads

    def memory(self) -> dict[str, int]:
        """Bytes taken: "weights" (packed, shared), "arena" (activations), on the processor "scratch" (of threads)."""
        return self._backend.memory()

    @staticmethod
    def memory_needed(
        diffusion: str | os.PathLike[str] | DiffusionModel | DDPMUNet,
        *,
        precision: Precision = "fp32",
        threads: int | None = None,
        batch: int | None = None,
        isa: str | None = None,
        direct: bool = False,
    ) -> dict[str, int]:
        """What `memory()` of such an engine on the processor says, before it is taken.

        direct: without Winograd's transforms.
        """
        return memory_needed(load(diffusion), precision, threads, batch, isa, direct)

    def profile(self, images: int) -> list[dict[str, Any]]:
        """Where the time of one evaluation goes: a record a step of the plan, in order.

        images: how many to evaluate at once, 1 to `batch`. Of each step: "kind", "shape" (C, H, W) and "made" (C, H, W)
        that it reads and makes, "size" of its kernel, "flop" of one image as a direct computation does it, "seconds".
        """
        if not 1 <= images <= self.batch:
            raise ValueError(f"images: expected 1 to batch = {self.batch}, got {images}")
        names = ("kind", "shape", "made", "size", "flop", "seconds")
        return [dict(zip(names, step, strict=True)) for step in self._backend.profile(images)]

    def sampler(self, T: int, k: int | None = None, mode: Mode = "paper") -> _core.Sampler:
        """The coefficients and time steps of DDIM(k), eta = 0, from step T (1-based); k=None means k = T.

        Raises ValueError for T outside 1..steps or above the noise levels that the checkpoint was trained on, for k
        outside 1..T, and for another mode than "paper" or "official".
        """
        return self._sampler(T, T if k is None else k, mode)

    def predict_noise(self, x: Array, t: Any) -> Array:
        """eps (B, C, H, W) float32 = network(x, t).

        x: float32 (B, C, H, W) in the network's own scale (images in [-1, 1], noised). t: 0-based time steps (B,).
        """
        if not isinstance(x, torch.Tensor):
            return self._backend.predict_array(np.asarray(x), np.asarray(t).reshape(-1))
        given = x.detach().to(self.device).contiguous()
        return self._backend.predict(given, torch.as_tensor(t, device=self.device).reshape(-1)).to(x.device)

    def place(self, images: Any, name: str = "images") -> torch.Tensor:
        """Images (B, C, H, W), uint8 or in [0, 1], as the engine takes them: checked, float32, on its device."""
        return as_image_tensor(images, self.device, self.shape, name)

    def hashes(self, key: bytes, images: torch.Tensor) -> Any:
        """The identities, under the key, of images that `place` returned: what `reconstruct_items` takes."""
        return self._backend.hashes(key, images)

    def phi(self, logits: torch.Tensor, mode: Mode = "paper") -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """`diffence.selection.phi` of logits (B, classes), computed where they lie if that is the engine's device."""
        return self._backend.phi(logits, mode)

    def reconstruct_items(
        self,
        sampler: _core.Sampler,
        images: torch.Tensor,
        index: NDArray[np.int32],
        draws: NDArray[np.int32],
        *,
        hashes: Any = None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Item m: draw draws[m] of images[index[m]]; (M, C, H, W) in [0, 1]. What `reconstruct` and the fence call.

        images and noise lie on the engine's device, as `place` returns them.
        """
        return self._backend.reconstruct(sampler, images, index, draws, hashes, noise)

    def reconstruct(
        self,
        images: Array,
        n: int,
        T: int = 160,
        k: int | None = None,
        *,
        key: int | bytes | None = None,
        noise: Array | None = None,
        mode: Mode = "paper",
    ) -> Array:
        """n reconstructions of each image: noise to step T (Eq. 3 of the paper), DDIM(k) back, clamp to [0, 1].

        images: (B, C, H, W), uint8 or float in [0, 1]. -> (B, n, C, H, W) float32 in [0, 1], an array for an array,
        and for a tensor one on the engine's device. The noise is keyed by `key` and the image's content: draw j of an
        image is the same alone and in any batch. `noise` (B, n, C, H, W), standard normal, replaces it; one of the two
        must be given.
        """
        if (key is None) == (noise is None):
            raise ValueError("key, noise: give one of the two")
        if n < 1:
            raise ValueError(f"n: expected at least 1 reconstruction, got {n}")
        placed = self.place(images)
        count = len(placed)
        index = np.repeat(np.arange(count, dtype=np.int32), n)
        draws = np.tile(np.arange(n, dtype=np.int32), count)
        given = None
        if noise is not None:
            given = (noise.detach() if isinstance(noise, torch.Tensor) else torch.from_numpy(np.asarray(noise))).to(
                self.device
            )
            if given.shape != (count, n, *self.shape):
                raise ValueError(f"noise: expected shape {(count, n, *self.shape)}, got {tuple(given.shape)}")
            given = given.reshape(count * n, *self.shape).contiguous()
        hashes = None if key is None else self.hashes(key_bytes(key), placed)
        out = self.reconstruct_items(self.sampler(T, k, mode), placed, index, draws, hashes=hashes, noise=given)
        out = out.reshape(count, n, *self.shape)
        return out if isinstance(images, torch.Tensor) else out.cpu().numpy()


def _make_sampler(diffusion: DiffusionModel, T: int, k: int, mode: Mode) -> _core.Sampler:
    diffusion.check_T(T)
    return _core.Sampler(diffusion.alpha_bar, T, k, mode)
