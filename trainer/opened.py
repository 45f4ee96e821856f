"""Which data files this process opened in which phase of a run, heard from Python itself (`sys.addaudithook`).

The phases, in their order: `opening` (every file is hashed, so that damage shows before hours are spent; nothing is learned
yet), `training`, `evaluation`, and `after` (the score is said: yardsticks read the training text). Streams are opened where
they are used and closed again (`trainer.data.dataset`), so a stream that is not named in a phase was not read in it. What is
still mapped into memory when training or evaluation begins counts as opened in it (Linux).
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PHASES = ("opening", "training", "evaluation", "after")

_here: dict[str, Any] = {"phase": "", "folders": (), "hooked": False}
"""The phase this process is in ("" outside of a run), and the folders whose files are data. A hook can't be taken off again."""
_files: dict[str, set[str]] = {}


def start(folders: list[Path]) -> None:
    """Listen from now on to files below these folders. What was heard before, of another run, is forgotten."""
    _files.clear()
    _here["folders"] = tuple(os.path.realpath(folder) + os.sep for folder in folders)
    if not _here["hooked"]:
        sys.addaudithook(_hear)
        _here["hooked"] = True


@contextlib.contextmanager
def phase(name: str, whole: bool = False) -> Iterator[None]:
    """Whatever is opened within belongs to `name`. whole: a phase of its own, not a part of another one."""
    before = _here["phase"]
    _here["phase"] = name
    if whole:
        _note_mapped(name)
    try:
        yield
    finally:
        _here["phase"] = before


def found() -> dict[str, list[str]]:
    """Phase to the names of the data files opened in it, sorted; folders are nobody's business."""
    return {name: sorted(_files.get(name, ())) for name in PHASES}


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _here["phase"] and isinstance(arguments[0], str | bytes):
        _note(_here["phase"], os.fsdecode(arguments[0]))


def _note(name: str, path: str) -> None:
    if os.path.realpath(path).startswith(_here["folders"]):
        file = Path(path).name
        if not file.startswith(".") and not file.endswith(".lock"):  # what preparing writes, and what it waits for
            _files.setdefault(name, set()).add(file)


def _note_mapped(name: str) -> None:
    gc.collect()  # what nobody holds any more is no longer mapped
    with contextlib.suppress(OSError):  # only Linux says it
        for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
            path = line.partition("/")[2]
            if path:
                _note(name, f"/{path}")
