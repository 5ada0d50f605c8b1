"""The report of an audit: what leaks, how sure that is, which attacks were tried, and what was done."""

from __future__ import annotations

from collections.abc import Sequence

from diffence.report import figures
from diffence.report.content import AuditPage, AuditRow, ScoreSample
from diffence.report.html import (
    bullets,
    escape,
    figure,
    page,
    roc_section,
    row_cells,
    section,
    setup_section,
    table,
    with_ends,
)
from diffence.report.text import Cell, Column, cut, fraction, layout, number, percent, share

__all__ = ["AUDIT_COLUMNS", "audit_headline", "audit_table", "render_audit"]

AUDIT_COLUMNS: tuple[Column[AuditRow], ...] = (
    Column("attack", "", lambda row: Cell(row.attack + ("" if row.counts else " *")), words=True),
    Column(
        "family",
        "What the attack works with. Metric: a formula of one answer. Trained: a network of one answer. Shadow: models"
        " like this one, trained for comparison. Label-only: the shown labels of the image and of changed ones."
        " Adaptive: many answers, aimed at a fence.",
        lambda row: Cell(row.family),
        words=True,
    ),
    Column(
        "AUC",
        "Chance that the attack ranks a random member above a random non-member: 0.5 is guessing, 1 is certainty.",
        lambda row: fraction(row.auc),
    ),
    Column(
        "AUC before",
        "The same attack on the model that this one is compared with.",
        lambda row: fraction(row.auc_before),
        page_only=True,
    ),
    Column(
        "balanced accuracy",
        "Of the attack's decisions (members and non-members count the same), its threshold fitted on known samples,"
        " not on those that it is judged on.",
        lambda row: fraction(row.balanced_accuracy),
    ),
    Column(
        "TPR at 1% FPR",
        "Share of members found while fewer than 1% of the non-members are accused. The interval allows for not knowing"
        " the threshold that has this rate, so few non-members make it wide, and its lower end 0.",
        lambda row: share(row.tpr_at_one_percent),
        page_only=True,
    ),
    Column(
        "TPR at 0.1% FPR",
        "The same at fewer than 0.1%: below 1,001 non-members that means none.",
        lambda row: share(row.tpr_at_low_fpr),
    ),
    Column(
        "TPR at 0 FPR",
        "Share of members whose score is above that of every non-member evaluated here.",
        lambda row: share(row.tpr_at_zero_fpr),
        page_only=True,
    ),
    Column(
        "TNR at 0.1% FNR",
        "Share of non-members cleared while fewer than 0.1% of the members are missed.",
        lambda row: share(row.tnr_at_low_fnr),
        page_only=True,
    ),
)

_LIMITS = (
    "An attack that was not tried may do better: the numbers are lower bounds of what leaks. Attacks with shadow models"
    " are the strongest known for single samples, and are part of an audit only where shadow models were given.",
    "Averages hide people: an AUC near 0.5 does not say that no single sample can be recognised. The rates at a low"
    " false-positive rate look at the surest ones.",
    "Intervals are for these samples and this model. They do not tell how another training run would come out.",
    "Members and non-members must come from one distribution. Where they do not, an attack may tell them apart without"
    " the model, and that counts here too.",
)


def audit_headline(content: AuditPage) -> str:
    """One sentence: what leaks, how sure that is, and against what floor."""
    auc = f"{with_ends(content.auc, '95% interval ')}"
    tried = f"the strongest of {content.tried} attacks ({content.worst})" if content.tried > 1 else content.worst
    if content.auc.low is not None and content.auc.low > 0.5:
        said = f"The model leaks who was in its training set: {tried} reaches an AUC of {auc}"
    else:
        said = f"No leak can be shown: {tried} reaches an AUC of {auc}"
    change = content.change
    if change is not None and change.low is not None and change.high is not None:
        if change.high < 0:
            said += f"; that is {number(-(change.value or 0))} less than before ({with_ends(change, sign=True)})"
        elif change.low > 0:
            said += f"; that is worse than before by {with_ends(change, sign=True)}"
        else:
            said += f"; a difference from before cannot be shown ({with_ends(change, sign=True)})"
    return said + "."


