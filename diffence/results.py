"""Tidy results: one row a figure in results.csv; the set-up, versions and times in results.json."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
import numbers
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from diffence.files import write_text

__all__ = ["COLUMNS", "Results"]

COLUMNS = (
    "dataset", "classifier", "defense", "scenario", "mode", "attack", "metric", "value", "low", "high", "n", "seed"
)  # fmt: skip
_TEXTS, _FIGURES, _COUNTS = COLUMNS[:7], COLUMNS[7:10], COLUMNS[10:]


class Results:
    """Rows with the columns COLUMNS, and how they came about.

    setup: settings, anything that JSON can hold (also paths, NumPy scalars and arrays); may be added to until `save`.
    environment: versions, processor and instruction set; taken from this installation where None. started: date and
    time, UTC. times: name -> seconds, see `timed`.
    """

    def __init__(self, setup: Mapping[str, Any] | None = None, environment: Mapping[str, Any] | None = None) -> None:
        if environment is None:
            from diffence import info  # here, for it loads the core, which reading results does without

            environment = info.environment()
        self.setup: dict[str, Any] = dict(setup or {})
        self.environment: dict[str, Any] = dict(environment)
        self.times: dict[str, float] = {}
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._rows: dict[tuple[str | int | None, ...], dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        metric: str,
        value: float | None,
        low: float | None = None,
        high: float | None = None,
        n: int | None = None,
        *,
        dataset: str,
        classifier: str,
        defense: str = "",
        scenario: str | int = "",
        mode: str = "",
        attack: str = "",
        seed: int | None = None,
    ) -> None:
        """Add a row. A figure that is None, NaN or infinite is an explicit null. n: samples behind the figure.

        Raises ValueError where a row with the same texts and the same seed is there already.
        """
        texts = (dataset, classifier, defense, str(scenario), mode, attack, metric)
        for name, text in zip(_TEXTS, texts, strict=True):
            if not isinstance(text, str) or text != text.strip() or "\n" in text or "\r" in text:
                raise ValueError(f"{name}: expected one line of text without blanks around it, got {text!r}")
        if not metric:
            raise ValueError("metric: expected a name, got ''")
        figures = [_figure(name, own) for name, own in zip(_FIGURES, (value, low, high), strict=True)]
        counts = [_count(name, own) for name, own in zip(_COUNTS, (n, seed), strict=True)]
        key = (*texts, counts[1])
        if key in self._rows:
            described = ", ".join(f"{name}={part!r}" for name, part in zip((*_TEXTS, "seed"), key, strict=True))
            raise ValueError(f"duplicate row: there is a figure for {described}")
        self._rows[key] = dict(zip(COLUMNS, (*texts, *figures, *counts), strict=True))

    def add_all(
        self, estimates: Mapping[str, tuple[float | None, float | None, float | None, int | None]], **where: Any
    ) -> None:
        """`add` for each metric -> (value, low, high, n), as attacks' evaluations hold them."""
        for metric, estimate in estimates.items():
            self.add(metric, *estimate, **where)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes to times[name]."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - start

    def frame(self) -> pd.DataFrame:
        """The rows in the order they came; texts are str, figures float (null = NaN), n and seed nullable integers."""
        frame = pd.DataFrame(list(self._rows.values()), columns=list(COLUMNS))
        kinds = dict.fromkeys(_TEXTS, "object") | dict.fromkeys(_FIGURES, "float64") | dict.fromkeys(_COUNTS, "Int64")
        return frame.astype(kinds)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write results.csv and results.json into `folder`, each whole or not at all, the csv's hash in the json."""
        table = self.frame().to_csv(index=False, lineterminator="\n")
        about = {
            "setup": _plain("setup", self.setup),
            "environment": _plain("environment", self.environment),
            "started": self.started,
            "times": _plain("times", self.times),
            "rows": len(self),
            "sha256": hashlib.sha256(table.encode("utf-8")).hexdigest(),
        }
        text = json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_text(pathlib.Path(folder) / "results.csv", table)
        write_text(pathlib.Path(folder) / "results.json", text)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Results:
        """What `save` wrote. FileNotFoundError, or ValueError where the files are damaged or do not belong together."""
        csv, about = (pathlib.Path(folder) / name for name in ("results.csv", "results.json"))
        for path in (csv, about):
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file; expected results that were saved here")
        try:
            note = json.loads(about.read_text(encoding="utf-8"))
            results = cls(note["setup"], note["environment"])
            results.started, results.times = str(note["started"]), dict(note["times"])
            expected = note["sha256"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{about}: not the set-up of saved results: {error}") from error
        if hashlib.sha256(csv.read_bytes()).hexdigest() != expected:
            raise ValueError(f"{csv}: not the rows that {about.name} was written for (edited, or an interrupted save)")
        frame = pd.read_csv(csv, dtype=str, keep_default_na=False)
        for cells in frame.to_dict("records"):
            row: dict[str, Any] = {name: cells[name] for name in _TEXTS}
            row |= {name: float(cells[name]) if cells[name] else None for name in _FIGURES}
            row |= {name: int(cells[name]) if cells[name] else None for name in _COUNTS}
            results.add(**row)
        return results


def _figure(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real | np.number):
        raise TypeError(f"{name}: expected a number or None, got {type(value).__name__}")
    return float(value) if math.isfinite(value) else None


def _count(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Integral)):
        raise TypeError(f"{name}: expected an integer or None, got {value!r}")
    return None if value is None else int(value)


def _plain(name: str, value: Any) -> Any:
    """`value` as JSON can hold it, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{name}.{key}", own) for key, own in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(name, value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(f"{name}[{place}]", own) for place, own in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{name}: expected something that JSON can hold, got {type(value).__name__}")
