"""The network on the processor: `diffence._core`."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffence import _core
from diffence.backends import Mode, Precision
from diffence.selection import phi
from diffence.unets import DiffusionModel

__all__ = ["DEFAULT_BATCH", "CpuBackend", "memory_needed"]

DEFAULT_BATCH = 32

# (fingerprint, isa, precision, direct) -> the packed weights, as long as an engine has them: engines share them.
_packed: weakref.WeakValueDictionary[tuple[str, str, str, bool], _core.Model] = weakref.WeakValueDictionary()


class CpuBackend:
    """See `diffence.backends.Backend`; the arguments are those of `diffence.Engine`."""

    def __init__(
        self,
        diffusion: DiffusionModel,
        precision: Precision,
        threads: int | None,
        batch: int | None,
        isa: str | None,
        memory_limit: int | None,
    ) -> None:
        isa = _core.default_isa(_known(precision)) if isa is None else isa
        threads = _core.default_threads() if threads is None else threads
        batch = DEFAULT_BATCH if batch is None else batch
        self.direct = False
        if memory_limit is not None:
            batch, self.direct = _fit(memory_limit, diffusion, batch, threads, isa, precision)
        name = (diffusion.fingerprint, isa, precision, self.direct)
        model = _packed.get(name)
        if model is None:
            model = _core.Model(
                *diffusion.program.arguments(), isa=isa, precision=_known(precision), direct=self.direct
            )
            _packed[name] = model
        self.engine = _core.Engine(model, batch=batch, threads=threads)
        self.device = torch.device("cpu")
        self.shape, self.precision = model.shape, precision
        self.isa: str | None = model.isa
        self.batch, self.threads = self.engine.batch, self.engine.threads

    def memory(self) -> dict[str, int]:
        return self.engine.model.memory(self.batch, self.threads)

    def predict(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.engine.predict(x.numpy(), t.numpy()))

    def predict_array(self, x: NDArray[Any], t: NDArray[Any]) -> NDArray[np.float32]:
        return self.engine.predict(x, t)  # 4 % of the time of 32 images of the demo's network less than by tensors

    def hashes(self, key: bytes, images: torch.Tensor) -> bytes:
        return _core.content_hashes(key, images.numpy())

    def reconstruct(
        self,
        sampler: _core.Sampler,
        images: torch.Tensor,
        index: NDArray[np.int32],
        draws: NDArray[np.int32],
        hashes: Any,
        noise: torch.Tensor | None,
    ) -> torch.Tensor:
        given = None if noise is None else noise.numpy()
        return torch.from_numpy(
            self.engine.reconstruct(sampler, images.numpy(), index, draws, hashes=hashes, noise=given)
        )

    def phi(self, logits: torch.Tensor, mode: Mode) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        return phi(logits, mode)

    def profile(self, images: int) -> list[tuple[Any, ...]]:
        x = np.random.default_rng(0).standard_normal((images, *self.shape), np.float32)
        for _ in range(2):  # the first one finds its memory
            self.engine.predict(x, np.zeros(images, np.int32))
        return self.engine.profile()


def memory_needed(
    diffusion: DiffusionModel,
    precision: Precision,
    threads: int | None,
    batch: int | None,
    isa: str | None,
    direct: bool,
) -> dict[str, int]:
    """What `memory()` of such a backend says, before it is taken."""
    return _core.Model.memory_needed(
        *diffusion.program.arguments(),
        batch=DEFAULT_BATCH if batch is None else batch,
        threads=_core.default_threads() if threads is None else threads,
        isa=isa,
        precision=_known(precision),
        direct=direct,
    )


def _fit(
    limit: int, diffusion: DiffusionModel, batch: int, threads: int, isa: str, precision: Precision
) -> tuple[int, bool]:
    """The largest batch whose memory is within `limit`, and whether that takes direct convolutions."""
    least = 0
    for direct in (False, True):
        for size in (batch >> halvings for halvings in range(max(batch, 1).bit_length())):
            least = sum(memory_needed(diffusion, precision, threads, size, isa, direct).values())
            if least <= limit:
                return size, direct
    raise MemoryError(
        f"memory_limit: {limit} bytes do not hold this network; one image at a time, {threads} threads and direct "
        f"convolutions take {least}"
    )


def _known(precision: Precision) -> Any:
    if precision == "fp16":
        raise ValueError("precision: 'fp16' is for a GPU (device='cuda'); the processor takes 'fp32' or 'bf16'")
    return precision
