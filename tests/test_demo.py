"""`diffence demo` at a size that takes seconds: what it writes, that it repeats itself and leaves nothing half."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from diffence import data
from diffence.cli import main
from diffence.experiments.demo import run_demo
from diffence.experiments.settings import SETTINGS
from diffence.report import setting_name
from diffence.results import COLUMNS, Results

SMALL = {"repeats": 2, "members": 20, "epochs": 20, "diffusion_steps": 20, "n": 3}
FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("demo")
    run_demo(out, progress=False, **SMALL)
    return out


def test_it_writes_the_report_and_tidy_results(folder: pathlib.Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "results.csv", "results.json"]
    frame = pd.read_csv(folder / "results.csv", dtype={"scenario": str}).fillna({"scenario": "", "attack": ""})
    assert tuple(frame.columns) == COLUMNS
    settings = {
        setting_name(defense, scenario) for defense, scenario in zip(frame.defense, frame.scenario, strict=True)
    }
    assert settings == {setting_name(setting.defense, setting.scenario) for setting in SETTINGS}
    for metric in ("test_accuracy", "fallback_rate", "draws_used", "ms_per_image", "labels_changed"):
        assert (frame.metric == metric).sum() == len(SETTINGS)
    bounded = frame[frame.metric.isin(["auc", "balanced_accuracy", "test_accuracy"])]
    assert ((bounded.low <= bounded.value) & (bounded.value <= bounded.high)).all()
    attacks = {"correctness", "loss", "confidence", "entropy", "modified entropy"}
    assert attacks < {name.lower() for name in frame.attack}
    results = Results.load(folder)
    assert results.setup["seed"] == 0
    assert results.times["total"] > 0


def test_labels_are_kept_where_one_draw_answers(folder: pathlib.Path) -> None:
    frame = Results.load(folder).frame()
    selecting = frame[frame.scenario.isin(["1", "2", "3"])]
    assert len(selecting) > 0
    assert (selecting.value[selecting.metric == "labels_changed"] == 0).all()
    gaps = selecting[(selecting.attack == "correctness") & (selecting.metric == "auc_change")]
    assert len(gaps) == 3
    assert (gaps.value == 0).all()


def test_the_same_seed_gives_the_same_figures(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    again, _ = run_demo(tmp_path / "again", progress=False, **SMALL)
    other, _ = run_demo(tmp_path / "other", progress=False, **SMALL, seed=1)

    def figures(results: Results) -> pd.DataFrame:
        frame = results.frame()
        return frame[frame.metric != "ms_per_image"].reset_index(drop=True)

    pd.testing.assert_frame_equal(figures(Results.load(folder)), figures(again))
    assert not figures(other).drop(columns="seed").equals(figures(again).drop(columns="seed"))


def test_ones_own_images(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(120) % 3)
    assert main(["demo", "--data", str(tmp_path / "mine.npz"), "--out", str(tmp_path / "out"), *FLAGS]) == 0
    printed = capsys.readouterr().out
    assert "averaging of" in printed
    assert str(tmp_path / "out" / "report.html") in printed
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_too_few_images_is_told_with_the_arithmetic(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "out"), "--members=900"]) == 2
    assert "members 900" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["demo", "--data", str(tmp_path / "nothing.npz"), "--out", str(tmp_path / "out")]) == 2
    assert "nothing.npz" in capsys.readouterr().err


def test_ctrl_c_leaves_no_half_files(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "diffence.cli", "demo", "--out", str(out), "--diffusion-steps=100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environment(tmp_path))
    assert process.stderr is not None
    while "step" not in process.stderr.readline(200):
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert not out.exists()
    assert not list((tmp_path / "scratch").iterdir())


def _environment(tmp_path: pathlib.Path) -> dict[str, str]:
    import os

    (tmp_path / "scratch").mkdir()
    return {**os.environ, "TMPDIR": str(tmp_path / "scratch")}


def test_digits_are_what_the_demo_says() -> None:
    digits = data.load("digits")
    assert (len(digits), digits.shape, digits.classes) == (1797, (1, 8, 8), 10)
