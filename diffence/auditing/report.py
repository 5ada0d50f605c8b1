"""What an audit found: figures with their intervals, the strongest attack, comparisons, and claims that can fail."""

from __future__ import annotations

import datetime
import html
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffence import metrics
from diffence import report as pages
from diffence.attacks import Evaluation
from diffence.attacks.base import Family
from diffence.files import write_text
from diffence.metrics import Estimate
from diffence.report import AuditPage, AuditRow, RocCurve, ScoreSample, audit_table
from diffence.results import Results

__all__ = ["FPRS", "AuditReport", "Finding", "Worst"]

FPRS = (0.01, 0.001, 0.0)
_FORMAT = 1  # of the JSON files


class Worst(NamedTuple):
    """The strongest attack, and its AUC corrected for having been picked as the largest of several."""

    attack: str
    auc: Estimate


@dataclass(frozen=True, eq=False, repr=False)
class Finding:
    """What one attack found. hypothetical: it does not count, for it asked something else than the audited model, or
    was tuned on the samples that it is judged on.

    tpr: at FPR below 1 % and 0.1 % (strictly), and at 0. tnr: at FNR below 0.1 %. Their intervals allow for the
    threshold too (`metrics.tpr_interval`) and cover at least 95 %; that at 0 is Clopper and Pearson's, of the share
    above every non-member of this sample. All others are the bootstrap's.
    """

    family: Family
    evaluation: Evaluation
    auc: Estimate
    balanced_accuracy: Estimate
    hypothetical: bool = False

    def __repr__(self) -> str:
        return f"<Finding: {self.attack}, AUC {self.auc.value:.3f} [{self.auc.low:.3f}, {self.auc.high:.3f}]>"

    @property
    def attack(self) -> str:
        return self.evaluation.attack

    @cached_property
    def tpr(self) -> dict[float, Estimate]:
        return {fpr: self._tpr(fpr) for fpr in FPRS}

    @cached_property
    def tnr(self) -> Estimate:
        scores = self.evaluation.scores
        return Estimate(metrics.tnr_at_fnr(*scores), *metrics.tnr_interval(*scores), len(scores[1]))

    def _tpr(self, fpr: float) -> Estimate:
        point = metrics.rate_at(*self.evaluation.scores, fpr).rate
        return Estimate(point.value, *self.tpr_ends(fpr, 0.95), point.n)

    def tpr_ends(self, fpr: float, confidence: float) -> tuple[float, float]:
        """The interval of the TPR at `fpr`."""
        if fpr > 0:
            return metrics.tpr_interval(*self.evaluation.scores, fpr, confidence=confidence)
        point = metrics.rate_at(*self.evaluation.scores, 0.0).rate
        return metrics.clopper_pearson(point.seen, point.n, confidence)


