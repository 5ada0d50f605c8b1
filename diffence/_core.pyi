"""The C core as Python sees it. Private: diffence.engine, diffence.selection and diffence.fence are the public faces.

Arrays come in as anything that NumPy makes an array of (buffers, `__array__`, CPU tensors); dtype and shape are checked
strictly: TypeError for another dtype, ValueError for another shape, an empty array or a value out of range, each naming
the argument. float32 arguments that are contiguous are read in place, with the GIL released: nobody may write to them
meanwhile. float64 arguments also take float16 and float32; integers may have any width. Outputs are new arrays.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Mode = Literal["paper", "official"]
_Precision = Literal["fp32", "bf16"]

OPS: Final[dict[str, int]]  # name of an operation -> df_op_kind, e.g. {"conv": 3}
INSIDE: Final[int]
NEAREST: Final[int]
FALLBACK: Final[int]

def isas(precision: _Precision = "fp32") -> dict[str, bool]:
    """Instruction sets that this build knows -> whether this machine can run them in this precision, slowest first."""

def default_isa(precision: _Precision = "fp32") -> str:
    """$DIFFENCE_ISA where it is set (ValueError: unknown; RuntimeError: it cannot run here), else the fastest."""

def default_threads() -> int:
    """$DIFFENCE_NUM_THREADS where it is set, else the processors that this process may run on."""

@final
class Model:
    """A validated program with its weights packed for one instruction set. Immutable."""

    def __new__(
        cls,
        shape: tuple[int, int, int],
        ops: ArrayLike,  # integers (N, 7): kind, in0, in1, in2, w0, w1, attr
        epsilons: ArrayLike,  # float32 (N,)
        weights: Sequence[tuple[str, ArrayLike]],  # float32; nothing of them is kept
        *,
        isa: str | None = None,
        precision: _Precision = "fp32",
        direct: bool = False,
    ) -> Model: ...
    @classmethod
    def memory_needed(
        cls,
        shape: tuple[int, int, int],
        ops: ArrayLike,
        epsilons: ArrayLike,
        weights: Sequence[tuple[str, ArrayLike]],
        *,
        batch: int,
        threads: int,
        isa: str | None = None,
        precision: _Precision = "fp32",
        direct: bool = False,
    ) -> dict[str, int]:
        """What `memory` of such a Model says, before it is made: nothing is packed."""

    @property
    def isa(self) -> str: ...
    @property
    def precision(self) -> _Precision: ...
    @property
    def parameters(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def time_steps(self) -> int: ...
    def memory(self, batch: int, threads: int) -> dict[str, int]:
        """Bytes an Engine of this size takes, before it is taken: weights, arena, scratch."""

@final
class Engine:
    """A model planned for a batch. Calls are serialised by the object's own lock; the GIL is released."""

    def __new__(cls, model: Model, *, batch: int, threads: int) -> Engine: ...
    @property
    def model(self) -> Model: ...
    @property
    def batch(self) -> int: ...
    @property
    def threads(self) -> int: ...
    def profile(
        self,
    ) -> list[tuple[str, tuple[int, int, int], tuple[int, int, int], int, float, float]]:
        """kind, (C,H,W) read, (C,H,W) made, kernel size, flop of one image, seconds in the last evaluation."""

    def predict(self, x: ArrayLike, t: ArrayLike) -> NDArray[np.float32]:
        """x float32 (B,C,H,W), t integers (B,) -> eps float32 (B,C,H,W). Ctrl-C raises KeyboardInterrupt."""

    def reconstruct(
        self,
        sampler: Sampler,
        images: ArrayLike,  # float32 (B,C,H,W) in [0, 1]
        index: ArrayLike,  # integers (M,)
        draws: ArrayLike,  # integers (M,)
        *,
        hashes: bytes | None = None,  # 16 bytes an image, as content_hashes gives
        noise: ArrayLike | None = None,  # float32 (M,C,H,W), takes the place of the keyed normals
    ) -> NDArray[np.float32]:
        """float32 (M,C,H,W) in [0, 1]. Ctrl-C raises KeyboardInterrupt within one evaluation of the network."""

@final
class Sampler:
    """DDIM(k), eta = 0, from step T as a list of steps. Immutable."""

    def __new__(cls, alpha_bar: ArrayLike, T: int, k: int, mode: _Mode) -> Sampler: ...
    @property
    def signal(self) -> float: ...
    @property
    def noise(self) -> float: ...
    @property
    def steps(self) -> list[tuple[int, float, float]]:
        """(t, x_scale, eps_scale) of each network evaluation, in order."""

@final
class Draws:
    """Hands out (image, draw) items and collects their phi and class; see df_draws in diffence.h."""

    def __new__(
        cls, n: int, labels: ArrayLike, *, early: bool = False, interval: tuple[float, float] | None = None
    ) -> Draws: ...
    @property
    def done(self) -> bool: ...
    def next(self, most: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(image, draw) of up to `most` items to compute now; empty when nothing is left to hand out."""

    def submit(self, index: ArrayLike, draw: ArrayLike, phi: ArrayLike, predicted: ArrayLike) -> None: ...
    def result(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]]:
        """(used, draw, outcome) of each image; ValueError before done."""

def schedule_linear(steps: int, first: float, last: float) -> NDArray[np.float64]: ...
def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]: ...
def siphash128(key: bytes, data: Any) -> bytes:
    """SipHash-2-4-128 of any buffer: for known-answer tests and fingerprints."""

def content_hashes(key: bytes, images: ArrayLike) -> bytes:
    """16 bytes an image of float32 (B,C,H,W)."""

def normals(hash: bytes, draw: int, first: int, count: int) -> NDArray[np.float32]: ...
def phi(logits: ArrayLike, mode: _Mode = "paper") -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """float64 logits (M, classes) -> phi (M,), predicted class (M,)."""

def select(
    phi: ArrayLike, predicted: ArrayLike, labels: ArrayLike, interval: tuple[float, float] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """phi, predicted (B, n), labels (B,) -> draw, outcome (B,)."""

def average(logits: ArrayLike, kind: Literal["logits", "probabilities"] = "logits") -> NDArray[np.float64]:
    """float64 logits (B, n, classes) -> (B, classes): their mean, or the logarithm of the mean of their softmax."""

def search_interval(
    phi: ArrayLike,
    match: ArrayLike,
    member: ArrayLike,
    *,
    mode: _Mode = "paper",
    phi_original: ArrayLike | None = None,
) -> dict[str, Any]:
    """-> low, high, divergence, best, and the arrays lows, highs, divergences of every pair tried."""

def bootstrap(
    members: ArrayLike,  # integers (pairs, members): places, 0 for the largest score, equal for equal scores
    nonmembers: ArrayLike,  # integers (pairs, nonmembers)
    member_draws: ArrayLike,  # integers (rows, members): positions
    nonmember_draws: ArrayLike,  # integers (rows, nonmembers)
    *,
    false_positives: int,
    false_negatives: int,
    threads: int,
) -> NDArray[np.int64]:
    """-> int64 (4, pairs, rows): twice the area, the best TP * n - FP * m, TP at the FP, FP at the FN allowed."""
