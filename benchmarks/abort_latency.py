"""From the offending line on disk to the death of the run's last process. Writes results/abort_latency.md.

Real supervisors, started from the file that travels; 8 runs at a time. Each run is a child with two grandchildren in
sessions of their own. One run after the other (or all at once: a burst) is told to print a nan line; it notes
CLOCK_MONOTONIC before the write, and pidfds of its three processes tell when each has died. A run that has ended is
replaced before the next trial. Kinds of family:

    obedient   dies of TERM
    ignoring   ignores TERM, child and grandchildren
    catching   catches TERM and goes on: gets the whole grace of 2 s, as one that saves its state would

Then: processor time of idle supervisors whose runs print two lines a second, by the kernel's count (schedstat).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

from golfctl.hostside.package import single_file
from golfctl.hostside.processes import members, sweep

RESULT = Path(__file__).parent / "results" / "abort_latency.md"
RUNS = 8
FAMILY = """
import os, select, signal, subprocess, sys, time
kind, out, fifo, busy = sys.argv[1:5]
deaf = "import signal; signal.signal(signal.SIGTERM, lambda *_: None)\\nwhile True: signal.pause()"
if kind == "ignoring":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if kind == "catching":
    signal.signal(signal.SIGTERM, lambda *_: None)
word = [sys.executable, "-I", "-S", "-c", deaf] if kind == "catching" else ["sleep", "600"]
for _ in range(2):
    subprocess.Popen(word, start_new_session=True)
time.sleep(0.3)
ask = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
hold = os.open(fifo, os.O_WRONLY)
step = 0
os.write(1, b"up\\n")
while True:
    if select.select([ask], [], [], 0 if busy == "1" else 0.5)[0]:
        os.read(ask, 1)
        began = time.monotonic()
        os.write(1, b"step:99/999 train_loss:nan\\n")
        with open(out + "/told.tmp", "w") as file:
            file.write(repr(began))
        os.rename(out + "/told.tmp", out + "/told")
        while True:
            time.sleep(60)
    step += 1
    if busy == "1":
        sum(range(200000))
    if busy != "1" or step % 100 == 0:
        os.write(1, b"step:%d/999 train_loss:3.1 train_time:%dms step_avg:100.00ms\\n" % (step, 100 * step))
"""


class Runs:
    """Runs in a temporary root; whatever happens, their processes are gone afterwards."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0
        self.file = root / "supervise.pyz"
        self.file.write_bytes(single_file())
        (root / "inbox").mkdir()
        self.supervisors: dict[str, subprocess.Popen[bytes]] = {}

    def launch(self, kind: str, busy: bool = False, **rules: Any) -> str:
        """Start a run; its name."""
        self.count += 1
        name = f"r{self.count}"
        fifo = self.root / f"{name}.fifo"
        os.mkfifo(fifo)
        argv = ["{python}", "-I", "-S", "-c", FAMILY, kind, "{out}", str(fifo), str(int(busy))]
        spec = {"argv": argv, "rules": {"nan": True, "stall_s": 300, **rules}}
        (self.root / "inbox" / f"{name}.json").write_text(json.dumps(spec))
        command = [sys.executable, "-I", "-S", str(self.file), str(self.root), name]
        self.supervisors[name] = subprocess.Popen(command)
        return name

    def await_up(self, names: Iterable[str]) -> None:
        """Until each has its whole family."""
        for name in names:
            log = self.folder(name) / "train.log"
            until(lambda log=log: log.exists() and b"up" in log.read_bytes())

    def folder(self, name: str) -> Path:
        return self.root / "runs" / name

    def tell(self, name: str) -> None:
        """Have it print the line."""
        descriptor = os.open(self.root / f"{name}.fifo", os.O_WRONLY)
        os.write(descriptor, b"x")
        os.close(descriptor)

    def close(self) -> None:
        for process in self.supervisors.values():
            process.kill()
            process.wait()
        for name in self.supervisors:
            sweep(str(self.folder(name)))


def until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("a run did not come up")
        time.sleep(0.02)


def latencies(runs: Runs, names: list[str]) -> list[float]:
    """Seconds from the line to the last death, for runs told at once."""
    families: dict[str, dict[int, int]] = {}
    poll = select.poll()
    for name in names:
        pids = members(str(runs.folder(name).resolve()), {})
        if len(pids) != 3:
            raise RuntimeError(f"{name}: {len(pids)} processes, 3 expected")
        families[name] = {os.pidfd_open(pid): pid for pid in pids}
        for descriptor in families[name]:
            poll.register(descriptor, select.POLLIN)
    for name in names:
        runs.tell(name)
    died: dict[int, float] = {}
    while len(died) < 3 * len(names):
        found = poll.poll(30_000)
        if not found:
            raise TimeoutError("a process outlived its abort by 30 s")
        now = time.monotonic()
        for descriptor, _ in found:
            died[descriptor] = now
            poll.unregister(descriptor)
    results = []
    for name, family in families.items():
        if runs.supervisors[name].wait(60) or members(str(runs.folder(name).resolve()), {}):
            raise RuntimeError(f"{name}: its supervisor failed, or something is left")
        end = json.loads((runs.folder(name) / "exit.json").read_text())
        if end["reason"] != "train_loss is nan at step 99":
            raise RuntimeError(f"{name}: ended for another reason: {end['reason']}")
        results.append(max(died[descriptor] for descriptor in family) - float((runs.folder(name) / "told").read_text()))
        for descriptor in family:
            os.close(descriptor)
    return results


