"""The processes of a run: who they are, whether they live, how to end them all. Standard library, Python >= 3.9.

A process belongs to a run if its environment carries the run's marker: torchrun starts workers in sessions of their own,
so neither a process group nor a session holds the whole tree.
"""

# os.path loads faster than pathlib, and this starts with every run.

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from golfctl.hostside.files import read_json

LINUX = sys.platform.startswith("linux")
MARKER = "GOLFCTL_RUN"
"""In the environment of every process of a run; its value is the real path of the run folder."""
KILL_S = 10.0
"""How long KILL is repeated before a process counts as unkillable."""


def process_table() -> dict[int, tuple[int, str, str]]:
    """Every process: pid -> (parent's pid, kernel start time, state letter)."""
    return _proc_table() if LINUX else _ps_table()


def process_row(pid: int) -> tuple[int, str, str] | None:
    """One process as in process_table, None if there is none; far cheaper than the table on Linux."""
    if not LINUX:
        return process_table().get(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold anything; what follows the last one is fixed (proc(5)).
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None  # it ended meanwhile
    return int(fields[1]), fields[19].decode(), fields[0].decode()


def _proc_table() -> dict[int, tuple[int, str, str]]:
    rows = ((int(entry), process_row(int(entry))) for entry in os.listdir("/proc") if entry.isdigit())
    return {pid: row for pid, row in rows if row}


def _ps_table() -> dict[int, tuple[int, str, str]]:
    import subprocess

    command = ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "stat=", "-o", "lstart="]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}) as ps:
        lines = ps.communicate()[0].decode("utf-8", "replace").splitlines()
    rows = [line.split(None, 3) for line in lines]
    table = {int(row[0]): (int(row[1]), row[3].strip(), row[2][0]) for row in rows if len(row) == 4}
    table.pop(ps.pid, None)  # our child, but none of the run's
    return table


def boot_id() -> str:
    """Names this boot of the kernel: a start time counts from there."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def alive(heartbeat: Mapping[str, Any] | None) -> bool:
    """Whether the supervisor that wrote this heartbeat lives; a recycled pid is not mistaken for it."""
    if not heartbeat or heartbeat.get("boot") != boot_id():
        return False
    row = process_row(heartbeat.get("pid", 0))
    return row is not None and row[1] == heartbeat.get("pid_start") and row[2] != "Z"


def members(marker: str, known: dict[str, str], root: int = 0) -> set[int]:
    """Live processes of a run: those with the marker in their environment, descendants of `root` (not itself), and,
    where environments can't be read, those `known` from before ({pid: start}) with their descendants."""
    table = process_table()
    own = os.getpid()
    spared = set()
    while own in table and own not in spared:  # we and our ancestors
        spared.add(own)
        own = table[own][0]
    found = {root} | {int(pid) for pid, start in known.items() if table.get(int(pid), (0, "", ""))[1] == start}
    if LINUX:
        found |= {pid for pid in table if _has_marker(pid, marker)}
    children: dict[int, list[int]] = {}
    for pid, row in table.items():
        children.setdefault(row[0], []).append(pid)
    found.discard(0)
    queue = list(found)
    while queue:
        for pid in children.get(queue.pop(), []):
            if pid not in found:
                found.add(pid)
                queue.append(pid)
    return {pid for pid in found - spared if pid in table and table[pid][2] != "Z"}


def _has_marker(pid: int, marker: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARKER}={marker}".encode("utf-8", "surrogateescape") in file.read().split(b"\0")
    except OSError:
        return False  # gone, or another user's and so none of ours


def signal_all(pids: set[int], number: int) -> None:
    """Send a signal to each process that still is there."""
    for pid in pids:
        with contextlib.suppress(OSError):  # it may be gone
            os.kill(pid, number)


def sweep(folder: str) -> list[int]:
    """Kill what a dead supervisor left behind in this run folder; returns pids that would not die. Raises OSError."""
    try:
        known = (read_json(os.path.join(folder, "heartbeat.json")) or {}).get("known", {})
    except ValueError:
        known = {}
    deadline = time.monotonic() + KILL_S
    while True:
        left = members(os.path.realpath(folder), known)
        if not left or time.monotonic() > deadline:
            return sorted(left)
        signal_all(left, signal.SIGKILL)
        time.sleep(0.02)
