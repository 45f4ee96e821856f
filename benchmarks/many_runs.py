"""64 runs at once on one host with 64 slots: what they cost the controller and the host. Writes results/many_runs.md.

16 plans with 4 seeds each, started by one `gate run` in a terminal, over ssh to an sshd on loopback; each run prints a line
every 0.2 to 0.5 s. Once all go on, processor times are counted for a minute. Then all are told to end. The controller's
copies of the logs are read while they grow, and compared with the logs at home and the hashes the host made.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
from machine import describe

from tests.golfctl.sshlab import Home, Sshd
from tests.golfctl.test_many_runs import Many, cpu_seconds, peak_mib

RESULT = Path(__file__).parent / "results" / "many_runs.md"


def families(server: Sshd, controller: int) -> dict[str, list[int]]:
    """Process ids by part."""
    found: dict[str, list[int]] = {"controller": [controller], "supervisors": [], "runs": [], "serving": []}
    for pid in server.session_pids():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        part = "supervisors" if b"--detach" in words else "serving" if b"serve" in words else "runs"
        found[part].append(pid)
    found["sshd"] = sorted(server.connection_pids())
    return found


def used(parts: Mapping[str, list[int]]) -> dict[str, float]:
    """Processor seconds so far. The controller's threads come and go; the others are counted exactly."""
    found = {part: sum(map(exact_seconds, pids)) for part, pids in parts.items()}
    return {**found, "controller": sum(map(cpu_seconds, parts["controller"]))}


def exact_seconds(pid: int) -> float:
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def until(condition: object, seconds: float) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the runs did not come so far")
        time.sleep(0.05)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Many runs at once.")
    parser.add_argument("--plans", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long all runs go on together")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="golf-many-") as name, Sshd() as server:
        home = Home(Path(name) / "home")
        os.environ["HOME"] = str(home.folder)
        os.environ.pop("SSH_AUTH_SOCK", None)
        home.add("pod1", server)
        many = Many(Path(name) / "many", options.plans, options.seeds)
        began = time.monotonic()
        with many.command(terminal=True) as controller:

            def gone() -> bool:
                return controller.poll() is not None

            until(lambda: many.all_speak(1) or gone(), 300)
            if gone():
                raise RuntimeError(many.said.read_text())
            started_s, starting_cpu = time.monotonic() - began, cpu_seconds(controller.pid)
            many.lags.clear()
            parts = families(server, controller.pid)
            before, since = used(parts), time.monotonic()
            while time.monotonic() < since + options.seconds:
                many.listen()
                time.sleep(0.05)
            window = time.monotonic() - since
            share = {part: (after - before[part]) / window for part, after in used(parts).items()}
            lags = sorted(many.lags)
            many.end.touch()
            ending, peak, whole = time.monotonic(), 0.0, 0.0
            while not gone():
                with contextlib.suppress(FileNotFoundError, AssertionError):  # it may just have ended
                    peak, whole = peak_mib(controller.pid), cpu_seconds(controller.pid)
                many.listen()
                time.sleep(0.02)
            many.listen()
            ended_s, wall = time.monotonic() - ending, time.monotonic() - began
            if controller.returncode:
                raise RuntimeError(many.said.read_text())
            total = many.check()
    count = many.count
    machine = describe()
    heard = sum(copy.count(b"\n") for copy in many.copies.values())
    ahead = os.sched_getscheduler(0) != os.SCHED_OTHER
    beside = "\nIt all went before other work on the machine (chrt -r 1)." if ahead else ""
    text = f"""# {count} runs at once

{options.plans} plans with {options.seeds} seeds each on one host with {count} slots, controller and host on one machine, the
command in a terminal with its live view. Made by `benchmarks/many_runs.py`.
{machine["processor"]}, {machine["cores"]} cores, Python {machine["python"]}; {machine["note"]}.{beside}

| controller | | allowed |
|---|---|---|
| peak resident memory, MiB | {peak:.0f} | 286 |
| share of a core while all go on ({window:.0f} s) | {share["controller"]:.3f} | 1 |
| share of a core over the whole command ({wall:.0f} s) | {whole / wall:.3f} | 1 |
| lines missed, of {heard:,} ({total:,} bytes) | 0 | 0 |
| from a line's writing to the controller's disk, median s | {statistics.median(lags):.2f} | |
| the same, 99 % and worst, s | {lags[int(0.99 * (len(lags) - 1))]:.2f}, {lags[-1]:.2f} | |
| from the command to the last run's first line, s | {started_s:.1f} | |
| processor time until then, s | {starting_cpu:.1f} | |
| from the end of all runs to the prompt, s | {ended_s:.1f} | |

What the controller had heard of each log when the run ended is the log at home, byte by byte, and has the hash the host made.

| host, all runs going on | share of a core | per run |
|---|---|---|
| {len(parts["supervisors"])} supervisors | {share["supervisors"]:.3f} | {share["supervisors"] / count:.4f} |
| {len(parts["runs"])} runs | {share["runs"]:.3f} | {share["runs"] / count:.4f} |
| the process that answers the controller | {share["serving"]:.3f} | {share["serving"] / count:.4f} |
| sshd's processes of the connection | {share["sshd"]:.3f} | |
"""
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
