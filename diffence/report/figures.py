"""The figures of a report, as SVG or PNG bytes with a text for those who cannot see them. Same input, same bytes.

One colour stands for one defense setting in every figure (Okabe and Ito's palette, safe for colour-blind readers), and
each has a line style and a marker of its own too. Panels are small enough for a phone: nothing has to be scaled down.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, PercentFormatter
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray
from scipy.stats import rankdata

from diffence.files import atomic_path
from diffence.report.content import (
    UNDEFENDED,
    Estimate,
    ImageGrid,
    IntervalSearch,
    PhiSample,
    RocCurve,
    ScoreSample,
    SettingRow,
)
from diffence.report.text import number

__all__ = [
    "Picture",
    "Style",
    "image_grid",
    "interval_search",
    "phi_histograms",
    "roc_curves",
    "score_histograms",
    "styles",
    "tradeoff",
]

PIXELS_PER_INCH = 96  # of CSS, so that a point in a figure is a point on the page
LOW_FPR = 1e-3
GRAY = "#595959"


@dataclass(frozen=True)
class Picture:
    """An image file in memory. width, height: its size on the page in CSS pixels. alt: what it shows, in words."""

    format: Literal["svg", "png"]
    data: bytes
    width: int
    height: int
    alt: str

    @property
    def uri(self) -> str:
        kind = "svg+xml" if self.format == "svg" else "png"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode('ascii')}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all."""
        with atomic_path(path) as temporary:
            temporary.write_bytes(self.data)


@dataclass(frozen=True)
class Style:
    color: str
    line: Any  # a matplotlib line style
    marker: str


_STYLES = {
    UNDEFENDED: Style("#000000", "-", "o"),
    "scenario 1": Style("#0072B2", (0, (6, 2)), "s"),
    "scenario 2": Style("#009E73", (0, (3, 1.5)), "^"),
    "scenario 3": Style("#D55E00", "-", "D"),
    "averaging of logits": Style("#CC79A7", (0, (6, 2, 1.5, 2)), "v"),
    "averaging of probabilities": Style("#B8860B", (0, (1.5, 1.5)), "P"),
}
_OTHERS = (
    Style("#56B4E9", "-", "X"),
    Style("#7F3C8D", (0, (6, 2)), "p"),
    Style("#8C564B", (0, (3, 1.5)), "h"),
    Style("#6B7A00", (0, (6, 2, 1.5, 2)), "<"),
    Style("#C44E52", (0, (1.5, 1.5)), ">"),
    Style("#3B6FB6", (0, (8, 2, 1.5, 2, 1.5, 2)), "d"),
)


def styles(settings: Iterable[str]) -> dict[str, Style]:
    """The style of each setting: fixed for the fence's own settings, by order of appearance for others."""
    names = list(dict.fromkeys(settings))
    others = [name for name in names if name not in _STYLES]
    return {name: _STYLES.get(name) or _OTHERS[others.index(name) % len(_OTHERS)] for name in names}


