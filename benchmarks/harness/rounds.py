"""Runs the engines of a case: a process each, built one after the other, then measured in turn, round after round."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.engines import Engine, environment
from harness.machine import OTHERS, Ticks, await_calm

__all__ = ["Failure", "Row", "Sample", "Worker", "measure_rounds", "prepare"]

_BUILD_SECONDS = 1800  # torch.compile with max-autotune takes minutes
_MEASURE_SECONDS = 1800

STEAL = 0.02  # of the machine's processor time: a measurement with more is disturbed
BUSY = 0.85  # of its threads: an engine that should be busy and used less is marked
CALM = 3  # disturbed measurements count only where there are fewer others than this


class Failure(RuntimeError):
    """A worker did not do what it was asked; the message has the end of its error output."""


class Worker:
    """The process of one engine."""

    def __init__(self, engine: Engine, task: dict[str, Any], log: Path) -> None:
        self.engine = engine
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.worker"],
                env=environment(engine, task["threads"]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the parent alone, and `stop` reaches compilers too
            )
        self._buffer = b""
        self._send(task)
        try:
            self.built = self._receive(_BUILD_SECONDS)
        except BaseException:  # Ctrl-C too: nobody else knows of the process yet
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps(message) + "\n").encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure("ended before it was asked") from None

    def _receive(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._failure(f"gave no answer in {seconds:.0f} s")
                part = os.read(descriptor, 1 << 16)
                if not part:
                    raise self._failure("ended without an answer")
                self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self, what: str) -> Failure:
        self.stop()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return Failure(f"{self.engine.name} {what}: " + " | ".join(lines[-3:]))

    def measure(self, name: str, seconds: float) -> Sample:
        """Let the engine work for about `seconds`, and watch the machine meanwhile."""
        before = Ticks.now()
        self._send({"measure": name, "seconds": seconds})
        result = self._receive(_MEASURE_SECONDS)
        spent = Ticks.now() - before
        return Sample(
            rate=result["units"] / result["wall"],
            wall=result["wall"],
            cpu=result["cpu"],
            steal=spent.stolen / max(spent.total, 1e-9),
            others=max(0.0, spent.busy - result["cpu"]) / max(spent.total, 1e-9),
        )

    def stop(self) -> None:
        """End the process, and the compilers that it may have started."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@dataclass(frozen=True)
class Sample:
    """One measurement. rate: evaluations or images a second. steal, others: shares of the machine's processor time."""

    rate: float
    wall: float
    cpu: float
    steal: float
    others: float

    @property
    def disturbed(self) -> bool:
        """Whether somebody else had so much of the machine that this says little."""
        return self.steal > STEAL or self.others > OTHERS


@dataclass
class Row:
    """What was measured of one engine: `name` is the engine's, and in the fenced case also the measure's.

    busy: how many processors the engine should use, 0 where that cannot be expected of it.
    """

    name: str
    label: str
    engine: Engine
    error: float
    bound: float
    busy: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def counted(self) -> list[Sample]:
        """The calm samples; where there are fewer than CALM, all."""
        calm = [sample for sample in self.samples if not sample.disturbed]
        return calm if len(calm) >= CALM else self.samples

    def median(self) -> float:
        return statistics.median(sample.rate for sample in self.counted())

    def quartiles(self) -> tuple[float, float]:
        return quartiles([sample.rate for sample in self.counted()])

    def marked(self) -> list[str]:
        """What is wrong with the samples that count."""
        found = []
        for sample in self.counted():
            if sample.steal > STEAL:
                found.append(f"steal {sample.steal:.0%}")
            if sample.others > OTHERS:
                found.append(f"other processes {sample.others:.0%}")
            if sample.cpu < BUSY * self.busy * sample.wall:
                found.append(f"used {sample.cpu / sample.wall:.2f} of {self.busy} processors")
        return found

    def faster_than(self, peer: Row) -> list[float]:
        """How many times, in each round in which both were calm; where there are fewer than CALM, in all."""
        pairs = list(zip(self.samples, peer.samples, strict=True))
        calm = [(mine, theirs) for mine, theirs in pairs if not (mine.disturbed or theirs.disturbed)]
        return [mine.rate / theirs.rate for mine, theirs in (calm if len(calm) >= CALM else pairs)]


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third, of any number of values."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def measure_rounds(
    rows: Sequence[tuple[Row, Worker, str]], rounds: int, seconds: float, patience: float
) -> Iterator[tuple[int, Row]]:
    """In every round measure each row once, in turn, forwards and backwards by turns; yields after each measurement.

    patience: seconds to wait at most, before a measurement, for other processes to become idle.
    """
    for number in range(rounds):
        for row, worker, name in rows if number % 2 == 0 else reversed(rows):
            await_calm(patience)
            row.samples.append(worker.measure(name, seconds))
            yield number, row


def prepare(folder: Path, options: dict[str, Any], engine: Engine, threads: int) -> dict[str, Any]:
    """Run harness.prepare in a process of its own; its facts. Raises Failure."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness.prepare", str(folder)],
        env=environment(engine, threads),
        input=json.dumps(options).encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise Failure("preparing the network: " + " | ".join(lines[-3:]))
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts
