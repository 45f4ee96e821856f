"""What a run leaves on disk: JSON by rename, the end of a log, the hash of every file. Standard library, Python >= 3.9."""

# os.path loads faster than pathlib, and this starts with every run.

from __future__ import annotations

import json
import os
import re
import stat
import time
from typing import Any

OUTSIDE = {"exit.json", "heartbeat.json", "pulled.json", "stop", ".reserve"}
"""Files of a run folder that exit.json does not list."""

WORK = "work"
"""Folder of a run that holds its own copy of the code while it goes on; never listed."""

CHUNK = 1 << 18
"""Bytes of a log read at once."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")


def write_json(path: str, content: Any, sync: bool = False) -> None:
    """Replace `path` by rename; `sync` makes it survive a power cut. Raises OSError and leaves no temporary file."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(json.dumps(content, indent=1).encode())
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if sync:
            sync_folder(folder)
    except OSError:
        remove_tree(temporary)
        raise


def replace_file(path: str, content: bytes, by: str | None = None) -> None:
    """Write a file by rename; it survives a power cut. The temporary one lies in folder `by`, else beside it. Raises OSError."""
    import tempfile  # slow to load, and a supervisor does without

    folder, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(dir=by or folder, prefix=f".{name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        remove_tree(temporary)
        raise


def sync_folder(path: str) -> None:
    """Make renames in a folder survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: str) -> None:
    """Delete a file or folder as far as possible; never raises, never follows links."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            for entry in os.listdir(path):
                remove_tree(os.path.join(path, entry))
            os.rmdir(path)
        else:
            os.unlink(path)
    except OSError:
        pass


def read_json(path: str) -> dict[str, Any] | None:
    """The JSON object in a file, None where there is no such file. Raises OSError, ValueError."""
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold one JSON object")
    return content


def utc_now() -> str:
    """UTC, ISO-8601 with Z, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def scrub(text: str, limit: int = 500) -> str:
    """Text a terminal can't be harmed by: no escape sequences, nothing unprintable, at most `limit` characters."""
    text = _ESCAPES.sub("", text[: 4 * limit]).replace("\t", " ")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)[:limit]


def one_line(text: str) -> str:
    """The text as one scrubbed line."""
    return scrub(" ".join(text.split()), 300)


def log_tail(path: str, lines: int = 30) -> list[str]:
    """The last lines of a log, scrubbed; empty where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - CHUNK))
            text = file.read(CHUNK).decode("utf-8", "replace")
    except OSError:
        return []
    return [scrub(line) for line in re.split(r"\r\n|\n|\r", text.rstrip("\r\n"))[-lines:]]


def list_files(folder: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Every regular file but OUTSIDE: (relative name -> bytes and sha256, relative name -> why it can't be read).

    Links are neither followed nor listed."""
    import hashlib  # slow to load, and needed at the end of a run only

    files, unreadable = {}, {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if place != folder or name != WORK)
        for path in (os.path.join(place, name) for name in sorted(names)):
            relative = os.path.relpath(path, folder)
            if relative in OUTSIDE or not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            digest, size = hashlib.sha256(), 0
            try:
                with open(path, "rb") as file:
                    for block in iter(lambda: file.read(1 << 20), b""):
                        digest.update(block)
                        size += len(block)
                files[relative] = {"bytes": size, "sha256": digest.hexdigest()}
            except OSError as error:
                unreadable[relative] = str(error.strerror)
    return files, unreadable
