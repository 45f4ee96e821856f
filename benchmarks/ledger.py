"""The ledger at scale, under many writers, killed and damaged. Writes results/ledger.md.

100,000 runs (300,000 events like those of this repository's own campaign) are verified and reported by the command line, with
and without the index; 8 processes append 10,000 events each; 1,000 writers are killed; bytes are flipped and files cut.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
from machine import describe

from golfctl.domain.event import Type
from golfctl.store.init import create
from golfctl.store.ledger import Ledger
from tests.golfctl.ledgerlab import Killed, append_at_once, flip, kill_writers, write_long

RESULT = Path(__file__).parent / "results" / "ledger.md"
MEMORY = Path("/dev/shm")
GOLFCTL = [sys.executable, "-u", "-m", "golfctl"]  # unbuffered: else what it says would come when it ends


def command(root: Path, *words: str) -> tuple[float, float]:
    """Seconds of wall and of processor time of a golfctl command that must succeed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([*GOLFCTL, *words], cwd=root, check=True, capture_output=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def answer(root: Path, *words: str) -> tuple[float, float]:
    """The same, of wall time only until it has said its last word: it may go on to write the index."""
    before, began, said = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0.0
    with subprocess.Popen([*GOLFCTL, *words], cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while process.stdout.readline():
            said = time.monotonic() - began
    assert process.returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def speeds(root: Path, times: int) -> list[str]:
    """Rows of the table: what each command takes on a campaign with a long ledger."""
    index = root / ".golfctl" / "ledger.index"
    rows = []

    def row(what: str, allowed: str, found: Sequence[tuple[float, float]]) -> None:
        walls, cpus = zip(*found, strict=True)
        rows.append(
            f"| {what} | {min(walls):.1f} | {statistics.median(walls):.1f} | {statistics.median(cpus):.1f} | {allowed} |"
        )

    row(
        "`ledger verify`: every line parsed, chained, folded",
        "6",
        [command(root, "ledger", "verify") for _ in range(times)],
    )
    colds = []
    for _ in range(times):
        index.unlink(missing_ok=True)
        colds.append(answer(root, "report"))
    row("`report` without an index, until it has answered; then it writes one", "6", colds)
    row("`report` with the index", "1.5", [command(root, "report") for _ in range(times)])
    row("bare `golfctl` with the index", "1.5", [command(root) for _ in range(times)])
    row("`ledger rebuild-index`", "", [command(root, "ledger", "rebuild-index") for _ in range(times)])
    row("`--help`: the start of Python and the command line alone", "", [command(root, "--help") for _ in range(times)])
    return rows


def append_ms(ledger: Ledger, count: int) -> float:
    """Median milliseconds of an append by one process."""
    ledger.append(Type.FAILURE_NOTE, {"number": -1})  # the first one looks at every line
    found = []
    for number in range(count):
        began = time.monotonic()
        ledger.append(Type.FAILURE_NOTE, {"number": number})
        found.append(1000 * (time.monotonic() - began))
    return statistics.median(found)


def located(folder: Path, trials: int) -> tuple[int, int]:
    """Flipped bytes and cut ends that were found, with the right file and line; in a chain of 600 events."""
    path, chance = write_long(folder / "ledger", 200), random.Random(1)
    ledger, whole = Ledger(folder / "ledger", folder / "state"), path.read_bytes()
    flips = cuts = 0
    for _ in range(trials):
        number = flip(path, chance.randrange(len(whole)), chance.randrange(1, 256))
        flips += _first_defect(ledger).startswith(f"{path.name}:{number}: ")
        kept = whole[: chance.randrange(len(whole))]
        path.write_bytes(kept)
        at = kept.count(b"\n") + 1
        cuts += _first_defect(ledger).startswith(f"{path.name}:{at}: its last {601 - at} line(s) were cut off")
        path.write_bytes(whole)
    return flips, cuts


def _first_defect(ledger: Ledger) -> str:
    return next((defect for chain in ledger.chains() for defect in chain.defects), "")


def many_writers(processes: int, events: int) -> float:
    """Seconds of `processes` that append side by side, in memory, where no disk slows them down; all is there afterwards."""
    with tempfile.TemporaryDirectory(prefix="golf-ledger-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        ledger = Ledger(Path(name) / "ledger", Path(name) / "state")
        seconds = append_at_once(ledger, processes, events)
        chains = ledger.chains()
        numbers = sorted(event.data["number"] for chain in chains for event in chain.events)
        assert numbers == list(range(processes * events))
        assert not [defect for chain in chains for defect in chain.defects]
    return seconds


def killed(folder: Path, trials: int) -> Killed:
    """Half of the trials on the disk, half in memory, where the kill more often meets a write."""
    first = kill_writers(folder, trials // 2, seed=1)
    with tempfile.TemporaryDirectory(prefix="golf-ledger-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        second = kill_writers(Path(name), trials - trials // 2, seed=2)
    sums = {key: first_value + vars(second)[key] for key, first_value in vars(first).items()}
    return Killed(**{**sums, "worst_recovery_ms": max(first.worst_recovery_ms, second.worst_recovery_ms)})


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="The ledger at scale.")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5, help="how often each command is timed")
    parser.add_argument("--events", type=int, default=10_000, help="events of each of 8 processes")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument(
        "--ahead", action="store_true", help="let the timed commands go before other work on the machine"
    )
    options = parser.parse_args()
    GOLFCTL[:0] = ["chrt", "-r", "1"] if options.ahead else []
    with tempfile.TemporaryDirectory(prefix="golf-ledger-") as name:
        folder = Path(name)
        writers_s = many_writers(8, options.events)
        found = killed(folder / "kills", options.kills)
        flips, cuts = located(folder / "flips", options.flips)
        root = create(folder / "long", "cpu-demo").root
        path = write_long(root / "experiments" / "ledger", options.runs)
        size = path.stat().st_size
        short_ms = append_ms(Ledger(folder / "short" / "ledger", folder / "short" / "state"), 200)
        load = os.getloadavg()[0]
        rows = speeds(root, options.times)
        load = (load + os.getloadavg()[0]) / 2
        own = folder / "own"
        shutil.copytree(root / "experiments" / "ledger", own / "ledger")
        ledger = Ledger(own / "ledger", own / "state")
        (own / "state").mkdir()
        (own / "state" / "machine.json").write_bytes((root / ".golfctl" / "machine.json").read_bytes())
        grown = ledger.chain_path(ledger.machine())
        write_long(own / "ledger", options.runs, machine=grown.stem)
        long_ms = append_ms(ledger, 200)
    machine = describe()
    events, total, all_written = (
        3 * options.runs,
        8 * options.events,
        f"8 processes appending {options.events:,} events each",
    )
    how = f"best and median of {options.times}, at a load of {load:.1f} on {machine['cores']} cores"
    beside = "; they went before other work (chrt -r 1)" if options.ahead else ""
    text = f"""# The ledger at scale

Made by `benchmarks/ledger.py`. {machine["processor"]}, {machine["cores"]} cores, Python {machine["python"]}; {machine["note"]}.

## {options.runs:,} runs, {events:,} events, {size / 1e6:.0f} MB

Events like those of this repository's own campaign, {size / events:.0f} bytes each.
Seconds of whole commands, {how}{beside}.

| command | best | median | processor | allowed |
|---|---|---|---|---|
{chr(10).join(rows)}

Appending one event on disk takes {short_ms:.1f} ms to a short chain
and {long_ms:.1f} ms to one of {events:,} events (median of 200).

## Writers side by side, killed writers, damage

| | found | wanted |
|---|---|---|
| {all_written} ({writers_s:.0f} s): in the chain | {total:,} | {total:,} |
| writers killed at random instants | {found.trials:,} | {options.kills:,} |
| events they had seen written; lost | {found.written:,}; 0 | 0 lost |
| half a last line left by SIGKILL, by a made-up power cut; recovered | {found.torn_by_kill}, {found.torn_by_cut}; all | all |
| longest recovery (the next append), ms | {found.worst_recovery_ms:.0f} | |
| flipped bytes found and located (file:line), of {options.flips:,} | {flips:,} | all |
| cut ends found and located, of {options.flips:,} | {cuts:,} | all |
"""
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
