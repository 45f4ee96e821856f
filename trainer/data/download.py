"""One file over HTTP, from servers that stop, stall, lie or forget: complete and checked under its name, or not at all."""

from __future__ import annotations

import contextlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.contract import write_file
from trainer.data.errors import DataError

CHUNK = 1 << 18
SLOWEST = 1 << 10
"""Bytes that must arrive in each span of `How.timeout` seconds; below that a server counts as stalled."""

LONGEST_PAUSE = 60.0
HEAD = 1 << 10
"""Bytes from which the length of a file can be told; a shard's header has as many."""


@dataclass(frozen=True)
class How:
    """timeout: seconds a server may be silent. retries: attempts in a row that bring nothing new before giving up. pause:
    seconds before the first repeat, doubled for each further one up to a minute."""

    timeout: float = 30.0
    retries: int = 5
    pause: float = 1.0


class _Failed(Exception):
    """An attempt failed. again: another may succeed. fresh: what is there must not be built on. wait: seconds, if asked for."""

    def __init__(self, why: str, *, again: bool = True, fresh: bool = False, wait: float = 0.0) -> None:
        super().__init__(why)
        self.again, self.fresh, self.wait = again, fresh, wait


def download(
    url: str,
    path: Path,
    how: How,
    problem: Callable[[Path], str | None],
    *,
    most: Callable[[bytes], int],
    size: int | None = None,
    resume: bool = False,
) -> None:
    """Bring `url` to `path`, which appears complete and only if `problem(file)` finds nothing wrong with it.

    What arrived before an interruption lies in `.NAME.part` beside it. Within one call it is always continued by a Range
    request; what an earlier call left is continued if `resume` (a hash will tell), or while the server shows the same ETag.
    `most` says from the first HEAD bytes how many bytes such a file can have: a server that never stops must not fill the disk.
    Raises DataError in one line when attempts are used up or make no sense, OSError if the disk refuses.
    """
    part, mark = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.etag")
    if not resume and not mark.exists():
        part.unlink(missing_ok=True)
    furthest, failures, tries = _size(part), 0, 0
    while True:
        tries += 1
        try:
            _attempt(url, part, mark, how, size, most)
            wrong = problem(part)
            if wrong is not None:
                raise _Failed(wrong, fresh=True)
            break
        except _Failed as error:
            reached = _size(part)
            if error.fresh:
                part.unlink(missing_ok=True)
                mark.unlink(missing_ok=True)
            # Only new ground counts as progress: a server that always stops at the same place is given up.
            failures = 1 if reached > furthest and not error.fresh else failures + 1
            furthest = max(furthest, reached)
            if not error.again or failures > how.retries:
                times = "once" if tries == 1 else f"{tries} times"
                raise DataError(f"{url}: {error} (tried {times})") from None
            time.sleep(min(max(error.wait, how.pause * 2 ** (failures - 1)), LONGEST_PAUSE))
    part.replace(path)
    mark.unlink(missing_ok=True)


