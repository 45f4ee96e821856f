"""What a supervisor looks at besides the log: processes, files, memory, secrets. Standard library, Python >= 3.9."""

# os.path loads faster than pathlib, and this starts with every run.

from __future__ import annotations

import math
import os
import re
import signal
import stat
from collections import Counter
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Set, Tuple

from golfctl.hostside import processes
from golfctl.hostside.files import CHUNK, OUTSIDE, scrub

SHORTEST_SECRET = 4
"""A value shorter than this is not replaced: it would blank out half of every line."""
Activity = Dict[int, Tuple[str, float]]
"""pid -> (state letter, CPU seconds used so far)."""
_STOPPED, _WAITING = "Tt", "D"


def masker(names: Iterable[str], environment: Mapping[str, str]) -> Callable[[str], str]:
    """A function that writes *** for the values of these variables, and for each long enough line of such a value."""
    values = {environment[name] for name in names if environment.get(name)}
    parts = {part.strip() for value in values for part in (value, *value.splitlines())}
    hidden = sorted((part for part in parts if len(part) >= SHORTEST_SECRET), key=len, reverse=True)
    if not hidden:
        return str
    pattern = re.compile("|".join(map(re.escape, hidden)))
    return lambda text: pattern.sub("***", text)


def last_lines(path: str, count: int, mask: Callable[[str], str] = str) -> List[str]:
    """The last lines of a log, masked and then scrubbed, so that no secret survives cut in two. Empty where there is none."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - CHUNK))
            data = file.read(CHUNK)
    except OSError:
        return []
    lines = re.split(r"\r\n|\n|\r", mask(data.decode("utf-8", "replace")).rstrip("\r\n"))
    if size > CHUNK and len(lines) > 1:
        del lines[0]  # its beginning is missing
    return [scrub(line) for line in lines[-count:]]


def artifact_files(folder: str, globs: Iterable[str], work: str, source: str) -> Dict[str, str]:
    """The artifact as the run's folder will hold it in the end: name there to where the file lies now. Links are left out.

    Of what the script left in its working folder only that counts which is moved there: nothing that replaces a file or a record
    of the run, and nothing that lay in `source`, of which `work` began as a copy; that is code.
    """
    import glob

    found: Dict[str, str] = {}
    for place in (folder, work):
        for pattern in globs:
            for path in sorted(glob.glob(os.path.join(glob.escape(place), pattern))):
                name = os.path.relpath(path, place)
                if name in found or name.startswith(os.pardir) or not _regular(path):
                    continue
                if place == folder:
                    inside = (os.path.abspath(path) + os.sep).startswith(os.path.abspath(work) + os.sep)
                else:
                    taken = (os.path.join(folder, name), os.path.join(source, name))
                    inside = name in OUTSIDE or any(map(os.path.lexists, taken))
                if not inside:
                    found[name] = path
    return found


def artifact_bytes(files: Iterable[str]) -> int:
    """Size of these files; one that was renamed meanwhile has none."""
    total = 0
    for path in files:
        try:
            total += os.lstat(path).st_size
        except OSError:
            continue
    return total


def bring_home(folder: str, globs: Iterable[str], work: str, source: str) -> None:
    """Move the artifact a script left in its working folder to the same place below the run's folder."""
    for name, path in artifact_files(folder, globs, work, source).items():
        target = os.path.join(folder, name)
        if path != target:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(path, target)


def _regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False  # it was renamed meanwhile


def activity(pids: Iterable[int]) -> Activity:
    """What processes are doing. CPU seconds are 0 where the kernel can't be asked (no /proc)."""
    found: Activity = {}
    if not processes.LINUX:
        table = processes.process_table()
        return {pid: (table[pid][2], 0.0) for pid in pids if pid in table}
    tick = os.sysconf("SC_CLK_TCK")
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        found[pid] = (fields[0].decode(), (int(fields[11]) + int(fields[12])) / tick)
    return found


def doing(before: Activity, after: Activity) -> str:
    """In words what the processes of a run did between two looks."""
    if not after:
        return "no process of it is left"
    states = ", ".join(f"{count} {state}" for state, count in sorted(Counter(row[0] for row in after.values()).items()))
    used = sum(row[1] - before.get(pid, ("", 0.0))[1] for pid, row in after.items())
    many = "its 1 process" if len(after) == 1 else f"its {len(after)} processes"
    cpu = f" used {max(used, 0.0):.1f} s of CPU meanwhile" if processes.LINUX else ""
    return f"{many}{cpu} (state {states})"


class Frozen:
    """Whether every process of a run is stopped, or waits uninterruptibly and uses no CPU, for `seconds` on end."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._next = -math.inf
        self._before: Activity = {}
        self._since: Optional[float] = None

    def look(self, now: float, child: Optional[int], tree: Callable[[], Set[int]]) -> Optional[str]:
        """A reason to end the run. `tree` finds its processes, which costs; while `child` goes on nobody asks for them."""
        if now < self._next:
            return None
        self._next = now + min(max(self.seconds / 10, 0.1), 5.0)
        before = self._before
        first = activity([child] if child else [])
        if any(row[0] not in _STOPPED + _WAITING for row in first.values()):
            self._before, self._since = {}, None
            return None
        self._before = rows = activity(tree())
        still = {state for pid, (state, cpu) in rows.items() if _still(state, cpu, before.get(pid))}
        if not rows or any(not _still(state, cpu, before.get(pid)) for pid, (state, cpu) in rows.items()):
            self._since = None
            return None
        if self._since is None:
            self._since = now
        if now - self._since < self.seconds:
            return None
        words = [
            text
            for letters, text in ((_STOPPED, "stopped (T)"), (_WAITING, "uninterruptible (D)"))
            if still & set(letters)
        ]
        return f"stall: every process of the run is {' or '.join(words)} for {self.seconds:g} s"

    def restart(self) -> None:
        """Nobody looked for a while: what was seen before says nothing."""
        self._since = None


def _still(state: str, cpu: float, before: Optional[Tuple[str, float]]) -> bool:
    return state in _STOPPED or (state == _WAITING and before is not None and cpu == before[1])


def deaf(pid: int) -> bool:
    """Whether TERM can't reach the process: it ignores the signal, or is stopped. False where the kernel can't be asked."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file if b":" in line)
        stopped = fields[b"State"].strip()[:1].decode() in _STOPPED
        return stopped or bool(int(fields[b"SigIgn"], 16) >> (signal.SIGTERM - 1) & 1)
    except (OSError, KeyError, ValueError):
        return False


def oom_kills() -> Optional[int]:
    """How many processes of our memory cgroup (both versions) the kernel killed for want of memory; None: nobody counts.

    Where we are in the root cgroup, those of the whole machine.
    """
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    places = []
    for _, controllers, path in (row for row in rows if len(row) == 3):
        if "memory" in controllers.split(","):
            places += [f"/sys/fs/cgroup/memory{own}/memory.oom_control" for own in (path, "")]
        elif not controllers:
            places += [f"/sys/fs/cgroup{own}/memory.events" for own in (path, "")]
    for place in [*places, "/proc/vmstat"]:
        count = _count(place, b"oom_kill")
        if count is not None:
            return count
    return None


def _count(path: str, key: bytes) -> Optional[int]:
    try:
        with open(path, "rb") as file:
            rows = [line.split() for line in file]
    except OSError:
        return None
    return next((int(row[1]) for row in rows if len(row) == 2 and row[0] == key), None)


def names(value: Any, what: str) -> List[str]:
    """A list of names. Raises ValueError naming `what`."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{what}: {value!r} must be a list of names")
    return list(value)
