"""Files onto this host: downloaded or copied, resumed, verified by size and sha256, renamed last. Python >= 3.9.

A server that answers with 0 bytes, ends early or sends something else is asked again; a name without a suffix ".part"
holds exactly the bytes that were asked for.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from golfctl.hostside.files import one_line, read_json, sync_folder, write_json
from golfctl.hostside.shards import BLOCK, safe_name, sha256_of

Say = Callable[[str], None]

TRIES = 4
"""One try and three more."""
SOCKET_TIMEOUT_S = 30.0
VERIFIED = ".golfctl-verified.json"
"""In the data folder: name -> size, time of change and sha256 of files found right before, so that they are not read again."""
SPARE_BYTES = 256 << 20
_HEX = re.compile(r"[0-9a-f]{64}\Z")


class Wrong(OSError):
    """What arrived is not what was asked for; asking again may help."""


def fetch_all(
    folder: str, files: Sequence[Mapping[str, Any]], say: Say, connections: int = 4, pause_s: float = 1.0
) -> dict[str, Any]:
    """Make `folder` hold these files, each {"path", "bytes", "sha256", "url" or "source"}.

    Several at once; pause_s is waited before the second try, twice that before the third, and so on. Returns {"present": n,
    "fetched": n, "bytes": fetched}. Raises ValueError for a bad list, OSError if the disk is too small or files failed.
    """
    wanted = [_entry(number, entry) for number, entry in enumerate(files)]
    os.makedirs(folder, exist_ok=True)
    stamps = _Stamps(folder)
    missing = [entry for entry in wanted if not stamps.holds(entry)]
    need = sum(entry["bytes"] - _size(_part(folder, entry)) for entry in missing)
    free = _free(folder)
    if missing and need + SPARE_BYTES > free:
        raise OSError(f"{folder}: {need / 1e9:.1f} GB are to come and {free / 1e9:.1f} GB are free; make room")
    progress = _Progress(say, sum(entry["bytes"] for entry in missing), len(missing))

    def one(entry: Mapping[str, Any]) -> str:
        try:
            _obtain(folder, entry, progress, pause_s)
        except OSError as error:
            return one_line(f"{entry['path']}: {error.strerror or error}")
        stamps.add(entry)
        progress.finished(entry["path"])
        return ""

    with ThreadPoolExecutor(max_workers=max(1, min(connections, 16))) as pool:
        failures = [failure for failure in pool.map(one, missing) if failure]
    if failures:
        more = f" (and {len(failures) - 1} more of {len(missing)} files)" if len(failures) > 1 else ""
        raise OSError(f"{failures[0]}{more}")
    counts = {"present": len(wanted) - len(missing), "fetched": len(missing)}
    return {**counts, "bytes": sum(entry["bytes"] for entry in missing)}


def _entry(number: int, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry if it is one. Raises ValueError."""
    where = f"files[{number}]"
    if not isinstance(entry, dict) or not safe_name(entry.get("path")):
        raise ValueError(f"{where}: path must lie inside the data folder")
    size, digest = entry.get("bytes"), entry.get("sha256")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{where} {entry['path']}: bytes must be a whole number above 0")
    if not isinstance(digest, str) or not _HEX.match(digest):
        raise ValueError(f"{where} {entry['path']}: sha256 must be 64 hex digits")
    url, source = entry.get("url"), entry.get("source")
    if bool(url) == bool(source) or not isinstance(url or source, str):
        raise ValueError(f"{where} {entry['path']}: needs one of url and source")
    if url and urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{where} {entry['path']}: url must begin with http:// or https://")
    return entry


def _obtain(folder: str, entry: Mapping[str, Any], progress: _Progress, pause_s: float) -> None:
    """Bring one file. Raises OSError after the last try; a part that may be continued stays."""
    target, part = os.path.join(folder, entry["path"]), _part(folder, entry)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    for number in range(1, TRIES + 1):
        try:
            if entry.get("source"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part)
                shutil.copyfile(entry["source"], part)
                progress.add(entry["bytes"])
            else:
                _download(entry, part, progress)
            _verify(entry, part)
            break
        except (OSError, http.client.HTTPException) as error:
            if number == TRIES or not _worth_again(error):
                why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
                raise OSError(f"{why} ({number} tries, from {_origin(entry)})") from None
            progress.say(f"{entry['path']}: {one_line(str(error))}; trying again")
            time.sleep(pause_s * number)
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
    sync_folder(os.path.dirname(target))


