"""One run from launch to exit.json. Standard library, Python >= 3.9; the fields of all files: supervise.py."""

# os.path loads faster than pathlib, and this starts with every run.

from __future__ import annotations

import errno
import math
import os
import select
import signal
import sys
import time
from typing import Any, BinaryIO, Callable, List, Optional, Tuple

from golfctl.hostside.files import CHUNK, WORK, list_files, one_line, remove_tree, utc_now, write_json
from golfctl.hostside.guards import (
    Activity,
    Frozen,
    activity,
    artifact_bytes,
    artifact_files,
    bring_home,
    deaf,
    doing,
    last_lines,
    masker,
    names,
    oom_kills,
)
from golfctl.hostside.leases import Lease
from golfctl.hostside.limits import finite
from golfctl.hostside.processes import (
    KILL_S,
    LINUX,
    MARKER,
    boot_id,
    members,
    process_row,
    process_table,
    signal_all,
)
from golfctl.hostside.rules import Rules
from golfctl.hostside.symptoms import host_fault

RESERVE_BYTES = 65536
"""Given back to a full disk so that exit.json fits."""
TICK_S = 0.1
"""Longest time between two looks at a run."""
GAP_S = 5.0
"""After so long without a look we were not running ourselves, and can't say that the run stood still meanwhile."""
TAIL = 30
"""Lines of the log kept in exit.json."""
SEARCHED = 200
"""Lines of the log in which a failed run may have said that its machine is broken: every rank prints its own traceback."""


