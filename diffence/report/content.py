"""What a report is made of: estimates, one row a defense setting, one row an attack, and the arrays behind the figures.

The report knows numbers, not where they come from: nothing here imports the fence, the attacks or the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "NOT_KNOWN",
    "STRONGEST",
    "UNDEFENDED",
    "AttackRow",
    "AuditPage",
    "AuditRow",
    "Estimate",
    "ImageGrid",
    "IntervalSearch",
    "PhiSample",
    "Report",
    "RocCurve",
    "ScoreSample",
    "SettingRow",
    "attack_rows",
    "setting_name",
    "setting_rows",
]

UNDEFENDED = "undefended"
STRONGEST = "strongest"  # the name under which results hold the strongest attack against the strongest undefended one


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval. None or NaN mean "not known" and are shown as a dash."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def known(self) -> bool:
        return self.value is not None and math.isfinite(self.value)

    @property
    def bounded(self) -> bool:
        return self.known and all(end is not None and math.isfinite(end) for end in (self.low, self.high))


NOT_KNOWN = Estimate()


@dataclass(frozen=True)
class SettingRow:
    """One defense setting: what it costs, and what the strongest attack against it achieves.

    test_accuracy, labels_changed, fallback_rate: shares in [0, 1]. gap_floor: AUC of an attack that sees labels only,
    (1 + train accuracy - test accuracy) / 2. attack_accuracy: balanced, its threshold fitted on other samples than
    those it is evaluated on. auc_change: AUC of the strongest attack here minus that of the strongest attack on the
    undefended classifier, on the same images.
    """

    setting: str
    test_accuracy: Estimate = NOT_KNOWN
    labels_changed: float | None = None
    gap_floor: Estimate = NOT_KNOWN
    attack: str = ""
    auc: Estimate = NOT_KNOWN
    attack_accuracy: Estimate = NOT_KNOWN
    auc_change: Estimate = NOT_KNOWN
    fallback_rate: float | None = None
    draws_used: float | None = None
    ms_per_image: float | None = None


@dataclass(frozen=True)
class AttackRow:
    """One attack against one setting. auc_change: against the same attack on the undefended classifier, in pairs."""

    setting: str
    attack: str
    auc: Estimate = NOT_KNOWN
    attack_accuracy: Estimate = NOT_KNOWN
    oracle_accuracy: Estimate = NOT_KNOWN
    tpr_at_low_fpr: Estimate = NOT_KNOWN
    tnr_at_low_fnr: Estimate = NOT_KNOWN
    auc_change: Estimate = NOT_KNOWN


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Every point of one empirical ROC curve: fpr and tpr (points,) ascending in [0, 1], from (0, 0) to (1, 1).

    Give an attack for all settings, so that one panel can compare them.
    """

    setting: str
    attack: str
    fpr: ArrayLike
    tpr: ArrayLike
    members: int
    nonmembers: int
    auc: Estimate = NOT_KNOWN

    def __post_init__(self) -> None:
        fpr, tpr = _vector("fpr", self.fpr), _vector("tpr", self.tpr)
        if len(fpr) != len(tpr) or len(fpr) < 2:
            raise ValueError(f"fpr and tpr: expected two or more points each, equally many; got {len(fpr)}, {len(tpr)}")
        for name, rates in (("fpr", fpr), ("tpr", tpr)):
            if not (np.all(np.diff(rates) >= 0) and rates[0] >= 0 and rates[-1] <= 1):
                raise ValueError(f"{name}: expected rates in [0, 1], ascending")
        if self.members < 1 or self.nonmembers < 1:
            raise ValueError(f"members, nonmembers: expected at least 1 each, got {self.members}, {self.nonmembers}")
        _replace(self, fpr=fpr, tpr=tpr)


@dataclass(frozen=True, eq=False)
class PhiSample:
    """phi of the answers of one setting: members (M,), nonmembers (N,); interval is that of scenario 1 or 2."""

    setting: str
    members: ArrayLike
    nonmembers: ArrayLike
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _replace(self, members=_vector("members", self.members), nonmembers=_vector("nonmembers", self.nonmembers))


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """Originals (R, C, H, W) and their reconstructions (R, D, C, H, W): uint8, or float in [0, 1]; C is 1 or 3.

    captions: R texts, for the originals. draw_captions: R x D texts. chosen: the draw that answered, -1 for none.
    """

    originals: ArrayLike
    reconstructions: ArrayLike
    captions: Sequence[str] = ()
    draw_captions: Sequence[Sequence[str]] = ()
    chosen: Sequence[int] = ()

    def __post_init__(self) -> None:
        originals, draws = np.asarray(self.originals), np.asarray(self.reconstructions)
        if originals.ndim != 4 or originals.shape[1] not in (1, 3) or 0 in originals.shape:
            raise ValueError(f"originals: expected (R, C, H, W) with 1 or 3 channels, got {originals.shape}")
        if draws.ndim != 5 or draws.shape[0] != len(originals) or draws.shape[2:] != originals.shape[1:]:
            raise ValueError(
                f"reconstructions: expected ({len(originals)}, D, *{originals.shape[1:]}), got {draws.shape}"
            )
        rows, columns = draws.shape[:2]
        if self.captions and len(self.captions) != rows:
            raise ValueError(f"captions: expected {rows}, one an original; got {len(self.captions)}")
        if self.draw_captions and [len(row) for row in self.draw_captions] != [columns] * rows:
            raise ValueError(f"draw_captions: expected {rows} rows of {columns}")
        if len(self.chosen) and (len(self.chosen) != rows or not all(-1 <= draw < columns for draw in self.chosen)):
            raise ValueError(f"chosen: expected {rows} draws from -1 to {columns - 1}, got {list(self.chosen)}")
        _replace(self, originals=_bytes("originals", originals), reconstructions=_bytes("reconstructions", draws))


