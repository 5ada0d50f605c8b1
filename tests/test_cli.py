"""The command line: its commands, its exit codes, and errors in one line instead of a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from diffence import _core
from diffence.cli import COMMANDS, main


def test_help_names_every_command() -> None:
    code = "import sys, diffence.cli; diffence.cli.main(['--help'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "usage: diffence" in capsys.readouterr().out


def test_info_says_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert f"in use: {_core.default_isa()}" in shown
    assert "torch " in shown
    assert "\nGPU for the engine: " in shown


def test_a_wrong_command_or_option_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["fence"], ["demo", "--T=many"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert main(["train-classifier", "--data", f"{tmp_path}/none.npz", "--out", f"{tmp_path}/c.safetensors"]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert "none.npz" in errors[0]
