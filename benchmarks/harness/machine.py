"""What the operating system says of the machine: processor, memory, and who used the processors in an interval."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

OTHERS = 0.05  # of the machine's processor time: with more used by other processes, a measurement is disturbed


@lru_cache(maxsize=1)
def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo: key -> value."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_flags() -> frozenset[str]:
    """The features of the processor as Linux names them."""
    facts = _cpuinfo()
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 by itself (x86: avx512_bf16 or amx_bf16; Arm: bf16)."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def available_memory() -> int:
    """Bytes that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo does not say how much memory is available")


def describe() -> dict[str, Any]:
    """Processor, vector instructions, caches, memory: what a figure belongs to."""
    facts = _cpuinfo()
    wanted = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "family, model": [facts.get("cpu family", "?"), facts.get("model", "?")],
        "features": [name for name in wanted if name in cpu_flags()],
        "processors at hand": len(os.sched_getaffinity(0)),
        "memory in GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load average": [round(load, 2) for load in os.getloadavg()],
    }


@dataclass(frozen=True)
class Ticks:
    """Processor time of the whole machine since it started, in seconds: all of it, the busy part, the stolen part."""

    total: float
    busy: float
    stolen: float

    @classmethod
    def now(cls) -> Ticks:
        """Read /proc/stat."""
        with open("/proc/stat", encoding="utf-8") as lines:
            values = [int(value) for value in lines.readline().split()[1:9]]
        user, nice, system, idle, waiting, hard, soft, steal = values
        hertz = os.sysconf("SC_CLK_TCK")
        busy = user + nice + system + hard + soft
        return cls((busy + idle + waiting + steal) / hertz, busy / hertz, steal / hertz)

    def __sub__(self, earlier: Ticks) -> Ticks:
        return Ticks(self.total - earlier.total, self.busy - earlier.busy, self.stolen - earlier.stolen)


def await_calm(patience: float) -> bool:
    """Return when the machine is idle, or after `patience` seconds; whether it was."""
    deadline = time.monotonic() + patience
    while True:
        before = Ticks.now()
        time.sleep(0.2)  # also lets the threads of the engine before fall asleep
        spent = Ticks.now() - before
        if spent.busy + spent.stolen <= OTHERS * spent.total:
            return True
        if time.monotonic() >= deadline:
            return False
