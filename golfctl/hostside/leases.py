"""Leases on a host's slots (GPUs, or shares of its CPU): two campaigns never meet on one. Standard library, Python >= 3.9.

A lease of a slot is FOLDER/LEVEL/SLOT/lease.json: owner ({"run", "campaign", "folder": of the run}), token, pid,
pid_start, boot, pid_namespace, hostname, taken_at (UTC), expires_s, beat (monotonic seconds of this boot).
LEVEL names host and boot: FOLDER may lie on a volume that several machines mount, even ones of the same name, and each
has GPUs of its own; what was held before a restart is held no more.

Two locks, because each has a hole the other closes. Every decision is made under flock on LEVEL/.lock: seeing that a
lease is stale, removing it and taking its place are several steps, and without it a second taker would remove the
lease the first has just made. The claim itself is a mkdir, which is atomic also where flock is not (some network disks
grant it to everybody): one slot then still has one holder. A taker killed under flock leaves at most a folder without
lease.json, which nobody holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from typing import Any

from golfctl.hostside.files import read_json, remove_tree, utc_now, write_json
from golfctl.hostside.limits import finite
from golfctl.hostside.processes import boot_id, members, process_row, sweep

EXPIRES_S = 60.0
"""A lease whose holder can't be looked at is stale after so long without a beat."""
LOCK_S = 30.0
"""Longest wait for others that decide; each takes milliseconds, or up to processes.KILL_S per dead run it sweeps."""
FIRST_PORT = 29500
"""MASTER_PORT of slot 0, torchrun's default; each slot has PORTS of its own."""
PORTS = 16
_SLOT = re.compile(r"(?:0|[1-9]\d{0,2})\Z")
_KINDS = {"owner": dict, "token": str, "pid": int, "pid_start": str, "boot": str, "pid_namespace": str}


class Lease:
    """Slots held by this process until free() or its death."""

    def __init__(self, level: str, info: dict[str, Any], slots: list[str], gpus: bool, cache: str) -> None:
        """Made by acquire. info: what lease.json holds."""
        self.slots = slots
        self._level, self._info, self._gpus, self._cache = level, info, gpus, cache

    def environment(self) -> dict[str, str]:
        """Variables that keep the run to its slots; makes the cache folders. Raises OSError.

        GOLFCTL_SLOTS: the slots, joined by commas; CUDA_VISIBLE_DEVICES: the same, if they are GPUs. MASTER_PORT: 29500 +
        16 times the first slot, so that rendezvous of neighbours never meet. TORCHINDUCTOR_CACHE_DIR, TRITON_CACHE_DIR:
        CACHE/slot-<first slot>/..., if there is a cache folder: kept from run to run, written by one at a time.
        """
        joined = ",".join(self.slots)
        found = {"GOLFCTL_SLOTS": joined, "MASTER_PORT": str(FIRST_PORT + PORTS * int(self.slots[0]))}
        if self._gpus:
            found["CUDA_VISIBLE_DEVICES"] = joined
        if self._cache:
            for name, part in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
                found[name] = os.path.join(self._cache, f"slot-{self.slots[0]}", part)
                os.makedirs(found[name], exist_ok=True)
        return found

    def beat(self) -> None:
        """Say that we live; cheap, writes six times per EXPIRES_S. Raises OSError if the lease can't be written or is lost."""
        now = time.monotonic()
        if now < self._info["beat"] + self._info["expires_s"] / 6:
            return
        try:
            with _locked(self._level, 0.0):
                lost = [slot for slot in self.slots if not self._ours(slot)]
                if lost:
                    text = f"slot {', '.join(lost)} was given to another run, as this one was silent too long"
                    raise OSError(errno.ESTALE, text, self._level)
                self._info["beat"] = now
                for slot in self.slots:
                    write_json(_file(self._level, slot), self._info)
        except BlockingIOError:
            pass  # somebody decides just now; the next call comes soon, and a run must not wait

    def free(self) -> None:
        """Give back what is still ours; never raises, may be repeated. What can't be removed is free with our death."""
        with contextlib.suppress(OSError), _locked(self._level, LOCK_S):
            for slot in self.slots:
                if self._ours(slot):
                    remove_tree(os.path.join(self._level, slot))

    def _ours(self, slot: str) -> bool:
        try:
            info = _read(_file(self._level, slot))
        except ValueError:
            return True  # damaged, and whoever takes a slot over removes its folder first: nobody has
        return info is not None and info.get("token") == self._info["token"]