@dataclass(frozen=True, eq=False)
class IntervalSearch:
    """The search of scenario 1: lows, highs, divergences (pairs,) of every interval tried, and the one it chose."""

    lows: ArrayLike
    highs: ArrayLike
    divergences: ArrayLike
    chosen: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        arrays = {name: _vector(name, getattr(self, name)) for name in ("lows", "highs", "divergences")}
        if len({len(array) for array in arrays.values()}) != 1:
            raise ValueError("lows, highs, divergences: expected one value an interval each")
        _replace(self, **arrays)


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that the page shows. setup: name -> value, or a group -> such a mapping, in this order."""

    title: str
    settings: Sequence[SettingRow]
    attacks: Sequence[AttackRow] = ()
    setup: Mapping[str, object] = field(default_factory=dict)
    roc: Sequence[RocCurve] = ()
    phi: Sequence[PhiSample] = ()
    images: ImageGrid | None = None
    search: IntervalSearch | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.settings:
            raise ValueError("settings: expected at least one row")


@dataclass(frozen=True)
class AuditRow:
    """One attack on an audited model. counts: False where it asked something else, as a what-if. auc_before: of the
    same attack on what the model is compared with."""

    attack: str
    family: str
    counts: bool = True
    auc: Estimate = NOT_KNOWN
    balanced_accuracy: Estimate = NOT_KNOWN
    tpr_at_one_percent: Estimate = NOT_KNOWN
    tpr_at_low_fpr: Estimate = NOT_KNOWN
    tpr_at_zero_fpr: Estimate = NOT_KNOWN
    tnr_at_low_fnr: Estimate = NOT_KNOWN
    auc_before: Estimate = NOT_KNOWN


@dataclass(frozen=True, eq=False)
class ScoreSample:
    """An attack's scores of members (M,) and non-members (N,)."""

    attack: str
    members: ArrayLike
    nonmembers: ArrayLike

    def __post_init__(self) -> None:
        _replace(self, members=_vector("members", self.members), nonmembers=_vector("nonmembers", self.nonmembers))


@dataclass(frozen=True, eq=False)
class AuditPage:
    """Everything that the page of an audit shows.

    worst: the strongest attack. auc: its AUC, corrected for being the largest of `tried`. rows: strongest first. sizes:
    members and non-members evaluated. accuracy, ece: of members and non-members. change: of `auc` against what the
    model is compared with. nonmembers_needed: for a claim about 0.1 % FPR. setup: as in `Report`.
    """

    title: str
    worst: str
    auc: Estimate
    rows: Sequence[AuditRow]
    tried: int
    sizes: tuple[int, int]
    nonmembers_needed: int
    accuracy: tuple[Estimate, Estimate] | None = None
    ece: tuple[float, float] | None = None
    gap_floor: Estimate = NOT_KNOWN
    change: Estimate | None = None
    roc: Sequence[RocCurve] = ()
    scores: Sequence[ScoreSample] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    setup: Mapping[str, object] = field(default_factory=dict)


def _vector(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name}: expected one dimension and at least one value, got shape {array.shape}")
    return array


def _bytes(name: str, images: NDArray[np.generic]) -> NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return np.asarray(images, dtype=np.uint8)
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{name}: expected uint8 or float images, got {images.dtype}")
    levels = images.astype(np.float64)
    # A reconstruction may overshoot by rounding; NaN fails this comparison too.
    if not (levels.min(initial=0.0) >= -1e-3 and levels.max(initial=0.0) <= 1 + 1e-3):
        raise ValueError(f"{name}: expected values in [0, 1], got {levels.min()} to {levels.max()}")
    return np.asarray(np.rint(levels.clip(0, 1) * 255), dtype=np.uint8)


def _replace(instance: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)  # the dataclass is frozen, and this is still its construction


# ---- from tidy results -------------------------------------------------------------------------------------------


