"""Files of a record folder: which may be read, and what can't be. Links, pipes and devices are never opened."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

MAX_BYTES = 4_000_000
"""Longer documents are read up to here; the longest of the field has 70,000."""
SUFFIXES = {".log", ".txt"}


@dataclass
class Found:
    """Files as POSIX paths below the folder, in order; unreadable: what could not be looked at and why, a sentence each."""

    files: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def plain(path: Path) -> bool:
    """Whether it is a regular file; a link to one is none: it may lead out of the tree, or never end."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def text_of(path: Path) -> str:
    """A document in whatever encoding it was saved. Raises OSError."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES)
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "replace")


def logs(folder: Path) -> Found:
    """Files that may be logs, in the folder and below; hidden folders are left out."""
    found = Found()

    def failed(error: OSError) -> None:
        name = Path(str(error.filename)).relative_to(folder).as_posix()
        found.unreadable.append(f"{name if name != '.' else 'the folder'}: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(place, name)
            other = name.lower().startswith(("requirements", "readme", "license"))
            if path.suffix.lower() in SUFFIXES and not other and plain(path):
                found.files.append(path.relative_to(folder).as_posix())
    found.files.sort()
    return found


def documents(folder: Path, names: re.Pattern[str]) -> Found:
    """Files of the folder itself whose names, in small letters, are such; one that is no plain file is unreadable."""
    found = Found()
    try:
        entries = sorted(path.name for path in folder.iterdir())
    except OSError:
        return found  # `logs` tells
    for name in entries:
        if names.fullmatch(name.lower()):
            if plain(folder / name):
                found.files.append(name)
            else:
                found.unreadable.append(f"{name} is no plain file")
    return found
