"""The pieces of a page that opens without a network: styles and figures are inside, and there is no script."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from diffence.report import figures
from diffence.report.content import Estimate, RocCurve
from diffence.report.text import DASH, Cell, Column, Row, number

__all__ = [
    "bullets",
    "counts",
    "escape",
    "figure",
    "image",
    "page",
    "roc_section",
    "row_cells",
    "section",
    "setup_section",
    "table",
    "with_ends",
]

_CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --wash: #f5f7f9;
  --link: #0058a3; --mark: #0072B2; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e6e9ed; --soft: #a3abb5; --line: #373d45; --wash: #20252b; --link: #79b8f2;
    --mark: #56B4E9; }
  /* Lightness is turned over, hues stay: charts read as they do on white, and are not drawn twice. */
  img.chart { filter: invert(0.92) hue-rotate(180deg); }
  .dot { outline: 1px solid var(--soft); }
}
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--paper); overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .7rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .5rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, li, figcaption { max-width: 46rem; }
a { color: var(--link); }
.headline { font-size: 1.15rem; margin: 0 0 .8rem; padding: .8rem 1rem; max-width: none;
  background: var(--wash); border-left: 4px solid var(--mark); }
.remarks { max-width: none; }
.scroll { overflow-x: auto; margin: .4rem 0 .8rem; }
/* Not collapsed: a sticky cell leaves a collapsed border behind when it moves. */
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .875rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.above { color: var(--soft); font-size: .875rem; margin: .8rem 0 0; max-width: none; }
th, td { padding: .4rem .55rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--ink); }
th.words, td.words { text-align: left; }
th:first-child { position: sticky; left: 0; background: var(--paper); }
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


def page(title: str, parts: Iterable[str]) -> str:
    """A complete document around `parts`, which are HTML already; `title` is text."""
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def roc_section(curves: Sequence[RocCurve], key: str = "setting") -> str:
    """A panel an attack, on log-log axes; "" without curves. key: what one curve stands for."""
    if not curves:
        return ""
    members, nonmembers = counts(curve.members for curve in curves), counts(curve.nonmembers for curve in curves)
    caption = (
        "How many members an attack finds (upwards) when it may accuse so many non-members (to the right). Both axes"
        " are logarithmic: an attack that is sure of a few members is worse than its AUC tells, and shows at the left."
        " The dotted diagonal is guessing; a model that leaks nothing has its curves there. The thin upright line marks"
        f" 0.1% false positives. Judged on {members} members and {nonmembers} non-members. Left of 1 in {nonmembers}"
        " (shaded where it is in view) a curve shows what is found without a single false positive; the sample cannot"
        " tell more. A curve that leaves through the bottom finds nobody at that rate."
    )
    return section("ROC curves", figure(figures.roc_curves(curves, key), caption))


def setup_section(setup: Mapping[str, object]) -> str:
    """Names and values; a value that is a mapping becomes a group of its own."""
    plain = {name: value for name, value in setup.items() if not isinstance(value, Mapping)}
    groups: list[tuple[str, Mapping[str, object]]] = [("", plain)] if plain else []
    groups += [(name, value) for name, value in setup.items() if isinstance(value, Mapping)]
    if not groups:
        return "<p>Not recorded.</p>"
    body = ""
    for name, values in groups:
        pairs = "".join(f"<dt>{escape(key)}</dt><dd>{escape(said(value))}</dd>" for key, value in values.items())
        heading = f"<h3>{escape(name)}</h3>" if name else ""
        body += f"<div>{heading}<dl>{pairs}</dl></div>"
    return f'<div class="groups">{body}</div>'


def escape(text: object) -> str:
    return html.escape(str(text), quote=True)


def said(value: object) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(said, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def counts(values: Iterable[int]) -> str:
    distinct = sorted(set(values))
    return f"{distinct[0]:,}" if len(distinct) == 1 else f"{distinct[0]:,} to {distinct[-1]:,}"


def section(heading: str, body: str, name: str = "") -> str:
    anchor = f' id="{name}"' if name else ""
    return f"<section{anchor}>\n<h2>{escape(heading)}</h2>\n{body}\n</section>"


def bullets(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def image(picture: figures.Picture) -> str:
    """A photograph is shown as it is; a chart follows the page's colours."""
    size = f'width="{picture.width}" height="{picture.height}"'
    kind = ' class="chart"' if picture.format == "svg" else ""
    return f'<img{kind} src="{picture.uri}" {size} alt="{escape(picture.alt)}">'


def figure(pictures: Sequence[figures.Picture], caption: str) -> str:
    images = "\n".join(map(image, pictures))
    kind = ' class="beside"' if len(pictures) == 1 else ""
    return f'<figure{kind}><div class="panels">{images}</div><figcaption>{escape(caption)}</figcaption></figure>'


def table(label: str, columns: Sequence[Column[Row]], body: str, caption: str, kind: str = "stacked") -> str:
    """`body` and `caption` are HTML already."""
    heads = "".join(f'<th scope="col"{_words(column)}>{escape(column.title)}</th>' for column in columns)
    return (
        f'<p class="above">{caption}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table class="{kind}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def row_cells(columns: Sequence[Column[Row]], row: Row, color: str) -> str:
    dot = f'<span class="dot" style="{f"background:{color}" if color else "visibility:hidden"}"></span>'
    name = escape(columns[0].cell(row).value)
    cells = "".join(f"<td{_words(column)}>{_cell(column.cell(row))}</td>" for column in columns[1:])
    return f'<tr><th scope="row" class="words">{dot}{name}</th>{cells}</tr>'


def _words(column: Column[Row]) -> str:
    return ' class="words"' if column.words else ""


def _cell(cell: Cell) -> str:
    return escape(cell.value or DASH) + (f" <small>{escape(cell.interval)}</small>" if cell.interval else "")


def with_ends(estimate: Estimate, name: str = "", *, sign: bool = False) -> str:
    text = number(estimate.value, sign=sign)
    if not estimate.bounded:
        return text
    return f"{text} ({name}{number(estimate.low, sign=sign)} to {number(estimate.high, sign=sign)})"
