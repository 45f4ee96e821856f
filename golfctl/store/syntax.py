"""The syntax tree of a script nobody has vetted: parsed up to a size, looked through up to an effort, never run."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

from golfctl.errors import InputError
from golfctl.store.fstrings import for_older_python

MAX_BYTES = 1_000_000
"""Longest source that is parsed: its tree takes 500 times as much memory. The longest script of the field has 160,000."""
MAX_EFFORT = 5_000_000
"""Nodes, names and characters looked at for one question; a long script takes a tenth, a few seconds pass with all."""


class TooLargeError(ValueError):
    """A script that would take too long to follow."""


class Budget:
    """What may still be spent on a script."""

    def __init__(self) -> None:
        self.left = MAX_EFFORT

    def spend(self, count: int = 1) -> None:
        """Look at so many things. Raises TooLargeError."""
        self.left -= count
        if self.left < 0:
            raise TooLargeError("put together from too many parts to be followed")


def walk(top: ast.AST, budget: Budget) -> list[ast.AST]:
    """`ast.walk` as a list. Raises TooLargeError."""
    found = list(ast.walk(top))
    budget.spend(len(found))
    return found


def read_script(path: Path) -> bytes:
    """A single-file script. Raises InputError: no regular file, not Python by its name, too large to be followed."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is no file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    if path.suffix != ".py":
        raise InputError(f"{path}: must be a Python script (.py)")
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: is too large: of a script at most {MAX_BYTES:,} bytes are followed")
    return content


def syntax_tree(source: bytes, file: str) -> ast.Module:
    """The syntax tree of a script that may be written for a newer Python. Raises what ast.parse does, TooLargeError."""
    if len(source) > MAX_BYTES:
        raise TooLargeError(f"too large: of a script at most {MAX_BYTES:,} bytes are followed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" in a foreign script is its author's affair
        try:
            return ast.parse(source, file)
        except SyntaxError:
            text = source.decode("utf-8-sig")  # a UnicodeDecodeError is a ValueError, as ast.parse's own
            rewritten = for_older_python(text)
            if rewritten == text:
                raise
            return ast.parse(rewritten, file)


def why_not(error: Exception, file: str) -> str:
    """What `syntax_tree`, or a look through what it made, raised; as `file:line: words`."""
    if isinstance(error, RecursionError | MemoryError):
        return f"{file}:1: too deeply nested to be followed"
    if isinstance(error, TooLargeError):
        return f"{file}:1: {error}"
    return f"{file}:{getattr(error, 'lineno', None) or 1}: not Python: {getattr(error, 'msg', None) or error}"
