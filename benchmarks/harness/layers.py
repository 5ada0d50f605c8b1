"""A program of diffence.unets as a list of layers: operations, bytes, and the arithmetic that they need."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffence.unets import Program
from diffence.unets.program import Op

__all__ = ["KINDS", "Layer", "layers"]

KINDS = ("conv 3x3", "conv 3x3, stride 2", "conv 1x1", "attention", "linear", "group norm", "elementwise, moves")


@dataclass(frozen=True)
class Layer:
    """One operation on one image.

    side: height of its output. flop: 2 for a multiplication with its addition, as the definition has it.
    winograd: the same with stride-1 3x3 convolutions by F(4x4, 3x3), the transforms not counted.
    moved: bytes of activations read and written if nothing is fused. weights: bytes of weights, read once a batch.
    """

    kind: str
    side: int
    flop: float
    winograd: float
    moved: int
    weights: int


def layers(program: Program) -> list[Layer]:
    """The layers of `program`, in order."""
    shapes = {0: program.shape, 1: (1, 1, 1)}
    weights = list(program.weights.values())
    found = []
    for index, row in enumerate(program.ops.tolist()):
        kind, inputs = Op(row[0]), [shapes[value] for value in row[1:4] if value >= 0]
        tensors = [weights[position] for position in row[4:6] if position >= 0]
        channels, height, width = inputs[0]
        out = (channels, height, width)
        name, flop, saved = "elementwise, moves", 0.0, 0.0
        if kind is Op.TIME_EMBEDDING:
            out = (tensors[0].shape[1], 1, 1)
            tensors = []  # one row of the table, not all of it
        elif kind is Op.LINEAR:
            out = (tensors[0].shape[0], 1, 1)
            name, flop = "linear", 2.0 * tensors[0].size
        elif kind is Op.CONV:
            stride, taps = row[6], tensors[0].shape[-1]
            out = (tensors[0].shape[0], math.ceil(height / stride), math.ceil(width / stride))
            flop = 2.0 * tensors[0].size * out[1] * out[2]
            name = f"conv {taps}x{taps}" + (", stride 2" if stride == 2 else "")
            if taps == 3 and stride == 1:
                tiles = math.ceil(height / 4) * math.ceil(width / 4)
                saved = flop - 2.0 * 36 * tiles * channels * out[0]
        elif kind is Op.GROUP_NORM:
            name = "group norm"
        elif kind is Op.ATTENTION:
            name, flop = "attention", 4.0 * channels * (height * width) ** 2
        elif kind is Op.CONCAT:
            out = (channels + inputs[1][0], height, width)
        elif kind is Op.UPSAMPLE:
            out = (channels, 2 * height, 2 * width)
        shapes[index + 2] = out
        moved = 4 * (sum(math.prod(shape) for shape in inputs) + math.prod(out))
        found.append(
            Layer(name, out[1], flop, flop - max(saved, 0.0), moved, sum(4 * tensor.size for tensor in tensors))
        )
    return found
