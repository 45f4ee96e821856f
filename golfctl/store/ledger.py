"""The ledger on disk: one JSONL file per machine, each line chained to the one before by its hash.

Appends happen under a lock, end with fsync, and leave a witness `<machine>.head` (count and hash of the last line), so a tail
that was cut off later is noticed. A torn last line (a crash in the middle of a write) is set aside in a `.torn` file.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from golfctl.domain.event import GENESIS, Event, Type, line_hash, parse
from golfctl.errors import LedgerError
from golfctl.store.files import os_error, write_all, write_atomic


@dataclass(frozen=True)
class Head:
    """Where a chain ends: number of lines and hash of the last one."""

    count: int
    hash: str


@dataclass(frozen=True)
class Chain:
    """One machine's file as read: events in order, its head, and every defect found, one line each."""

    machine: str
    events: tuple[Event, ...]
    head: Head
    defects: tuple[str, ...]
    torn: bytes


def now() -> str:
    """UTC, ISO-8601, seconds, with Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Ledger:
    """The ledger of a campaign. `folder` holds the chains; `state` is a git-ignored folder of this machine."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        self.state = state

    # --- reading ---------------------------------------------------------------------------------------------------
    def events(self) -> list[Event]:
        """All events of all machines, merged by time; within a machine in chain order. Raises LedgerError on a defect."""
        chains = self.chains()
        defects = [defect for chain in chains for defect in chain.defects]
        if defects:
            raise LedgerError(f"{defects[0]}; see `golfctl ledger verify`")
        # merge, not sort: a clock that was set back must not reorder one machine's chain
        return list(heapq.merge(*(chain.events for chain in chains), key=lambda event: event.time))

    def chains(self) -> list[Chain]:
        """Every machine's chain, checked line by line and against its witness."""
        if not self.folder.is_dir():
            return []
        names = {path.stem for path in self.folder.glob("*.jsonl")} | {path.stem for path in self.folder.glob("*.head")}
        return [self._read(name) for name in sorted(names)]

    def heads(self) -> dict[str, Head]:
        """Machine to head, for witnesses stored elsewhere (run folders, reports)."""
        return {chain.machine: chain.head for chain in self.chains()}

    def _read(self, machine: str) -> Chain:
        path = self.folder / f"{machine}.jsonl"
        # The witness first: a writer at work lengthens the chain, then the witness, so this order never sees it ahead.
        witness = self._witness(machine)
        content = path.read_bytes() if path.exists() else b""
        *lines, torn = content.split(b"\n")
        events: list[Event] = []
        hashes = [GENESIS]
        defects: list[str] = []
        for number, line in enumerate(lines, start=1):
            where = f"{path.name}:{number}"
            try:
                event = parse(line)
            except ValueError as error:
                defects.append(f"{where}: not an event ({error})")
                break
            if event.seq != number or event.prev != hashes[-1] or event.machine != machine:
                defects.append(f"{where}: the chain is broken here: a line was changed, removed or inserted")
                break
            events.append(event)
            hashes.append(line_hash(line))
        head = Head(len(events), hashes[-1])
        if not defects:
            defects += _against_witness(machine, witness, hashes)
        return Chain(machine, tuple(events), head, tuple(defects), torn)

    def _witness(self, machine: str) -> Head | None:
        try:
            content = json.loads((self.folder / f"{machine}.head").read_bytes())
            return Head(int(content["count"]), str(content["hash"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            # A witness that can't be read is no evidence against the chain, but it must not vanish silently either.
            return Head(10**12, "unreadable")

    # --- writing ---------------------------------------------------------------------------------------------------
    def append(self, kind: Type, data: Mapping[str, Any]) -> Event:
        """Write one event and return it. Raises LedgerError if it can't be written; then nothing was written."""
        try:
            with self._locked():
                return self._append(kind, data)
        except OSError as error:
            raise LedgerError(
                f"{self.folder.name}: the ledger can't be written ({os_error(error)}); nothing was recorded"
            ) from error

    def _append(self, kind: Type, data: Mapping[str, Any]) -> Event:
        machine = self.machine()
        path = self.folder / f"{machine}.jsonl"
        chain = self._read(machine)
        if chain.defects:
            raise LedgerError(f"{chain.defects[0]}; see `golfctl ledger verify`")
        if chain.torn:
            self._set_aside(path, chain.torn)
        event = Event(machine, chain.head.count + 1, chain.head.hash, now(), kind, data)
        line = event.line()
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                write_all(descriptor, line + b"\n")
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # a full disk must not leave half a line
                raise
        finally:
            os.close(descriptor)
        head = {"count": event.seq, "hash": line_hash(line)}
        write_atomic(self.folder / f"{machine}.head", json.dumps(head).encode() + b"\n")
        return event

    def _set_aside(self, path: Path, torn: bytes) -> None:
        """Move a torn last line out of the chain; nothing before it is touched."""
        with path.with_suffix(".torn").open("ab") as aside:
            aside.write(torn + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - len(torn))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "ledger.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def machine(self) -> str:
        """This machine's random name in this campaign; made at first use, renewed when the folder moved to another host.

        It says nothing about the machine: ledgers are published.
        """
        path = self.state / "machine.json"
        host = line_hash(socket.gethostname().encode())[:16]
        try:
            known = json.loads(path.read_bytes())
            if known["host"] == host:
                return str(known["name"])
        except (FileNotFoundError, ValueError, KeyError):
            pass
        name = f"m{secrets.token_hex(3)}"
        self.state.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"name": name, "host": host}).encode())
        return name


def _against_witness(machine: str, witness: Head | None, hashes: list[str]) -> list[str]:
    """What the witness knows better. hashes: of each line, the genesis first."""
    count = len(hashes) - 1
    if witness is None:
        # A crash may come between the very first line and its witness, never later.
        return [f"{machine}.head: is missing; {machine}.jsonl may have been cut"] if count > 1 else []
    if witness.count > count:
        return [f"{machine}.jsonl: its last {witness.count - count} line(s) were cut off: {witness.count} were written"]
    if hashes[witness.count] != witness.hash:
        return [f"{machine}.jsonl:{witness.count}: this line is not the one that was written"]
    return []
