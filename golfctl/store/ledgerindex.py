"""The ledger's index: the folded state of a long ledger, kept on this machine so that it need not be parsed again.

It is never trusted over the files: it counts only while every chain still begins with the very bytes it was made from (their
sha256 is compared each time), and what was appended since is checked line by line. A missing, stale or damaged index, or one of
another version of the code, is made anew without a word; it may be deleted at any time. `golfctl ledger verify` never reads it.
Format: a line with the sha256 of the second line, then JSON.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from golfctl.domain.event import GENESIS, Event, Made, Type, line_hash, parse
from golfctl.domain.run import Outcome, RunRecord, RunResult, RunSpec
from golfctl.domain.state import State, fold
from golfctl.errors import LedgerError
from golfctl.store import columns
from golfctl.store.chain import Chain, Head, collector_at_rest, last_line, merged, scan
from golfctl.store.files import os_error, write_atomic
from golfctl.store.ledger import Ledger

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

FILE = "ledger.index"
SHORTEST = 2_000
"""Events below which reading the chains is as fast as reading an index."""
STALE = 0.05
"""Share of events since the index was made from which on it is made anew."""
DIGITS = 12
"""Hex digits of each line's hash that are kept: as many as witnesses name."""
BLOCK = 1 << 25
"""Bytes that are hashed at once: between two blocks the thread waits its turn, some milliseconds each time."""
_OF_RUNS = frozenset({Type.RUN_INTENT, Type.RUN_STARTED, Type.RUN_FINISHED, Type.RUN_EXCUSED})


def _names(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


_CODE = (
    "domain/event.py",
    "domain/run.py",
    "domain/state.py",
    "domain/verdict.py",
    "store/columns.py",
    "store/ledgerindex.py",
)
"""What decides what a ledger comes to and how it is packed: an index of other code is stale."""


@dataclass(frozen=True)
class Cover:
    """What is known of one machine's chain: its first `size` bytes hold head.count lines and have this running sha256.

    digests: the first DIGITS hex digits of every line's hash, one after another. latest: the latest time in it.
    torn: bytes after the last newline.
    """

    head: Head
    size: int
    content: Hash
    digests: str
    latest: str
    torn: int

    def digest(self, count: int) -> str:
        """The first digits of the hash of a line; lines count from 1."""
        return self.digests[DIGITS * (count - 1) : DIGITS * count]


_NOTHING = Cover(Head(0, GENESIS), 0, hashlib.sha256(), "", "", 0)


@dataclass(frozen=True)
class Known:
    """A ledger that was read: its state, the cover of each chain, and the events that are not about single runs."""

    state: State
    covers: Mapping[str, Cover]
    others: Sequence[Event]


_kept: dict[tuple[Path, Path], Known] = {}
"""The long ledger that this process read last."""
_due: set[tuple[Path, Path]] = set()
"""Ledgers whose index is to be written when the process ends."""


def read(ledger: Ledger) -> Known:
    """The ledger as it stands, with the index's help where it is worth it. Raises LedgerError on a defect."""
    with collector_at_rest():
        indexed = _load(ledger)
        extended = _extended(ledger, indexed) if indexed else None
        known = extended or cold(ledger.chains())
        covered = indexed.state.events if indexed and extended else 0
    if known.state.events >= SHORTEST and known.state.events > (1 + STALE) * covered:
        _due.add((ledger.folder, ledger.state))
    return _keep(ledger, known)


def latest(ledger: Ledger) -> Known:
    """As `read`, but of a long ledger that this process read before only the last line and what came after it is looked at."""
    kept = _kept.get((ledger.folder, ledger.state))
    known = _extended(ledger, kept) if kept else None
    return _keep(ledger, known) if known else read(ledger)


@atexit.register
def write_due() -> None:
    """Write the index of the ledger read last, if it is due. It happens when a process ends: who asked has the answer by then."""
    for (folder, state), known in _kept.items():
        # A full disk, values no index of ours can hold, somebody in a hurry: the next reader does without.
        with contextlib.suppress(OSError, TypeError, ValueError, KeyboardInterrupt):
            if (folder, state) in _due and folder.is_dir():
                _save(Ledger(folder, state), known)
    _due.clear()


def _keep(ledger: Ledger, known: Known) -> Known:
    _kept.clear()
    if known.state.events >= SHORTEST:
        gc.freeze()  # millions of objects without a cycle, which the collector would go through again and again
        _kept[ledger.folder, ledger.state] = known
    return known


def rebuild(ledger: Ledger) -> int:
    """Make the index anew from the checked chains; return the number of events. Raises LedgerError: a defect, a full disk."""
    with collector_at_rest():
        known = cold(ledger.chains())
        try:
            _save(ledger, known)
        except OSError as error:
            raise LedgerError(f"{FILE}: can't be written ({os_error(error)})") from error
    return known.state.events


def cold(chains: Sequence[Chain]) -> Known:
    """What whole chains come to. Raises LedgerError on a defect."""
    events = merged(chains)
    covers = {chain.machine: _cover(chain) for chain in chains}
    return Known(fold(events), covers, [event for event in events if event.type not in _OF_RUNS])


def _cover(chain: Chain, before: Cover | None = None) -> Cover:
    digests = (before.digests if before else "") + "".join(digest[:DIGITS] for digest in chain.hashes)
    latest = max((event.time for event in chain.events), default="")
    latest = max(latest, before.latest) if before else latest
    return Cover(chain.head, chain.size, chain.content, digests, latest, len(chain.torn))


def _extended(ledger: Ledger, known: Known) -> Known | None:
    """With the lines appended since. None: some chain is not what the index was made from, or the order of events is unsure."""
    machines = ledger.machines()
    if not known.covers.keys() <= set(machines):
        return None
    chains, covers = [], {}
    for machine in machines:
        cover = known.covers.get(machine, _NOTHING)
        elsewhere = max((other.latest for name, other in known.covers.items() if name != machine), default="")
        chain = _since(ledger, machine, cover)
        if chain is None or any(event.time <= elsewhere for event in chain.events):
            return None
        chains.append(chain)
        covers[machine] = _cover(chain, cover)
    events = merged(chains)
    others = [*known.others, *(event for event in events if event.type not in _OF_RUNS)]
    return Known(fold(events, known.state), covers, others)


def _since(ledger: Ledger, machine: str, cover: Cover) -> Chain | None:
    """What a chain holds beyond the cover. None: it does not go on from there, or its witness knows of something else."""
    witness = ledger.witness(machine)  # first, as in Ledger._read
    try:
        with ledger.chain_path(machine).open("rb") as file:
            if cover.size and line_hash(last_line(file, cover.size)) != cover.head.hash:
                return None
            file.seek(cover.size)
            chain = scan(file, machine, cover.head, cover.content)
    except OSError:
        return None
    at = {cover.head.count: cover.head.hash, **dict(enumerate(chain.hashes, start=cover.head.count + 1))}
    return None if chain.defects or witness is None or at.get(witness.count) != witness.hash else chain


def _code() -> str:
    folder = Path(__file__).parents[1]
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in _CODE)).hexdigest()


