"""The network on a GPU: `diffence._cuda`. Tensors pass by DLPack, on torch's current stream, and are not copied."""

from __future__ import annotations

import os
import warnings
import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import dlpack

from diffence import _core
from diffence.backends import Mode, Precision
from diffence.selection import phi
from diffence.unets import DiffusionModel

_cuda: Any
try:
    from diffence import _cuda
except ImportError as error:
    _cuda, _MISSING = None, str(error)

__all__ = ["DEFAULT_BATCH", "CudaBackend", "cuda_device"]

DEFAULT_BATCH = 1024
_NONE_BAD = 2**31 - 1

# (fingerprint, GPU, precision, hopper) -> the packed weights, as long as an engine has them.
_packed: weakref.WeakValueDictionary[tuple[str, int, str, bool], Any] = weakref.WeakValueDictionary()


def cuda_device(device: torch.device) -> torch.device:
    """`device` with its number. RuntimeError says why there is no engine for it, and what to do."""
    if _cuda is None:
        raise RuntimeError(
            f"device: this diffence was built without its CUDA engine ({_MISSING}); install it again where the CUDA "
            "toolkit (nvcc) is found, with DIFFENCE_CUDA=1 to be told what is missing, or use device='cpu'"
        )
    try:
        _cuda.device_count()
    except RuntimeError as error:
        raise RuntimeError(f"device: {error}; use device='cpu'") from None
    if _cuda.EMULATED:  # tests: its GPU is the processor
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"device: torch {torch.__version__} has no CUDA, so its tensors cannot lie on the GPU; install a torch "
            "that has, or use device='cpu'"
        )
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


def _pass(tensor: torch.Tensor) -> Any:
    """The tensor as a DLPack capsule: its memory, not a copy, which lives as long as the capsule."""
    return dlpack.to_dlpack(tensor)  # type: ignore[attr-defined]


class CudaBackend:
    """See `diffence.backends.Backend`; the arguments are those of `diffence.Engine`."""

    isa: str | None = None
    threads = 0
    direct = False

    def __init__(
        self,
        diffusion: DiffusionModel,
        device: torch.device,
        precision: Precision,
        batch: int | None,
        memory_limit: int | None,
    ) -> None:
        self.device = cuda_device(device)
        self._index = self.device.index or 0
        # Not yet run on such a GPU (benchmarks/gpu/README.md), so only where it is asked for.
        hopper = os.environ.get("DIFFENCE_CUDA_HOPPER", "0") not in ("", "0")
        name = (diffusion.fingerprint, self._index, precision, hopper)
        model = _packed.get(name)
        if model is None:
            model = _cuda.Model(*diffusion.program.arguments(), self._index, precision, hopper)
            _packed[name] = model
        self._engine = _fit(model, DEFAULT_BATCH if batch is None else batch, memory_limit)
        self.shape, self.precision, self.batch = model.shape, precision, self._engine.batch

    def _stream(self) -> int:
        return 0 if self.device.type == "cpu" else torch.cuda.current_stream(self.device).cuda_stream

    def memory(self) -> dict[str, int]:
        memory: dict[str, int] = self._engine.model.memory(self.batch)
        return memory

    def predict(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        steps = self._engine.model.time_steps
        t = t.to(self.device, torch.int32).contiguous()
        if steps and len(t) and not (int(t.min()) >= 0 and int(t.max()) < steps):
            raise ValueError(f"t: expected 0 to {steps - 1}, got {int(t.min())} to {int(t.max())}")
        eps = torch.empty_like(x)
        self._engine.predict(_pass(x), _pass(t), _pass(eps), self._stream())
        return eps

    def predict_array(self, x: NDArray[Any], t: NDArray[Any]) -> NDArray[np.float32]:
        given = torch.from_numpy(np.ascontiguousarray(x)).to(self.device)
        eps: NDArray[np.float32] = self.predict(given, torch.from_numpy(np.asarray(t))).cpu().numpy()
        return eps

    def hashes(self, key: bytes, images: torch.Tensor) -> torch.Tensor:
        found = torch.empty(len(images), 16, dtype=torch.uint8, device=self.device)
        _cuda.content_hashes(self._index, key, _pass(images), _pass(found), self._stream())
        return found

    def reconstruct(
        self,
        sampler: _core.Sampler,
        images: torch.Tensor,
        index: NDArray[np.int32],
        draws: NDArray[np.int32],
        hashes: Any,
        noise: torch.Tensor | None,
    ) -> torch.Tensor:
        if len(index) and not (index.min() >= 0 and index.max() < len(images) and draws.min() >= 0):
            raise ValueError(f"index, draws: expected 0 to {len(images) - 1} and 0 or more")
        out = torch.empty(len(index), *self.shape, device=self.device)
        bad = torch.full((1,), _NONE_BAD, dtype=torch.int32, device=self.device)
        items = [torch.from_numpy(np.array(array, np.int32)).to(self.device) for array in (index, draws)]
        self._engine.reconstruct(
            sampler.signal,
            sampler.noise,
            sampler.steps,
            _pass(images),
            None if hashes is None else _pass(hashes),
            *(_pass(item) for item in items),
            None if noise is None else _pass(noise),
            _pass(out),
            _pass(bad),
            self._stream(),
        )
        item = int(bad)  # waits for the stream
        if item != _NONE_BAD:
            raise ValueError(f"the network's output for image {index[item]}, draw {draws[item]} is not finite")
        return out

    def phi(self, logits: torch.Tensor, mode: Mode) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        if logits.device != self.device or logits.dtype == torch.float64:
            return phi(logits, mode)
        logits = logits.detach().float().contiguous()
        values = torch.empty(len(logits), dtype=torch.float64, device=self.device)
        predicted = torch.empty(len(logits), dtype=torch.int32, device=self.device)
        bad = torch.full((1,), _NONE_BAD, dtype=torch.int32, device=self.device)
        outputs = (_pass(values), _pass(predicted), _pass(bad))
        _cuda.phi(self._index, _pass(logits), mode, *outputs, self._stream())
        if int(bad) != _NONE_BAD:
            raise ValueError(f"logits: row {int(bad)} holds NaN or infinity")
        return values.cpu().numpy(), predicted.cpu().numpy()

    def profile(self, images: int) -> list[tuple[Any, ...]]:
        steps: list[tuple[Any, ...]] = self._engine.profile(images)
        return steps


def _fit(model: Any, batch: int, limit: int | None) -> Any:
    """An engine of `batch`, halved until the GPU and the limit have room for it."""
    size = batch
    while True:
        needed = sum(model.memory(size).values())
        try:
            if limit is not None and needed > limit:
                raise MemoryError(f"memory_limit: {limit} bytes, batch {size} takes {needed}")
            engine = _cuda.Engine(model, size)
        except MemoryError:
            if size == 1:
                raise
            size //= 2
            continue
        if size < batch:
            what = "the GPU's free memory" if limit is None else "memory_limit"
            warnings.warn(f"batch: {batch} images do not fit into {what}; {size} do", stacklevel=4)
        return engine
