"""Run a command line: the one place where errors become a line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, cast

from golfctl.errors import GolfctlError, Interrupted


def run(arguments: list[str]) -> int:
    """Parse and execute; return the exit code. `--debug` anywhere shows tracebacks."""
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    try:
        return _execute(arguments)
    except GolfctlError as error:
        if debug:
            traceback.print_exc()
        _tell(str(error))
        return error.exit_code
    except BrokenPipeError:
        # The reader went away (| head): nothing is wrong, but Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            traceback.print_exc()
        place = f"{error.filename}: " if error.filename else ""
        _tell(f"{place}{error.strerror or error}")
        return 3
    except Exception as error:
        if debug:
            traceback.print_exc()
        _tell(f"bug in golfctl: {type(error).__name__}: {error}; run again with --debug and report it")
        return 4


def _tell(text: str) -> None:
    from golfctl.cli.output import harmless

    print(harmless(text), file=sys.stderr)


def _execute(arguments: list[str]) -> int:
    import typer

    from golfctl.cli.app import app

    # Typer carries its own copy of click in a private module; its public BadParameter leads to the common ancestor.
    usage_error = cast(type[Exception], typer.BadParameter.__mro__[1])
    try:
        result = app(arguments, standalone_mode=False)
    except typer.Abort:
        print("nothing was done", file=sys.stderr)
        return 1
    except usage_error as error:
        _tell(_usage_line(error))
        return 2
    if result == Interrupted.exit_code:  # typer turns Ctrl-C into this number
        raise Interrupted("interrupted; runs that were started go on: `golfctl runs list`")
    return result if isinstance(result, int) else 0


def _usage_line(error: Any) -> str:
    """What is wrong and where to look; click's own show() prints a whole usage block. A group without a command: its help."""
    message = str(error.format_message())
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "golfctl"
    return message if "\n" in message else f"{message} (see `{command} --help`)"
