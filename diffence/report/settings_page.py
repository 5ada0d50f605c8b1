"""The report of a fence's settings: what the numbers say, then tables and figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from diffence import files
from diffence.report import figures
from diffence.report.content import (
    UNDEFENDED,
    AttackRow,
    Estimate,
    ImageGrid,
    IntervalSearch,
    PhiSample,
    Report,
    SettingRow,
)
from diffence.report.html import (
    bullets,
    escape,
    figure,
    image,
    page,
    roc_section,
    row_cells,
    section,
    setup_section,
    table,
    with_ends,
)
from diffence.report.text import ATTACK_COLUMNS, SETTING_COLUMNS, by_attack, number, percent

__all__ = ["headline", "render", "write"]


def write(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page as UTF-8: whole or not at all; an older file stays until the new one is complete."""
    files.write_text(path, render(report))


def render(report: Report) -> str:
    """The whole page. The same report gives the same text."""
    return page(
        report.title,
        [
            f'<p class="headline">{escape(headline(report.settings))}</p>',
            f'<p class="remarks">{escape(" ".join(remarks(report.settings)))}</p>',
            settings_table(report.settings),
            tradeoff_section(report.settings),
            roc_section(report.roc),
            phi_section(report.phi),
            images_section(report.images),
            search_section(report.search),
            section("How it was set up", setup_section(report.setup)),
            section("Notes on this run", bullets(report.notes)) if report.notes else "",
            section("What is not covered", bullets(_LIMITS)),
            section("How to read the columns", meanings(), "columns"),
            attacks_table(report.attacks),
        ],
    )


# ---- what the numbers say ----------------------------------------------------------------------------------------


def headline(rows: Sequence[SettingRow]) -> str:
    """One sentence: what leaks, and what the best setting changes, whichever way it came out."""
    base = next((row for row in rows if row.setting == UNDEFENDED), None)
    best = _best(row for row in rows if row is not base)
    if base is None or not base.auc.known:
        if best is None:
            return "No attack was evaluated, so nothing can be said about what leaks."
        return f"With “{best.setting}”, {_leak(best)}; the undefended classifier was not measured."
    before = f"Undefended, {_leak(base)}"
    if best is None:
        return f"{before}; no defense was measured."
    tried = sum(row.auc.known for row in rows) - 1
    who = f"the defense “{best.setting}”" + (f", the best of {tried} tried," if tried > 1 else "")
    auc, change = with_ends(best.auc), best.auc_change
    if change.value is None or change.low is None or change.high is None or not change.bounded:
        after = f"with {who} it reaches {auc}"
    elif change.high < 0:
        size = Estimate(-change.value, -change.high, -change.low)
        after = f"{who} lowers that by {with_ends(size)} to {auc}"
    elif change.low > 0:
        after = f"{who} makes it worse, by {with_ends(change)} to {auc}"
    else:
        after = (
            f"{who} makes no difference that these images can show: {auc}, a change of {with_ends(change, sign=True)}"
        )
    return f"{before}; {after}{_cost(base, best)}."


def remarks(rows: Sequence[SettingRow]) -> list[str]:
    """What a reader must know beside the headline: the scale, the floor that labels set, changed labels, fallbacks."""
    said = ["AUC is the chance that an attack ranks a random member above a random non-member: 0.5 is guessing."]
    best = _best(row for row in rows if row.setting != UNDEFENDED)
    if best is not None and best.gap_floor.known and best.gap_floor.value is not None:
        keeps = "" if best.labels_changed else ", and a defense that keeps the labels cannot change that"
        low = best.auc.low if best.auc.bounded else best.auc.value
        lies = "reaches down to it" if low is not None and low <= best.gap_floor.value else "lies above it"
        said.append(
            f"Labels alone already give an AUC of {number(best.gap_floor.value)} (the gap floor){keeps};"
            f" the interval of “{best.setting}” {lies}."
        )
    for meaning, name in (
        ("Images whose label differs from the undefended one", "labels_changed"),
        ("Images without a reconstruction that kept the label, answered by the fallback", "fallback_rate"),
    ):
        shares = {row.setting: getattr(row, name) for row in rows}
        listed = ", ".join(f"{setting} {percent(share)}" for setting, share in shares.items() if share)
        if listed:
            said.append(f"{meaning}: {listed}.")
    return said


def _best(rows: Iterable[SettingRow]) -> SettingRow | None:
    """The setting with the smallest AUC of its strongest attack; settings that keep every label come first."""
    known = [row for row in rows if row.auc.known]
    keeping = [row for row in known if not row.labels_changed]
    return min(keeping or known, key=lambda row: row.auc.value or 0.0, default=None)


def _leak(row: SettingRow) -> str:
    attack = f"the strongest attack ({row.attack})" if row.attack else "the strongest attack"
    auc = f"an AUC of {with_ends(row.auc, '95% interval ')}"
    if row.auc.bounded and row.auc.low is not None and row.auc.low <= 0.5:
        return f"no leak can be shown: {attack} reaches {auc}"
    return f"the classifier leaks who was in its training set: {attack} reaches {auc}"


