"""The report as one HTML file that opens without a network: styles and figures are inside, and there is no script.

`render` assembles the page from pieces (`page`, `settings_table`, `attacks_table`, `roc_section`, `phi_section`,
`setup_section`), which another kind of report can put below a headline of its own.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence

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
    RocCurve,
    SettingRow,
)
from diffence.report.text import ATTACK_COLUMNS, DASH, SETTING_COLUMNS, Cell, Column, Row, by_attack, number, percent

__all__ = [
    "attacks_table",
    "headline",
    "page",
    "phi_section",
    "render",
    "roc_section",
    "settings_table",
    "setup_section",
    "write",
]

_CSS = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --wash: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .7rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .5rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, li, figcaption { max-width: 46rem; }
a { color: #0058a3; }
.headline { font-size: 1.15rem; margin: 0 0 .8rem; padding: .8rem 1rem; max-width: none;
  background: var(--wash); border-left: 4px solid #0072B2; }
.remarks { max-width: none; }
.scroll { overflow-x: auto; margin: .4rem 0 .8rem; }
/* Not collapsed: a sticky cell leaves a collapsed border behind when it moves. */
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .875rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.above { color: var(--soft); font-size: .875rem; margin: .8rem 0 0; max-width: none; }
th, td { padding: .4rem .55rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--ink); }
th.words, td.words { text-align: left; }
th:first-child { position: sticky; left: 0; background: #fff; }
tbody th.words { font-weight: 600; min-width: 9.5em; max-width: 18em; overflow-wrap: anywhere; }
td.words { max-width: 12em; overflow-wrap: anywhere; }
td small { display: block; white-space: nowrap; color: var(--soft); font-size: .8125rem; }
.flat td { white-space: nowrap; }
.flat td small { display: inline; margin-left: .35em; }
tr.group th { background: var(--wash); padding-top: .7rem; }
.dot { display: inline-block; width: .7em; height: .7em; margin-right: .45em; border-radius: 50%; }
figure { margin: .8rem 0; }
figure.beside { display: flex; flex-wrap: wrap; gap: 0 28px; align-items: flex-start; }
figure.beside > div { max-width: 100%; }
figure.beside > figcaption { flex: 1 1 18rem; }
.panels { display: flex; flex-wrap: wrap; gap: 12px 20px; align-items: flex-start; }
.panels img { max-width: 100%; height: auto; }
.scroll img { display: block; max-width: none; }
figcaption { color: var(--soft); font-size: .9375rem; margin-top: .4rem; }
.key { display: inline-block; width: 1.5em; height: .8em; margin: 0 .3em 0 .9em; vertical-align: -.05em; }
.key:first-child { margin-left: 0; }
.groups { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 2.5rem; }
dl { display: grid; grid-template-columns: minmax(6rem, 2fr) 3fr; gap: .15rem 1rem; margin: 0; font-size: .9375rem; }
dt { color: var(--soft); }
dd { margin: 0; }
dl.meanings { grid-template-columns: minmax(10rem, auto) 1fr; gap: .35rem 1rem; max-width: 60rem; }
dl.meanings dt { color: var(--ink); font-weight: 600; }
@media (max-width: 640px) {
  main { padding: 16px 14px 40px; }
  h1 { font-size: 1.35rem; }
  .headline { font-size: 1.05rem; }
  dl.meanings { grid-template-columns: 1fr; gap: 0; }
  dl.meanings dd { margin-bottom: .6rem; }
}
@media print {
  @page { margin: 14mm; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  body { font-size: 10.5pt; }
  img, tr, dl, figcaption { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
  .scroll img { max-width: 100%; height: auto; }
  table { font-size: 7.5pt; }
  td small { font-size: 7pt; }
  th, td { padding: 2pt 3pt; }
  tbody th.words { min-width: 8em; }
  .flat td small { display: block; }
}
"""


