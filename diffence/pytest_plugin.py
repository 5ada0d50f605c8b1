"""A pytest plugin: tests that fail when a model leaks who was in its training set.

def test_does_not_leak(privacy_audit, model, members, nonmembers):
    audit = privacy_audit(model, members, nonmembers, attacks="standard")
    audit.assert_auc_at_most(0.60)

`privacy_audit` takes what `diffence.audit` takes. Tests that use it are marked `privacy`, and the marker gives
defaults: `@pytest.mark.privacy(attacks="metric", seed=1)`. Nothing of diffence is imported before the fixture is used.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from diffence.auditing import AuditReport

__all__ = ["PrivacyAudit"]

_PROPERTY = "privacy"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("diffence", "membership privacy (diffence)")
    group.addoption(
        "--diffence-report", metavar="DIR", help="write the report and the figures of every privacy audit into DIR"
    )
    group.addoption("--diffence-seed", type=int, metavar="N", help="seed of privacy audits that name none (0)")
    group.addoption(
        "--diffence-update-baseline", action="store_true", help="let assert_no_worse_than write its baseline instead"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "privacy(**options): a test with a privacy audit; the options are defaults of its audits"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "privacy_audit" in getattr(item, "fixturenames", ()) and item.get_closest_marker("privacy") is None:
            item.add_marker("privacy")


class PrivacyAudit:
    """What the fixture gives: call it like `diffence.audit`. It records what is found for the test's report."""

    def __init__(self, item: pytest.Item, folder: pathlib.Path | None, seed: int, update: bool) -> None:
        self._item, self._folder, self._seed, self._update = item, folder, seed, update
        self._count = 0

    def __call__(self, model: Any, members: Any, nonmembers: Any, attacks: Any = None, **options: Any) -> AuditReport:
        """Audit `model` and return its report; options as of `diffence.audit`, which the marker's give defaults for.

        Progress bars are off unless asked for. With --diffence-report DIR, DIR/<test>/ gets audit.html, audit.json,
        results.csv and results.json, whatever the test makes of them.
        """
        from diffence.auditing import audit

        chosen: dict[str, Any] = {"seed": self._seed, "progress": False, "title": self._item.name}
        chosen |= _marked(self._item) | options
        if attacks is not None:
            chosen["attacks"] = attacks
        report = audit(model, members, nonmembers, **chosen)
        self._count += 1
        self._record(report)
        if self._folder is not None:
            again = "" if self._count == 1 else f"-{self._count}"
            report.save(self._folder / (_file_name(self._item.nodeid) + again))
        return dataclasses.replace(report, update_baselines=self._update)

    def _record(self, report: AuditReport) -> None:
        """Properties of the test: pytest writes them into JUnit files, and xdist carries them to the summary."""
        again = "" if self._count == 1 else f"_{self._count}"
        auc = report.worst.auc
        facts = {
            "attack": report.worst.attack,
            "auc": f"{auc.value:.4f}",
            "auc_low": f"{auc.low:.4f}",
            "auc_high": f"{auc.high:.4f}",
            "members": report.sizes[0],
            "nonmembers": report.sizes[1],
            "seed": report.seed,
        }
        self._item.user_properties += [(f"{_PROPERTY}{again}_{name}", value) for name, value in facts.items()]


def _marked(item: pytest.Item) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("privacy"))):  # the closest one last: it decides
        if marker.args:
            raise pytest.UsageError(f"{item.nodeid}: the privacy marker takes keywords only, got {marker.args!r}")
        options |= marker.kwargs
    return options


def _file_name(nodeid: str) -> str:
    return re.sub(r"[^\w.-]+", "_", nodeid).strip("_")[-150:]


@pytest.fixture
def privacy_audit(request: pytest.FixtureRequest) -> PrivacyAudit:
    """`diffence.audit` for tests: seeded, quiet, recorded in the summary and in JUnit files."""
    options = request.config.option
    folder = pathlib.Path(options.diffence_report) if options.diffence_report else None
    seed = 0 if options.diffence_seed is None else options.diffence_seed
    return PrivacyAudit(request.node, folder, seed, options.diffence_update_baseline)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line a privacy audit: the strongest attack, its AUC, and on how many samples."""
    lines = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                lines += _summary(report.nodeid, report.outcome, dict(report.user_properties))
    if lines:
        terminalreporter.section("privacy audits")
        for line in sorted(lines):
            terminalreporter.write_line(line)


def _summary(nodeid: str, outcome: str, facts: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    count = 1
    while True:
        own = _PROPERTY if count == 1 else f"{_PROPERTY}_{count}"
        if f"{own}_auc" not in facts:
            return lines
        lines.append(
            f"{nodeid}: {outcome}; strongest attack {facts[f'{own}_attack']}, AUC {facts[f'{own}_auc']} "
            f"[{facts[f'{own}_auc_low']}, {facts[f'{own}_auc_high']}], {facts[f'{own}_members']} members, "
            f"{facts[f'{own}_nonmembers']} non-members, seed {facts[f'{own}_seed']}"
        )
        count += 1