def _worth_again(error: BaseException) -> bool:
    """Not for what stays as it is: a missing page, a refusal, a full disk, a missing source."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code in (408, 416, 425, 429)
    return isinstance(error, (Wrong, http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError))


def _download(entry: Mapping[str, Any], part: str, progress: _Progress) -> None:
    """Append to `part` until it has all bytes. Raises Wrong where the server ends early, OSError."""
    have, size = _size(part), int(entry["bytes"])
    if have >= size:
        return
    request = urllib.request.Request(entry["url"], headers={"User-Agent": "golfctl", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=SOCKET_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # our part does not fit what the server has
            os.unlink(part)
        raise
    with answer:
        span = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        goes_on = answer.status == 206 and span is not None and int(span[1]) == have
        if answer.status == 206 and not goes_on:
            raise Wrong("the server sent another part than asked for")
        if not goes_on:
            have = 0
        with open(part, "ab" if goes_on else "wb") as file:
            progress.add(have if goes_on else 0)
            while have < size:
                # read1: what has arrived is kept, should the connection break in the middle of a block
                block = answer.read1(min(BLOCK, size - have))
                if not block:
                    break
                file.write(block)
                have += len(block)
                progress.add(len(block))
            if have == size and answer.read1(1):
                raise _gone(part, f"longer than {size} bytes")
    if have < size:
        raise Wrong(f"{have} of {size} bytes arrived" if have else f"0 bytes of {size} arrived")


def _verify(entry: Mapping[str, Any], part: str) -> None:
    size = _size(part)
    if size != entry["bytes"]:
        raise _gone(part, f"{size} bytes, {entry['bytes']} expected")
    digest = sha256_of(part)
    if digest != entry["sha256"]:
        raise _gone(part, f"sha256 {digest[:12]}, {entry['sha256'][:12]} expected")


def _gone(part: str, why: str) -> Wrong:
    """The error for a part nothing good can come of; it is removed."""
    with contextlib.suppress(OSError):
        os.unlink(part)
    return Wrong(why)


def _origin(entry: Mapping[str, Any]) -> str:
    """Where a file comes from, without what may be secret in a URL: user, password, query."""
    if entry.get("source"):
        return str(entry["source"])
    parts = urllib.parse.urlsplit(str(entry["url"]))
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _part(folder: str, entry: Mapping[str, Any]) -> str:
    place, name = os.path.split(os.path.join(folder, entry["path"]))
    return os.path.join(place, f".{name}.{entry['sha256'][:12]}.part")


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _free(folder: str) -> int:
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


class _Progress:
    """Counts bytes of all threads; a line every few seconds."""

    def __init__(self, say: Say, total: int, files: int) -> None:
        self._say, self._total, self._files = say, total, files
        self._bytes, self._done, self._told = 0, 0, time.monotonic()
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        with self._lock:
            self._say(text)

    def add(self, count: int) -> None:
        with self._lock:
            self._bytes += count
            if time.monotonic() - self._told >= 2.0:
                self._told = time.monotonic()
                self._say(f"{min(self._bytes, self._total) / 1e9:.2f} of {self._total / 1e9:.2f} GB")

    def finished(self, name: str) -> None:
        with self._lock:
            self._done += 1
            self._say(f"{name}: complete ({self._done} of {self._files})")


class _Stamps:
    """Which files were found right before."""

    def __init__(self, folder: str) -> None:
        self._folder, self._path, self._lock = folder, os.path.join(folder, VERIFIED), threading.Lock()
        try:
            self._known = read_json(self._path) or {}
        except (OSError, ValueError):
            self._known = {}  # it only saves reading files again

    def _fact(self, entry: Mapping[str, Any]) -> list[Any] | None:
        try:
            facts = os.stat(os.path.join(self._folder, entry["path"]))
        except OSError:
            return None
        return [facts.st_size, facts.st_mtime_ns, facts.st_ino, entry["sha256"]]

    def holds(self, entry: Mapping[str, Any]) -> bool:
        """Whether the file is there and right; it is read if it is new or changed."""
        fact = self._fact(entry)
        if fact is None or fact[0] != entry["bytes"]:
            return False
        if self._known.get(entry["path"]) == fact:
            return True
        try:
            right = sha256_of(os.path.join(self._folder, entry["path"])) == str(entry["sha256"])
        except OSError:
            return False
        if right:
            self.add(entry)
        return right

    def add(self, entry: Mapping[str, Any]) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._known[entry["path"]] = self._fact(entry)
            write_json(self._path, self._known)
