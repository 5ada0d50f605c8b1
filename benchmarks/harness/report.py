"""What unet_cpu.py prints, writes and draws, from plain dictionaries as they stand in its JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from diffence.files import atomic_path
from harness.machine import OTHERS
from harness.rounds import BUSY, CALM, STEAL, Row, quartiles

__all__ = ["MEASURES", "case_results", "chart", "heading", "summary", "table"]

MEASURES = {
    "evaluate": "one evaluation",
    "paper": "all draws",
    "early": "stopping early",  # on images whose first draw agrees
    "release": "as the release does it",
}
_COLOURS = {"diffence": "#c2410c", "torch": "#64748b", "onnxruntime": "#0f766e", "openvino": "#4f46e5"}


def case_results(
    case: dict[str, Any],
    facts: dict[str, Any],
    rows: Sequence[Row],
    goals: Sequence[dict[str, Any]],
    left_out: dict[str, str],
) -> dict[str, Any]:
    """All that is known of a case, ready for JSON. `facts` and `goals` are those of the case."""
    measured = {row.name: row for row in rows if row.samples}
    engines = []
    for row in measured.values():
        low, high = row.quartiles()
        counted = row.counted()
        ours = measured.get(_counterpart(row))
        ratios = [] if ours is None or row.engine.ours else ours.faster_than(row)
        engines.append(
            {
                "name": row.name,
                "label": row.label,
                "family": row.engine.family,
                "precision": row.engine.precision,
                "per second": row.median(),
                "quartiles": [low, high],
                "diffence is faster by": statistics.median(ratios) if ratios else None,
                "processors used": statistics.median(sample.cpu / sample.wall for sample in counted),
                "steal": max(sample.steal for sample in counted),
                "others": max(sample.others for sample in counted),
                "calm": sum(not sample.disturbed for sample in row.samples),
                "disturbed": row.marked(),
                "relative L2 error": row.error,
                "bound of the error": row.bound,
                "facts": row.facts,
                "samples": [asdict(sample) for sample in row.samples],
            }
        )
    return {
        "name": case["name"],
        "title": case["title"],
        "batch": case["batch"],
        "threads": case["threads"],
        "unit": "images" if case["fenced"] else "evaluations",
        "network": facts,
        "engines": engines,
        "left out": left_out,
        "goals": [_judge(goal, measured, left_out) for goal in goals],
    }


def _counterpart(row: Row) -> str:
    """The row of diffence that a peer's row is set against in the table."""
    ours = "diffence" if row.engine.precision == "fp32" else "diffence-bf16"
    return f"{ours}:paper" if ":" in row.name else ours


def _judge(goal: dict[str, Any], measured: dict[str, Row], left_out: dict[str, str]) -> dict[str, Any]:
    """The goal with the fastest peer, the ratio and whether it was met; or why it cannot be said."""
    peers = [measured[name] for name in goal["peers"] if name in measured]
    verdict: dict[str, Any] = {"goal": goal["text"], "at least": goal["factor"], "row": goal["row"], "met": None}
    if goal["row"] not in measured:
        reason = left_out.get(goal["row"]) or left_out.get(goal["row"].partition(":")[0]) or "diffence was not measured"
        return verdict | {"reason": reason}
    if not peers:
        reasons = [left_out[name] for name in goal["peers"] if name in left_out]
        return verdict | {"reason": reasons[0] if reasons else "no such peer was measured"}
    fastest = max(peers, key=Row.median)
    ratios = measured[goal["row"]].faster_than(fastest)
    ratio = statistics.median(ratios)
    met = None if goal["factor"] is None else ratio >= goal["factor"]
    missing = sorted({name.partition(":")[0] for name in goal["peers"] if name not in measured})
    return verdict | {
        "fastest peer": fastest.label,
        "ratio": ratio,
        "quartiles": list(quartiles(ratios)),
        "met": met,
        "peers not measured": missing,
    }


def heading(results: dict[str, Any]) -> str:
    """What is measured, on what."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"{machine['processor']} (family, model {', '.join(machine['family, model'])}), "
        f"{machine['processors at hand']} processors, {', '.join(machine['features'])}",
        versions,
        f"{results['rounds']} rounds of {results['seconds']:g} s or one call, load average {machine['load average'][0]}"
        + (", quick: these figures decide nothing" if results["quick"] else ""),
    ]
    return "\n".join(lines)


def table(case: dict[str, Any]) -> str:
    """The rows of one case, its goals, and what was left out."""
    unit = case["unit"]
    work = f", {case['network']['flop'] / 1e9:.3f} GFLOP an evaluation"
    width = max([len(engine["label"]) for engine in case["engines"]] + [24])
    lines = [
        "",
        f"{case['name']}: {case['title']}, {case['threads']} thread{'s' if case['threads'] > 1 else ''}{work}",
        f"{'engine':<{width}} {unit + '/s':>13} {'quartiles':>17} {'diffence':>9} {'cpu/wall':>9} {'steal':>6} "
        f"{'others':>7} {'calm':>5} {'error':>8}",
    ]
    for engine in sorted(case["engines"], key=lambda engine: -engine["per second"]):
        low, high = engine["quartiles"]
        ratio = engine["diffence is faster by"]
        spread = f"{_digits(low)} … {_digits(high)}"
        calm = f"{engine['calm']}/{len(engine['samples'])}"
        lines.append(
            f"{engine['label']:<{width}} {_digits(engine['per second']):>13} {spread:>17} "
            f"{'' if ratio is None else f'{ratio:.2f}x':>9} {engine['processors used']:>9.2f} {engine['steal']:>6.1%} "
            f"{engine['others']:>7.1%} {calm:>5} {engine['relative L2 error']:>8.1e}"
            + (" ~" if engine["disturbed"] else "")
        )
        used = engine["facts"].get("draws used an image")
        if used is not None:
            agree, asked = (engine["facts"][key] for key in ("first draw agrees", "images asked"))
            lines.append(
                f"{'':<{width}} (images whose first draw agrees, {agree} of {asked}; all of them take {used:.1f} draws)"
            )
    lines += [f"goal: {_goal(goal)}" for goal in case["goals"]]
    lines += [f"left out: {name}: {reason}" for name, reason in _merged(case["left out"]).items()]
    if any(engine["disturbed"] for engine in case["engines"]):
        lines.append(
            f"~ disturbed: fewer than {CALM} rounds with at most {STEAL:.0%} of the machine stolen and {OTHERS:.0%} "
            f"used by others, or less than {BUSY:.0%} of the threads busy"
        )
    return "\n".join(lines)


def _merged(reasons: dict[str, str]) -> dict[str, str]:
    """The same reasons under one key: "a, b" -> reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return {", ".join(found): reason for reason, found in names.items()}