def _cost(base: SettingRow, best: SettingRow) -> str:
    if not (base.test_accuracy.known and best.test_accuracy.known):
        return ""
    before, after = percent(base.test_accuracy.value), percent(best.test_accuracy.value)
    if before == after:
        return f", at the same test accuracy of {after}"
    return f", and test accuracy goes from {before} to {after}"


# ---- sections -------------------------------------------------------------------------------------------------------


def settings_table(rows: Sequence[SettingRow]) -> str:
    """One row a setting, as in the terminal."""
    look = figures.styles(row.setting for row in rows)
    body = "".join(row_cells(SETTING_COLUMNS, row, look[row.setting].color) for row in rows)
    caption = (
        "One row a defense setting, judged by the strongest attack against it. In brackets: 95% intervals."
        ' <a href="#columns">How to read the columns</a>'
    )
    return table("Results by setting", SETTING_COLUMNS, body, caption)


def attacks_table(rows: Sequence[AttackRow]) -> str:
    """One row an attack and setting, grouped by attack; "" without rows."""
    if not rows:
        return ""
    look = figures.styles(row.setting for row in rows)
    body = ""
    for attack, group in by_attack(rows).items():
        span = f'class="words" scope="rowgroup" colspan="{len(ATTACK_COLUMNS)}"'
        body += f'<tr class="group"><th {span}>{escape(attack)}</th></tr>'
        body += "".join(row_cells(ATTACK_COLUMNS, row, look[row.setting].color) for row in group)
    caption = "Every attack in every setting. In brackets: 95% intervals."
    return section("Details per attack", table("Results by attack", ATTACK_COLUMNS, body, caption, "flat"))


def tradeoff_section(rows: Sequence[SettingRow]) -> str:
    """Attack AUC over test accuracy; "" when neither is known."""
    picture = figures.tradeoff(rows)
    if picture is None:
        return ""
    caption = (
        "Lower is more private, further right is more accurate. The lines through a point are its 95% intervals."
        " Settings that keep every label have the same accuracy; they stand side by side around it. The flat marks are"
        " the gap floor: what an attacker learns from the labels alone. A point on its floor leaks nothing more that"
        " these attacks can find."
    )
    return section("Privacy and accuracy", figure([picture], caption))


def phi_section(samples: Sequence[PhiSample]) -> str:
    """A histogram a setting; "" without samples."""
    if not samples:
        return ""
    key = (
        '<span class="key" style="background:#9a9a9a"></span>members (filled) '
        '<span class="key" style="border:2px solid #222;border-bottom:0"></span>non-members (line)'
    )
    if any(sample.interval is not None for sample in samples):
        key += ' <span class="key" style="background:#fff1c9;border:1px solid #d9c88f"></span>interval of the scenario'
    caption = (
        "φ = log(p / (1 − p)), where p is the probability that the answer gives to its label: how sure the classifier"
        " is, as an attacker sees it. Where the filled shape and the line part, members can be told from non-members;"
        " where they coincide, they cannot. All panels share their axes and bins; the outermost bins hold everything"
        " beyond them."
    )
    pictures = figures.phi_histograms(samples)
    return section("What the attacker sees: the logit φ", f"<p>{key}</p>{figure(pictures, caption)}")


def images_section(grid: ImageGrid | None) -> str:
    """Originals beside their reconstructions; "" without images."""
    if grid is None:
        return ""
    caption = (
        "Left, the image that was asked about; right, what the diffusion model made of it. Behind the fence the label"
        " comes from the original, and the probabilities from one of these."
    )
    if len(grid.chosen):
        caption += " The framed one answered; a row without a frame was answered by another draw or by the fallback."
    shown = image(figures.image_grid(grid))
    region = f'<div class="scroll" tabindex="0" role="region" aria-label="Reconstructions">{shown}</div>'
    body = f'<figure class="beside">{region}<figcaption>{escape(caption)}</figcaption></figure>'
    return section("Originals and reconstructions", body)


def search_section(search: IntervalSearch | None) -> str:
    """The intervals that scenario 1 tried; "" without a search."""
    if search is None:
        return ""
    caption = (
        "Scenario 1 prefers reconstructions whose φ lies in an interval. It tries many and keeps the one for which the"
        " answers to members and to non-members differ least: the smallest divergence."
    )
    return section("How scenario 1 chose its interval", figure([figures.interval_search(search)], caption))


_LIMITS = (
    "Attacks that use labels only (the gap attack, attacks by augmentation or by distance to the decision boundary) see"
    " the same labels with and without a fence that keeps them. The gap floor shows how much labels give away at least;"
    " only a defense in training helps against it.",
    "Few members mean wide intervals. A difference whose interval holds 0 is no evidence, neither for the defense nor"
    " against it.",
    "The strongest attack of each setting, and the best setting, were picked on the same images that they are reported"
    " for: the former flatters attacks a little, the latter the defense.",
    "An attack that was not tried may do better: the numbers are lower bounds of what leaks.",
)


def meanings() -> str:
    meanings = [(column.title, column.meaning) for column in SETTING_COLUMNS]
    meanings += [(column.title, column.meaning) for column in ATTACK_COLUMNS if column.meaning]
    pairs = "".join(f"<dt>{escape(title)}</dt><dd>{escape(text)}</dd>" for title, text in meanings)
    return f'<dl class="meanings">{pairs}</dl>'
