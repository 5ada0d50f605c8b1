"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

pytest_plugins = ["pytester"]
EXAMPLE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "example_project"

TESTS = """
import numpy as np
import pytest
from diffence.attacks import Outputs

def outputs(n, seed, sure):
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=n)
    logits = rng.normal(size=(n, 4))
    logits[np.arange(n), labels] += sure
    return Outputs(logits, labels)

LEAKING = outputs(400, 1, 4.0), outputs(400, 2, 2.0)

def test_leaks(privacy_audit):
    privacy_audit(None, *LEAKING, attacks="metric", resamples=100).assert_auc_at_most(0.60)

@pytest.mark.privacy(attacks="metric", resamples=100, seed=5)
def test_does_not(privacy_audit):
    first = privacy_audit(None, LEAKING[0], LEAKING[0])
    second = privacy_audit(None, LEAKING[0], LEAKING[0], seed=6)
    assert (first.seed, second.seed) == (5, 6)
    first.assert_auc_at_most(0.60)

def test_baseline(privacy_audit, tmp_path_factory, request):
    path = request.config.rootpath / "baseline.json"
    privacy_audit(None, *LEAKING, attacks="metric", resamples=100).assert_no_worse_than(path)

def test_other():
    pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(test_it=TESTS)
    return pytester


def test_failures_say_what_leaks_and_the_summary_lists_all_audits(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("-p", "no:cacheprovider", "--diffence-seed", "3")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "E   *AssertionError: the model leaks: the AUC of the strongest attack, '*', 0.* (95 % *; "
            "200 members, 200 non-members) is above the limit of 0.6",
            "*privacy audits*",
            "test_it.py::test_does_not: passed; strongest attack *, AUC 0.* members, 200 non-members, seed 5",
            "test_it.py::test_does_not: passed; strongest attack *seed 6",
            "test_it.py::test_leaks: failed; strongest attack *, AUC 0.8* [[]0.*], 200 members, 200 *, seed 3",
        ]
    )
    # The failure shows the test's own line, not the insides of the report.
    assert "report.py:" not in result.stdout.str().split("privacy audits")[0].replace(
        "auditing/report.py: Assertion", ""
    )


def test_the_marker_selects_and_is_registered(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("-m", "privacy", "--collect-only", "-q", "--strict-markers")
    assert result.stdout.str().count("test_it.py::") == 3
    assert "test_other" not in result.stdout.str()
    assert "privacy(**options)" in project.runpytest_subprocess("--markers").stdout.str()


def test_reports_baselines_and_junit_properties(project: pytest.Pytester) -> None:
    arguments = ("--diffence-report", "out", "--junitxml", "junit.xml", "-k", "leaks or baseline")
    first = project.runpytest_subprocess(*arguments, "--diffence-update-baseline")
    first.assert_outcomes(passed=1, failed=1, deselected=2)
    second = project.runpytest_subprocess(*arguments)
    second.assert_outcomes(passed=1, failed=1, deselected=2)
    assert (project.path / "baseline.json").is_file()
    for name in ("test_it.py_test_leaks", "test_it.py_test_baseline"):
        assert (project.path / "out" / name / "audit.html").is_file()
    case = next(
        case for case in ET.parse(project.path / "junit.xml").iter("testcase") if case.get("name") == "test_leaks"
    )
    properties = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
    assert properties["privacy_members"] == "200"
    assert 0.7 < float(properties["privacy_auc_low"] or 0) < float(properties["privacy_auc"] or 0) < 1
    assert set(properties) >= {"privacy_attack", "privacy_auc_high", "privacy_seed", "privacy_nonmembers"}


def test_wrong_markers_are_usage_errors(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.privacy("metric")
        def test_it(privacy_audit):
            privacy_audit(None, None, None)
        """
    )
    result = pytester.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*the privacy marker takes keywords only, got ('metric',)*"])


def test_runs_without_audits_do_not_wait_for_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "diffence.pytest_plugin" in sys.modules
            assert "torch" not in sys.modules
            assert "diffence.auditing" not in sys.modules
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="needs docs/example_project beside the tests")
def test_the_example_project_passes_and_fails_when_its_model_overfits(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--diffence-report", str(tmp_path)]
    good = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout
    assert "2 passed" in good.stdout
    assert len(list(tmp_path.glob("*/audit.html"))) == 2
    monkeypatch.setenv("OVERFIT", "1")
    bad = subprocess.run([*command, "-k", "does_not_leak"], cwd=EXAMPLE, capture_output=True, text=True, check=False)
    assert bad.returncode == 1, bad.stdout
    assert "AssertionError: the model leaks" in bad.stdout