def acquire(
    folder: str, slots: list[str], need: int, owner: dict[str, Any], gpus: bool = False, cache: str = ""
) -> Lease | None:
    """Hold `need` of `slots`, lowest first; None if fewer are free: all or none. Raises OSError, ValueError.

    owner["folder"]: the run's folder. Before a dead holder's slot is given away, what its run left running is killed.
    """
    check(slots, need)
    level = _level(folder)
    _make_level(level)
    info = {
        "owner": owner,
        "token": os.urandom(8).hex(),
        **_identity(),
        "hostname": os.uname().nodename,
        "taken_at": utc_now(),
        "expires_s": EXPIRES_S,
        "beat": time.monotonic(),
    }
    with _locked(level, LOCK_S):
        free = [slot for slot in sorted(slots, key=int) if _is_free(level, slot)]
        taken: list[str] = []
        try:
            for slot in free if len(free) >= need else []:
                if len(taken) < need and _take(level, slot, info):
                    taken.append(slot)
            if len(taken) == need:
                return Lease(level, info, taken, gpus, cache)
        except BaseException:
            _give_back(level, taken)
            raise
        _give_back(level, taken)
    return None


def check(slots: list[str], need: int) -> None:
    """Raises ValueError on slots or a need no lease can have."""
    if not isinstance(slots, list) or not all(isinstance(slot, str) and _SLOT.match(slot) for slot in slots):
        raise ValueError(f"slots: {slots!r} must be a list of numbers as text, each from 0 to 999")
    if len(set(slots)) != len(slots):
        raise ValueError(f"slots: {slots!r} names one twice")
    if isinstance(need, bool) or not isinstance(need, int) or not 1 <= need <= len(slots):
        raise ValueError(f"need: {need!r} must be a number from 1 to {len(slots)}, the count of slots")


def holders(folder: str) -> dict[str, dict[str, Any]]:
    """Slot -> its lease.json and "stale": "" or why it is there for the taking. Changes nothing. Raises OSError."""
    level = _level(folder)
    found: dict[str, dict[str, Any]] = {}
    try:
        entries = [entry for entry in os.listdir(level) if _SLOT.match(entry)]
    except FileNotFoundError:
        return found
    for slot in sorted(entries, key=int):
        info, stale = _look(level, slot)
        if info is not None or stale != "nobody":
            found[slot] = {**(info or {"owner": {}}), "stale": stale}
    return found


def _level(folder: str) -> str:
    hostname = re.sub(r"[^A-Za-z0-9._-]", "_", os.uname().nodename).lstrip(".") or "host"
    return os.path.join(folder, "-".join(filter(None, (hostname[:100], boot_id()[:8]))))


def _make_level(level: str) -> None:
    try:
        os.makedirs(level, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"leases can't be kept here: {error.strerror}", level) from None


def _file(level: str, slot: str) -> str:
    return os.path.join(level, slot, "lease.json")


def _identity() -> dict[str, Any]:
    row = process_row(os.getpid())
    start = row[1] if row else ""
    return {"pid": os.getpid(), "pid_start": start, "boot": boot_id(), "pid_namespace": _pid_namespace()}


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