def audit_table(rows: Sequence[AuditRow]) -> str:
    """One line an attack; at most 120 columns wide."""
    columns = [column for column in AUDIT_COLUMNS if not column.page_only]
    cells = []
    for row in rows:
        shown = [column.cell(row) for column in columns]
        name = [cut(shown[0].value, 40)]
        cells.append([name, *([f"{cell.value} {cell.interval}".strip()] for cell in shown[1:])])
    heads = [[column.title] for column in columns]
    drawn = layout(heads, cells, [column.words for column in columns])
    starred = "" if all(row.counts for row in rows) else " *: a what-if, which does not count."
    return f"{drawn}\nIn brackets: 95% intervals. 0.5 is guessing.{starred}"


def render_audit(content: AuditPage) -> str:
    """The whole page. The same content gives the same text."""
    kept = [column for column in AUDIT_COLUMNS if column.title != "AUC before" or content.change is not None]
    return page(
        content.title,
        [
            f'<p class="headline">{escape(audit_headline(content))}</p>',
            f'<p class="remarks">{escape(" ".join(_remarks(content)))}</p>',
            section("Warnings", bullets(content.warnings)) if content.warnings else "",
            _attacks(content, kept),
            section("Asking again", bullets(content.notes)) if content.notes else "",
            roc_section(content.roc, "attack"),
            _scores(content.scores),
            section("How it was set up", setup_section(content.setup)),
            section("What is not covered", bullets(_LIMITS)),
            section("How to read the columns", _meanings(kept), "columns"),
        ],
    )


def _remarks(content: AuditPage) -> list[str]:
    members, nonmembers = content.sizes
    said = [
        "AUC is the chance that an attack ranks a random member above a random non-member: 0.5 is guessing.",
        f"Judged on {members:,} members and {nonmembers:,} non-members that no attack was fitted on.",
    ]
    if content.tried > 1:
        said.append(
            "The figure above is corrected for picking the largest of several attacks; those of the table are not."
        )
    if content.gap_floor.known:
        said.append(f"Labels alone give an AUC of {with_ends(content.gap_floor)}: the gap floor.")
    if content.accuracy is not None:
        train, test = (percent(one.value) for one in content.accuracy)
        said.append(f"The model is right on {train} of the members and {test} of the non-members.")
    if content.ece is not None:
        said.append(
            f"Its calibration error is {number(content.ece[0])} on members, {number(content.ece[1])} on others."
        )
    if nonmembers < content.nonmembers_needed:
        said.append(
            f"To prove a false-positive rate of at most 0.1%, {content.nonmembers_needed:,} non-members without a false"
            f" positive would be needed; here are {nonmembers:,}."
        )
    return said


def _attacks(content: AuditPage, columns: Sequence[Column[AuditRow]]) -> str:
    look = figures.styles([curve.setting for curve in content.roc])
    body = "".join(
        row_cells(columns, row, look[row.attack].color if row.attack in look else "") for row in content.rows
    )
    caption = (
        "One row an attack, the strongest first. In brackets: 95% intervals."
        ' <a href="#columns">How to read the columns</a>'
    )
    if not all(row.counts for row in content.rows):
        caption += "<br>* A what-if, which does not count: see the warnings and notes."
    return section("Attacks", table("Results by attack", columns, body, caption))


def _scores(samples: Sequence[ScoreSample]) -> str:
    if not samples:
        return ""
    key = (
        '<span class="key" style="background:#9a9a9a"></span>members (filled) '
        '<span class="key" style="border:2px solid var(--ink);border-bottom:0"></span>non-members (line)'
    )
    caption = (
        "What each attack makes of members and of non-members: where the filled shape and the line part, it tells them"
        " apart. The outermost bins hold everything beyond them. Scores that crowd into one place are shown by their"
        " ranks among all samples, 0 the lowest; an attack that tells nothing is then flat."
    )
    return section("Scores", f"<p>{key}</p>{figure(figures.score_histograms(samples), caption)}")


def _meanings(columns: Sequence[Column[AuditRow]]) -> str:
    pairs = "".join(
        f"<dt>{escape(column.title)}</dt><dd>{escape(column.meaning)}</dd>" for column in columns if column.meaning
    )
    return f'<dl class="meanings">{pairs}</dl>'
