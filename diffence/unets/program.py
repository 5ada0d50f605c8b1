"""A network as data: the flat list of operations that the C core checks, fuses and runs.

A frontend turns a checkpoint into a `Program`; it knows nothing of kernels, and the core nothing of families.
The operations and their shapes are defined in csrc/include/diffence.h, section "program".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Op", "Program", "ProgramBuilder"]


class Op(enum.IntEnum):
    """The kinds of operations, numbered as df_op_kind in diffence.h."""

    TIME_EMBEDDING = 0
    LINEAR = 1
    SILU = 2
    CONV = 3
    GROUP_NORM = 4
    ATTENTION = 5
    ADD = 6
    CONCAT = 7
    UPSAMPLE = 8


@dataclass(frozen=True, eq=False)
class Program:
    """A network eps = f(image, t) in single-assignment form.

    Value 0 is the image, value 1 the time step; operation i defines value i + 2; the last value is the output.

    shape: (C, H, W) of the image and of the output.
    ops: int32 (n, 7); kind, three value ids, two indices into `weights` (-1 where unused), stride / groups / heads.
    epsilons: float32 (n,); the epsilon of a group norm, else 0.
    weights: name -> float32 array, in the order of the indices; each is used by at least one operation.
    """

    shape: tuple[int, int, int]
    ops: NDArray[np.int32]
    epsilons: NDArray[np.float32]
    weights: Mapping[str, NDArray[np.float32]]

    def arguments(self) -> tuple[Any, ...]:
        """What a Model of the C core takes first."""
        return self.shape, self.ops, self.epsilons, list(self.weights.items())


class ProgramBuilder:
    """Appends operations one by one; every method returns the id of the value that it defines.

    `tensors` holds the checkpoint's arrays. A layer is named by its prefix: the layer "head" has "head.weight" and,
    unless bias=False, "head.bias". Only tensors that an operation names become weights of the program. The builder
    records; it is the core that validates shapes.
    """

    IMAGE = 0
    TIME = 1

    def __init__(self, shape: tuple[int, int, int], tensors: Mapping[str, ArrayLike]) -> None:
        self._shape = shape
        self._tensors = tensors
        self._ops: list[tuple[int, ...]] = []
        self._epsilons: list[float] = []
        self._weights: dict[str, int] = {}

    def time_embedding(self, table: str) -> int:
        """Row t of the table `table`.weight [steps, dim]."""
        return self._append(Op.TIME_EMBEDDING, (self.TIME,), (f"{table}.weight",))

    def linear(self, x: int, layer: str, *, bias: bool = True) -> int:
        return self._append(Op.LINEAR, (x,), _names(layer, bias))

    def silu(self, x: int) -> int:
        return self._append(Op.SILU, (x,))

    def conv(self, x: int, layer: str, *, stride: int = 1, bias: bool = True) -> int:
        """1x1 or 3x3, by the shape of the weight; zero padding that keeps the size at stride 1."""
        return self._append(Op.CONV, (x,), _names(layer, bias), stride)

    def group_norm(self, x: int, layer: str, groups: int, epsilon: float = 1e-5) -> int:
        return self._append(Op.GROUP_NORM, (x,), _names(layer, True), groups, epsilon)

    def attention(self, q: int, k: int, v: int, heads: int = 1) -> int:
        """softmax(q k^T / sqrt(channels / heads)) v over the positions."""
        return self._append(Op.ATTENTION, (q, k, v), (), heads)

    def add(self, x: int, y: int) -> int:
        """x + y; a y of shape (c, 1, 1) is broadcast over the positions."""
        return self._append(Op.ADD, (x, y))

    def concat(self, x: int, y: int) -> int:
        """The channels of x, then those of y."""
        return self._append(Op.CONCAT, (x, y))

    def upsample(self, x: int) -> int:
        """Nearest neighbour, factor 2."""
        return self._append(Op.UPSAMPLE, (x,))

    def finish(self) -> Program:
        """The program; its output is the value defined last."""
        return Program(
            shape=self._shape,
            ops=np.array(self._ops, dtype=np.int32).reshape(len(self._ops), 7),
            epsilons=np.array(self._epsilons, dtype=np.float32),
            weights={name: np.ascontiguousarray(self._tensors[name], dtype=np.float32) for name in self._weights},
        )

    def _append(
        self, kind: Op, inputs: tuple[int, ...], names: tuple[str, ...] = (), attr: int = 0, epsilon: float = 0.0
    ) -> int:
        values = inputs + (-1,) * (3 - len(inputs))
        indices = tuple(self._weights.setdefault(name, len(self._weights)) for name in names)
        self._ops.append((int(kind), *values, *indices, *(-1,) * (2 - len(indices)), attr))
        self._epsilons.append(epsilon)
        return len(self._ops) + 1


def _names(layer: str, bias: bool) -> tuple[str, ...]:
    return (f"{layer}.weight", f"{layer}.bias") if bias else (f"{layer}.weight",)
