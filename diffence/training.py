"""What our trainings share: stopping between two steps, threads, and when bfloat16 pays."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch

__all__ = ["Interrupts", "bf16_helps", "one_torch_thread"]


class Interrupts(contextlib.AbstractContextManager["Interrupts"]):
    """Notes the first Ctrl-C in `asked`, so that a step is finished before anything stops; the second acts at once."""

    asked = False

    def __enter__(self) -> Interrupts:
        try:
            self._previous: Any = signal.signal(signal.SIGINT, self._note)
        except ValueError:  # not in the main thread, which alone gets signals
            self._previous = None
        return self

    def __exit__(self, *exception: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._previous)


class _OneThread:
    """How many are inside `one_torch_thread`, and the threads that torch had before the first came."""

    lock = threading.Lock()
    inside = 0
    before = 0


@contextlib.contextmanager
def one_torch_thread() -> Iterator[int]:
    """One torch thread to each of ours: the networks of attacks are too small for two. -> how many there were.

    Several may be inside at once; the last one out gives torch its threads back.
    """
    with _OneThread.lock:
        if _OneThread.inside == 0:
            _OneThread.before = torch.get_num_threads()
            torch.set_num_threads(1)
        _OneThread.inside += 1
    try:
        yield _OneThread.before
    finally:
        with _OneThread.lock:
            _OneThread.inside -= 1
            if _OneThread.inside == 0:
                torch.set_num_threads(_OneThread.before)


def bf16_helps(device: torch.device) -> bool:
    """Whether training under bfloat16 autocast is faster there: CUDA, and processors with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
