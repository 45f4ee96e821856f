"""The ledger on disk: one JSONL file per machine, each line chained to the one before by its hash.

Appends happen under a lock, end with fsync, and leave a witness `<machine>.head` (count and hash of the last line), so a tail
that was cut off later is noticed. A torn last line (a crash in the middle of a write) is set aside in a `.torn` file.

An append reads the last line only, if the file has the size and time that this machine's last append left (noted in the lock
file) and ends in the line the witness names. Otherwise, and whenever the ledger is read, every line is checked.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from golfctl.domain.event import GENESIS, Event, Type, line_hash
from golfctl.errors import InputError, LedgerError
from golfctl.store.chain import Chain, Head, against_witness, last_line, merged, scan
from golfctl.store.files import os_error, write_all, write_atomic

LOCK = "ledger.lock"


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
        return merged(self.chains())

    def chains(self) -> list[Chain]:
        """Every machine's chain, checked line by line and against its witness."""
        return [self._read(name) for name in self.machines()]

    def machines(self) -> list[str]:
        """Names of all machines that wrote here, or left a witness of it."""
        if not self.folder.is_dir():
            return []
        return sorted({path.stem for kind in ("*.jsonl", "*.head") for path in self.folder.glob(kind)})

    def heads(self) -> dict[str, Head]:
        """Machine to head, for witnesses stored elsewhere (run folders, reports): of each chain the last line is checked."""
        return {name: self._tail(name) or self._read(name).head for name in self.machines()}

    def chain_path(self, machine: str) -> Path:
        """The file with a machine's chain."""
        return self.folder / f"{machine}.jsonl"

    def _read(self, machine: str) -> Chain:
        path = self.chain_path(machine)
        # The witness first: a writer at work lengthens the chain, then the witness, so this order never sees it ahead.
        witness = self.witness(machine)
        with path.open("rb") if path.exists() else io.BytesIO() as file:
            chain = scan(file, machine, Head(0, GENESIS), hashlib.sha256(), witness.hash if witness else "")
        if chain.defects:
            return chain
        return replace(chain, defects=tuple(against_witness(machine, witness, [GENESIS, *chain.hashes])))

    def _tail(self, machine: str) -> Head | None:
        """The witness, if the file ends in the very line it names; None if every line must be looked at."""
        witness = self.witness(machine)
        if witness is None:
            return None
        try:
            with self.chain_path(machine).open("rb") as file:
                line = last_line(file)
        except FileNotFoundError:
            return None
        numbered = line.startswith(b'{"seq":%d,' % witness.count)
        return witness if numbered and line_hash(line) == witness.hash else None

    def witness(self, machine: str) -> Head | None:
        """What `<machine>.head` says; None without one."""
        try:
            content = json.loads((self.folder / f"{machine}.head").read_bytes())
            if type(content["count"]) is not int or content["count"] < 0:
                raise ValueError(content["count"])
            return Head(content["count"], str(content["hash"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            # A witness that can't be read is no evidence against the chain, but it must not vanish silently either.
            return Head(10**12, "unreadable")

    # --- writing ---------------------------------------------------------------------------------------------------
    def append(self, kind: Type, data: Mapping[str, Any]) -> Event:
        """Write one event and return it. Raises LedgerError if it can't be written; then nothing was written."""
        try:
            with self._locked() as lock:
                return self._append(kind, data, lock)
        except OSError as error:
            raise LedgerError(
                f"{self.folder.name}: the ledger can't be written ({os_error(error)}); nothing was recorded"
            ) from error

    def _append(self, kind: Type, data: Mapping[str, Any], lock: IO[bytes]) -> Event:
        machine = self.machine()
        path = self.chain_path(machine)
        head = self._tail(machine) if lock.read() == _note(path) else None
        if head is None:
            head = self._checked(machine)
        event = Event(machine, head.count + 1, head.hash, now(), kind, data)
        try:
            line = event.line()
        except UnicodeEncodeError:
            raise InputError("text to record: holds bytes that are not UTF-8") from None
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
        # From here on the event is recorded, whatever else fails: a witness may lag behind its chain, never be ahead of it.
        with contextlib.suppress(OSError):
            witness = {"count": event.seq, "hash": line_hash(line)}
            write_atomic(self.folder / f"{machine}.head", json.dumps(witness).encode() + b"\n")
        with contextlib.suppress(OSError):  # the event is written; without the note the next append reads every line
            lock.seek(0)
            lock.write(_note(path))
        return event

    def _checked(self, machine: str) -> Head:
        """The head after a look at every line; a torn last line is set aside. Raises LedgerError on a defect."""
        chain = self._read(machine)
        if chain.defects:
            raise LedgerError(f"{chain.defects[0]}; see `golfctl ledger verify`")
        if chain.torn:
            self._set_aside(self.chain_path(machine), chain.torn)
        return chain.head

    def _set_aside(self, path: Path, torn: bytes) -> None:
        """Move a torn last line out of the chain; nothing before it is touched."""
        with path.with_suffix(".torn").open("ab") as aside:
            aside.write(torn + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - len(torn))

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(self.state / LOCK, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock

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
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            pass
        name = f"m{secrets.token_hex(3)}"
        self.state.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"name": name, "host": host}).encode())
        return name


def _note(path: Path) -> bytes:
    """Size, time and number of a chain's file, to see that nobody else wrote to it; always 64 bytes."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return b"".ljust(64)
    return (b"%d %d %d" % (status.st_size, status.st_mtime_ns, status.st_ino)).ljust(64)
