"""The program of a network as data, and its agreement with the core's numbering."""

import numpy as np

from diffence import _core
from diffence.unets.program import Op, ProgramBuilder


def test_operations_are_numbered_as_in_the_core() -> None:
    assert {op.name.lower(): int(op) for op in Op} == _core.OPS


def test_builder_records_one_row_for_each_operation() -> None:
    rng = np.random.default_rng(0)
    shapes = {"table.weight": (10, 4), "project.weight": (4, 4), "project.bias": (4,), "in.weight": (4, 1, 3, 3),
              "norm.weight": (4,), "norm.bias": (4,), "down.weight": (4, 4, 3, 3), "down.bias": (4,),
              "out.weight": (1, 8, 1, 1), "out.bias": (1,), "unused.weight": (3,)}  # fmt: skip
    tensors = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    build = ProgramBuilder((1, 4, 6), tensors)
    t = build.silu(build.linear(build.time_embedding("table"), "project"))  # values 2, 3, 4
    h = build.add(build.conv(build.IMAGE, "in", bias=False), t)  # 5, 6
    h = build.group_norm(h, "norm", 2, 1e-3)  # 7
    d = build.upsample(build.conv(h, "down", stride=2))  # 8, 9
    a = build.attention(d, h, d, heads=2)  # 10
    assert build.conv(build.concat(a, h), "out") == 12
    program = build.finish()

    assert program.shape == (1, 4, 6)
    names = ["table.weight", "project.weight", "project.bias", "in.weight", "norm.weight", "norm.bias"]
    assert list(program.weights) == [*names, "down.weight", "down.bias", "out.weight", "out.bias"]
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in program.weights.values())
    np.testing.assert_array_equal(program.weights["norm.bias"], tensors["norm.bias"].astype(np.float32))
    assert program.ops.dtype == np.int32
    assert program.ops.tolist() == [
        [Op.TIME_EMBEDDING, 1, -1, -1, 0, -1, 0],
        [Op.LINEAR, 2, -1, -1, 1, 2, 0],
        [Op.SILU, 3, -1, -1, -1, -1, 0],
        [Op.CONV, 0, -1, -1, 3, -1, 1],
        [Op.ADD, 5, 4, -1, -1, -1, 0],
        [Op.GROUP_NORM, 6, -1, -1, 4, 5, 2],
        [Op.CONV, 7, -1, -1, 6, 7, 2],
        [Op.UPSAMPLE, 8, -1, -1, -1, -1, 0],
        [Op.ATTENTION, 9, 7, 9, -1, -1, 2],
        [Op.CONCAT, 10, 7, -1, -1, -1, 0],
        [Op.CONV, 11, -1, -1, 8, 9, 1],
    ]
    np.testing.assert_array_equal(program.epsilons, np.array([0] * 5 + [1e-3] + [0] * 5, np.float32))


def test_the_core_accepts_what_the_builder_makes() -> None:
    tensors = {"out.weight": np.ones((2, 2, 1, 1)), "out.bias": np.zeros(2)}
    build = ProgramBuilder((2, 3, 5), tensors)
    build.conv(build.add(build.IMAGE, build.silu(build.IMAGE)), "out")
    program = build.finish()
    model = _core.Model(program.shape, program.ops, program.epsilons, list(program.weights.items()))
    assert (model.shape, model.parameters, model.time_steps) == ((2, 3, 5), 6, 0)
