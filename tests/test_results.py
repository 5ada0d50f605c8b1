"""Tidy results: the columns, the files, and what is refused."""

from __future__ import annotations

import csv
import json
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from diffence.metrics import Estimate
from diffence.results import COLUMNS, Results

WHERE: dict[str, Any] = {"dataset": "digits", "classifier": "small", "seed": 3}


def some_results() -> Results:
    results = Results({"T": 160, "path": pathlib.Path("a/b"), "k": np.int64(4)}, environment={"isa": "scalar"})
    results.add("auc", 0.1 + 0.2, 0.25, 1 / 3, 2000, attack="loss", **WHERE)
    results.add("auc", 0.6, 0.5, 0.7, 2000, attack="loss", defense="diffence", scenario=3, mode="paper", **WHERE)
    results.add("test_accuracy", 0.9, **WHERE)
    results.add_all({"tpr_at_fpr": Estimate(np.float64(0.01), float("nan"), np.inf, 2000)}, attack="nn, é", **WHERE)
    results.times["train"] = 1.5
    return results


def test_the_columns_are_those_of_the_design() -> None:
    assert ",".join(COLUMNS) == "dataset,classifier,defense,scenario,mode,attack,metric,value,low,high,n,seed"
    frame = some_results().frame()
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 4
    assert frame["scenario"].tolist() == ["", "3", "", ""]
    assert frame["value"].dtype == np.float64
    assert frame["n"].dtype == frame["seed"].dtype == pd.Int64Dtype()
    assert tuple(Results(environment={}).frame().columns) == COLUMNS


def test_save_and_load(tmp_path: pathlib.Path) -> None:
    results = some_results()
    results.save(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["results.csv", "results.json"]
    loaded = Results.load(tmp_path / "new")
    pd.testing.assert_frame_equal(loaded.frame(), results.frame(), check_exact=True)
    assert loaded.setup == {"T": 160, "path": "a/b", "k": 4}
    assert (loaded.environment, loaded.times, loaded.started) == ({"isa": "scalar"}, {"train": 1.5}, results.started)
    first = [(tmp_path / "new" / name).read_bytes() for name in ("results.csv", "results.json")]
    loaded.save(tmp_path / "new")  # over the old ones
    assert [(tmp_path / "new" / name).read_bytes() for name in ("results.csv", "results.json")] == first


def test_files_are_plain(tmp_path: pathlib.Path) -> None:
    """Any CSV and JSON reader reads them; what is not finite is an empty field, or null."""
    results = some_results()
    results.setup["odd"] = [float("nan"), np.array([1.0, np.inf]), {"deep": (True, None, "x")}]
    results.save(tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows[0] == {
        **dict.fromkeys(COLUMNS, ""),
        **{"dataset": "digits", "classifier": "small", "attack": "loss", "metric": "auc"},
        **{"value": repr(0.1 + 0.2), "low": "0.25", "high": repr(1 / 3), "n": "2000", "seed": "3"},
    }
    assert (rows[3]["attack"], rows[3]["value"], rows[3]["low"], rows[3]["high"]) == ("nn, é", "0.01", "", "")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    about = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert about["setup"]["odd"] == [None, [1.0, None], {"deep": [True, None, "x"]}]
    assert about["rows"] == 4
    assert about["times"] == {"train": 1.5}


def test_the_environment_is_recorded_unasked() -> None:
    pytest.importorskip("diffence._core")
    environment = Results().environment
    assert {"python", "versions", "processor", "isa"} <= environment.keys()
    assert environment["versions"]["torch"] != ""


def test_duplicates_are_refused() -> None:
    results = some_results()
    with pytest.raises(ValueError, match=r"^duplicate row: .*attack='loss', metric='auc', seed=3"):
        results.add("auc", 0.7, attack="loss", **WHERE)
    assert len(results) == 4
    results.add("auc", 0.7, attack="loss", **(WHERE | {"seed": 4}))
    results.add("auc", 0.7, attack="loss", mode="official", **WHERE)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"value": "0.5"}, TypeError, r"^value: expected a number or None, got str"),
        ({"low": True}, TypeError, r"^low: expected a number"),
        ({"n": 2.5}, TypeError, r"^n: expected an integer or None, got 2\.5"),
        ({"seed": "3"}, TypeError, r"^seed: expected an integer"),
        ({"attack": "two\nlines"}, ValueError, r"^attack: expected one line"),
        ({"mode": " paper"}, ValueError, r"^mode: expected one line of text without blanks"),
        ({"dataset": None}, ValueError, r"^dataset: "),
        ({"metric": ""}, ValueError, r"^metric: expected a name"),
    ],
)
def test_bad_rows_are_refused_by_name(change: dict[str, Any], error: type[Exception], message: str) -> None:
    results = Results(environment={})
    with pytest.raises(error, match=message):
        results.add(**({"metric": "auc", "value": 0.5} | WHERE | change))
    assert len(results) == 0


def test_what_json_cannot_hold_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    results = Results({"model": {"layers": [1, object()]}}, environment={})
    with pytest.raises(TypeError, match=r"^setup\.model\.layers\[1\]: .* got object"):
        results.save(tmp_path)
    assert list(tmp_path.iterdir()) == []  # nothing, rather than half


def test_damaged_and_missing_files_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"results\.csv: no such file"):
        Results.load(tmp_path)
    some_results().save(tmp_path)
    table, about = tmp_path / "results.csv", tmp_path / "results.json"
    whole = table.read_text(encoding="utf-8")
    table.write_text(whole.replace("0.6", "0.5"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.csv: not the rows that results\.json was written for"):
        Results.load(tmp_path)
    table.write_text(whole, encoding="utf-8")
    Results.load(tmp_path)
    about.write_text(about.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.json: not the set-up of saved results"):
        Results.load(tmp_path)


def test_timed_adds_up() -> None:
    results = Results(environment={})
    with results.timed("attack"):
        pass
    first = results.times["attack"]
    with pytest.raises(RuntimeError), results.timed("attack"):
        raise RuntimeError
    assert results.times["attack"] > first > 0