def write(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page as UTF-8: whole or not at all; an older file stays until the new one is complete."""
    files.write_text(path, render(report))


def render(report: Report) -> str:
    """The whole page. The same report gives the same text."""
    return page(
        report.title,
        [
            f'<p class="headline">{_escape(headline(report.settings))}</p>',
            f'<p class="remarks">{_escape(" ".join(remarks(report.settings)))}</p>',
            settings_table(report.settings),
            tradeoff_section(report.settings),
            roc_section(report.roc),
            phi_section(report.phi),
            images_section(report.images),
            search_section(report.search),
            _section("How it was set up", setup_section(report.setup)),
            _section("Notes on this run", _list(report.notes)) if report.notes else "",
            _section("What is not covered", _list(_LIMITS)),
            _section("How to read the columns", _meanings(), "columns"),
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
    auc, change = _with_ends(best.auc), best.auc_change
    if change.value is None or change.low is None or change.high is None or not change.bounded:
        after = f"with {who} it reaches {auc}"
    elif change.high < 0:
        size = Estimate(-change.value, -change.high, -change.low)
        after = f"{who} lowers that by {_with_ends(size)} to {auc}"
    elif change.low > 0:
        after = f"{who} makes it worse, by {_with_ends(change)} to {auc}"
    else:
        after = (
            f"{who} makes no difference that these images can show: {auc}, a change of {_with_ends(change, sign=True)}"
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
    auc = f"an AUC of {_with_ends(row.auc, '95% interval ')}"
    if row.auc.bounded and row.auc.low is not None and row.auc.low <= 0.5:
        return f"no leak can be shown: {attack} reaches {auc}"
    return f"the classifier leaks who was in its training set: {attack} reaches {auc}"


def _with_ends(estimate: Estimate, name: str = "", *, sign: bool = False) -> str:
    text = number(estimate.value, sign=sign)
    if not estimate.bounded:
        return text
    return f"{text} ({name}{number(estimate.low, sign=sign)} to {number(estimate.high, sign=sign)})"


def _cost(base: SettingRow, best: SettingRow) -> str:
    if not (base.test_accuracy.known and best.test_accuracy.known):
        return ""
    before, after = percent(base.test_accuracy.value), percent(best.test_accuracy.value)
    if before == after:
        return f", at the same test accuracy of {after}"
    return f", and test accuracy goes from {before} to {after}"


# ---- pieces ------------------------------------------------------------------------------------------------------


def page(title: str, parts: Iterable[str]) -> str:
    """A complete document around `parts`, which are HTML already; `title` is text."""
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def settings_table(rows: Sequence[SettingRow]) -> str:
    """One row a setting, as in the terminal."""
    look = figures.styles(row.setting for row in rows)
    body = "".join(_row(SETTING_COLUMNS, row, look[row.setting].color) for row in rows)
    caption = (
        "One row a defense setting, judged by the strongest attack against it. In brackets: 95% intervals."
        ' <a href="#columns">How to read the columns</a>'
    )
    return _table("Results by setting", SETTING_COLUMNS, body, caption)


def attacks_table(rows: Sequence[AttackRow]) -> str:
    """One row an attack and setting, grouped by attack; "" without rows."""
    if not rows:
        return ""
    look = figures.styles(row.setting for row in rows)
    body = ""
    for attack, group in by_attack(rows).items():
        span = f'class="words" scope="rowgroup" colspan="{len(ATTACK_COLUMNS)}"'
        body += f'<tr class="group"><th {span}>{_escape(attack)}</th></tr>'
        body += "".join(_row(ATTACK_COLUMNS, row, look[row.setting].color) for row in group)
    caption = "Every attack in every setting. In brackets: 95% intervals."
    return _section("Details per attack", _table("Results by attack", ATTACK_COLUMNS, body, caption, "flat"))


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
    return _section("Privacy and accuracy", _figure([picture], caption))


def roc_section(curves: Sequence[RocCurve]) -> str:
    """A panel an attack, on log-log axes; "" without curves."""
    if not curves:
        return ""
    members, nonmembers = _counts(curve.members for curve in curves), _counts(curve.nonmembers for curve in curves)
    caption = (
        "How many members an attack finds (upwards) when it may accuse so many non-members (to the right). Both axes"
        " are logarithmic: an attack that is sure of a few members is worse than its AUC tells, and shows at the left."
        " The dotted diagonal is guessing; a defense should bring its curve down to it. The thin upright line marks"
        f" 0.1% false positives. Judged on {members} members and {nonmembers} non-members. Left of 1 in {nonmembers}"
        " (shaded where it is in view) a curve shows what is found without a single false positive; the sample cannot"
        " tell more. A curve that leaves through the bottom finds nobody at that rate."
    )
    return _section("ROC curves", _figure(figures.roc_curves(curves), caption))


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
    return _section("What the attacker sees: the logit φ", f"<p>{key}</p>{_figure(pictures, caption)}")


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
    image = _image(figures.image_grid(grid))
    region = f'<div class="scroll" tabindex="0" role="region" aria-label="Reconstructions">{image}</div>'
    body = f'<figure class="beside">{region}<figcaption>{_escape(caption)}</figcaption></figure>'
    return _section("Originals and reconstructions", body)


def search_section(search: IntervalSearch | None) -> str:
    """The intervals that scenario 1 tried; "" without a search."""
    if search is None:
        return ""
    caption = (
        "Scenario 1 prefers reconstructions whose φ lies in an interval. It tries many and keeps the one for which the"
        " answers to members and to non-members differ least: the smallest divergence."
    )
    return _section("How scenario 1 chose its interval", _figure([figures.interval_search(search)], caption))


def setup_section(setup: Mapping[str, object]) -> str:
    """Names and values; a value that is a mapping becomes a group of its own."""
    plain = {name: value for name, value in setup.items() if not isinstance(value, Mapping)}
    groups: list[tuple[str, Mapping[str, object]]] = [("", plain)] if plain else []
    groups += [(name, value) for name, value in setup.items() if isinstance(value, Mapping)]
    if not groups:
        return "<p>Not recorded.</p>"
    body = ""
    for name, values in groups:
        pairs = "".join(f"<dt>{_escape(key)}</dt><dd>{_escape(_said(value))}</dd>" for key, value in values.items())
        heading = f"<h3>{_escape(name)}</h3>" if name else ""
        body += f"<div>{heading}<dl>{pairs}</dl></div>"
    return f'<div class="groups">{body}</div>'


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


def _meanings() -> str:
    meanings = [(column.title, column.meaning) for column in SETTING_COLUMNS]
    meanings += [(column.title, column.meaning) for column in ATTACK_COLUMNS if column.meaning]
    pairs = "".join(f"<dt>{_escape(title)}</dt><dd>{_escape(text)}</dd>" for title, text in meanings)
    return f'<dl class="meanings">{pairs}</dl>'


def _escape(text: object) -> str:
    return html.escape(str(text), quote=True)


def _said(value: object) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _counts(values: Iterable[int]) -> str:
    distinct = sorted(set(values))
    return f"{distinct[0]:,}" if len(distinct) == 1 else f"{distinct[0]:,} to {distinct[-1]:,}"


def _section(heading: str, body: str, name: str = "") -> str:
    anchor = f' id="{name}"' if name else ""
    return f"<section{anchor}>\n<h2>{_escape(heading)}</h2>\n{body}\n</section>"


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_escape(item)}</li>' for item in items)}</ul>"


def _image(picture: figures.Picture) -> str:
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img src="{picture.uri}" {size} alt="{_escape(picture.alt)}">'


def _figure(pictures: Sequence[figures.Picture], caption: str) -> str:
    images = "\n".join(map(_image, pictures))
    kind = ' class="beside"' if len(pictures) == 1 else ""
    return f'<figure{kind}><div class="panels">{images}</div><figcaption>{_escape(caption)}</figcaption></figure>'


def _table(label: str, columns: Sequence[Column[Row]], body: str, caption: str, kind: str = "stacked") -> str:
    """`body` and `caption` are HTML already."""
    heads = "".join(f'<th scope="col"{_words(column)}>{_escape(column.title)}</th>' for column in columns)
    return (
        f'<p class="above">{caption}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_escape(label)}"><table class="{kind}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(columns: Sequence[Column[Row]], row: Row, color: str) -> str:
    dot = f'<span class="dot" style="background:{color}"></span>'
    name = _escape(columns[0].cell(row).value)
    cells = "".join(f"<td{_words(column)}>{_cell(column.cell(row))}</td>" for column in columns[1:])
    return f'<tr><th scope="row" class="words">{dot}{name}</th>{cells}</tr>'


def _words(column: Column[Row]) -> str:
    return ' class="words"' if column.words else ""


def _cell(cell: Cell) -> str:
    return _escape(cell.value or DASH) + (f" <small>{_escape(cell.interval)}</small>" if cell.interval else "")
