"""Bringing a run home: copy, verify, and only then let the folder appear. The same for every kind of host."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from golfctl.domain.rundir import EXIT, PULLED, SPEC
from golfctl.errors import HostError
from golfctl.hostside.files import one_line, read_json, sync_folder, utc_now, write_json
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
    if whole(into):
        return
    with _Staging(into) as staging:
        _copy(read, EXIT, staging, RECORD_BYTES)
        listed = _listed(place, (staging / EXIT).read_bytes())
        files = {name: _copy_verified(place, read, name, expected, staging) for name, expected in listed.items()}
        if SPEC not in files:
            files[SPEC] = _copy(read, SPEC, staging, RECORD_BYTES)
        files[EXIT] = _fact(staging / EXIT)
        staging.finish(place, files, dead=False)


def pull_dead(place: str, names: list[str], read: Reader, into: Path, heard: bool = False) -> None:
    """Copy the files a dead run left; hashes are those of the copies, as nobody recorded any. Raises as pull_verified.

    heard: they are not the host's but what reached us of them before it fell silent; the next pull replaces them.
    """
    if whole(into):
        return
    _refuse_odd(place, names)
    with _Staging(into) as staging:
        files = {name: _copy(read, name, staging, DEAD_BYTES) for name in names}
        staging.finish(place, files, dead=True, heard=heard)


def whole(into: Path) -> bool:
    """Whether the run is here as its host had it. Raises HostError if something else lies in its place."""
    if not (into / PULLED).is_file():
        if into.exists():
            raise HostError(f"{into}: exists and is not a pulled run (no {PULLED}); move it away")
        return False
    return not _only_heard(into)


def _only_heard(into: Path) -> bool:
    try:
        return (read_json(str(into / PULLED)) or {}).get("heard") is True
    except ValueError:
        return False


class _Staging:
    """A folder beside `into` that is renamed to it, or removed."""

    def __init__(self, into: Path) -> None:
        self.into = into

    def __enter__(self) -> _Staging:
        self.into.parent.mkdir(parents=True, exist_ok=True)
        self._remove_litter()
        prefix = f".{self.into.name}.{os.getpid()}-"
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".pull", dir=self.into.parent))
        self.replaced = self.folder.with_name(f"{self.folder.stem}0.pull")
        return self

    def __exit__(self, *_: object) -> None:
        for folder in (self.folder, self.replaced):
            shutil.rmtree(folder, ignore_errors=True)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def finish(self, place: str, files: Mapping[str, Any], dead: bool, heard: bool = False) -> None:
        """Write pulled.json and rename."""
        content = {"from": place, "pulled_at": utc_now(), "dead": dead, "files": dict(files)}
        write_json(str(self.folder / PULLED), content | ({"heard": True} if heard else {}), sync=True)
        self.folder.chmod(0o755)
        try:
            if _only_heard(self.into):  # killed after this line, the host still has all there is
                self.into.rename(self.replaced)
            self.folder.rename(self.into)
        except OSError:
            if not whole(self.into):  # else another pull of the same run was faster
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


def _listed(place: str, content: bytes) -> dict[str, dict[str, Any]]:
    """Name -> {bytes, sha256} out of exit.json, every name checked: it comes from another machine."""
    try:
        files = json.loads(content)["files"]
        facts = {
            str(name): {"bytes": int(fact["bytes"]), "sha256": str(fact["sha256"])} for name, fact in files.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise HostError(f"{place}/{EXIT}: damaged ({type(error).__name__}: {one_line(str(error))})") from None
    _refuse_odd(f"{place}/{EXIT}", facts)
    return facts


def _refuse_odd(place: str, names: Iterable[str]) -> None:
    """Raise HostError on a name that leads out of the run's folder, or that no terminal could show."""
    for name in names:
        path = relative(name)
        if path is None or str(path) != name or name in (EXIT, PULLED) or not name.isprintable():
            raise HostError(f"{place}: lists {one_line(repr(name))}, a name no run file may have")


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