class Supervisor:
    """One run from launch to exit.json. `folder` is already claimed and holds run.json."""

    def __init__(self, folder: str, spec: dict[str, Any], lease: Optional[Lease] = None) -> None:
        """`lease`: the slots of the run, kept alive with each heartbeat and given back at the end. Raises ValueError."""
        self.folder, self.spec, self.lease = folder, spec, lease
        self.marker = os.path.realpath(folder)
        environment = {**os.environ, **{key: str(value) for key, value in (spec.get("env") or {}).items()}}
        self.mask: Callable[[str], str] = masker(names(spec.get("secret_env") or [], "secret_env"), environment)
        self.rules = Rules(spec.get("rules") or {}, self.mask)
        self.frozen = Frozen(self.rules.frozen_s)
        self.child: int | None = None
        self.child_start: str | None = None
        self.status: int | None = None  # of the child; a negative one is the signal that killed it
        self.log: BinaryIO | None = None
        self.outcome, self.reason = "", ""  # set by the first rule that fires
        self.lines: list[str] = []  # of the log, which made it fire
        self.searched = False  # whether the log may say that the machine is broken
        self.fault = ""
        self.quiet: Optional[Activity] = None  # what the processes had done when the log fell silent
        self.oom_kills = oom_kills()
        self.signalled = ""
        self.log_bytes = 0
        self.beat = 0
        self.known: dict[str, str] = {}
        self.identity = {
            "pid": os.getpid(),
            "pid_start": (process_row(os.getpid()) or (0, "", ""))[1],
            "boot": boot_id(),
        }

    def run(self) -> None:
        """Launch, watch, kill the tree, write exit.json. Raises OSError if not even that can be written."""
        started, self.started_at = time.monotonic(), utc_now()
        try:
            try:
                wake = self._arm()
                self._launch()
                self._watch(wake)
            except Exception as error:
                self._fire("crashed", f"supervisor: {type(error).__name__}: {error}")
            leftover = self._end_tree()
            content = self._describe(time.monotonic() - started, leftover)
            remove_tree(os.path.join(self.folder, ".reserve"))
            write_json(os.path.join(self.folder, "exit.json"), content, sync=True)
        finally:
            if self.lease:
                self.lease.free()

    def _fire(
        self, outcome: str, reason: Optional[str], lines: Optional[list[str]] = None, search: bool = False
    ) -> None:
        """The first rule that fires decides. `search`: the machine may be at fault, see _find_fault."""
        if reason and not self.outcome:
            self.outcome, self.reason, self.lines = outcome, self.mask(reason), lines or []
            self.searched = search or outcome == "crashed"

    def _arm(self) -> int:
        """Handle signals; returns the descriptor that becomes readable when one arrives."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return read

    def _on_signal(self, number: int, _frame: Any) -> None:
        self.signalled = signal.Signals(number).name

    def _launch(self) -> None:
        """Start the child in a session of its own; a child that can't start is a fired rule, not an exception."""
        words = {"{out}": self.folder, "{python}": sys.executable, "{data}": os.environ.get("GOLFCTL_DATA", "")}
        argv = [_fill(str(word), words) for word in self.spec["argv"]]
        inherited = {key: value for key, value in os.environ.items() if key not in (self.spec.get("unset") or ())}
        environment = {**inherited, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment.update({key: _fill(str(value), words) for key, value in (self.spec.get("env") or {}).items()})
        environment.update(self.lease.environment() if self.lease else {})
        environment[MARKER] = self.marker
        cwd = self._working_folder()
        prctl = _prctl()
        if prctl:
            prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans of the run become our children
        parent = os.getpid()
        read, write = os.pipe()  # carries why exec failed; a successful exec closes it
        path = os.path.join(self.folder, "train.log")
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.log = open(path, "rb", buffering=0)  # noqa: SIM115 - read until the end of the run
        null = os.open(os.devnull, os.O_RDONLY)
        self.child = os.fork()
        if self.child == 0:
            try:
                os.setsid()
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                if prctl:
                    prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG: die with the supervisor
                if os.getppid() != parent:
                    os._exit(127)  # it died before the line above
                os.dup2(null, 0)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.chdir(cwd)
                os.execvpe(argv[0], argv, environment)
            except BaseException as error:
                os.write(write, f"can't start {argv[0]} in {cwd}: {error}".encode())
            os._exit(127)
        for descriptor in (write, log, null):
            os.close(descriptor)
        with open(read, "rb") as file:
            trouble = one_line(file.read().decode("utf-8", "replace"))
        if trouble:
            self.fault = "host"  # not a line of the code has run
            self._fire("crashed", trouble)

    def _working_folder(self) -> str:
        """Where the child starts: cwd (relative to ROOT), or with own_copy a copy of it, so that no run sees another's litter."""
        given = self.spec.get("cwd")
        source = os.path.join(self.folder, "..", "..", given) if given else self.folder
        if not self.spec.get("own_copy"):
            return source
        import shutil

        own = os.path.join(self.folder, WORK)
        shutil.copytree(source, own, symlinks=True)
        return own

    def _watch(self, wake: int) -> None:
        """Return when the child ended or a rule fired."""
        launched = self.grown = last = time.monotonic()
        next_beat = 0.0
        every = finite(self.spec.get("heartbeat_s", 1.0), "heartbeat_s")
        while not self.outcome:
            self._reap()
            ended = self.status is not None
            if self._read_log():
                self.grown, self.quiet = time.monotonic(), None
            if ended:
                return
            now = time.monotonic()
            if now - last > GAP_S:
                self.grown += now - last
                self.frozen.restart()
            last = now
            if self.signalled:
                self._fire("aborted", f"supervisor got {self.signalled}")
            self._fire("aborted", self._stop_text())
            if now - launched > self.rules.wallclock_s:
                self._fire("over_time", f"ran longer than wallclock_s {self.rules.wallclock_s:g}", search=True)
            self._look_for_stall(now)
            if now >= next_beat:
                next_beat = now + every
                self._beat()
            if not self.outcome and select.select([wake], [], [], TICK_S)[0]:
                os.read(wake, 4096)

    def _look_for_stall(self, now: float) -> None:
        still, allowed = now - self.grown, self.rules.stall_s
        # Finding the processes costs, so they are looked at twice in a silence: when it begins to show, and at its end.
        if self.quiet is None and still > min(allowed / 10, 5.0):
            self.quiet = activity(self._tree()) if allowed < math.inf else {}
        if still > allowed:
            did = doing(self.quiet or {}, activity(self._tree()))
            self._fire("aborted", f"stall: train.log did not grow for {allowed:g} s; {did}", search=True)
        if self.rules.frozen_s < math.inf:
            self._fire("aborted", self.frozen.look(now, self.child, self._tree), search=True)

    def _beat(self) -> None:
        """All that is looked at once a second only."""
        try:
            self.heartbeat()
        except OSError as error:  # a run whose files can't be written is money lost
            self.fault = self.fault or "host"
            self._fire("crashed", f"can't write heartbeat.json: {error.strerror}")
        try:
            if self.lease:
                self.lease.beat()
        except OSError as error:
            if error.errno == errno.ESTALE:  # another run uses the slot by now; anything else may pass
                self.fault = self.fault or "host"
                self._fire("aborted", one_line(f"lease lost: {error.strerror}"))
        if self.rules.artifact_globs:
            size = artifact_bytes(artifact_files(*self._artifact()).values())
            if size > self.rules.artifact_max:
                self._fire("aborted", f"artifact {size:,} bytes > {self.rules.artifact_max:,.0f}")

    def _stop_text(self) -> Optional[str]:
        path = os.path.join(self.folder, "stop")
        if not os.access(path, os.F_OK):  # asked ten times a second, and an exception costs ten times as much
            return None
        try:
            with open(path, "rb") as file:
                return one_line(file.read(4096).decode("utf-8", "replace")) or "stop file"
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"stop file ({error.strerror})"

    def _read_log(self) -> bool:
        """Judge what was appended; returns whether the log changed. A log the child cut is read from its start."""
        if self.log is None:
            return False
        size = os.fstat(self.log.fileno()).st_size
        if size == self.log_bytes:
            return False
        if size < self.log_bytes:
            self.log_bytes = self.log.seek(0)
        before, enough = self.log_bytes, time.monotonic() + 0.5  # then look at the other rules, too
        while time.monotonic() < enough:
            data = self.log.read(CHUNK)
            if not data:
                break
            self.log_bytes += len(data)
            self._judge(self.rules.feed(data))
        return self.log_bytes != before

    def _judge(self, reason: Optional[str]) -> None:
        """Fire what a rule on the log found; the lines are those of the rule that fired first."""
        self._fire("aborted", reason, self.rules.lines, search=not self.rules.on_numbers)

    def _reap(self) -> bool:
        """Collect what ended; returns whether no child is left. With orphans coming to us that means: no process."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self.child:
                self.status = os.waitstatus_to_exitcode(status)

    def heartbeat(self) -> None:
        """Write heartbeat.json. Raises OSError."""
        self.beat += 1
        if self.child and not self.child_start:
            self.child_start = (process_row(self.child) or (0, None, ""))[1]
        if not LINUX:
            table = process_table()
            self.known = {str(pid): table[pid][1] for pid in self._tree() if pid in table}
        content = {
            **self.identity,
            "child_pid": self.child,
            "child_start": self.child_start,
            "last_step": self.rules.last_step,
            "log_bytes": self.log_bytes,
            "beat": self.beat,
            "known": self.known,
        }
        write_json(os.path.join(self.folder, "heartbeat.json"), content)

    def _tree(self) -> set[int]:
        return members(self.marker, self.known, os.getpid())

    def _end_tree(self) -> list[int]:
        """TERM, wait grace_s, KILL until nothing is left; returns pids that would not die.

        Nobody waits for processes TERM can't reach: as soon as only such are left, they are killed.
        """
        asked: set[int] = set()
        began = time.monotonic()
        ask_until, pause, killing = began + self.rules.grace_s, 0.01, False
        while True:
            left, now = self._tree(), time.monotonic()
            alone = self._reap()
            if (alone and not left) or now > began + self.rules.grace_s + KILL_S:
                return sorted(left)
            if not killing and (now >= ask_until or (left and all(pid in asked and deaf(pid) for pid in left))):
                killing, pause = True, 0.01
            if killing:
                signal_all(left, signal.SIGKILL)
            else:
                signal_all(left - asked, signal.SIGTERM)
                asked |= left
            time.sleep(pause if killing else max(min(pause, ask_until - time.monotonic()), 0.001))
            pause = min(2 * pause, 0.2)

    def _describe(self, wall: float, leftover: list[int]) -> dict[str, Any]:
        """The content of exit.json."""
        while self._read_log():
            pass
        self._judge(self.rules.finish())
        if self.log:
            self.log.close()
        self._keep_artifact()
        searched = last_lines(os.path.join(self.folder, "train.log"), SEARCHED, self.mask)
        tail = searched[-TAIL:]
        code = self.status if self.status is not None and self.status >= 0 else None
        killer = _signal_name(-self.status) if self.status is not None and self.status < 0 else None
        if not self.outcome and code == 0:
            self.outcome, self.reason = "completed", "exit code 0"
        elif not self.outcome:
            ending = f"killed by {killer}" if killer else f"exit code {code}"
            last = next((line for line in reversed(tail) if line.strip()), "")
            before = self._oom_text()
            if _free_bytes(self.folder) < RESERVE_BYTES:
                before, self.fault = before + "disk full; ", "host"
            self._fire("crashed", one_line(f"{before}{ending}: {last}" if last else before + ending))
        self._find_fault(searched)
        remove_tree(os.path.join(self.folder, WORK))
        files, unreadable = list_files(self.folder)
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "code": code,
            "signal": killer,
            "wall_s": round(wall, 3),
            "started_at": self.started_at,
            "ended_at": utc_now(),
            "last_step": self.rules.last_step,
            "log_tail": tail,
            "files": files,
            "unreadable": unreadable,
            "leftover": leftover,
            "lines": self.lines,
            "fault": self.fault,
        }

    def _keep_artifact(self) -> None:
        """A script that knows no folder for its run leaves its model where it was started."""
        try:
            bring_home(*self._artifact())
        except OSError as error:
            self._fire("crashed", one_line(f"its artifact can't be kept: {error}"))

    def _artifact(self) -> Tuple[str, List[str], str, str]:
        """Where the artifact may lie: what counts while the run goes on and what is kept in the end are found by one rule."""
        source = os.path.join(self.folder, "..", "..", self.spec.get("cwd") or "")
        return self.folder, self.rules.artifact_globs, os.path.join(self.folder, WORK), source

    def _oom_text(self) -> str:
        """Whether the kernel killed for want of memory while the run went on, and nobody else told."""
        now = oom_kills()
        if now is None or self.oom_kills is None or now <= self.oom_kills:
            return ""
        many = now - self.oom_kills
        return f"out of memory: the kernel killed {many} {'process' if many == 1 else 'processes'} here meanwhile; "

    def _find_fault(self, lines: list[str]) -> None:
        """Whether the machine was at fault: the reason says so, or the end of the log of a run that failed or hung."""
        if not self.fault and self.searched:
            # Our own words quote the system's; in those of the run what is quoted may be program text.
            own = (
                self.reason.replace('"', "").replace("'", "") if self.reason.startswith("supervisor: ") else self.reason
            )
            line = host_fault([own, *self.lines]) or host_fault(lines)
            if line:
                self.fault = "host"
                if not self.lines and line != own:
                    self.lines = [line]


def _fill(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _prctl() -> Any:
    if not LINUX:
        return None
    try:
        import ctypes

        return ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None  # a Python without ctypes: the sweep by marker still finds everything


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _free_bytes(path: str) -> int:
    try:
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize
    except OSError:
        return RESERVE_BYTES