@dataclass(frozen=True, eq=False, repr=False)
class AuditReport:
    """The result of `diffence.audit`. Print it, or look at it in a notebook; `to_html` has the figures.

    findings: one an attack, strongest first. replicates: (attacks that count, resamples), their AUC in each resample.
    accuracy, ece: of members and non-members, all that were given. gap_floor: AUC of the labels alone, None without
    labels. sizes: (members, non-members) evaluated. samples: says which samples were evaluated, and how; audits with
    equal `samples` are compared in pairs. warnings: what a reader must know. notes: what repeated queries gain. setup:
    how it was done.
    """

    title: str
    findings: Sequence[Finding]
    worst: Worst
    replicates: NDArray[np.float64]
    accuracy: tuple[Estimate, Estimate] | None
    ece: tuple[float, float] | None
    gap_floor: Estimate | None
    sizes: tuple[int, int]
    samples: str
    warnings: Sequence[str]
    notes: Sequence[str]
    setup: Mapping[str, Any]
    seed: int
    before: AuditReport | None = None
    update_baselines: bool = False  # `assert_no_worse_than` writes its file instead of comparing
    results: Results = field(default_factory=Results)

    def __getitem__(self, attack: str) -> Finding:
        """The finding of the attack with this name; KeyError naming those that there are."""
        for finding in self.findings:
            if finding.attack == attack:
                return finding
        raise KeyError(f"{attack!r}: the attacks are {', '.join(finding.attack for finding in self.findings)}")

    # ------------------------------------------------------------------ tables and pages

    def frame(self) -> pd.DataFrame:
        """One row an attack, strongest first: each figure and the ends of its 95 % interval ("... low", "... high")."""
        rows = []
        for finding in self.findings:
            row: dict[str, Any] = {"attack": finding.attack, "family": finding.family}
            for name, figure in _figures(finding).items():
                row |= {name: figure.value, f"{name} low": figure.low, f"{name} high": figure.high}
            rows.append(row | {"counts": not finding.hypothetical})
        return pd.DataFrame(rows).set_index("attack")

    def text(self) -> str:
        """What a terminal prints: the headline, the table, the warnings."""
        page = self.page()
        said = "".join([*(f"\n{note}" for note in self.notes), *(f"\n! {warning}" for warning in self.warnings)])
        return f"{pages.audit_headline(page)}\n\n{audit_table(page.rows)}{said}"

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        auc = self.worst.auc
        return f"<AuditReport: strongest {self.worst.attack!r}, AUC {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]>"

    def _repr_html_(self) -> str:
        return f'<pre style="font-family: monospace">{html.escape(self.text())}</pre>'

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the page: one file that needs no network, whole or not at all."""
        write_text(path, pages.render_audit(self.page()))

    def page(self) -> AuditPage:
        """The content of the page, as `diffence.report` takes it."""
        shown = self._counted
        best = {finding.family: finding for finding in reversed(shown)}  # of each family the strongest
        picked = [finding for finding in shown if finding in best.values() or finding.attack in ("loss", "correctness")]
        return AuditPage(
            title=self.title,
            worst=self.worst.attack,
            auc=_shown(self.worst.auc),
            rows=[_row(finding, self.before) for finding in self.findings],
            tried=len(shown),
            sizes=self.sizes,
            accuracy=None if self.accuracy is None else (_shown(self.accuracy[0]), _shown(self.accuracy[1])),
            ece=self.ece,
            gap_floor=pages.NOT_KNOWN if self.gap_floor is None else _shown(self.gap_floor),
            change=None if self.before is None else _shown(self.change(self.before)),
            nonmembers_needed=metrics.nonmembers_needed(0.001),
            roc=[_curve(finding) for finding in picked],
            scores=[ScoreSample(finding.attack, *finding.evaluation.scores) for finding in picked],
            warnings=self.warnings,
            notes=self.notes,
            setup=self.setup,
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write audit.html, audit.json (a baseline for `assert_no_worse_than`), results.csv and results.json."""
        folder = pathlib.Path(folder)
        self.to_html(folder / "audit.html")
        self.to_json(folder / "audit.json")
        self.results.save(folder)

    # ------------------------------------------------------------------ comparisons

    def compare(self, before: AuditReport) -> pd.DataFrame:
        """This audit minus `before`, attack by attack, in pairs: value, low and high of the AUC's change.

        Both must be of the same samples with the same seed (a fence and its bare classifier, a model and its
        successor). The row "strongest" compares the strongest attack of each. Negative: less leaks than before.
        """
        self._check_pairs(before)
        rows = {"strongest": self.change(before)}
        for finding in self.findings:
            for other in before.findings:
                if other.attack == finding.attack and not (finding.hypothetical or other.hypothetical):
                    pair = (finding.evaluation.scores, other.evaluation.scores)
                    resamples = self.replicates.shape[1]
                    found = metrics.paired_bootstrap(*pair, ("auc",), seed=self.seed, resamples=resamples)
                    rows[finding.attack] = found["auc"]
        table = {name: (figure.value, figure.low, figure.high) for name, figure in rows.items()}
        return pd.DataFrame.from_dict(table, orient="index", columns=["auc change", "low", "high"])

    def change(self, before: AuditReport) -> Estimate:
        """Worst AUC here minus worst AUC in `before`, in pairs (`metrics.maximum_change`)."""
        self._check_pairs(before)
        return self._change(before.worst.auc, before._aucs, before.replicates)

    @property
    def _counted(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.hypothetical]

    @property
    def _aucs(self) -> list[float]:
        return [finding.auc.value for finding in self._counted]

    def _change(self, then: Estimate, aucs: list[float], replicates: NDArray[np.float64]) -> Estimate:
        low, high = metrics.maximum_change(self._aucs, self.replicates, aucs, replicates)
        return Estimate(self.worst.auc.value - then.value, low, high, sum(self.sizes))

    def _check_pairs(self, before: AuditReport) -> None:
        if before.samples != self.samples:
            raise ValueError(
                "before: expected an audit of the same members and non-members with the same seed, known share and "
                "number of resamples; its samples are others"
            )

    # ------------------------------------------------------------------ claims

    def assert_auc_at_most(self, limit: float, *, proven: bool = False) -> None:
        """AssertionError where the strongest attack's AUC is above `limit`, as far as the samples can tell.

        proven=False fails only when the data say so: the interval's lower end is above the limit. proven=True passes
        only when the data say so: the upper end is below it. Few samples make wide intervals: the former then passes
        and the latter fails.
        """
        __tracebackhide__ = True  # pytest shows the test's own line, and the message
        if not 0.5 <= limit <= 1:
            raise ValueError(f"limit: expected an AUC from 0.5 to 1, got {limit}")
        auc = self.worst.auc
        wrong = auc.high >= limit if proven else auc.low > limit
        if wrong and proven:
            raise AssertionError(
                f"no proof: {self._said()} is not proven to be below {limit:g}, as its upper end is not"
            )
        if wrong:
            raise AssertionError(f"the model leaks: {self._said()} is above the limit of {limit:g}")

    def assert_tpr_at_most(self, limit: float, *, fpr: float = 0.001, proven: bool = False) -> None:
        """The same for the true-positive rate at a false-positive rate of 1 %, 0.1 % or 0, of every attack.

        The intervals are widened for the number of attacks (Bonferroni). ValueError where there are so few non-members
        that the claim could not fail whatever an attack finds: at 0.1 % some thousands are needed. fpr=0 is about the
        non-members at hand, none of which may be accused, and needs no number of them.
        """
        __tracebackhide__ = True
        if fpr not in FPRS:
            raise ValueError(f"fpr: expected one of {FPRS}, got {fpr}")
        if not 0 <= limit <= 1:
            raise ValueError(f"limit: expected a rate from 0 to 1, got {limit}")
        counted = self._counted
        confidence = 1 - 0.05 / len(counted)
        needed = metrics.nonmembers_needed(fpr, 1 - (1 - confidence) / 4) if fpr > 0 and not proven else 0
        if self.sizes[1] < needed:
            raise ValueError(
                f"fpr: with {self.sizes[1]} evaluated non-members no attack could break a claim at {fpr:.1%}; it needs "
                f"{needed:,}, or another fpr, or proven=True"
            )
        for finding in counted:
            low, high = finding.tpr_ends(fpr, confidence)
            if high >= limit if proven else low > limit:
                start, kind = ("no proof", "is not proven to be below") if proven else ("the model leaks", "is above")
                raise AssertionError(
                    f"{start}: the attack {finding.attack!r} finds {finding.tpr[fpr].value:.2%} of the members at "
                    f"{fpr:.1%} FPR (95 % interval over {len(counted)} attacks {low:.2%} to {high:.2%}; "
                    f"{self._samples()}), which {kind} {limit:.2%}"
                )

    def assert_no_worse_than(self, baseline: str | os.PathLike[str] | AuditReport, *, tolerance: float = 0.0) -> None:
        """AssertionError where the strongest attack's AUC has risen by more than `tolerance` since `baseline`.

        baseline: an audit, or the file that `to_json` wrote for one. Fails only when the data say so: the lower end of
        the difference is above the tolerance. Of the same samples it is taken in pairs, else as of independent samples.
        """
        __tracebackhide__ = True
        if self.update_baselines and not isinstance(baseline, AuditReport):
            self.to_json(baseline)
            return
        if isinstance(baseline, AuditReport):
            auc, samples, attack = baseline.worst.auc, baseline.samples, baseline.worst.attack
            aucs, replicates = baseline._aucs, baseline.replicates
        else:
            auc, samples, attack, largest, maxima = _read(baseline)
            aucs, replicates = [largest], maxima[None]
        paired = samples == self.samples
        if not paired:  # other samples are independent ones, so their resamples may meet in any order
            order = np.random.default_rng(self.seed).permutation(self.replicates.shape[1])
            replicates = replicates[:, order % replicates.shape[1]]
        change = self._change(auc, aucs, replicates)
        if change.low > tolerance:
            how = "in pairs" if paired else "of other samples"
            raise AssertionError(
                f"the model leaks more than the baseline: {self._said()}, in the baseline {attack!r} reached "
                f"{auc.value:.3f}; the difference, taken {how}, is {change.value:+.3f} (95 % interval "
                f"{change.low:+.3f} to {change.high:+.3f}), above {tolerance:g}"
            )

    def _said(self) -> str:
        auc = self.worst.auc
        return (
            f"the AUC of the strongest attack, {self.worst.attack!r}, {auc.value:.3f} (95 % interval {auc.low:.3f} to "
            f"{auc.high:.3f}; {self._samples()})"
        )

    def _samples(self) -> str:
        return f"{self.sizes[0]} members, {self.sizes[1]} non-members"

    # ------------------------------------------------------------------ files

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the figures, and what comparing with them takes; whole or not at all."""
        content = {
            "diffence audit": _FORMAT,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "title": self.title,
            "worst": {"attack": self.worst.attack, **_plain(self.worst.auc)},
            "gap_floor": None if self.gap_floor is None else _plain(self.gap_floor),
            "sizes": list(self.sizes),
            "samples": self.samples,
            "seed": self.seed,
            "warnings": list(self.warnings),
            "attacks": {
                finding.attack: {
                    "family": finding.family,
                    "counts": not finding.hypothetical,
                    **{name: _plain(figure) for name, figure in _figures(finding).items()},
                }
                for finding in self.findings
            },
            "largest": max(self._aucs),
            "maxima": [round(float(value), 6) for value in self.replicates.max(axis=0)],
        }
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(figure: Estimate) -> dict[str, float | int | None]:
    return {
        name: (None if isinstance(value, float) and not math.isfinite(value) else value)
        for name, value in figure._asdict().items()
    }


def _shown(figure: Estimate) -> pages.Estimate:
    return pages.Estimate(figure.value, figure.low, figure.high)


def _figures(finding: Finding) -> dict[str, Estimate]:
    return {
        "auc": finding.auc,
        "balanced accuracy": finding.balanced_accuracy,
        **{_rate_name(fpr): figure for fpr, figure in finding.tpr.items()},
        "tnr at 0.1% fnr": finding.tnr,
    }


def _rate_name(fpr: float) -> str:
    return f"tpr at {100 * fpr:g}% fpr"


def _row(finding: Finding, before: AuditReport | None) -> AuditRow:
    figures = {name: _shown(figure) for name, figure in _figures(finding).items()}
    same = None
    if before is not None and not finding.hypothetical:
        same = next((other for other in before.findings if other.attack == finding.attack), None)
    return AuditRow(
        attack=finding.attack,
        family=finding.family,
        counts=not finding.hypothetical,
        auc=figures["auc"],
        balanced_accuracy=figures["balanced accuracy"],
        tpr_at_one_percent=figures[_rate_name(0.01)],
        tpr_at_low_fpr=figures[_rate_name(0.001)],
        tpr_at_zero_fpr=figures[_rate_name(0.0)],
        tnr_at_low_fnr=figures["tnr at 0.1% fnr"],
        auc_before=pages.NOT_KNOWN if same is None else _shown(same.auc),
    )


def _curve(finding: Finding) -> RocCurve:
    curve = metrics.roc(*finding.evaluation.scores)
    members, nonmembers = (len(scores) for scores in finding.evaluation.scores)
    auc = _shown(finding.auc)
    return RocCurve(finding.attack, "", curve.fpr, curve.tpr, members, nonmembers, auc)


def _read(path: str | os.PathLike[str]) -> tuple[Estimate, str, str, float, NDArray[np.float64]]:
    """Worst AUC, samples, worst attack, largest AUC and the largest in each resample, from a file of `to_json`."""
    __tracebackhide__ = True
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        if content["diffence audit"] != _FORMAT:
            raise ValueError(f"format {content['diffence audit']}, expected {_FORMAT}")
        worst = dict(content["worst"])
        attack = worst.pop("attack")
        maxima = np.asarray(content["maxima"], float)
        return Estimate(**worst), content["samples"], attack, float(content["largest"]), maxima
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"baseline: no file {os.fspath(path)}; write one with report.to_json(...), or run pytest with "
            "--diffence-update-baseline"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"baseline: {os.fspath(path)} is not an audit saved by to_json: {error!r}") from error