def one_by_one(root: Path, kind: str, trials: int) -> list[float]:
    """One of 8 runs is told at a random moment, `trials` times."""
    with running(root) as runs:
        names = [runs.launch(kind) for _ in range(RUNS)]
        found = []
        for _ in range(trials):
            runs.await_up(names)
            time.sleep(random.uniform(0, 0.5))
            name = names.pop(random.randrange(RUNS))
            found += latencies(runs, [name])
            names.append(runs.launch(kind))
        return found


def bursts(root: Path, kind: str, rounds: int, busy: bool = False) -> list[float]:
    """All 8 runs are told at once, `rounds` times."""
    found = []
    for _ in range(rounds):
        with running(root) as runs:
            names = [runs.launch(kind, busy) for _ in range(RUNS)]
            runs.await_up(names)
            found += latencies(runs, names)
    return found


def cpu_per_minute(root: Path, count: int, seconds: float, **rules: Any) -> float:
    """Processor seconds a supervisor uses in a minute; mean of `count` side by side."""
    with running(root) as runs:
        names = [runs.launch("obedient", **rules) for _ in range(count)]
        runs.await_up(names)
        before = _cpu(runs)
        began = time.monotonic()
        time.sleep(seconds)
        return (_cpu(runs) - before) / count / (time.monotonic() - began) * 60


def _cpu(runs: Runs) -> float:
    files = [Path(f"/proc/{process.pid}/schedstat") for process in runs.supervisors.values()]
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


@contextlib.contextmanager
def running(root: Path) -> Iterator[Runs]:
    folder = Path(tempfile.mkdtemp(dir=root))
    runs = Runs(folder)
    try:
        yield runs
    finally:
        runs.close()
        shutil.rmtree(folder)


def row(name: str, values: list[float]) -> str:
    ordered = sorted(values)
    ninth = ordered[int(0.9 * (len(ordered) - 1))]
    return f"| {name} | {len(values)} | {statistics.median(values):.2f} | {ninth:.2f} | {ordered[-1]:.2f} |"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Abort latency and the cost of watching.")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--supervisors", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the cost is measured")
    options = parser.parse_args()
    rows = []
    every: dict[str, Any] = {
        "frozen_s": 60,
        "memory_errors": True,
        "nccl_errors": True,
        "blow_up": {},
        "artifact": {"globs": ["*.golf"], "max_bytes": 16_000_000},
        "limits": [{"metric": "step_avg_ms", "max": 1000, "after_step": 10, "window": 50}],
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for kind in ("obedient", "ignoring", "catching"):
            rows.append(row(f"{kind}, one of 8", one_by_one(root, kind, options.trials)))
            print(rows[-1], flush=True)
        for kind in ("obedient", "ignoring"):
            rows.append(row(f"{kind}, all 8 at once", bursts(root, kind, -(-options.trials // RUNS))))
            print(rows[-1], flush=True)
        rows.append(row("ignoring, all 8 at once, each a busy loop", bursts(root, "ignoring", 2, busy=True)))
        print(rows[-1], flush=True)
        few = cpu_per_minute(root, options.supervisors, options.seconds)
        many = cpu_per_minute(root, options.supervisors, options.seconds, **every)
    machine = describe()
    text = f"""# Abort latency

Seconds from the offending line (`train_loss:nan`) on the host's disk to the death of the run's last process; 8 runs at a
time, three processes each in three sessions; default grace of 2 s. Made by `benchmarks/abort_latency.py`.
{machine["processor"]}, {machine["cores"]} cores, Python {machine["python"]}; {machine["note"]}.

| runs | aborts | median s | 90 % s | worst s |
|---|---|---|---|---|
{chr(10).join(rows)}

*obedient* dies of TERM; *ignoring* ignores TERM, child and grandchildren: nobody waits for them; *catching* catches TERM and
goes on, and gets the whole grace, since one that saves its state looks the same from outside. Allowed are a median of 1 s
and a worst case of 3 s; *catching* meets the second only.

## Cost of watching

{options.supervisors} supervisors side by side, each with a run that prints two lines a second, in seconds of processor time
per minute and supervisor: **{few:.3f}** with nan and stall rules ({few / 60 * options.supervisors:.2f} of one core for all),
**{many:.3f}** with every rule ({many / 60 * options.supervisors:.2f} of one core).
"""
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