def _save(ledger: Ledger, known: Known) -> None:
    runs = list(known.state.runs.values())
    document = {
        "code": _code(),
        "covers": {
            machine: [
                cover.head.count,
                cover.head.hash,
                cover.size,
                cover.content.hexdigest(),
                cover.digests,
                cover.latest,
            ]
            for machine, cover in known.covers.items()
        },
        "events": known.state.events,
        "others": [event.line().decode() for event in known.others],
        "specs": _pack([run.spec for run in runs], _names(RunSpec)),
        "results": _pack([run.result for run in runs if run.result], _names(RunResult)),
        "has_result": [run.result is not None for run in runs],
        "runs": _pack(runs, [name for name in _names(RunRecord) if name not in {"spec", "result"}]),
    }
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    ledger.state.mkdir(parents=True, exist_ok=True)
    write_atomic(ledger.state / FILE, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def _load(ledger: Ledger) -> Known | None:
    """What the index holds, if it is whole and every chain begins with the bytes it was made from; else None."""
    try:
        digest, _, body = (ledger.state / FILE).read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            return None
        document = from_json(body)
        if document["code"] != _code():
            return None
        with ThreadPoolExecutor(1) as pool:  # hashing leaves the interpreter free
            contents = pool.submit(_contents, ledger, document["covers"])
            state = _state(document)
            found = contents.result()
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    if found is None:
        return None
    covers = {
        machine: Cover(Head(count, last), size, found[machine], digests, latest, 0)
        for machine, (count, last, size, _, digests, latest) in document["covers"].items()
    }
    return Known(state, covers, [parse(line.encode()) for line in document["others"]])


def _contents(ledger: Ledger, covers: Mapping[str, Any]) -> dict[str, Hash] | None:
    """The running sha256 of the bytes the index was made from, by machine; None if one of them differs."""
    found = {}
    block = memoryview(bytearray(BLOCK))
    for machine, (_, _, size, expected, *_) in covers.items():
        content = hashlib.sha256()
        with ledger.chain_path(machine).open("rb", buffering=0) as file:
            left = size
            while left and (count := file.readinto(block[: min(left, BLOCK)])):
                content.update(block[:count])
                left -= count
        if left or content.hexdigest() != expected:
            return None
        found[machine] = content
    return found


def _state(document: Mapping[str, Any]) -> State:
    specs = list(_unpack(document["specs"], RunSpec, {}))
    results = _unpack(document["results"], RunResult, {})
    outcomes: dict[str | None, Outcome | None] = {None: None, **{str(outcome): outcome for outcome in Outcome}}
    ready: dict[str, Sequence[Any]] = {
        "spec": specs,
        "result": [next(results) if has else None for has in document["has_result"]],
        "outcome": [outcomes[word] for word in columns.unpack(document["runs"]["outcome"])],
    }
    state = fold(parse(line.encode()) for line in document["others"])
    state.runs = {run.spec.name: run for run in _unpack(document["runs"], RunRecord, ready)}
    state.events = document["events"]
    return state


def _pack(rows: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: columns.pack([getattr(row, name) for row in rows]) for name in names}


def _unpack(packed: Mapping[str, Any], kind: type[Made], ready: Mapping[str, Sequence[Any]]) -> Iterator[Made]:
    """Objects of a dataclass from the columns of all its fields. ready: columns that hold objects already."""
    first, *rest = _names(kind)
    found = {name: ready[name] if name in ready else columns.unpack(packed[name]) for name in (first, *rest)}
    alike = {name: found[name][0] for name in rest if name not in ready and "count" in packed[name] and found[name]}
    other = [name for name in found if name not in alike]
    rows = zip(*(found[name] for name in other), strict=True)
    new = object.__new__
    for row in rows:
        thing = new(kind)
        values = thing.__dict__
        values.update(alike)
        values.update(zip(other, row))  # noqa: B905  # rows have been zipped from these very columns
        yield thing
