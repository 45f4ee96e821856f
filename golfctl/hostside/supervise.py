"""Parent of every run: standard library only, Python >= 3.9, Linux and macOS. Travels as one file (package.py).

    python FILE [--detach] ROOT NAME [ORDER]

reads ROOT/inbox/ORDER (NAME.json), claims ROOT/runs/NAME and runs the child there. If that folder exists it exits 0 and does
nothing, so a run never starts twice, whoever asks how often. With --detach it goes to the background and answers, once
the claim is visible, `claimed`, `exists` or `full` on stdout; a certain error is one line on stderr and exit code 1.
`full` (exit code 0, too): fewer slots are free than the run needs; nothing was made, and it may be asked again.

Spec (the inbox file; kept as run.json, see below):
    argv       list of words; "{out}" becomes the run folder, "{python}" the interpreter this file runs under,
               "{data}" the host's data folder (GOLFCTL_DATA in our environment)
    cwd        folder the child starts in, relative to ROOT
    own_copy   start the child in a copy of cwd (RUN/work, deleted at the end): runs of one bundle never meet
    env        added to the inherited environment; the same words are replaced in values
    unset      variables of the inherited environment the child must not see
    secret_env names of variables whose values must not be seen in any file written here
    campaign   told to others who ask who holds a slot
    lease      slots to hold from before the claim until the run has ended (leases.py); absent: none are held
               folder       of the leases, relative to ROOT; slots: ["0", "1"]; need: how many of them (1)
               gpus         whether slots are GPUs, then CUDA_VISIBLE_DEVICES names them (false)
               cache        folder of compile caches, relative to ROOT, one folder a slot; "": what is inherited
    heartbeat_s  seconds between heartbeats (1.0)
    rules      wallclock_s   seconds the child may take -> outcome over_time
               stall_s       seconds train.log may stand still -> aborted; the reason says what the processes did
               frozen_s      seconds every process may be stopped (T), or uninterruptible (D) without CPU use -> aborted
               nan           abort when a train_loss or val_loss is nan or inf
               blow_up       {"factor": 1.5, "after_step": 100}: train_loss over factor x the early loss and 2 x the lowest, twice
               memory_errors, nccl_errors   abort on a line that says memory ran out, or that processes can't talk
               artifact      {"globs": ["*.ptz"], "max_bytes": N}: looked at with every heartbeat, RUN and RUN/work
               limits        [{"metric": "step_avg_ms", "max": 130.0, "after_step": 20, "window": 50, "scale": 7.9, "at_gpus": 8}]
                             window: the mean over so many steps; compared is value / scale
               grace_s       seconds between TERM and KILL (2.0); processes TERM can't reach are not waited for
A file `stop` in the run folder, SIGTERM or SIGINT abort the run, too.

run.json is the spec, but it gets published: values of secret_env are replaced by ***, and of the lease it holds no
folder, only need, gpus and the slots held.

exit.json appears last, by rename, when the whole process tree is gone: outcome (completed | aborted | crashed |
over_time), reason, code, signal (its name), wall_s, started_at, ended_at, last_step, log_tail, files {name: {bytes,
sha256}}, unreadable {name: why}, leftover (pids that did not die), lines (at most 3 log lines a rule fired on), fault ("host":
the machine, not the code; else ""). heartbeat.json: pid, pid_start, boot, child_pid,
child_start, last_step, log_bytes, beat (a counter), known (where the kernel can't be asked for environments).
Then the supervisor sees to it that the host's keeper lives (keeper.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from typing import Any

from golfctl.hostside.files import one_line, read_json, remove_tree, sync_folder, write_json
from golfctl.hostside.leases import Lease, acquire, check
from golfctl.hostside.watch import RESERVE_BYTES, Supervisor

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
"""Names a run, a bundle or an archive may have."""
ANSWERS = ("claimed", "exists", "full")
LEASE_KEYS = {"folder", "slots", "need", "gpus", "cache"}
Claimed = tuple[str, "dict[str, Any]", "Lease | None"]
"""Run folder, spec, lease: what a Supervisor needs."""


def claim(root: str, name: str, order: str = "") -> tuple[str, Claimed | None]:
    """One of ANSWERS, with what was claimed. Raises OSError, ValueError; unless it claimed, nothing is left behind.

    order: file in the inbox that holds the spec, NAME.json unless given.

    The folder is filled under another name and appears by rename, which fails on a folder that is not empty: as atomic
    as mkdir, and a supervisor killed here never leaves a claimed run without run.json and heartbeat.json.
    """
    if not NAME.match(name):
        raise ValueError(f"{name!r}: not a run name; allowed are letters, digits, '.', '_' and '-'")
    if os.path.basename(order) != order:
        raise ValueError(f"{order!r}: not the name of a file in the inbox")
    runs = os.path.join(root, "runs")
    folder = os.path.join(runs, name)
    if os.path.lexists(folder):
        return "exists", None
    staged = os.path.join(runs, f".{name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        spec = _read(os.path.join(root, "inbox", order or f"{name}.json"), staged)
    except (OSError, ValueError):
        if os.path.lexists(folder):
            return "exists", None  # whoever started it has just tidied up
        raise
    lease, room = _lease(root, folder, spec)
    if not room:
        return "exists" if os.path.lexists(folder) else "full", None
    try:
        os.makedirs(runs, exist_ok=True)
        os.mkdir(staged)
        _fill(staged, spec, lease)
        claimed = _appear(staged, folder)
    except BaseException:
        remove_tree(staged)
        if lease:
            lease.free()
        raise
    if not claimed:
        remove_tree(staged)
        if lease:
            lease.free()
        return "exists", None
    with contextlib.suppress(OSError):  # it is claimed: from here on trouble is the run's, not the caller's
        sync_folder(runs)
        _own_log(folder)
    return "claimed", (folder, spec, lease)


def _read(inbox: str, staged: str) -> dict[str, Any]:
    """The spec, refused as long as nothing is claimed. Raises OSError, ValueError naming the file."""
    try:
        spec = read_json(inbox)
        if spec is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), inbox)
        if not isinstance(spec.get("argv"), list) or not spec["argv"]:
            raise ValueError("argv must be a list of words")
        if not isinstance(spec.get("env") or {}, dict):
            raise ValueError("env must be an object of names and values")
        _check_lease(spec.get("lease"))
        Supervisor(staged, spec)  # knows what else may be wrong
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{inbox}: {str(error).removeprefix(inbox + ': ') or type(error).__name__}") from None
    return spec


def _check_lease(lease: Any) -> None:
    if lease is None:
        return
    if not isinstance(lease, dict) or not {"folder", "slots"} <= set(lease) <= LEASE_KEYS:
        raise ValueError("lease must be an object with folder and slots, and may have need, gpus and cache")
    if not all(isinstance(lease.get(key, ""), str) for key in ("folder", "cache")):
        raise ValueError("lease: folder and cache must be paths")
    try:
        check(lease["slots"], lease.get("need", 1))
    except ValueError as error:
        raise ValueError(f"lease.{error}") from None


def _lease(root: str, folder: str, spec: dict[str, Any]) -> tuple[Lease | None, bool]:
    """(the lease if one is asked for, whether the run may start). Raises OSError."""
    wanted = spec.get("lease")
    if wanted is None:
        return None, True
    owner = {"run": os.path.basename(folder), "campaign": str(spec.get("campaign", "")), "folder": folder}
    cache = os.path.join(root, wanted["cache"]) if wanted.get("cache") else ""
    place = os.path.join(root, wanted["folder"])
    lease = acquire(place, wanted["slots"], wanted.get("need", 1), owner, bool(wanted.get("gpus")), cache)
    if lease:
        try:
            lease.environment()  # makes the cache folders: trouble there is still an error of the start
        except BaseException:
            lease.free()
            raise
    return lease, lease is not None


def _fill(staged: str, spec: dict[str, Any], lease: Lease | None) -> None:
    """Everything a claimed run has from its first moment. Raises OSError."""
    with open(os.path.join(staged, ".reserve"), "wb") as file:
        file.write(os.urandom(RESERVE_BYTES))  # not zeros: a compressing disk would reserve nothing
    with open(os.path.join(staged, "supervise.log"), "wb"):
        pass  # made now, while a full disk is still an error of the start
    write_json(os.path.join(staged, "run.json"), _published(spec, lease), sync=True)
    Supervisor(staged, spec, lease).heartbeat()


def _appear(staged: str, folder: str) -> bool:
    """The claim itself; False if the run exists. Raises OSError."""
    try:
        os.rename(staged, folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _published(spec: dict[str, Any], lease: Lease | None) -> dict[str, Any]:
    """The spec as run.json shows it."""
    kept, secret = dict(spec), set(spec.get("secret_env") or ())
    if secret and kept.get("env"):
        kept["env"] = {key: "***" if key in secret else value for key, value in kept["env"].items()}
    if lease:
        kept["lease"] = {key: spec["lease"].get(key) for key in ("need", "gpus")}
        kept["slots"] = lease.slots
    return kept


def _own_log(folder: str) -> None:
    """From here on what is wrong with the supervisor is told in the run folder."""
    log = os.open(os.path.join(folder, "supervise.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _detach() -> int:
    """Go on in the background. Returns the descriptor to report to; the foreground relays the report and exits here."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        return write
    os.close(write)
    with open(read, encoding="utf-8", errors="replace") as file:
        answer = file.read() or "died before the claim"
    done = answer in ANSWERS
    print(answer if done else f"supervise: {answer}", file=sys.stdout if done else sys.stderr, flush=True)
    os._exit(0 if done else 1)