@contextlib.contextmanager
def _locked(level: str, seconds: float) -> Iterator[None]:
    """Hold the lock; asks for it again and again, as a blocking flock can't be given up. Raises OSError.

    BlockingIOError if others keep it for longer than `seconds`.
    """
    path = os.path.join(level, ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OSError(error.errno, f"leases can't be kept here: {error.strerror}", path) from None
    try:
        deadline, pause = time.monotonic() + seconds, 0.001
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    text = f"locked by others for {seconds:g} s; try again"
                    raise BlockingIOError(errno.EAGAIN, text, path) from None
                time.sleep(pause)
                pause = min(2 * pause, 0.02)
            except OSError as error:
                text = (
                    f"no file locks here ({error.strerror}); let `leases` name a folder on a disk of the machine's own"
                )
                raise OSError(error.errno, text, path) from None
        yield
    finally:
        os.close(descriptor)


def _look(level: str, slot: str) -> tuple[dict[str, Any] | None, str]:
    """(lease.json if it can be read, why nobody holds the slot or "")."""
    path = _file(level, slot)
    try:
        info = _read(path)
    except ValueError:
        return None, _damaged(level, path)
    return info, "nobody" if info is None else _stale(info)


def _read(path: str) -> dict[str, Any] | None:
    """A whole lease.json, None if there is none. Raises ValueError if it is damaged, OSError."""
    try:
        info = read_json(path)
    except RecursionError:
        raise ValueError(f"{path}: damaged") from None
    if info is None:
        return None
    for key, kind in _KINDS.items():
        if not isinstance(info.get(key), kind):
            raise ValueError(f"{path}: {key} is missing or wrong")
    for key in ("beat", "expires_s"):
        finite(info.get(key), f"{path}: {key}")
    return info


def _damaged(level: str, path: str) -> str:
    """A holder that lives mends its file with the next beat, so only one that stays damaged is stale.

    Both times come from the disk's own clock, that of the lock file being touched now; a step of it in between costs a wait.
    """
    try:
        os.utime(os.path.join(level, ".lock"))
        age = os.stat(os.path.join(level, ".lock")).st_mtime - os.stat(path).st_mtime
    except OSError:
        return ""
    return "damaged" if abs(age) > EXPIRES_S else ""


def _stale(info: dict[str, Any]) -> str:
    """Why nobody holds this lease, "" if somebody may."""
    if info["boot"] != boot_id():
        return "the machine was started again since"
    if info["pid_namespace"] == _pid_namespace():
        row = process_row(info["pid"])
        if row is not None:
            return "" if row[1] == info["pid_start"] and row[2] != "Z" else "its holder is dead"
        try:
            os.kill(info["pid"], 0)  # /proc may be hidden from us (hidepid), the process itself is not
        except (ProcessLookupError, OverflowError):
            return "its holder is dead"
        except OSError:
            pass
    silent = time.monotonic() - info["beat"]
    if silent < 0:
        return "the machine was started again since"
    return f"no beat for {silent:.0f} s" if silent > info["expires_s"] else ""


def _is_free(level: str, slot: str) -> bool:
    """Whether the slot may be taken; ends what a dead holder's run left. Only under the lock."""
    info, stale = _look(level, slot)
    if info is None or not stale:
        return bool(stale)
    folder = info["owner"].get("folder")
    return not isinstance(folder, str) or _swept(folder, info)


def _swept(folder: str, info: dict[str, Any]) -> bool:
    """Whether nothing of the dead holder's run lives any more.

    A holder that died before its claim never started anything, and the run of that name may by now be another's.
    """
    try:
        beat = read_json(os.path.join(folder, "heartbeat.json"))
        if beat is None or any(beat.get(key) != info[key] for key in ("pid", "pid_start", "boot")):
            return True
        return not sweep(folder)
    except ValueError:  # whose run it is can't be read
        return not members(os.path.realpath(folder), {})
    except OSError:
        return False


def _take(level: str, slot: str, info: dict[str, Any]) -> bool:
    """Claim a free slot; False if somebody else was faster. Raises OSError; then the slot is not ours."""
    place = os.path.join(level, slot)
    remove_tree(place)
    try:
        os.mkdir(place)
    except FileExistsError:
        return False
    try:
        write_json(_file(level, slot), info)
    except BaseException:
        remove_tree(place)
        raise
    return True


def _give_back(level: str, slots: list[str]) -> None:
    for slot in slots:
        remove_tree(os.path.join(level, slot))
