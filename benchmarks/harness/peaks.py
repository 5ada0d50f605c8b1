"""The machine's peaks: fused multiply-adds a second and bytes a second, by a small C file compiled on the spot."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.machine import await_calm

__all__ = ["Peaks", "measure_peaks"]

_SOURCE = Path(__file__).with_name("peaks.c")
_BYTES = 1 << 28  # a thread's share of the memory test: far beyond any cache
_PATIENCE = 5.0  # seconds to wait at most for an idle machine before each try
_MULTIPLY_ADD_ROUNDS = 30_000_000


@dataclass(frozen=True)
class Peaks:
    """The best of several tries with `threads` threads, a second. copy counts bytes read and bytes written."""

    threads: int
    lanes: int
    flop: float
    read: float
    copy: float


def _compile() -> ctypes.CDLL:
    """The compiled C file. Raises RuntimeError without a working C compiler."""
    with tempfile.TemporaryDirectory(prefix="peaks-") as folder:
        library = Path(folder) / "peaks.so"
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-std=gnu11", "-fPIC", "-shared"]
        command = [*os.environ.get("CC", "cc").split(), *flags, str(_SOURCE), "-o", str(library)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise RuntimeError(f"no C compiler {command[0]!r}; $CC names another") from error
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        code = ctypes.CDLL(str(library))
    code.multiply_add.argtypes = [ctypes.c_int64, ctypes.c_void_p]
    code.read_all.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    code.copy_all.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    for function in (code.multiply_add, code.read_all, code.copy_all):
        function.restype = ctypes.c_double
    return code


def _best(jobs: Sequence[Callable[[], float]], tries: int) -> float:
    """Work a second when all jobs run at once, each on a thread; each returns the work that it did."""
    best = 0.0
    for _ in range(tries):
        await_calm(_PATIENCE)
        work = [0.0] * len(jobs)
        barrier = threading.Barrier(len(jobs) + 1)

        def run(
            number: int, job: Callable[[], float], work: list[float] = work, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait()
            work[number] = job()

        threads = [threading.Thread(target=run, args=pair) for pair in enumerate(jobs)]
        for thread in threads:
            thread.start()
        barrier.wait()
        start = time.perf_counter()
        for thread in threads:
            thread.join()
        best = max(best, sum(work) / (time.perf_counter() - start))
    return best


def measure_peaks(threads: int, tries: int = 5) -> Peaks:
    """The peaks with `threads` threads. ctypes releases the GIL, so Python's threads really run at once."""
    code = _compile()
    sinks = [np.zeros(64, np.float32) for _ in range(threads)]
    sources = [np.ones(_BYTES // 8) for _ in range(threads)]
    targets = [np.ones(_BYTES // 8) for _ in range(threads)]

    def multiply_add(sink: np.ndarray) -> Callable[[], float]:
        return lambda: float(code.multiply_add(_MULTIPLY_ADD_ROUNDS, sink.ctypes.data))

    def read(source: np.ndarray, sink: np.ndarray) -> Callable[[], float]:
        return lambda: float(code.read_all(source.ctypes.data, _BYTES, sink.ctypes.data))

    def copy(target: np.ndarray, source: np.ndarray) -> Callable[[], float]:
        return lambda: float(code.copy_all(target.ctypes.data, source.ctypes.data, _BYTES))

    return Peaks(
        threads=threads,
        lanes=code.lanes(),
        flop=_best([multiply_add(sink) for sink in sinks], tries),
        read=_best([read(source, sink) for source, sink in zip(sources, sinks, strict=True)], tries),
        copy=_best([copy(target, source) for target, source in zip(targets, sources, strict=True)], tries),
    )
