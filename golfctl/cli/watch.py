"""`golfctl watch`: the campaign on one screen, as it goes on."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output

if TYPE_CHECKING:
    from rich.console import Console

    from golfctl.runner.watching import Watcher

EVERY_S = 1.0


def watch(
    once: Annotated[bool, typer.Option("--once", help="One look, then leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One look, as JSON for programs.")] = False,
) -> None:
    """Watch the campaign live: queue, runs with their curves, hosts, verdicts, dollars. q leaves; runs go on.

    It only looks: it starts, stops and records nothing. Where there is no terminal it prints one look and leaves.
    """
    import tempfile
    from dataclasses import asdict
    from pathlib import Path

    from golfctl.report.watching import draw
    from golfctl.runner.watching import Watcher

    campaign, console = output.campaign(), output.console()
    with tempfile.TemporaryDirectory() as copies:
        watcher = Watcher(campaign, Path(copies))
        try:
            if as_json:
                output.print_json(asdict(watcher.look()))
            elif once or not console.is_terminal or console.is_dumb_terminal:
                console.print(draw(watcher.look(), console.width, plain=_plain(console)))
            else:
                _live(watcher, console)
        finally:
            watcher.close()


def _live(watcher: Watcher, console: Console) -> None:
    """Draw until q or Ctrl-C; then say what is left behind."""
    from rich.live import Live

    from golfctl.report.watching import draw

    shot = watcher.look()
    try:
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as screen:
            while True:
                picture = draw(shot, console.width, console.height, _plain(console))
                screen.update(picture, refresh=True)
                if pressed(EVERY_S) in {"q", "Q", "\x04"}:
                    break
                shot = watcher.look()
    except KeyboardInterrupt:
        pass
    going = [run.name for run in shot.runs if run.state in {"running", "silent"}]
    output.say(f"{output.count(len(going), 'run')} under way, and going on; golfctl watch looks again")


def _plain(console: Console) -> bool:
    """Whether the terminal can't be trusted with letters beyond ASCII."""
    return not console.encoding.lower().startswith("utf")


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key and returns it, or "". The terminal is put back as it was."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    import os
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([number], [], [], seconds)
        return os.read(number, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(number)
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
