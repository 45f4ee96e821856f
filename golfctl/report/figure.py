"""Loss curves as SVG and PNG: the same bytes for the same numbers, readable in light and dark and by the colour-blind."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from golfctl.report.curves import WORDS, Array, Curve, Limits, limits_of, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours in an order that keeps neighbours apart, without the yellow that white swallows. With four line
# styles no two of 28 curves look alike, even in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":")
COLUMNS = 1200
FEW = 60
"""Points up to which each is marked."""
WIDE = 75
"""Letters of a name and its score above which the legend has one column."""
LABELLED = 8
"""Curves up to which final values stand in the picture, not only in the legend."""
UNITS = ((3 * 3.6e6, 3.6e6, "h"), (3 * 6e4, 6e4, "min"), (0.0, 1e3, "s"))
# A viewer in the dark sees the lightness turned round and the hues kept.
DARK = "@media (prefers-color-scheme: dark) {svg {filter: invert(0.93) hue-rotate(180deg)}}"
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "golfctl",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 9,
}


def picture(curves: Sequence[Curve], axes: Sequence[str], kind: str, form: str, log_x: bool = False) -> bytes:
    """A panel for each axis side by side and one legend, as `svg` or `png`."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for it; the picture holds
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        figure = _figure(curves, axes, kind, log_x)
        buffer = io.BytesIO()
        nameless: dict[str, Any] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[form]
        figure.savefig(buffer, format=form, dpi=150, metadata=nameless, bbox_inches="tight")
    content = buffer.getvalue()
    return content.replace(b"</style>", DARK.encode() + b"</style>", 1) if form == "svg" else content


def _figure(curves: Sequence[Curve], axes: Sequence[str], kind: str, log_x: bool) -> Figure:
    wide = max(len(_legend(curve)) for curve in curves) > WIDE
    columns = 1 if wide or len(curves) < 3 else len(axes)
    figure = Figure(figsize=(5.6 * len(axes), 3.6 + 0.2 * math.ceil(len(curves) / columns)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(axes), squeeze=False)[0]
    limits = limits_of(curves, axes, log_x)
    for panel, axis in zip(panels, axes, strict=True):
        _panel(panel, curves, axis, limits, log_x)
    panels[0].set_ylabel(WORDS[kind])
    panels[-1].set_title(limits.say(), loc="right", color="#555555")
    handles, labels = panels[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower left", ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ in a file's name is a $
    legend.get_frame().set_alpha(0)
    return figure


def _panel(panel: Axes, curves: Sequence[Curve], axis: str, limits: Limits, log_x: bool) -> None:
    panel.set_ylim(limits.low, limits.high)
    shown = [curve for curve in curves if len(curve.on(axis, log_x)[0])]
    unit, name = _unit(shown, axis)
    panel.set_xlabel(name)
    if log_x:
        panel.set_xscale("log")
    elif axis == "step":
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for number, curve in enumerate(curves):
        _line(panel, curve, number, axis, unit, log_x)
    if not shown:
        panel.text(0.5, 0.5, "the logs say no times", transform=panel.transAxes, ha="center")
        return
    _finals(panel, curves, axis, unit, limits.high - limits.low)


def _unit(shown: Sequence[Curve], axis: str) -> tuple[float, str]:
    """(what x is divided by, name of the axis)."""
    if axis == "step":
        return 1.0, "step"
    longest = max((float(curve.on(axis)[0].max()) for curve in shown), default=0.0)
    _, unit, word = next(row for row in UNITS if longest >= row[0])
    return unit, f"training time ({word})"


def _line(panel: Axes, curve: Curve, number: int, axis: str, unit: float, log_x: bool) -> None:
    x, y = thinned(*curve.on(axis, log_x), COLUMNS, log_x)
    gaps = ~np.isfinite(y)
    colour, style = _look(number)
    few = len(x) <= FEW
    panel.plot(
        x / unit,
        np.where(gaps, np.nan, y),
        color=colour,
        linestyle=style,
        linewidth=1.3,
        marker="o" if few or _alone(y) else None,
        markersize=2.5,
        markevery=None if few else _alone(y),
        label=_legend(curve),
    )
    if gaps.any():
        x, _ = thinned(x[gaps], x[gaps], FEW // 4, log_x)
        panel.plot(x / unit, [0.015] * len(x), "x", color=colour, markersize=4, transform=panel.get_xaxis_transform())


def _look(number: int) -> tuple[str, str]:
    return COLOURS[number % len(COLOURS)], STYLES[number % len(STYLES)]


def _alone(y: Array) -> list[int]:
    """Indices of points between two gaps: no line shows them."""
    finite = np.concatenate(([False], np.isfinite(y), [False]))
    return [int(index) for index in np.flatnonzero(finite[1:-1] & ~finite[:-2] & ~finite[2:])]


def _legend(curve: Curve) -> str:
    gaps = f" ({curve.gaps:,} nan: x)" if curve.gaps else ""
    return f"{curve.name}{gaps}" + (f": {curve.final[0]:.4f} {curve.final[1]}" if curve.final else "")


def _finals(panel: Axes, curves: Sequence[Curve], axis: str, unit: float, height: float) -> None:
    """A diamond where each run scored; its value beside it, moved up where two would lie on each other."""
    ended = [
        (curve.final[0], curve.end[axis] / unit, number)
        for number, curve in enumerate(curves)
        if curve.final and math.isfinite(curve.end[axis])
    ]
    at = -math.inf
    for value, end, number in sorted(ended):
        colour, _ = _look(number)
        panel.plot(
            [end], [value], "D", color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.6, zorder=5
        )
        if len(ended) <= LABELLED:
            at = max(value, at + 0.045 * height)
            panel.annotate(
                f"{value:.4f}",
                (end, at),
                xytext=(7, 0),
                textcoords="offset points",
                color=colour,
                va="center",
                annotation_clip=False,
            )
