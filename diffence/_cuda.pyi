"""The CUDA engine as Python sees it. Private: diffence.engine is its face.

Tensors are DLPack capsules of contiguous tensors on the model's GPU, aligned to 16 bytes: checked for dtype
(TypeError), device and shape (ValueError), read and written in place. `stream` is a cudaStream_t as an integer; work is
put on it and not waited for, so the tensors' memory must stay until it is done. OSError: what the driver reports;
MemoryError: the GPU has no room.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, final

from numpy.typing import ArrayLike

_Mode = Literal["paper", "official"]
_Precision = Literal["fp32", "bf16", "fp16"]
_Capsule = Any

EMULATED: Final[bool]  # a build for tests, whose GPU is the processor

def device_count() -> int:
    """GPUs that the engine runs on; RuntimeError with the reason where there is none."""

def content_hashes(device: int, key: bytes, images: _Capsule, hashes: _Capsule, stream: int, /) -> None:
    """hashes, uint8 (B, 16), become those of images, float32 (B, C, H, W)."""

def phi(
    device: int,
    logits: _Capsule,  # float32 (M, C)
    mode: _Mode,
    phi: _Capsule,  # float64 (M,)
    predicted: _Capsule,  # int32 (M,)
    bad: _Capsule,  # int32 (1,): becomes the smallest row with a logit that is not finite
    stream: int,
    /,
) -> None:
    """As _core.phi."""

@final
class Model:
    """A validated program with its weights packed on one GPU; immutable."""

    def __new__(
        cls,
        shape: tuple[int, int, int],
        ops: ArrayLike,
        epsilons: ArrayLike,
        weights: Sequence[tuple[str, ArrayLike]],
        device: int,
        precision: _Precision,
        hopper: bool,
    ) -> Model: ...
    def memory(self, batch: int, /) -> dict[str, int]:
        """Bytes of the GPU that an Engine of this size takes: "weights" (shared), "arena"."""

    @property
    def device(self) -> int: ...
    @property
    def precision(self) -> _Precision: ...
    @property
    def hopper(self) -> bool: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def time_steps(self) -> int: ...

@final
class Engine:
    """A model with memory on its GPU for up to `batch` images."""

    def __new__(cls, model: Model, batch: int) -> Engine: ...
    def predict(self, x: _Capsule, t: _Capsule, eps: _Capsule, stream: int, /) -> None:
        """eps (B, C, H, W) = network(x (B, C, H, W), t (B,) int32, not checked)."""

    def reconstruct(
        self,
        signal: float,
        scale: float,
        steps: Sequence[tuple[int, float, float]],
        images: _Capsule,
        hashes: _Capsule | None,
        index: _Capsule,
        draws: _Capsule,
        noise: _Capsule | None,
        out: _Capsule,
        bad: _Capsule,
        stream: int,
        /,
    ) -> None:
        """out[m] = image index[m] with its draw draws[m]; bad becomes the smallest m that is not finite."""

    def profile(self, images: int, /) -> list[tuple[Any, ...]]:
        """As _core.Engine.profile; the seconds are the GPU's."""

    @property
    def model(self) -> Model: ...
    @property
    def batch(self) -> int: ...
