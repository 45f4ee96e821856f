"""A scene as SVG: for the page (colours come from its style sheet), or as a file of its own that follows light and dark."""

from __future__ import annotations

from itertools import pairwise

from golfctl.report.pictures.palette import FONT, rules
from golfctl.report.pictures.scene import Box, Card, Disc, Item, Scene, Shape, Words
from golfctl.report.pictures.text import shown


def inline(scene: Scene, name: str) -> str:
    """For the page. name: its id there, of letters and dashes."""
    return (
        f'<svg viewBox="0 0 {_n(scene.width)} {_n(scene.height)}" width="{_n(scene.width)}" role="group" '
        f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{shown(scene.title)}</title>'
        f'<desc id="{name}-d">{shown(scene.text)}</desc>{"".join(map(_item, scene.items))}</svg>'
    )


def bare(scene: Scene) -> str:
    """A small picture within a line of text: its title is all there is to say."""
    return (
        f'<svg viewBox="0 0 {_n(scene.width)} {_n(scene.height)}" width="{_n(scene.width)}" height="{_n(scene.height)}" '
        f'role="img" aria-label="{shown(scene.title)}">{"".join(map(_item, scene.items))}</svg>'
    )


def document(scene: Scene) -> str:
    """A file: readable in light and dark, the same bytes for the same scene. Cards show their label as a tool tip."""
    style = f"text{{font-family:{FONT};font-variant-numeric:tabular-nums}}.b{{font-weight:600}}{rules()}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(scene.width)} {_n(scene.height)}" '
        f'width="{_n(scene.width)}" height="{_n(scene.height)}" role="img" aria-labelledby="t d">'
        f'<title id="t">{shown(scene.title)}</title><desc id="d">{shown(scene.text)}</desc><style>{style}</style>'
        f'<rect width="100%" height="100%" class="f-card"/>{"".join(_item(item, True) for item in scene.items)}</svg>\n'
    )


def _item(item: Item, titled: bool = False) -> str:
    if isinstance(item, Card):
        inside = "".join(map(_item, item.items))
        if titled:
            return f"<g><title>{shown(item.label)}</title>{inside}</g>"
        label = shown(item.label)
        return (
            f'<g class="card" tabindex="0" role="button" data-key="{shown(item.key)}" aria-label="{label}">{inside}</g>'
        )
    if isinstance(item, Words):
        bold = ' class="b f-' if item.bold else ' class="f-'
        anchor = "" if item.anchor == "start" else f' text-anchor="{item.anchor}"'
        return (
            f'<text x="{_n(item.x)}" y="{_n(item.y)}"{bold}{item.colour}" font-size="{_n(item.size)}"{anchor}>'
            f"{shown(item.text)}</text>"
        )
    if isinstance(item, Disc):
        return f'<circle cx="{_n(item.x)}" cy="{_n(item.y)}" r="{_n(item.radius)}"{_paint(item.fill, item.stroke, item.line)}/>'
    if isinstance(item, Box):
        radius = f' rx="{_n(item.radius)}"' if item.radius else ""
        return (
            f'<rect x="{_n(item.x)}" y="{_n(item.y)}" width="{_n(item.width)}" height="{_n(item.height)}"{radius}'
            f"{_paint(item.fill, item.stroke, item.line, item.dash, item.opacity)}/>"
        )
    return _shape(item)


def _shape(item: Shape) -> str:
    """Its points as steps from one to the next: shorter than places, and without their sum of errors."""
    tenths = [(round(10 * x), round(10 * y)) for x, y in item.points]
    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(tenths)]
    x, y = tenths[0]
    path = f"M{_n(x / 10)} {_n(y / 10)}l" + " ".join(f"{_n(dx / 10)} {_n(dy / 10)}" for dx, dy in steps)
    return f'<path d="{path}{"Z" if item.closed else ""}"{_paint(item.fill, item.stroke, item.width, item.dash, item.opacity)}/>'


def _paint(fill: str, stroke: str, width: float, dash: tuple[float, ...] = (), opacity: float = 1.0) -> str:
    names = [f"f-{fill}"] * bool(fill) + [f"s-{stroke}"] * bool(stroke)
    parts = [f' class="{" ".join(names)}"']
    parts += [] if fill else [' fill="none"']
    parts += [f' stroke-width="{_n(width)}"'] if stroke and width != 1 else []
    parts += [f' stroke-dasharray="{" ".join(map(_n, dash))}"'] if dash else []
    parts += [f' opacity="{_n(opacity)}"'] if opacity != 1 else []
    return "".join(parts)


def _n(value: float) -> str:
    """A number with at most one digit after the point."""
    text = f"{value:.1f}"
    text = text[:-2] if text.endswith(".0") else text
    return "0" if text == "-0" else text
