"""`golfctl figure`: one of the report's pictures as a file. And the page of `golfctl report --html`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from golfctl.report.model import Report
    from golfctl.report.pictures.scene import Scene

NAMES = ("timeline", "stack", "graph", "flow", "sizes", "money")
NARROWEST, WIDEST = 320, 4000


def figure(
    name: Annotated[str, typer.Argument(help=f"Which: {', '.join(NAMES)}.")],
    target: Annotated[Path, typer.Option("-o", "--output", help="File to write: .svg or .png.")],
    width: Annotated[int, typer.Option(help="Width in pixels of a screen; under 600 it is drawn for a phone.")] = 1080,
    dark: Annotated[bool, typer.Option("--dark", help="PNG in dark colours; an SVG follows its viewer.")] = False,
) -> None:
    """Draw a picture of the report: leaderboard timeline, technique stack, plan graph, gate flow, score by size, money."""
    from golfctl.report.build import report_of
    from golfctl.report.pictures import png, svg
    from golfctl.store.files import write_atomic

    if name not in NAMES:
        from golfctl.store.marks import did_you_mean

        raise InputError(f"{name}: no such picture{did_you_mean(name, NAMES)}; there are {', '.join(NAMES)}")
    if target.suffix not in {".svg", ".png"}:
        raise InputError(f"{target}: must end in .svg or .png")
    if not NARROWEST <= width <= WIDEST:
        raise InputError(f"--width {width}: must be from {NARROWEST} to {WIDEST}")
    if dark and target.suffix == ".svg":
        raise InputError("--dark: an SVG follows its viewer's colours; only a .png is drawn in one of them")
    scene = _drawing(name)(report_of(output.campaign()), float(width))
    content = svg.document(scene).encode() if target.suffix == ".svg" else png.render(scene, dark)
    try:
        write_atomic(target, content)
    except OSError as error:
        raise InputError(f"{target}: can't be written: {error.strerror}") from None
    output.say(f"{scene.title}: {target}")


def _drawing(name: str) -> Callable[[Report, float], Scene]:
    from golfctl.report.pictures import flow, graph, panels, sizes, stack, timeline

    found = {
        "timeline": timeline.draw,
        "stack": stack.draw,
        "graph": graph.draw,
        "flow": flow.draw,
        "sizes": sizes.draw,
        "money": panels.money,
    }
    return found[name]


def write_page(plan: str | None, target: Path, show: bool) -> None:
    """The HTML page of `golfctl report --html`. Raises InputError for a place where nothing can be written."""
    from golfctl.report.build import report_of
    from golfctl.report.html.page import page
    from golfctl.store.files import write_atomic

    content = page(report_of(output.campaign(), plan, full=True)).encode()
    try:
        write_atomic(target, content)
    except OSError as error:
        raise InputError(f"{target}: can't be written: {error.strerror}") from None
    output.say(f"Page: {target}")
    if show:
        import webbrowser

        if not webbrowser.open(target.resolve().as_uri()):
            output.note("no browser could be started; open the page yourself")
