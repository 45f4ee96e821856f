"""The host saves money by itself when its controller has vanished. Standard library, Python >= 3.9.

    python FILE keep ROOT

goes to the background and waits, one process a ROOT. When no run is going on and nobody has made contact for
abandon_after_s, it kills what dead supervisors left, and runs on_idle (a shell command of the user's) once for this spell
of silence; never while files could be lost that nobody has pulled, unless ROOT is declared persistent. Nobody starts it
after a restart of the machine before the next contact.

ROOT/keeper.json   what to do: abandon_after_s, on_idle, persistent; leases: the folder others may share. Without the first
                   two there is nothing to keep.
ROOT/contact.json  boot and monotonic seconds of the last contact.
ROOT/keeper.lock   the keeper's pid; locked while it lives.
ROOT/idle.json     state: running, done (exit code 0), failed, refused (why says what would be lost) or interrupted (the
                   keeper died before the command's end was known); command, at (UTC), ended_at, code, why, output (last
                   lines), silent_s, leftover (pids that did not die), contact (the spell of silence it belongs to).

Silence counts from the latest of: a contact seen, a run seen going on, the keeper's own start (which follows a contact or
the end of a run). All of it is what the keeper saw on the monotonic clock: a wrong or corrected time of day changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from golfctl.hostside import leases
from golfctl.hostside.files import CHUNK, read_json, scrub, utc_now, write_json
from golfctl.hostside.limits import finite
from golfctl.hostside.processes import MARKER, alive, boot_id, members, sweep

KEYS = ("abandon_after_s", "on_idle", "persistent", "leases")
CONTACT_S = 1.0
"""Contacts are written at most so often."""
LOOK_S = (1.0, 15.0)
"""Shortest and longest time between two looks; in between a sixtieth of abandon_after_s."""
TROUBLE_S = 5.0
"""Time to the next look after one that failed."""
START_S = 60.0
"""The keeper has its lock by then, or its start has failed."""
COMMAND_S = 600.0
"""on_idle may take so long; then it is killed and has failed."""
LINES = 10
"""Lines of its output kept in idle.json."""
KEPT = ("run.json", "exit.json")
"""All that a released run folder holds."""
_contacts: dict[str, float] = {}  # ROOT -> when this process last wrote its contact


# -- what controllers and supervisors call


def configure(root: str, settings: dict[str, Any]) -> None:
    """Write keeper.json; a keeper that runs obeys it from its next look on. Raises OSError, ValueError."""
    content = {key: value for key, value in _checked(settings).items() if value is not None}
    path = os.path.join(root, "keeper.json")
    with contextlib.suppress(ValueError):
        if read_json(path) == content:
            return
    write_json(path, content)


def contact(root: str, pyz: str = "") -> None:
    """Say that somebody is there, and bring the keeper back if it was killed; never raises, costs nothing within CONTACT_S."""
    now = time.monotonic()
    if now - _contacts.get(root, -CONTACT_S) < CONTACT_S:
        return
    _contacts[root] = now
    path = os.path.join(root, "contact.json")
    try:
        # In place and always as long: also on a full disk there is room for what replaces the same bytes.
        text = json.dumps({"boot": boot_id(), "monotonic": f"{now:020.3f}"})
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, text.encode(), 0)
        finally:
            os.close(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.utime(path)  # a change the keeper sees, too
    ensure(root, pyz)


def ensure(root: str, pyz: str = "") -> None:
    """start() for those whose own work must go on: never raises."""
    with contextlib.suppress(OSError, ValueError):
        start(root, pyz)


def start(root: str, pyz: str = "") -> bool:
    """Start the keeper unless there is nothing to keep or one lives; True if one lives now. Raises OSError, ValueError.

    pyz: the travelling file; "": the one this process runs from. Returns when the keeper has its lock.
    """
    if not _settings(root):
        return False
    if running(root):
        return True
    file = os.path.abspath(pyz or sys.argv[0])
    if not file.endswith(".pyz") or not os.path.isfile(file):
        raise ValueError(f"{file}: can't start the keeper; it must be the supervisor's .pyz file")
    environment = {key: value for key, value in os.environ.items() if key != MARKER}  # no part of any run
    command = [sys.executable, "-I", "-S", file, "keep", os.path.abspath(root)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # an ssh channel stays open for as long as anybody holds its end
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
            timeout=START_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"the keeper did not start in {START_S:g} s", root) from None
    return done.returncode == 0


def running(root: str) -> bool:
    """Whether a keeper holds ROOT's lock. Raises OSError."""
    try:
        descriptor = os.open(os.path.join(root, "keeper.lock"), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# -- the keeper itself


def main(arguments: list[str]) -> int:
    """Keep ROOT, in the background. Exit code 0 as soon as a keeper lives (this one or another), 1 if none can."""
    if len(arguments) != 1:
        print("usage: keep ROOT", file=sys.stderr)
        return 2
    root = os.path.abspath(arguments[0])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        lock = _lock(root)
    except OSError as error:
        print(f"keep: {root}: {error.strerror}", file=sys.stderr)
        return 1
    if lock is None:
        return 0
    child = os.fork()  # the lock is its, too
    if child:
        with contextlib.suppress(OSError):  # only for people who look; in place, as the disk may be full
            os.pwrite(lock, b"%10d\n" % child, 0)
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    Keeper(root, lock).run()
    return 0


def _lock(root: str) -> int | None:
    """The locked descriptor, None if another keeper has it. Raises OSError."""
    descriptor = os.open(os.path.join(root, "keeper.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    for _ in range(20):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            time.sleep(0.05)  # perhaps only running() looking
    os.close(descriptor)
    return None


class Keeper:
    """Looks at ROOT until its work is done."""

    def __init__(self, root: str, lock: int) -> None:
        self.root, self.lock = root, lock
        self.since = time.monotonic()  # silence counts from here
        self.contact = self._contact()
        self.busy = False
        self.acted: list[Any] | None = None  # the spell of silence on_idle was run in

    def run(self) -> None:
        """Return when nothing is left to keep."""
        while self._in_place():
            try:
                settings = _settings(self.root)
                if not settings or self._spent():
                    return
                pause = self._look(settings)
            except ValueError as error:  # a damaged keeper.json: no reason to act, none to give up
                self._tell({"state": "refused", "why": str(error)})
                pause = TROUBLE_S
            except OSError:
                pause = TROUBLE_S
            time.sleep(pause)

    def _in_place(self) -> bool:
        """Whether ROOT is still the folder we were started for."""
        try:
            return os.path.samestat(os.stat(os.path.join(self.root, "keeper.lock")), os.fstat(self.lock))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def _look(self, settings: dict[str, Any]) -> float:
        """Act if it is time; returns seconds until the next look."""
        after = float(settings["abandon_after_s"])
        period = min(max(after / 60, LOOK_S[0]), LOOK_S[1])
        busy = self._busy(settings)
        contact = self._contact()
        if busy or self.busy or contact != self.contact:  # a run that ended since the last look may have ended just now
            self.since, self.contact = time.monotonic(), contact
        self.busy = busy
        silent = time.monotonic() - self.since
        if silent < after:
            return min(period, max(after - silent, LOOK_S[0]))
        self._act(settings, silent)
        return period

    def _busy(self, settings: dict[str, Any]) -> bool:
        """Whether a run goes on, of ours or of others who share the leases but not ROOT. Raises OSError."""
        held = leases.holders(os.path.join(self.root, settings["leases"])).values()
        return any(True for _ in self._living()) or any(not info["stale"] for info in held)

    def _act(self, settings: dict[str, Any], silent: float) -> None:
        leftover = [pid for folder in self._dead() for pid in sweep(folder)]
        unpulled = [] if settings["persistent"] else sorted(map(os.path.basename, self._unpulled()))
        told = {"command": settings["on_idle"], "silent_s": round(silent, 1), "leftover": leftover}
        if unpulled:
            names = ", ".join(unpulled[:5]) + (", ..." if len(unpulled) > 5 else "")
            why = f"{len(unpulled)} runs hold files nobody has pulled, and ROOT is not declared persistent: {names}"
            self._tell({"state": "refused", "why": why, **told})
            return
        if self._contact() != self.contact or self._busy(settings):
            return  # somebody came back while we looked
        at, self.acted = utc_now(), self.contact
        # A full disk must not keep the machine running: then only this process knows, and it ends before long.
        self._tell({"state": "running", "at": at, **told})
        code, output, why = _shell(settings["on_idle"], self.root)
        end = {"code": code, "output": output, "why": why, "ended_at": utc_now()}
        spent = {"state": "done" if code == 0 else "failed", "at": at, **told, **end}
        for _ in range(5):
            if self._tell(spent):
                break
            time.sleep(LOOK_S[0])  # a full disk may get room

    def _spent(self) -> bool:
        """Whether on_idle was started in this spell of silence, by us or a keeper that was killed since."""
        contact = self._contact()
        if contact == self.acted:
            return True
        try:
            told = read_json(os.path.join(self.root, "idle.json")) or {}
        except ValueError:
            return False
        if told.get("contact") != contact or told.get("state") not in (
            "running",
            "done",
            "failed",
            "interrupted",
        ):
            return False
        if told["state"] == "running":
            self._tell(
                {**told, "state": "interrupted", "why": "the keeper was killed before the command's end was known"}
            )
        return True

    def _tell(self, content: dict[str, Any]) -> bool:
        """Replace idle.json, unless it says the same already; whether it does now."""
        path = os.path.join(self.root, "idle.json")
        content = {"at": utc_now(), **content, "contact": self.contact}
        try:
            with contextlib.suppress(ValueError):
                told = read_json(path) or {}
                if all(told.get(key) == content.get(key) for key in ("state", "why", "contact")):
                    return True
            write_json(path, content, sync=True)
        except OSError:
            return False
        return True

    def _contact(self) -> list[Any]:
        """What changes with every contact: the file's text and its time of change."""
        path = os.path.join(self.root, "contact.json")
        try:
            with open(path, "rb") as file:
                return [file.read(4096).decode("utf-8", "replace"), os.fstat(file.fileno()).st_mtime_ns]
        except OSError:
            return []

    # -- the runs here

    def _folders(self) -> Iterator[tuple[str, set[str]]]:
        """Every run folder with what it holds. Raises OSError."""
        runs = os.path.join(self.root, "runs")
        try:
            names = os.listdir(runs)
        except FileNotFoundError:
            return
        for name in names:
            folder = os.path.join(runs, name)
            if not name.startswith("."):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    yield folder, set(os.listdir(folder))

    def _living(self) -> Iterator[str]:
        """Runs with a supervisor. Raises OSError."""
        return (folder for folder, held in self._folders() if "heartbeat.json" in held and self._lives(folder))

    def _dead(self) -> Iterator[str]:
        """Runs whose supervisor died. Raises OSError."""
        folders = self._folders()
        return (folder for folder, held in folders if held and "exit.json" not in held and not self._lives(folder))

    def _unpulled(self) -> Iterator[str]:
        """Runs that were not released. Raises OSError."""
        return (folder for folder, held in self._folders() if held - set(KEPT))

    def _lives(self, folder: str) -> bool:
        try:
            return alive(read_json(os.path.join(folder, "heartbeat.json")))
        except ValueError:  # whatever wrote there: while the run has processes it is not ours to end
            return bool(members(os.path.realpath(folder), {}))


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, complete. Raises ValueError."""
    unknown = sorted(set(settings) - set(KEYS))
    if unknown:
        raise ValueError(f"{unknown[0]}: unknown setting of the keeper; allowed are {', '.join(KEYS)}")
    after, command = settings.get("abandon_after_s"), settings.get("on_idle") or ""
    if after is not None and finite(after, "abandon_after_s") <= 0:
        raise ValueError(f"abandon_after_s: {after:g} must be more than 0")
    if not isinstance(command, str) or "\0" in command:
        raise ValueError(f"on_idle: {command!r} must be a shell command")
    folder = settings.get("leases") or "leases"
    if not isinstance(folder, str) or "\0" in folder:
        raise ValueError(f"leases: {folder!r} must be a folder")
    persistent = settings.get("persistent") is True
    return {"abandon_after_s": after, "on_idle": command, "persistent": persistent, "leases": folder}


def _settings(root: str) -> dict[str, Any] | None:
    """keeper.json if there is anything to keep. Raises OSError, ValueError."""
    path = os.path.join(root, "keeper.json")
    try:
        settings = _checked(read_json(path) or {})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}; the next `golfctl host prepare` writes it anew") from None
    return settings if settings["abandon_after_s"] and settings["on_idle"].strip() else None


def _shell(command: str, root: str) -> tuple[int | None, list[str], str]:
    """Run on_idle: (exit code or None, last lines, why it did not end well). Never raises.

    Rented boxes hand their names (a pod's id, say) to their first process, and an ssh session may not have them.
    """
    environment = {**_first_environment(), **os.environ}
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # no file: the disk may be full
            stderr=subprocess.STDOUT,
            cwd=root,
            env=environment,
            start_new_session=True,
            restore_signals=False,  # SIGPIPE stays ignored: what it leaves in the background may write when we are gone
        )
    except OSError as error:
        return None, [], str(error.strerror)
    output = _follow(process)
    code = process.poll()
    if code is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        why = f"did not end in {COMMAND_S:g} s and was killed"
    else:
        why = "" if code == 0 else f"exit code {code}" if code > 0 else f"killed by signal {-code}"
    lines = [scrub(line) for line in output.decode("utf-8", "replace").splitlines()]
    return code, [line for line in lines if line.strip()][-LINES:], why


def _follow(process: subprocess.Popen[bytes]) -> bytes:
    """The last bytes of its output, until it ends or COMMAND_S are over; others may hold the pipe for longer."""
    assert process.stdout
    descriptor, output = process.stdout.fileno(), b""
    os.set_blocking(descriptor, False)
    deadline, ended, more = time.monotonic() + COMMAND_S, False, True
    while not ended and time.monotonic() < deadline:
        ended = process.poll() is not None  # before the last reading: nothing it wrote is missed
        if more:
            select.select([descriptor], [], [], 0 if ended else 0.1)
        else:
            time.sleep(0.1)
        with contextlib.suppress(BlockingIOError):
            for _ in range(64 if more else 0):  # then look at the process again, however loud it is
                block = os.read(descriptor, CHUNK)
                output = (output + block)[-CHUNK:]
                more = bool(block)
                if not more:
                    break
    return output


def _first_environment() -> dict[str, str]:
    try:
        with open("/proc/1/environ", "rb") as file:
            pairs = [os.fsdecode(pair).partition("=") for pair in file.read().split(b"\0")]
    except OSError:
        return {}
    return {name: value for name, _, value in pairs if name and name != MARKER}