def roc_curves(curves: Sequence[RocCurve], key: str = "setting") -> list[Picture]:
    """One panel an attack, log-log; a curve a setting. All panels share their axes, which end at 1 / sample size.

    Curves whose attack is "" share a panel without a title; `key` says what their `setting` is then.
    """
    style = styles(curve.setting for curve in curves)
    smallest = min(min(1 / curve.nonmembers, LOW_FPR) for curve in curves)
    low = 0.8 * min(smallest, min(1 / curve.members for curve in curves))
    resolution = min(1 / curve.nonmembers for curve in curves)
    pictures = []
    for attack in dict.fromkeys(curve.attack for curve in curves):
        with _figure(4.6, 4.5 + 0.22 * len(style)) as figure:
            axes = figure.add_subplot(xscale="log", yscale="log", xlim=(low, 1.2), ylim=(low, 1.2))
            # The empirical curve is a staircase. 500 samples of it are finer than a pixel and keep the file small.
            grid = np.geomspace(low, 1, 500)
            axes.plot(grid, grid, color=GRAY, linewidth=1, linestyle=(0, (1, 2)))
            if resolution > low:
                axes.axvspan(low, resolution, color="#eeeeee", linewidth=0)
            axes.axvline(LOW_FPR, color=GRAY, linewidth=1)
            said = []
            for curve in (curve for curve in curves if curve.attack == attack):
                fpr, tpr = np.asarray(curve.fpr), np.asarray(curve.tpr)
                reached = tpr[np.maximum(np.searchsorted(fpr, grid, side="right") - 1, 0)]
                shown = np.where(reached > 0, reached, low / 10)  # zero has no logarithm; leave through the bottom
                look, auc = style[curve.setting], number(curve.auc.value)
                label = f"{_clip(curve.setting, 30)} ({auc})" if curve.auc.known else _clip(curve.setting, 36)
                axes.plot(grid, shown, color=look.color, linestyle=look.line, linewidth=1.8, label=label)
                said.append(f"{curve.setting} AUC {auc}, TPR {_tpr(curve):.1%} at 0.1% FPR")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(FixedLocator([10.0**i for i in range(-9, 1) if 10.0**i >= low]))
                axis.set_major_formatter(lambda rate, _: f"{100 * rate:g}%")
                axis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("false-positive rate (non-members accused)")
            axes.set_ylabel("true-positive rate (members found)")
            if attack:
                axes.set_title(_clip(f"attack: {attack}", 40))
            figure.legend(loc="outside lower left", title=f"{key} (AUC)", alignment="left")
            of = f" of the {attack} attack" if attack else ""
            alt = f"ROC curves{of} on log-log axes: {'; '.join(said)}."
            pictures.append(_picture(figure, alt))
    return pictures


def phi_histograms(samples: Sequence[PhiSample], bins: int = 40) -> list[Picture]:
    """One panel a setting: members filled, non-members as a line. All panels share bins and axes.

    The outer bins hold everything beyond them (the outermost half percent on either side, and infinities).
    """
    style = styles(sample.setting for sample in samples)
    kept = [[_numbers(sample.members), _numbers(sample.nonmembers)] for sample in samples]
    edges = _edges(np.concatenate([values for pair in kept for values in pair]), bins)
    low, high = edges[0], edges[-1]
    shares = [[_shares(values, edges) for values in pair] for pair in kept]
    top = 1.08 * max(share.max() for pair in shares for share in pair)
    pictures = []
    for sample, (members, nonmembers) in zip(samples, shares, strict=True):
        with _figure(3.5, 2.9) as figure:
            axes = figure.add_subplot(xlim=(low, high), ylim=(0, top))
            if sample.interval is not None:
                ends = np.clip(sample.interval, low, high)
                axes.axvspan(*ends, color="#fff1c9", linewidth=0)
            axes.stairs(members, edges, fill=True, color=style[sample.setting].color, alpha=0.45)
            axes.stairs(nonmembers, edges, color="#222222", linewidth=1.6)
            axes.set_title(_clip(sample.setting, 32))
            axes.set_xlabel("logit φ of the answer")
            axes.set_ylabel("share of images")
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            medians = [_median(values) for values in (sample.members, sample.nonmembers)]
            alt = (
                f"Histogram of phi, {sample.setting}: median {number(medians[0], 2)} for members,"
                f" {number(medians[1], 2)} for non-members."
            )
            pictures.append(_picture(figure, alt))
    return pictures