def setting_name(defense: str, scenario: str = "") -> str:
    """A setting as tables name it: "undefended", "scenario 1", "averaging of logits", "hamp + scenario 1"."""
    defense, scenario = str(defense).strip(), str(scenario).strip()
    if scenario in ("1", "2", "3"):
        name = f"scenario {scenario}"
    elif scenario in ("logits", "probabilities"):
        name = f"averaging of {scenario}"
    else:
        name = scenario
    if defense in ("", "none", UNDEFENDED):
        return UNDEFENDED
    if defense == "diffence":
        return name or defense
    return f"{defense} + {name}" if name else defense


def setting_rows(frame: pd.DataFrame) -> list[SettingRow]:
    """One row a setting, in the frame's order, from tidy results of one data set and one classifier.

    Rows with attack "" and metric test_accuracy, labels_changed, gap_floor, fallback_rate, draws_used or ms_per_image
    fill the fields of these names; the attack with the largest "auc" fills the rest (see `attack_rows`). auc_change
    comes from the attack "strongest" (the strongest here against the strongest undefended, in pairs) where the results
    have it, else from the named attack if that is the strongest undefended one too.
    """
    attacks = attack_rows(frame)
    strongest: dict[str, AttackRow] = {}
    for row in attacks:
        best = strongest.get(row.setting)
        if row.auc.known and (best is None or _value(row.auc) > _value(best.auc)):
            strongest[row.setting] = row
    rows = []
    for setting, metrics in _by_setting(frame).items():
        best = strongest.get(setting)
        found: dict[str, Any] = {name: metrics.get(("", name), NOT_KNOWN) for name in _ESTIMATES}
        found |= {name: metrics.get(("", name), NOT_KNOWN).value for name in _PLAIN}
        if best is not None:
            undefended = strongest.get(UNDEFENDED)
            same = undefended is not None and undefended.attack == best.attack and setting != UNDEFENDED
            change = metrics.get((STRONGEST, "auc_change"), best.auc_change if same else NOT_KNOWN)
            found |= {"attack": best.attack, "auc": best.auc, "attack_accuracy": best.attack_accuracy}
            found["auc_change"] = change
        rows.append(SettingRow(setting=setting, **found))
    return rows


def attack_rows(frame: pd.DataFrame) -> list[AttackRow]:
    """One row an attack and setting, in the frame's order, from tidy results of one data set and one classifier.

    Metrics: auc, balanced_accuracy, balanced_accuracy_oracle, tpr_at_fpr, tnr_at_fnr, and auc_change, which is against
    the same attack on the undefended classifier, in pairs.
    """
    rows = []
    for setting, metrics in _by_setting(frame).items():
        for attack in dict.fromkeys(attack for attack, _ in metrics if attack not in ("", STRONGEST)):
            found = {name: metrics.get((attack, metric), NOT_KNOWN) for name, metric in _OF_ATTACK.items()}
            rows.append(AttackRow(setting=setting, attack=attack, **found))
    return rows


_ESTIMATES = ("test_accuracy", "gap_floor")
_PLAIN = ("labels_changed", "fallback_rate", "draws_used", "ms_per_image")
_OF_ATTACK = {
    "auc": "auc",
    "attack_accuracy": "balanced_accuracy",
    "oracle_accuracy": "balanced_accuracy_oracle",
    "tpr_at_low_fpr": "tpr_at_fpr",
    "tnr_at_low_fnr": "tnr_at_fnr",
    "auc_change": "auc_change",
}


def _by_setting(frame: pd.DataFrame) -> dict[str, dict[tuple[str, str], Estimate]]:
    """setting -> (attack, metric) -> estimate; "" is the attack of what is measured without one."""
    for column in ("dataset", "classifier"):
        if frame[column].nunique(dropna=False) > 1:
            raise ValueError(f"frame: expected results of one {column}, got {sorted(map(str, frame[column].unique()))}")
    words = frame[["defense", "scenario", "mode", "attack", "metric"]].map(_word).to_numpy()
    names = [setting_name(defense, scenario) for defense, scenario, *_ in words]
    several_modes = len({row[2] for row, name in zip(words, names, strict=True) if name != UNDEFENDED}) > 1
    settings: dict[str, dict[tuple[str, str], Estimate]] = {}
    for row, name, ends in zip(words, names, frame[["value", "low", "high"]].to_numpy(float), strict=True):
        _, _, mode, attack, metric = row
        if several_modes and name != UNDEFENDED:
            name = f"{name} ({mode})"
        metrics, key = settings.setdefault(name, {}), (attack, metric)
        if key in metrics:
            raise ValueError(f"frame: {name} has more than one {' '.join(key).strip()}; pool or pick a seed first")
        metrics[key] = Estimate(*map(float, ends))
    return settings


def _word(value: object) -> str:
    """A cell as text. Read back from CSV, a column with scenario 3 and empty cells holds 3.0 and NaN."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:g}"
    return "" if value is None else str(value)


def _value(estimate: Estimate) -> float:
    return float("nan") if estimate.value is None else estimate.value
