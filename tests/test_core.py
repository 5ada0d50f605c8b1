"""The core's C tests (tests/core), built with the C compiler at hand and run."""

import pathlib
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent / "core"


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("make")), reason="needs a C compiler and make")
def test_c_tests_pass() -> None:
    built = subprocess.run(["make", "-j2", "all"], cwd=HERE, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    ran = subprocess.run(["make", "-j2", "check"], cwd=HERE, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    reports = [line for line in ran.stdout.splitlines() if " passed, " in line]
    assert len(reports) == len(list(HERE.glob("test_*.c"))), ran.stdout
