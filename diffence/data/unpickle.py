"""Reading a pickled dictionary of strings, numbers, lists and uint8 arrays without running anything that is in it.

A pickle names functions, which unpickling calls. Here every name resolves to one of the stand-ins below or to an
error: no function of NumPy, nor any other, ever gets arguments from the file.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["unpickle"]


class _Dtype:
    """Stands in for numpy.dtype: remembers the type's code, takes no other part of its state."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands in for numpy.ndarray and for the function that makes an empty one; holds the uint8 array of the state."""

    def __init__(self, *_: Any) -> None:
        self.array: NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", b"u1"):
            raise pickle.UnpicklingError("holds an array that is not uint8")
        if not isinstance(raw, bytes) or len(raw) != math.prod(shape):
            raise pickle.UnpicklingError(f"holds an array of shape {shape} with another number of bytes")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _encode(text: Any, encoding: Any) -> bytes:
    """Stands in for _codecs.encode, which Python 3 uses for bytes in old protocols, always in Latin-1."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("holds text in an encoding other than Latin-1")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"refused: it asks for {module}.{name}, which image data have no need of")
        stand_in = _STAND_INS[module, name]
        # A new function each time: a pickle may set attributes of what it is given here.
        return lambda *given: stand_in(*given)


def unpickle(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary pickled in `content`, with str keys and uint8 NumPy arrays as values where it has such.

    Strings of Python 2 become bytes. Raises ValueError, which names `where`, for anything that is not such a
    dictionary: damaged, truncated, or asking for any code to be run.
    """
    try:
        value = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # A damaged pickle may raise nearly anything.
        raise ValueError(f"{where}: not a readable pickle of images: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a pickled dictionary, found {type(value).__name__}")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): item.array if isinstance(item, _Array) else item
        for key, item in value.items()
    }
