"""Ledgers of any length, writers that are killed, and bytes that are flipped: for tests and benchmarks of the ledger."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golfctl.domain.event import GENESIS, Event, Type
from golfctl.store.ledger import Ledger

OWN = Path(__file__).resolve().parents[2] / "experiments" / "ledger"
MACHINE = "mabcdef"


def examples() -> dict[str, Any]:
    """Of each type of event the longest of this repository's own campaign, without the witnesses that lie outside a ledger."""
    found: dict[str, Any] = {}
    for path in sorted(OWN.glob("*.jsonl")):
        for line in sorted(path.read_bytes().splitlines(), key=len):
            event = json.loads(line)
            found[event["type"]] = event["data"]
    found["run_finished"]["evidence"] = ""
    return found


def write_long(folder: Path, runs: int, machine: str = MACHINE, plans: int = 500) -> Path:
    """A machine's chain of 3 events a run, like those of this repository's own campaign; and its witness. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path, before, count = folder / f"{machine}.jsonl", GENESIS, 0
    with path.open("wb") as file:
        for number in range(runs):
            for kind, data in _of_run(number, plans):
                count += 1
                content = {
                    "seq": count,
                    "prev": before,
                    "time": f"2026-10-{1 + 27 * number // runs:02d}T00:00:00Z",
                    "machine": machine,
                    "type": kind,
                    "data": data,
                }
                line = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
                before = hashlib.sha256(line).hexdigest()
                file.write(line + b"\n")
    path.with_suffix(".head").write_text(json.dumps({"count": count, "hash": before}) + "\n")
    return path


_EXAMPLES: dict[str, Any] = {}


def _of_run(number: int, plans: int) -> Iterator[tuple[str, Any]]:
    """Run `number`: its own name, seed, score and times, and two settings of its plan."""
    if not _EXAMPLES:
        _EXAMPLES.update(examples())
    chance = random.Random(number)
    plan = f"plan{number % plans}"
    name = f"{plan}.g2.s{number}.a1.62494b12-6505-abcdef"
    intent, finish = dict(_EXAMPLES["run_intent"]), dict(_EXAMPLES["run_finished"])
    intent["spec"] = intent["spec"] | {"name": name, "owner": plan, "seed": number, "env": dict(intent["spec"]["env"])}
    finish["result"] = finish["result"] | {"settings": dict(finish["result"]["settings"])}
    for key, value in (
        ("SEED", number),
        ("MODEL_DIM", 64 + number % plans),
        ("WARMDOWN_FRACTION", number % plans / plans),
    ):
        intent["spec"]["env"][key] = str(value)
        finish["result"]["settings"][key] = value
    finish.update(run=name, wall_s=round(10 + chance.random(), 3), usd=round(chance.random() / 100, 6))
    finish["result"].update(score=2.4 + chance.random() / 10, step_avg_ms=50 + chance.random())
    yield "run_intent", intent
    yield "run_started", {"run": name, "adopted": False}
    yield "run_finished", finish


@dataclass
class Killed:
    """What became of killed writers: events they saw written, trials in which SIGKILL or a made-up power cut left half a line."""

    trials: int = 0
    written: int = 0
    torn_by_kill: int = 0
    torn_by_cut: int = 0
    worst_recovery_ms: float = 0.0


def kill_writers(root: Path, trials: int, seed: int = 0, longest: int = 1 << 21) -> Killed:
    """Kill a writer at a random instant, again and again; raise AssertionError if an event it saw written is lost.

    Most events are short; some have up to `longest` bytes, so that the kernel can be caught in the middle of a write. Where it
    was not, every second trial adds what a power cut leaves: a part of one more line. A fresh ledger every 25 trials.
    """
    chance, found = random.Random(seed), Killed()
    for trial in range(trials):
        ledger = Ledger(root / str(trial // 25) / "ledger", root / str(trial // 25) / "state")
        seen = _one_kill(ledger, chance, longest)
        torn = any(chain.torn for chain in ledger.chains())
        found.torn_by_kill += torn
        if not torn and trial % 2:
            found.torn_by_cut += _cut_power(ledger, chance)
        chains = ledger.chains()
        assert not [defect for chain in chains for defect in chain.defects]
        lines = {
            event.seq: digest for chain in chains for event, digest in zip(chain.events, chain.hashes, strict=True)
        }
        assert all(lines.get(count) == digest for count, digest in seen), "an event that was seen written is gone"
        found.trials, found.written = found.trials + 1, found.written + len(seen)
        began = time.monotonic()
        event = ledger.append(Type.FAILURE_NOTE, {"after": trial})
        found.worst_recovery_ms = max(found.worst_recovery_ms, 1000 * (time.monotonic() - began))
        assert event.seq == len(lines) + 1
        assert not [chain.torn for chain in ledger.chains() if chain.torn or chain.defects]
    return found


def _one_kill(ledger: Ledger, chance: random.Random, longest: int) -> list[tuple[int, str]]:
    """Count and hash of every event a process saw written until it was killed."""
    reading, writing = os.pipe()
    sizes = [chance.choice((50, 2000, chance.randrange(1, longest))) for _ in range(1000)]
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            for size in sizes:
                ledger.append(Type.FAILURE_NOTE, {"x": "y" * size})
                head = ledger.heads()[ledger.machine()]
                os.write(writing, f"{head.count} {head.hash}\n".encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        first = pipe.readline() if chance.random() < 0.9 else b""
        time.sleep(chance.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        said = first + pipe.read()
    os.waitpid(pid, 0)
    heads = [line.split() for line in said.decode().splitlines()]
    return [(int(count), digest) for count, digest in heads]


def append_at_once(ledger: Ledger, processes: int, events: int) -> float:
    """Processes that append side by side, numbers from 0 on; return the seconds it took."""
    code = (
        "import sys; from pathlib import Path; from golfctl.store.ledger import Ledger; from golfctl.domain.event import Type\n"
        "ledger, first, count = Ledger(Path(sys.argv[1]), Path(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])\n"
        "for number in range(first, first + count): ledger.append(Type.FAILURE_NOTE, {'number': number})"
    )
    ledger.machine()
    began = time.monotonic()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(ledger.folder), str(ledger.state), str(at * events), str(events)]
        )
        for at in range(processes)
    ]
    codes = [writer.wait() for writer in writers]
    assert codes == [0] * processes
    return time.monotonic() - began


def _cut_power(ledger: Ledger, chance: random.Random) -> bool:
    """Add a part of one more line to the chain, as a power cut leaves it."""
    path = ledger.chain_path(ledger.machine())
    line = Event(ledger.machine(), 1, GENESIS, "2026-10-01T00:00:00Z", Type.FAILURE_NOTE, {"x": "y" * 3000}).line()
    with path.open("ab") as file:
        return file.write(line[: chance.randrange(1, len(line))]) > 0


def flip(path: Path, at: int, mask: int) -> int:
    """Change the byte at an offset; return the number of the line it is in, counted from 1."""
    with path.open("r+b") as file:
        number = file.read(at).count(b"\n") + 1
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))
    return number
