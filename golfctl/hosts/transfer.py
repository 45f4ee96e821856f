"""Bringing a run home: copy, verify, and only then let the folder appear. The same for every kind of host."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from golfctl.domain.rundir import EXIT, PULLED, SPEC
from golfctl.errors import HostError
from golfctl.hostside.files import one_line, sync_folder, utc_now, write_json
from golfctl.hostside.processes import process_table
from golfctl.hostside.unpack import relative

Reader = Callable[[str], Iterator[bytes]]
"""Relative name of a run's file -> its content in blocks. Raises OSError or HostError."""
TRANSFERS = 3
"""A file that arrives other than exit.json says is brought again, so many times in all."""
RECORD_BYTES = 1 << 26
"""Longest run.json and exit.json; a host can't fill our disk with them."""
DEAD_BYTES = 1 << 33
"""Longest file of a dead run, whose size nobody recorded."""


def pull_verified(place: str, read: Reader, into: Path) -> None:
    """Copy every file exit.json lists; each must have the bytes and sha256 it names. `place` is "host:run" for messages.

    Raises HostError naming the file that differs, OSError if the disk here fails; then `into` does not exist.
    """
    if _is_pulled(into):
        return
    with _Staging(into) as staging:
        _copy(read, EXIT, staging, RECORD_BYTES)
        listed = _listed(place, (staging / EXIT).read_bytes())
        files = {name: _copy_verified(place, read, name, expected, staging) for name, expected in listed.items()}
        if SPEC not in files:
            files[SPEC] = _copy(read, SPEC, staging, RECORD_BYTES)
        files[EXIT] = _fact(staging / EXIT)
        staging.finish(place, files, dead=False)


def pull_dead(place: str, names: list[str], read: Reader, into: Path) -> None:
    """Copy the files a dead run left; hashes are those of the copies, as nobody recorded any. Raises as pull_verified."""
    if _is_pulled(into):
        return
    with _Staging(into) as staging:
        staging.finish(place, {name: _copy(read, name, staging, DEAD_BYTES) for name in names}, dead=True)


class _Staging:
    """A folder beside `into` that is renamed to it, or removed."""

    def __init__(self, into: Path) -> None:
        self.into = into

    def __enter__(self) -> _Staging:
        self.into.parent.mkdir(parents=True, exist_ok=True)
        self._remove_litter()
        prefix = f".{self.into.name}.{os.getpid()}-"
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".pull", dir=self.into.parent))
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def finish(self, place: str, files: Mapping[str, Any], dead: bool) -> None:
        """Write pulled.json and rename."""
        content = {"from": place, "pulled_at": utc_now(), "dead": dead, "files": dict(files)}
        write_json(str(self.folder / PULLED), content, sync=True)
        self.folder.chmod(0o755)
        try:
            self.folder.rename(self.into)
        except OSError:
            if not _is_pulled(self.into):  # else another pull of the same run was faster
                raise
            return
        sync_folder(str(self.into.parent))

    def _remove_litter(self) -> None:
        """Folders of pulls of this run whose process is gone."""
        pattern = re.compile(re.escape(f".{self.into.name}.") + r"(\d+)-\w+\.pull\Z")
        found = [(entry, match) for entry in self.into.parent.iterdir() if (match := pattern.match(entry.name))]
        table = process_table() if found else {}  # after the names: whoever made one and lives is in it
        for entry, match in found:
            if int(match[1]) not in table:
                shutil.rmtree(entry, ignore_errors=True)


def _is_pulled(into: Path) -> bool:
    if (into / PULLED).is_file():
        return True
    if into.exists():
        raise HostError(f"{into}: exists and is not a pulled run (no {PULLED}); move it away")
    return False


def _listed(place: str, content: bytes) -> dict[str, dict[str, Any]]:
    """Name -> {bytes, sha256} out of exit.json, every name checked: it comes from another machine."""
    try:
        files = json.loads(content)["files"]
        facts = {
            str(name): {"bytes": int(fact["bytes"]), "sha256": str(fact["sha256"])} for name, fact in files.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError(f"{place}/{EXIT}: damaged ({type(error).__name__}: {error})") from None
    for name in facts:
        path = relative(name)
        if path is None or str(path) != name or name in (EXIT, PULLED):
            raise HostError(f"{place}/{EXIT}: lists {name!r}, a name no run file may have")
    return facts


def _copy_verified(
    place: str, read: Reader, name: str, expected: Mapping[str, Any], staging: _Staging
) -> dict[str, Any]:
    """Copy one file; a short or corrupt transfer is repeated before it counts as an error."""
    for attempt in range(TRANSFERS):
        try:
            found = _copy(read, name, staging, expected["bytes"])
        except FileNotFoundError:
            raise HostError(
                f"{place}/{one_line(name)}: listed in exit.json and not there; was the run released?"
            ) from None
        if found == expected:
            return found
        (staging / name).unlink()
        if attempt + 1 < TRANSFERS:
            time.sleep(0.1)
    raise HostError(
        f"{place}/{one_line(name)}: {_tell(found)} arrived ({TRANSFERS} times), exit.json says {_tell(expected)}"
    )


def _copy(read: Reader, name: str, staging: _Staging, limit: int) -> dict[str, Any]:
    """Copy one file; returns bytes and sha256 of what arrived. What goes on beyond `limit` bytes is cut, one byte later."""
    target = staging / name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as file:
        for block in read(name):
            part = block[: limit + 1 - size]
            file.write(part)
            digest.update(part)
            size += len(part)
            if size > limit:
                break
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _fact(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _tell(fact: Mapping[str, Any]) -> str:
    return f"{fact['bytes']} bytes with sha256 {fact['sha256'][:12]}"