def _digits(value: float) -> str:
    """Three significant digits."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def _goal(goal: dict[str, Any]) -> str:
    wanted = "reported" if goal["at least"] is None else f"at least {goal['at least']:.1f}x"
    if "ratio" not in goal:
        return f"{goal['goal']}, {wanted}: not measured ({goal['reason']})"
    low, high = goal["quartiles"]
    verdict = {True: ", met", False: ", NOT met", None: ""}[goal["met"]]
    missing = f"; without {', '.join(goal['peers not measured'])}" if goal["peers not measured"] else ""
    return (
        f"{goal['goal']}, {wanted}: {goal['ratio']:.2f}x [{low:.2f}, {high:.2f}] ({goal['fastest peer']})"
        f"{verdict}{missing}"
    )


def summary(results: dict[str, Any]) -> str:
    """Every goal of every case, a line each."""
    lines = ["", "goals"]
    for case in results["cases"]:
        disturbed = any(engine["disturbed"] for engine in case["engines"])
        lines += [f"  {case['name'] + (' ~' if disturbed else ''):<18} {_goal(goal)}" for goal in case["goals"]]
    return "\n".join(lines)


def chart(results: dict[str, Any], path: Path) -> None:
    """Bars of every case, one panel each, with quartiles, as path.svg and path.png."""
    cases = [case for case in results["cases"] if case["engines"]]
    if not cases:
        return
    columns = min(2, len(cases))
    groups = [cases[start : start + columns] for start in range(0, len(cases), columns)]
    heights = [0.9 + 0.27 * max(len(case["engines"]) for case in group) for group in groups]
    figure, grid = plt.subplots(
        len(groups),
        columns,
        figsize=(6.6 * columns, sum(heights) + 0.6),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[len(cases) :]:
        axes.axis("off")
    for case, axes in zip(cases, grid.flat, strict=False):
        _panel(case, axes)
    machine = results["machine"]
    disturbed = any(engine["disturbed"] for case in cases for engine in case["engines"])
    notes = ["a quick run: decides nothing"] if results["quick"] else []
    notes += ["~ some measurements were disturbed"] if disturbed else []
    figure.suptitle(
        f"{machine['processor']}, {', '.join(machine['features'])}; {results['date'][:10]}\n{'; '.join(notes)}".strip(),
        fontsize=9,
    )
    for kind in ("svg", "png"):
        with atomic_path(path.with_suffix(f".{kind}")) as temporary:
            figure.savefig(temporary, format=kind, dpi=120)
    plt.close(figure)


def _panel(case: dict[str, Any], axes: Any) -> None:
    engines = sorted(case["engines"], key=lambda engine: engine["per second"])
    values = [engine["per second"] for engine in engines]
    errors = [
        [value - engine["quartiles"][0] for value, engine in zip(values, engines, strict=True)],
        [engine["quartiles"][1] - value for value, engine in zip(values, engines, strict=True)],
    ]
    colours = [_COLOURS[engine["family"]] for engine in engines]
    logarithmic = max(values) > 20 * min(values)
    bars = axes.barh(range(len(engines)), values, xerr=errors, color=colours, height=0.72, error_kw={"lw": 1})
    axes.set_yticks(
        range(len(engines)), [engine["label"] + (" ~" if engine["disturbed"] else "") for engine in engines], fontsize=8
    )
    texts = []
    for engine in engines:
        ratio = engine["diffence is faster by"]
        texts.append(_digits(engine["per second"]) + ("" if ratio is None else f"   (diffence {ratio:.2f}x)"))
    axes.bar_label(bars, texts, fontsize=7.5, padding=6)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, max(values) * 4)
    else:
        axes.set_xlim(0, 1.35 * max(values))
    unit = f"{case['unit']} a second" + (", logarithmic" if logarithmic else "")
    axes.set_title(f"{case['title']}, {case['threads']} thread{'s' if case['threads'] > 1 else ''}", fontsize=9)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
