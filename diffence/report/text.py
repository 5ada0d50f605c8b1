"""Tables: the columns and their meaning, shared by the terminal and the page, and how they look in plain text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from diffence.report.content import AttackRow, AuditRow, Estimate, SettingRow

__all__ = [
    "ATTACK_COLUMNS",
    "DASH",
    "SETTING_COLUMNS",
    "Cell",
    "Column",
    "cut",
    "detail_table",
    "fraction",
    "interval",
    "layout",
    "number",
    "percent",
    "share",
    "text_table",
]

DASH = "–"
WIDTH = 120

Row = TypeVar("Row", SettingRow, AttackRow, AuditRow)


@dataclass(frozen=True)
class Cell:
    """What stands in a cell: the value, and its 95 % interval or ""."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """head: the title, its lines separated by a line feed. meaning: how to read it, in a sentence or two."""

    head: str
    meaning: str
    cell: Callable[[Row], Cell]
    words: bool = False  # text, aligned to the left and wrapped
    narrow: bool = False  # in a terminal without its interval, to fit
    page_only: bool = False  # not in a terminal at all

    @property
    def title(self) -> str:
        """The head in one line; a hyphen at the end of a line is a break of the word."""
        return self.head.replace("-\n", "").replace("\n", " ")


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """`value` with a true minus sign; a dash for None, NaN and infinities."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value + 0.0:{'+' if sign else ''}.{digits}f}"
    if not text.strip("+-0."):
        text = text.strip("+-")  # nothing is left of the sign after rounding
    return text.replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage: 0.931 -> "93.1%"."""
    text = number(None if value is None else 100 * value, digits)
    return text if text == DASH else text + "%"


def interval(estimate: Estimate, digits: int = 3, *, scale: float = 1.0) -> str:
    """ "[.713, .792]", or "" where an end is not known."""
    if not estimate.bounded or estimate.low is None or estimate.high is None:
        return ""
    ends = [number(scale * end, digits) for end in (estimate.low, estimate.high)]
    if scale == 1.0:
        ends = [end.replace("0.", ".") if end.lstrip("−").startswith("0.") else end for end in ends]
    return f"[{', '.join(ends)}]"


def fraction(estimate: Estimate, *, sign: bool = False) -> Cell:
    return Cell(number(estimate.value, sign=sign), interval(estimate))


def share(estimate: Estimate) -> Cell:
    return Cell(percent(estimate.value), interval(estimate, 1, scale=100.0))


def _short(value: float | None) -> Cell:
    """About three significant digits: 0.04, 1.2, 123, 12345."""
    if value is None or not math.isfinite(value):
        return Cell(DASH)
    return Cell(number(value, 0 if abs(value) >= 100 else 1 if abs(value) >= 1 else 2))


SETTING_COLUMNS: tuple[Column[SettingRow], ...] = (
    Column(
        "setting",
        "How the classifier answers. Undefended: as it is. Scenarios 1, 2 and 3 answer with one reconstruction of the"
        " image that keeps the label: 1 is fitted on members and non-members, 2 on members only, 3 on nothing."
        " Averaging answers with the mean over all reconstructions and may change labels.",
        lambda row: Cell(row.setting),
        words=True,
    ),
    Column(
        "test\naccuracy",
        "Share of unseen images classified correctly.",
        lambda row: share(row.test_accuracy),
        narrow=True,
    ),
    Column(
        "labels\nchanged",
        "Share of images whose label differs from the undefended one. The scenarios keep every label.",
        lambda row: Cell(percent(row.labels_changed)),
    ),
    Column(
        "gap\nfloor",
        "AUC of an attacker who sees labels only and calls an image a member when it is classified correctly:"
        " (1 + train accuracy − test accuracy) / 2. What keeps labels cannot do anything about it.",
        lambda row: fraction(row.gap_floor),
        narrow=True,
    ),
    Column(
        "strongest\nattack",
        "The attack with the largest AUC in this setting.",
        lambda row: Cell(row.attack),
        words=True,
    ),
    Column(
        "attack\nAUC",
        "Chance that the attack ranks a random member above a random non-member: 0.5 is guessing, 1 is certainty.",
        lambda row: fraction(row.auc),
    ),
    Column(
        "attack\naccuracy",
        "Balanced accuracy (members and non-members count the same) of that attack. Its threshold was fitted on known"
        " images, not on those it is judged on. 0.5 is guessing.",
        lambda row: fraction(row.attack_accuracy),
    ),
    Column(
        "AUC\nchange",
        "Strongest attack here minus strongest attack on the undefended classifier, on the same images (paired, so its"
        " interval is narrower than the two AUC suggest). Below 0 the setting helps; an interval with 0 in it proves"
        " nothing. In the details per attack: the same attack here and there.",
        lambda row: fraction(row.auc_change, sign=True),
    ),
    Column(
        "fall-\nback",
        "Share of images for which no reconstruction had the label to keep, so that the fallback answered.",
        lambda row: Cell(percent(row.fallback_rate)),
    ),
    Column("draws\nused", "Reconstructions computed per image, on average.", lambda row: _short(row.draws_used)),
    Column("ms per\nimage", "Time for one answer, per image, in milliseconds.", lambda row: _short(row.ms_per_image)),
)

ATTACK_COLUMNS: tuple[Column[AttackRow], ...] = (
    Column("setting", "", lambda row: Cell(row.setting), words=True),
    Column("attack AUC", "", lambda row: fraction(row.auc)),
    Column(
        "attack accuracy",
        "",
        lambda row: fraction(row.attack_accuracy),
    ),
    Column(
        "oracle accuracy",
        "Balanced accuracy with the best threshold for the very images it is judged on: optimistic for the attacker,"
        " and what many papers print.",
        lambda row: fraction(row.oracle_accuracy),
        page_only=True,
    ),
    Column(
        "TPR at 0.1% FPR",
        "Share of members found while fewer than 0.1% of the non-members are accused (strictly fewer: below 1,001"
        " non-members that means none).",
        lambda row: share(row.tpr_at_low_fpr),
    ),
    Column(
        "TNR at 0.1% FNR",
        "Share of non-members cleared while fewer than 0.1% of the members are missed (strictly).",
        lambda row: share(row.tnr_at_low_fnr),
        page_only=True,
    ),
    Column(
        "AUC change",
        "",
        lambda row: fraction(row.auc_change, sign=True),
    ),
)


def text_table(rows: Iterable[SettingRow]) -> str:
    """The table that a terminal prints: two lines a setting, 95 % intervals in brackets; at most 120 columns wide."""
    columns = [column for column in SETTING_COLUMNS if not column.page_only]
    cells = []
    for row in rows:
        lines = []
        for column in columns:
            cell = column.cell(row)
            if column.words:
                limit = 14 if column.head == "setting" else 12
                lines.append(textwrap.wrap(cell.value or DASH, limit, max_lines=2, placeholder="…"))
            else:
                lines.append([cell.value, "" if column.narrow else cell.interval])
        cells.append(lines)
    table = layout([column.head.split("\n") for column in columns], cells, [column.words for column in columns])
    return f"{table}\nIn brackets: 95% intervals. For attacks, 0.5 is guessing."


def detail_table(rows: Sequence[AttackRow]) -> str:
    """One line an attack and setting, grouped by attack; at most 120 columns wide."""
    columns = [column for column in ATTACK_COLUMNS if not column.page_only]
    heads, words = [[column.title] for column in columns], [column.words for column in columns]
    cells = []
    for attack, members in by_attack(rows).items():
        cells.append([[cut(attack, 28)], *([""] for _ in columns[1:])])
        for row in members:
            first, *rest = (column.cell(row) for column in columns)
            cells.append([[cut("  " + first.value, 28)], *([f"{cell.value} {cell.interval}".strip()] for cell in rest)])
    return layout(heads, cells, words)


def by_attack(rows: Iterable[AttackRow]) -> dict[str, list[AttackRow]]:
    """Rows grouped by attack, in order of first appearance."""
    groups: dict[str, list[AttackRow]] = {}
    for row in rows:
        groups.setdefault(row.attack, []).append(row)
    return groups


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def layout(heads: list[list[str]], rows: list[list[list[str]]], words: list[bool]) -> str:
    """Aligned columns; each cell is a list of lines."""
    widths = [max(len(line) for cells in (heads, *rows) for line in cells[i]) for i in range(len(heads))]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "

    def printed(cells: list[list[str]]) -> list[str]:
        height = max(map(len, cells))
        lines = []
        for i in range(height):
            parts = (cell[i] if i < len(cell) else "" for cell in cells)
            aligned = (p.ljust(w) if left else p.rjust(w) for p, w, left in zip(parts, widths, words, strict=True))
            lines.append(gap.join(aligned).rstrip())
        return [line for line in lines if line]

    rule = "─" * (sum(widths) + len(gap) * (len(widths) - 1))
    return "\n".join([*printed(heads), rule, *(line for cells in rows for line in printed(cells))])
