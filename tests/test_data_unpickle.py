"""The unpickler that runs nothing: what it reads, and what it refuses without a trace."""

from __future__ import annotations

import os
import pathlib
import pickle
from typing import Any

import numpy as np
import pytest

import diffence.data.unpickle as unpickle_module
from diffence.data.unpickle import unpickle


def read(content: bytes) -> dict[str, Any]:
    return unpickle(content, "file.pkl")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_reads_what_python_3_writes(protocol: int) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    value = {"data": array, "turned": np.asfortranarray(array), b"labels": [1, 2], "text": "x", "raw": b"\xff\x00"}
    got = read(pickle.dumps(value, protocol))
    np.testing.assert_array_equal(got["data"], array)
    np.testing.assert_array_equal(got["turned"], array)
    assert got["labels"] == [1, 2]
    assert got["text"] in ("x", b"x")
    assert got["raw"] == b"\xff\x00"


class Evil:
    """Pickled as a call: unpickled anywhere else, it makes a file."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_runs_nothing(protocol: int, tmp_path: pathlib.Path) -> None:
    trace = tmp_path / "trace"
    calls = [
        (os.system, f"touch {trace}"),
        (eval, f"open({str(trace)!r}, 'w')"),
        (pathlib.Path.touch, trace),
        (open, str(trace), "w"),
        (np.save, str(trace), 1),
        (getattr, Evil(os.system, f"touch {trace}"), "x"),
    ]
    for function, *arguments in calls:
        content = pickle.dumps({"data": Evil(function, *arguments)}, protocol)
        with pytest.raises(ValueError, match=r"file\.pkl: .*refused: it asks for "):
            read(content)
    assert not trace.exists()
    pickle.loads(pickle.dumps({"data": Evil(os.system, f"touch {trace}")}, protocol))
    assert trace.exists()  # The same file does its harm where nobody refuses it.


def test_cannot_change_what_later_files_meet() -> None:
    # {"a": the encoder}, whose attributes the opcode b then sets to (None, {"__defaults__": (1,)})[1].
    read(b"\x80\x02}U\x01ac_codecs\nencode\nN}U\x0c__defaults__K\x01\x85s\x86bs.".replace(b"U\x0c", b"X\x0c\0\0\0"))
    assert unpickle_module._encode.__defaults__ is None


@pytest.mark.parametrize(
    "value",
    [
        {"data": np.arange(3)},
        {"data": np.arange(3, dtype=np.int8)},  # as many bytes as uint8
        {"data": np.array([{}], object)},
        {"data": np.zeros(2, "u1,u1")},
        {"data": np.uint8(3)},
        {"data": pathlib.Path("x")},
        [1, 2],
        "text",
    ],
)
def test_refuses_all_else(value: Any) -> None:
    with pytest.raises(ValueError, match=r"file\.pkl: "):
        read(pickle.dumps(value, 2))


def test_refuses_damage() -> None:
    whole = pickle.dumps({"data": np.arange(100, dtype=np.uint8)}, 2)
    for length in range(0, len(whole), 7):
        with pytest.raises(ValueError, match=r"file\.pkl: not a readable pickle"):
            read(whole[:length])
    # A shape that does not go with the bytes.
    with pytest.raises(ValueError, match="another number of bytes"):
        read(whole.replace(b"Kd\x85", b"Ke\x85"))