def _attempt(url: str, part: Path, mark: Path, how: How, size: int | None, most: Callable[[bytes], int]) -> None:
    """One request: go on where `part` ends, or begin it. Raises _Failed unless the file is as long as was announced."""
    have = _size(part)
    if size is not None and have == size:  # complete, and never checked: the call before was interrupted there
        return
    if size is not None and have > size:
        part.unlink()
        have = 0
    try:
        with urllib.request.urlopen(_request(url, have, mark), timeout=how.timeout) as answer:
            have, total = _place(answer, have, size)
            _remember(answer, mark, have)
            _receive(answer, part, have, total, how, most)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error) from None
    except TimeoutError:
        raise _Failed(f"no data for {how.timeout:g} s at byte {_size(part)}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _Failed(f"no answer within {how.timeout:g} s") from None
        raise _Failed(f"can't be reached ({_short(error.reason)})") from None
    except (http.client.HTTPException, ConnectionError) as error:
        raise _Failed(f"the connection broke at byte {_size(part)} ({_short(error)})") from None
    except ValueError as error:
        raise _Failed(f"no address ({_short(error)})", again=False) from None


def _request(url: str, have: int, mark: Path) -> urllib.request.Request:
    """For the whole file, or for what comes after `have` bytes of the very file that `mark` remembers. Raises ValueError."""
    # identity: a proxy that compresses would make every length a lie.
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "trainer.data"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if mark.exists():
            request.add_header("If-Range", mark.read_text(encoding="latin-1"))
    return request


def _place(answer: http.client.HTTPResponse, have: int, size: int | None) -> tuple[int, int | None]:
    """Where the answer's bytes belong, and how long the file is said to be (None: not said)."""
    announced = answer.headers.get("Content-Length")
    length = int(announced) if announced is not None and announced.isdigit() else None
    if answer.status == 206:
        start, total = _content_range(answer.headers.get("Content-Range", ""))
        if start != have:
            raise _Failed(f"asked for bytes from {have}, got them from {start}", fresh=True)
        if total is None and length is not None:
            total = have + length
    elif answer.status == 200:  # the server ignores Range, or the file is another one by now
        have, total = 0, length
    else:
        raise _Failed(f"HTTP {answer.status}", again=False)
    if size is not None and total is not None and total != size:
        raise _Failed(f"the server announces {total} bytes, the manifest says {size}", fresh=True)
    return have, total if size is None else size


def _content_range(text: str) -> tuple[int, int | None]:
    """ "bytes 5-9/10" -> (5, 10); "bytes 5-9/*" -> (5, None)."""
    try:
        unit, _, rest = text.partition(" ")
        span, _, total = rest.partition("/")
        assert unit == "bytes"
        return int(span.split("-")[0]), None if total == "*" else int(total)
    except (ValueError, AssertionError):
        raise _Failed(f"part of a file without saying which (Content-Range {text[:40]!r})", fresh=True) from None


def _remember(answer: http.client.HTTPResponse, mark: Path, have: int) -> None:
    """Keep a strong ETag: a later call may go on with this very file, and no other."""
    tag = answer.headers.get("ETag", "")
    if have and tag and mark.exists() and mark.read_text(encoding="latin-1") != tag:
        raise _Failed("the file was replaced by another meanwhile", fresh=True)
    if tag.startswith('"') and tag.isprintable():
        write_file(mark, tag.encode("latin-1", "replace"))
    else:
        mark.unlink(missing_ok=True)


def _receive(
    answer: http.client.HTTPResponse,
    part: Path,
    have: int,
    total: int | None,
    how: How,
    most: Callable[[bytes], int],
) -> None:
    """Write what arrives at place `have` of `part`. Raises _Failed if it stalls, stops early, or never stops."""
    got, since, at_since = have, time.monotonic(), have
    limit: int | None = None
    with part.open("r+b" if part.exists() else "w+b") as file:
        file.seek(have)
        file.truncate()
        while block := _more(answer, got):
            file.write(block)
            got += len(block)
            if total is not None and got > total:
                raise _Failed(f"more than the {total} bytes announced", fresh=True)
            if limit is None and got >= HEAD:
                file.seek(0)
                limit = most(file.read(HEAD))
                file.seek(got)
            if limit is not None and got > limit:
                raise _Failed(f"more than the {limit} bytes that such a file can have", again=False, fresh=True)
            now = time.monotonic()
            if now - since > how.timeout:
                if got - at_since < SLOWEST:
                    raise _Failed(f"no more than {got - at_since} bytes in {how.timeout:g} s at byte {got}")
                since, at_since = now, got
        file.flush()
        os.fsync(file.fileno())
    if total is not None and got < total:
        raise _Failed(f"cut off at byte {got} of {total}")


def _more(answer: http.client.HTTPResponse, got: int) -> bytes:
    """What arrives next; b"" at the end. A network's error must not be taken for one of the disk."""
    try:
        return answer.read1(CHUNK)
    except TimeoutError:
        raise
    except OSError as error:
        raise _Failed(f"the connection broke at byte {got} ({_short(error)})") from None


def _refusal(error: urllib.error.HTTPError) -> _Failed:
    """What an HTTP error means for the next attempt."""
    wait = 0.0
    with contextlib.suppress(ValueError):
        wait = float(error.headers.get("Retry-After", "0"))
    if not wait > 0:  # nan, too: it would get through every max and min and end in sleep()
        wait = 0.0
    again = error.code >= 500 or error.code in (408, 416, 425, 429)  # 416: our part is longer than the file
    return _Failed(f"HTTP {error.code} {_short(error.reason)}", again=again, fresh=error.code == 416, wait=wait)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _short(reason: object) -> str:
    """A reason on one line, without anything that could steer a terminal."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return "".join(letter for letter in text if letter.isprintable())[:100]
