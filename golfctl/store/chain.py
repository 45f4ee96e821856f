"""One machine's chain of ledger lines: reading it, checking it, and what its witness knows better. Only reads."""

from __future__ import annotations

import gc
import heapq
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from pydantic_core import from_json

from golfctl.domain.event import Event, from_content, line_hash
from golfctl.errors import LedgerError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

BATCH = 1 << 20
"""Bytes of lines that are read at once."""
TAIL = 1 << 14
"""Bytes from the end in which the last line is looked for first."""


@dataclass(frozen=True)
class Head:
    """Where a chain ends: number of lines and hash of the last one."""

    count: int
    hash: str


@dataclass(frozen=True)
class Chain:
    """One machine's file as read: events in order, the hash of each line, its head, and every defect found, one line each.

    size, content: bytes up to the last newline, and their running sha256. torn: the bytes after it.
    """

    machine: str
    events: Sequence[Event]
    hashes: Sequence[str]
    head: Head
    defects: tuple[str, ...]
    torn: bytes
    size: int
    content: Hash


def merged(chains: Sequence[Chain]) -> list[Event]:
    """The events of all chains by time; within a machine in chain order. Raises LedgerError on a defect."""
    defects = [defect for chain in chains for defect in chain.defects]
    if defects:
        raise LedgerError(f"{defects[0]}; see `golfctl ledger verify`")
    # merge, not sort: a clock that was set back must not reorder one machine's chain
    return list(heapq.merge(*(chain.events for chain in chains), key=lambda event: event.time))


def scan(file: IO[bytes], machine: str, head: Head, content: Hash, last: str = "") -> Chain:
    """The chain from the file's position on, where it stood at `head`; content: of the bytes before.

    last: the hash that its last line should have. It only helps to say which line was changed; see `against_witness`.
    """
    content, size = content.copy(), file.tell()
    events: list[Event] = []
    hashes: list[str] = []
    defects: tuple[str, ...] = ()
    torn, before = b"", head.hash
    with collector_at_rest():
        while not defects and (block := torn + file.read(BATCH)) != torn:
            *lines, torn = block.split(b"\n")
            whole = block[: len(block) - len(torn)]
            content.update(whole)
            size += len(whole)
            rest = iter(lines)
            for number, line in enumerate(rest, start=head.count + len(events) + 1):
                digest = line_hash(line)
                try:
                    event = from_content(from_json(line))
                except ValueError as error:
                    defects = (f"{machine}.jsonl:{number}: not an event ({error})",)
                    break
                if event.prev != before or event.seq != number or event.machine != machine:
                    sound = digest == _said_of_it(next(rest, b"") or torn + file.readline(), last)
                    at = number - 1 if sound and event.seq == number > 1 else number
                    defects = (
                        f"{machine}.jsonl:{at}: the chain is broken here: a line was changed, removed or inserted",
                    )
                    break
                before = digest
                events.append(event)
                hashes.append(digest)
    return Chain(
        machine,
        events,
        hashes,
        Head(head.count + len(events), before),
        defects,
        b"" if defects else torn,
        size,
        content,
    )


def _said_of_it(after: bytes, last: str) -> str:
    """The hash of a line as the line after it has it; of the last line, as the witness has it."""
    try:
        return from_content(from_json(after)).prev if after else last
    except ValueError:
        return ""


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Without the cycle collector: it would go through millions of fresh objects again and again, and find nothing."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def last_line(file: IO[bytes], end: int | None = None) -> bytes:
    """The last line without its newline; empty if the file does not end in one. end: as if that were the file's size."""
    end = file.seek(0, os.SEEK_END) if end is None else end
    length = TAIL
    while True:
        start = file.seek(max(end - length, 0))
        content = file.read(end - start)
        if not content.endswith(b"\n"):
            return b""
        _, newline, line = content[:-1].rpartition(b"\n")
        if newline or start == 0:
            return line
        length *= 4


def against_witness(machine: str, witness: Head | None, hashes: list[str]) -> list[str]:
    """What the witness knows better. hashes: of each line, the genesis first."""
    count = len(hashes) - 1
    if witness is None:
        # A crash may come between the very first line and its witness, never later.
        return [f"{machine}.head: is missing; {machine}.jsonl may have been cut"] if count > 1 else []
    if witness.count > count:
        gone = f"its last {witness.count - count} line(s) were cut off: {witness.count} were written"
        return [f"{machine}.jsonl:{count + 1}: {gone}"]
    if hashes[witness.count] != witness.hash:
        return [f"{machine}.jsonl:{witness.count}: this line is not the one that was written"]
    return []
