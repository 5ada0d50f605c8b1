"""Engine: images in, reconstructions out. The only door to the C core's network."""

from __future__ import annotations

import os
import weakref
from functools import lru_cache
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from diffence import _core
from diffence.images import as_images
from diffence.unets import DDPMUNet, DiffusionModel, load

__all__ = ["DEFAULT_BATCH", "Engine", "Mode", "Precision", "key_bytes"]

Mode = Literal["paper", "official"]
Precision = Literal["fp32", "bf16"]
Array = TypeVar("Array", torch.Tensor, NDArray[Any])

DEFAULT_BATCH = 32

# (fingerprint, isa, precision, direct) -> the packed weights, as long as an engine has them: engines share them.
_packed: weakref.WeakValueDictionary[tuple[str, str, str, bool], _core.Model] = weakref.WeakValueDictionary()


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


def _arguments(diffusion: DiffusionModel) -> tuple[Any, ...]:
    """What _core.Model takes first."""
    program = diffusion.program
    return program.shape, program.ops, program.epsilons, list(program.weights.items())


class Engine:
    """A diffusion model, planned and packed, that predicts noise and reconstructs images.

    diffusion: path of a checkpoint, or a loaded `diffence.unets.DiffusionModel` (or reference module).
    device: "cpu".  threads: None for $DIFFENCE_NUM_THREADS, else the processors at hand.
    precision: "fp32", or "bf16" where the processor has instructions for it: convolutions and attention multiply
        bfloat16 numbers, and add in float32.
    batch: network evaluations at a time (None: 32); more is faster up to a point and takes more `memory()`.
    isa: instruction set by name (None: $DIFFENCE_ISA, else the fastest that runs here); see `diffence.isas()`.
    memory_limit: bytes that `memory()` may add up to; None for no limit. Where they do not suffice, the batch is
        halved, down to one image, and then 3x3 convolutions do without Winograd's transforms, whose weights take four
        times as much (`direct`: slower, and its results differ from the others by rounding).

    The same input gives the same bits for any batch, order, company and number of threads. Calls on one engine from
    several threads are safe and take turns; the GIL is released while they compute. Engines of equal models share
    their packed weights.
    Raises ValueError for a damaged or foreign checkpoint and for options out of range, RuntimeError for a device,
    precision or instruction set that this machine or build does not have, MemoryError where memory_limit is too small.
    """

    def __init__(
        self,
        diffusion: str | os.PathLike[str] | DiffusionModel | DDPMUNet,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
        threads: int | None = None,
        batch: int | None = None,
        isa: str | None = None,
        memory_limit: int | None = None,
    ) -> None:
        if torch.device(device).type != "cpu":
            raise RuntimeError(f"device: this build has no engine for {device!s}; use device='cpu'")
        self.options = {
            "device": device,
            "precision": precision,
            "threads": threads,
            "batch": batch,
            "isa": isa,
            "memory_limit": memory_limit,
        }
        self.diffusion = load(diffusion)
        self.device = torch.device("cpu")
        isa = _core.default_isa(precision) if isa is None else isa
        threads = _core.default_threads() if threads is None else threads
        batch = DEFAULT_BATCH if batch is None else batch
        self.direct = False
        if memory_limit is not None:
            batch, self.direct = self._fit(memory_limit, batch, threads, isa, precision)
        name = (self.diffusion.fingerprint, isa, precision, self.direct)
        model = _packed.get(name)
        if model is None:
            model = _core.Model(*_arguments(self.diffusion), isa=isa, precision=precision, direct=self.direct)
            _packed[name] = model
        self._engine = _core.Engine(model, batch=batch, threads=threads)
        self._sampler = lru_cache(maxsize=8)(self._make_sampler)

    def _fit(self, limit: int, batch: int, threads: int, isa: str, precision: Precision) -> tuple[int, bool]:
        """The largest batch whose memory is within `limit`, and whether that takes direct convolutions."""
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"memory_limit: expected a number of bytes, at least 1, or None; got {limit!r}")
        least = 0
        for direct in (False, True):
            for size in (batch >> halvings for halvings in range(max(batch, 1).bit_length())):
                needed = self.memory_needed(
                    self.diffusion, batch=size, threads=threads, isa=isa, precision=precision, direct=direct
                )
                least = sum(needed.values())
                if least <= limit:
                    return size, direct
        raise MemoryError(
            f"memory_limit: {limit} bytes do not hold this network; one image at a time, {threads} threads and direct "
            f"convolutions take {least}"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self._engine.model.shape

    @property
    def isa(self) -> str:
        """The instruction set whose kernels run."""
        return self._engine.model.isa

    @property
    def precision(self) -> Precision:
        """What is multiplied: "fp32" or "bf16"."""
        return self._engine.model.precision

    @property
    def batch(self) -> int:
        return self._engine.batch

    @property
    def threads(self) -> int:
        return self._engine.threads

    def memory(self) -> dict[str, int]:
        """Bytes taken: "weights" (packed, shared), "arena" (activations), "scratch" (of all threads)."""
        return self._engine.model.memory(self.batch, self.threads)

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
        """What `memory()` of such an engine says, before it is taken; direct: without Winograd's transforms."""
        return _core.Model.memory_needed(
            *_arguments(load(diffusion)),
            batch=DEFAULT_BATCH if batch is None else batch,
            threads=_core.default_threads() if threads is None else threads,
            isa=isa,
            precision=precision,
            direct=direct,
        )

    def profile(self, images: int) -> list[dict[str, Any]]:
        """Where the time of one evaluation goes: a record a step of the plan, in order.

        images: how many to evaluate at once, 1 to `batch`. Of each step: "kind", "shape" (C, H, W) and "made" (C, H, W)
        that it reads and makes, "size" of its kernel, "flop" of one image as a direct computation does it, "seconds".
        """
        if not 1 <= images <= self.batch:
            raise ValueError(f"images: expected 1 to batch = {self.batch}, got {images}")
        x = np.random.default_rng(0).standard_normal((images, *self.shape), np.float32)
        for _ in range(2):  # the first one finds its memory
            self._engine.predict(x, np.zeros(images, np.int32))
        names = ("kind", "shape", "made", "size", "flop", "seconds")
        return [dict(zip(names, step, strict=True)) for step in self._engine.profile()]

    def _make_sampler(self, T: int, k: int, mode: Mode) -> _core.Sampler:
        self.diffusion.check_T(T)
        return _core.Sampler(self.diffusion.alpha_bar, T, k, mode)

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
        array = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
        steps = np.atleast_1d(np.asarray(t.detach().cpu() if isinstance(t, torch.Tensor) else t))
        eps = self._engine.predict(array, steps)
        return torch.from_numpy(eps) if isinstance(x, torch.Tensor) else eps

    def reconstruct_items(
        self,
        sampler: _core.Sampler,
        images: NDArray[np.float32],
        index: NDArray[np.int32],
        draws: NDArray[np.int32],
        *,
        hashes: bytes | None = None,
        noise: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Item m: draw draws[m] of images[index[m]]; (M, C, H, W) in [0, 1]. What `reconstruct` and the fence call."""
        return self._engine.reconstruct(sampler, images, index, draws, hashes=hashes, noise=noise)

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

        images: (B, C, H, W), uint8 or float in [0, 1]. -> (B, n, C, H, W) float32 in [0, 1], tensor for tensor and
        array for array. The noise is keyed by `key` and the image's content: draw j of an image is the same alone
        and in any batch. `noise` (B, n, C, H, W), standard normal, replaces it; one of the two must be given.
        """
        if (key is None) == (noise is None):
            raise ValueError("key, noise: give one of the two")
        if n < 1:
            raise ValueError(f"n: expected at least 1 reconstruction, got {n}")
        array = as_images(images, self.shape)
        count = len(array)
        index = np.repeat(np.arange(count, dtype=np.int32), n)
        draws = np.tile(np.arange(n, dtype=np.int32), count)
        given = None
        if noise is not None:
            given = np.asarray(noise.detach().cpu() if isinstance(noise, torch.Tensor) else noise)
            if given.shape != (count, n, *self.shape):
                raise ValueError(f"noise: expected shape {(count, n, *self.shape)}, got {given.shape}")
            given = given.reshape(count * n, *self.shape)
        hashes = None if key is None else _core.content_hashes(key_bytes(key), array)
        out = self.reconstruct_items(self.sampler(T, k, mode), array, index, draws, hashes=hashes, noise=given)
        out = out.reshape(count, n, *self.shape)
        return torch.from_numpy(out) if isinstance(images, torch.Tensor) else out