def score_histograms(samples: Sequence[ScoreSample], bins: int = 40) -> list[Picture]:
    """One panel an attack: its scores of members filled, of non-members as a line; each panel has its own axes.

    The outer bins hold everything beyond them (the outermost half percent on either side, and infinities). Where more
    than half of all fall into one bin, ranks are shown instead, from 0 to 1, ties at their middle.
    """
    style = styles(sample.attack for sample in samples)
    pictures = []
    for sample in samples:
        members, nonmembers = _numbers(sample.members), _numbers(sample.nonmembers)
        both, name = np.concatenate([members, nonmembers]), "score (larger: member)"
        edges = _edges(both, bins)
        if _shares(both, edges).max() > 0.5 and len(np.unique(both)) > bins:
            both, name = (rankdata(both) - 0.5) / len(both), "rank of the score (larger: member)"
            edges = np.linspace(0, 1, bins // 2 + 1)
        low, high = edges[0], edges[-1]
        shares = [_shares(values, edges) for values in (both[: len(members)], both[len(members) :])]
        with _figure(3.5, 2.9) as figure:
            axes = figure.add_subplot(xlim=(low, high), ylim=(0, 1.08 * max(share.max() for share in shares)))
            axes.stairs(shares[0], edges, fill=True, color=style[sample.attack].color, alpha=0.45)
            axes.stairs(shares[1], edges, color="#222222", linewidth=1.6)
            axes.set_title(_clip(sample.attack, 32))
            axes.set_xlabel(name)
            axes.set_ylabel("share of images")
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            medians = [_median(values) for values in (members, nonmembers)]
            alt = (
                f"Histogram of the scores of the {sample.attack} attack: median {number(medians[0])} for members,"
                f" {number(medians[1])} for non-members."
            )
            pictures.append(_picture(figure, alt))
    return pictures


def tradeoff(rows: Sequence[SettingRow]) -> Picture | None:
    """Attack AUC over test accuracy, a point a setting, with intervals and the gap floor; None without a point."""
    rows = [row for row in rows if row.auc.known and row.test_accuracy.known]
    if not rows:
        return None
    style = styles(row.setting for row in rows)
    with _figure(4.6, 3.6 + 0.22 * (len(rows) + 2)) as figure:
        axes = figure.add_subplot()
        at = [round(_known(row.test_accuracy), 6) for row in rows]
        for i, row in enumerate(rows):
            # Settings that keep every label have the same accuracy: set them side by side, 7 points apart.
            level = [j for j in range(len(rows)) if at[j] == at[i]]
            aside = axes.transData + _beside(figure, 7 * (level.index(i) - (len(level) - 1) / 2), 0)
            look, x, y = style[row.setting], at[i], _known(row.auc)
            for estimate, vertical in ((row.auc, True), (row.test_accuracy, False)):
                if estimate.bounded:
                    ends = [estimate.low, estimate.high]
                    line = ([x, x], ends) if vertical else (ends, [y, y])
                    width = 1.8 if vertical else 0.7
                    axes.plot(*line, color=look.color, linewidth=width, transform=aside)
            label = _clip(row.setting, 36)
            axes.plot(x, y, look.marker, color=look.color, markersize=8, label=label, transform=aside)
            if row.gap_floor.known:
                floor = _known(row.gap_floor)
                axes.plot(x, floor, "_", color=look.color, markersize=9, markeredgewidth=3, transform=aside)
        axes.axhline(0.5, color=GRAY, linewidth=1, linestyle=(0, (1, 2)))
        _limits(axes, rows)
        axes.set_xlabel("test accuracy")
        axes.set_ylabel("AUC of the strongest attack")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        handles, labels = axes.get_legend_handles_labels()
        handles += [
            Line2D([], [], color=GRAY, marker="_", linestyle="", markersize=9, markeredgewidth=3),
            Line2D([], [], color=GRAY, linewidth=1, linestyle=(0, (1, 2))),
        ]
        figure.legend(handles, [*labels, "gap floor (labels alone)", "guessing"], loc="outside lower left")
        said = "; ".join(
            f"{row.setting}: accuracy {_known(row.test_accuracy):.1%}, AUC {number(row.auc.value)},"
            f" gap floor {number(row.gap_floor.value)}"
            for row in rows
        )
        return _picture(figure, f"Attack AUC over test accuracy. {said}.")


def interval_search(search: IntervalSearch) -> Picture:
    """Divergence of every interval tried: a heat map over its two ends, or a curve when one end is fixed."""
    lows, highs, values = np.asarray(search.lows), np.asarray(search.highs), np.asarray(search.divergences)
    x, column = np.unique(lows, return_inverse=True)
    y, row = np.unique(highs, return_inverse=True)
    with _figure(4.6, 4.0) as figure:
        axes = figure.add_subplot()
        if min(len(x), len(y)) == 1:
            free, name = (highs, "high end") if len(x) == 1 else (lows, "low end")
            order = np.argsort(free, kind="stable")
            axes.plot(free[order], values[order], color="#0072B2", marker="o", markersize=4)
            axes.set_xlabel(f"{name} of the interval (φ)")
            axes.set_ylabel("divergence")
            if search.chosen is not None:
                axes.axvline(search.chosen[1 if len(x) == 1 else 0], color="#D55E00", linewidth=1.5, label="chosen")
        else:
            table = np.full((len(y), len(x)), np.nan)
            table[row, column] = values
            mesh = axes.pcolormesh(x, y, np.ma.masked_invalid(table), cmap="cividis", shading="nearest")
            mesh.set_rasterized(len(values) > 5000)  # a cell is a path in SVG
            figure.colorbar(mesh, ax=axes, label="divergence (darker: harder to tell apart)")
            if search.chosen is not None:
                look = {
                    "markersize": 11,
                    "markerfacecolor": "white",
                    "markeredgecolor": "#D55E00",
                    "markeredgewidth": 2,
                }
                axes.plot(*search.chosen, "o", label="chosen", **look)  # type: ignore[arg-type]
            axes.set_xlabel("low end of the interval (φ)")
            axes.set_ylabel("high end of the interval (φ)")
        if search.chosen is not None:
            axes.legend(loc="best" if min(len(x), len(y)) == 1 else "lower right")
        alt = f"Divergence of {len(values)} intervals"
        if np.isfinite(values).any():
            alt += f", from {number(np.nanmin(values), 4)} to {number(np.nanmax(values), 4)}"
        if search.chosen is not None:
            alt += f"; chosen: {number(search.chosen[0], 2)} to {number(search.chosen[1], 2)}"
        return _picture(figure, alt + ".")


def image_grid(grid: ImageGrid) -> Picture:
    """One row an image: the original, then its reconstructions, the chosen one framed. Pixels are squares."""
    originals, draws = np.asarray(grid.originals), np.asarray(grid.reconstructions)
    rows, columns = draws.shape[:2]
    texts: dict[tuple[int, int], str] = {}
    for r in range(rows):
        drawn = grid.draw_captions[r] if grid.draw_captions else [""] * columns
        for c, caption in enumerate([grid.captions[r] if grid.captions else "", *drawn]):
            texts[r, c] = "\n".join(textwrap.wrap(str(caption), 15, max_lines=2, placeholder="…"))
    lines = max((text.count("\n") + 1 for text in texts.values() if text), default=0)
    size, head = 1.04, 0.3  # of an image, of the line above; in inches, as all lengths here
    across, down = size + 0.08, size + 0.1 + 0.17 * lines
    width, height = across * (columns + 1) + 0.15, down * rows + head
    with _figure(width, height, layout="none") as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        figure.patch.set_facecolor("white")
        for (r, c), text in texts.items():
            left, top = 0.04 + c * across + (0.07 if c else 0), head + r * down
            pixels = originals[r] if c == 0 else draws[r, c - 1]
            shown = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels
            place = (left, left + size, top + size, top)
            axes.imshow(shown.transpose(1, 2, 0), extent=place, interpolation="nearest", aspect="auto")
            chosen = c > 0 and len(grid.chosen) > 0 and grid.chosen[r] == c - 1
            edge, thickness = ("#D55E00", 3) if chosen else ("#bbbbbb", 0.8)
            frame = Rectangle((left, top), size, size, fill=False, edgecolor=edge, linewidth=thickness)
            axes.add_patch(frame)
            axes.text(left + size / 2, top + size + 0.05, text, ha="center", va="top", fontsize=9.5)
        axes.text(0.04, 0.2, "original", fontweight="bold")
        axes.text(0.11 + across, 0.2, "reconstructions", fontweight="bold")
        axes.set(xlim=(0, width), ylim=(height, 0))
        said = "; ".join(str(caption) for caption in grid.captions)
        alt = f"{rows} originals, each with {columns} reconstructions" + (f": {said}." if said else ".")
        return _picture(figure, alt, "png")


# ---- small parts -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _figure(width: float, height: float, layout: str = "constrained") -> Iterator[Figure]:
    """A figure of so many inches, in our own style; the user's settings of matplotlib come back afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "font.family": "DejaVu Sans",  # comes with matplotlib
                "font.size": 11,
                "axes.titlesize": 12,
                "axes.labelsize": 11,
                "xtick.labelsize": 10.5,
                "ytick.labelsize": 10.5,
                "legend.fontsize": 10.5,
                "legend.title_fontsize": 10.5,
                "legend.frameon": False,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "text.parse_math": False,  # a name may hold dollar signs
                "svg.hashsalt": "diffence",
                "svg.fonttype": "path",
            }
        )
        whole = [round(side * PIXELS_PER_INCH) / PIXELS_PER_INCH for side in (width, height)]
        yield Figure(figsize=whole, layout=layout)  # type: ignore[arg-type]


def _picture(figure: Figure, alt: str, kind: Literal["svg", "png"] = "svg") -> Picture:
    file = io.BytesIO()
    empty = {"Date": None, "Creator": None, "Format": None, "Type": None} if kind == "svg" else {"Software": None}
    see_through = kind == "svg"  # charts lie on whatever colour the page has
    figure.savefig(
        file, format=kind, transparent=see_through, dpi=2 * PIXELS_PER_INCH if kind == "png" else 72, metadata=empty
    )
    data = file.getvalue()
    if kind == "svg":
        data = data[data.index(b"<svg") :]  # without the document type, which names a file elsewhere
    width, height = (round(float(inches) * PIXELS_PER_INCH) for inches in figure.get_size_inches())
    return Picture(kind, data, width, height, " ".join(alt.split()))


def _beside(figure: Figure, right: float, up: float) -> ScaledTranslation:
    """A shift in points."""
    return ScaledTranslation(right / 72, up / 72, figure.dpi_scale_trans)


def _clip(text: str, limit: int) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _known(estimate: Estimate) -> float:
    return float("nan") if estimate.value is None else float(estimate.value)


def _numbers(values: object) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return array[~np.isnan(array)]


def _median(values: object) -> float | None:
    array = _numbers(values)
    # An element of the sample: between two infinities there is no middle.
    return float(np.quantile(array, 0.5, method="inverted_cdf")) if array.size else None


def _edges(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Equal bins over all but the outermost half percent on either side."""
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, (0.005, 0.995)) if finite.size else (0.0, 1.0)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    return counts / max(len(values), 1)


def _tpr(curve: RocCurve) -> float:
    """TPR at strictly less than 0.1 % FPR."""
    return float(np.asarray(curve.tpr)[np.asarray(curve.fpr) < LOW_FPR].max(initial=0.0))


def _limits(axes: Axes, rows: Sequence[SettingRow]) -> None:
    """Room around everything that is drawn, shifted points included."""
    accuracy: list[float] = []
    auc = [0.5]
    for row in rows:
        for estimate, values in ((row.test_accuracy, accuracy), (row.auc, auc), (row.gap_floor, auc)):
            ends = (estimate.value, estimate.low, estimate.high) if estimate.bounded else (estimate.value,)
            values.extend(float(end) for end in ends if end is not None and np.isfinite(end))
    for values, set_limits in ((accuracy, axes.set_xlim), (auc, axes.set_ylim)):
        pad = 0.08 * max(max(values) - min(values), 0.05)
        set_limits(min(values) - pad, max(values) + pad)
