"""What every command shares: the consoles, JSON output, confirmation. Only this layer prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from golfctl.errors import InputError
from golfctl.hostside.files import scrub

if TYPE_CHECKING:
    from rich.console import Console

    from golfctl.store.campaign import Campaign


def console(stderr: bool = False) -> Console:
    """A rich console; colours go off by themselves when the stream is no terminal or NO_COLOR is set."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # On a terminal words wrap whole; a pipe has no width of its own, and a line stays a line there.
    return Console(stderr=stderr, highlight=False, soft_wrap=not stream.isatty())


def count(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def harmless(text: str) -> str:
    """The text without anything a terminal would obey; lines stay lines. Much of what is printed was said by a host."""
    lines = text.split("\n")
    return "\n".join(line if line.isprintable() else scrub(line, len(line)) for line in lines)


def say(text: str = "") -> None:
    """One line on standard output."""
    typer.echo(harmless(text))


def note(text: str) -> None:
    """One line on standard error: what a person should know and a program should not read."""
    typer.echo(harmless(text), err=True)


def recorded(label: str, text: str) -> str:
    """`text`, stripped, as it may stand in the ledger and the notes for ever. Raises InputError unless it is one plain line."""
    text = text.strip()
    if not text or not text.isprintable() or "<!--" in text:
        raise InputError(f"{label}: must be one line of plain text, without control characters or <!--")
    return text


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    typer.echo("\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n")))


def _escaped(line: str) -> str:
    """JSON with what is not printable as \\u escapes; outside of its strings there is none."""
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line)


def campaign() -> Campaign:
    """The campaign around the current folder. Raises InputError if there is none."""
    from golfctl.store.campaign import find

    return find(Path.cwd())


def confirm(question: str, yes: bool) -> bool:
    """Ask before money or machines are spent. Without a terminal the answer is no, and the remedy is said."""
    if yes:
        return True
    if not sys.stdin.isatty():
        note("not a terminal: nothing was started; say --yes to go on")
        return False
    return typer.confirm(question, default=False)