def main(arguments: list[str]) -> int:
    """Supervise one run; see the top of this file."""
    detached = arguments[:1] == ["--detach"]
    if len(arguments) - detached not in (2, 3):
        print("usage: supervise.py [--detach] ROOT NAME [ORDER]", file=sys.stderr)
        return 2
    root, name, *order = arguments[detached:]
    root = os.path.abspath(root)
    report = _detach() if detached else None
    try:
        answer, claimed = claim(root, name, *order)
    except (OSError, ValueError) as error:
        answer, claimed = one_line(str(error)), None
        if report is None:
            print(f"supervise: {answer}", file=sys.stderr)
    if answer == "full" and report is None:
        print(f"supervise: {name}: full: fewer slots are free than it needs; try again later", file=sys.stderr)
    if report is not None:
        with contextlib.suppress(OSError):  # whoever asked may be gone; the run goes on
            os.write(report, answer.encode("utf-8", "replace"))
        os.close(report)
    if claimed:
        _supervise(root, *claimed)
    return 0 if answer in ANSWERS else 1


def _supervise(root: str, folder: str, spec: dict[str, Any], lease: Lease | None) -> None:
    from golfctl.hostside import keeper  # late: not on the way to the claim

    try:
        Supervisor(folder, spec, lease).run()
    finally:
        for name in spec.get("secret_env") or ():
            os.environ.pop(name, None)  # what outlives the run has no need of its secrets
        keeper.ensure(root)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
