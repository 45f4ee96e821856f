"""A scene as PNG, drawn by matplotlib in its light or dark colours: the same shapes as in the SVG."""

from __future__ import annotations

import io
import warnings
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon
from matplotlib.text import Text

from golfctl.report.pictures.palette import DARK, LIGHT
from golfctl.report.pictures.scene import Box, Disc, Scene, Shape, Words, flat
from golfctl.report.pictures.text import plain

DPI = 192
"""Two pixels for each unit of the scene."""
POINTS = 0.75
"""Points of type for each unit: 96 units and 72 points an inch."""
_DEJAVU = 0.9
"""Matplotlib's own letters are wider than a page's; set smaller they keep their places."""
_SIDES: dict[str, Any] = {"start": "left", "middle": "center", "end": "right"}
_TALLEST = 20_000
"""Pixels; a taller picture has fewer for each unit."""


def render(scene: Scene, dark: bool = False) -> bytes:
    """The picture as PNG."""
    colours = DARK if dark else LIGHT
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for it
        mpl.rcdefaults()
        figure = Figure(figsize=(scene.width / 96, scene.height / 96))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, scene.width)
        axes.set_ylim(scene.height, 0)
        axes.axis("off")
        for order, item in enumerate(flat(scene.items)):
            artist = _artist(item, colours)
            artist.set_zorder(order)
            axes.add_artist(artist)
        buffer = io.BytesIO()
        dpi = min(DPI, 96 * _TALLEST / scene.height)
        figure.savefig(buffer, format="png", dpi=dpi, facecolor=colours["card"], metadata={"Software": None})
    return buffer.getvalue()


def _artist(item: Shape | Box | Disc | Words, colours: dict[str, str]) -> Artist:
    if isinstance(item, Words):
        return Text(
            item.x,
            item.y,
            plain(item.text),
            color=colours[item.colour],
            fontsize=item.size * POINTS * _DEJAVU,
            fontweight="bold" if item.bold else "normal",
            horizontalalignment=_SIDES[item.anchor],
            verticalalignment="baseline",
            parse_math=False,
        )
    if isinstance(item, Disc):
        return Circle((item.x, item.y), item.radius, **_paint(item.fill, item.stroke, item.line, colours))
    if isinstance(item, Box):
        shape = f"round,pad=0,rounding_size={item.radius}" if item.radius else "square,pad=0"
        paint = _paint(item.fill, item.stroke, item.line, colours, item.dash, item.opacity)
        return FancyBboxPatch((item.x, item.y), item.width, item.height, boxstyle=shape, **paint)
    paint = _paint(item.fill, item.stroke, item.width, colours, item.dash, item.opacity)
    return Polygon(item.points, closed=item.closed, **paint)


def _paint(
    fill: str,
    stroke: str,
    width: float,
    colours: dict[str, str],
    dash: tuple[float, ...] = (),
    opacity: float = 1.0,
) -> dict[str, Any]:
    paint: dict[str, Any] = {
        "facecolor": colours[fill] if fill else "none",
        "edgecolor": colours[stroke] if stroke else "none",
        "linewidth": width * POINTS if stroke else 0,
        "alpha": None if opacity == 1 else opacity,
    }
    if dash:
        paint["linestyle"] = (0, tuple(length / max(width, 0.5) for length in dash))
    return paint
