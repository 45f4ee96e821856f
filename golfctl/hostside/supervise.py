"""Parent of every run: standard library only, Python >= 3.9, Linux and macOS. Travels as one file (package.py).

    python FILE [--detach] ROOT NAME

reads ROOT/inbox/NAME.json, claims ROOT/runs/NAME and runs the child there. If that folder exists it exits 0 and does
nothing, so a run never starts twice, whoever asks how often. With --detach it goes to the background and answers, once
the claim is visible, `claimed` or `exists` on stdout; a certain error is one line on stderr and exit code 1.

Spec (the inbox file; kept as run.json):
    argv       list of words; "{out}" becomes the run folder, "{python}" the interpreter this file runs under
    cwd        folder the child starts in, relative to ROOT
    own_copy   start the child in a copy of cwd (RUN/work, deleted at the end): runs of one bundle never meet
    env        added to the inherited environment; the same two words are replaced in values
    unset      variables of the inherited environment the child must not see
    heartbeat_s  seconds between heartbeats (1.0)
    rules      wallclock_s  seconds the child may take -> outcome over_time
               stall_s      seconds train.log may stand still -> aborted
               nan          abort when a train_loss or val_loss is nan or inf
               limits       [{"metric": "step_avg_ms", "max": 400.0, "after_step": 50}] -> aborted
               grace_s      seconds between TERM and KILL (5.0)
A file `stop` in the run folder, SIGTERM or SIGINT abort the run, too.

exit.json appears last, by rename, when the whole process tree is gone: outcome (completed | aborted | crashed |
over_time), reason, code, signal (its name), wall_s, started_at, ended_at, last_step, log_tail, files {name: {bytes,
sha256}}, unreadable {name: why}, leftover (pids that did not die). heartbeat.json: pid, pid_start, boot, child_pid,
child_start, last_step, log_bytes, beat (a counter), known (where the kernel can't be asked for environments).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from typing import Any

from golfctl.hostside.files import one_line, read_json, remove_tree, sync_folder, write_json
from golfctl.hostside.watch import RESERVE_BYTES, Supervisor

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
"""Names a run, a bundle or an archive may have."""


def claim(root: str, name: str) -> tuple[str, dict[str, Any]] | None:
    """The run folder and spec, or None if the run exists. Raises OSError, ValueError; then nothing is left behind.

    The folder is filled under another name and appears by rename, which fails on a folder that is not empty: as atomic
    as mkdir, and a supervisor killed here never leaves a claimed run without run.json and heartbeat.json.
    """
    if not NAME.match(name):
        raise ValueError(f"{name!r}: not a run name; allowed are letters, digits, '.', '_' and '-'")
    runs, inbox = os.path.join(root, "runs"), os.path.join(root, "inbox", f"{name}.json")
    folder = os.path.join(runs, name)
    if os.path.lexists(folder):
        return None
    spec = read_json(inbox)
    if spec is None:
        if os.path.lexists(folder):
            return None  # whoever started it has just tidied up
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), inbox)
    if not isinstance(spec.get("argv"), list) or not spec["argv"]:
        raise ValueError(f"{inbox}: argv must be a list of words")
    os.makedirs(runs, exist_ok=True)
    staged = os.path.join(runs, f".{name}.{os.getpid()}-{os.urandom(4).hex()}")
    os.mkdir(staged)
    try:
        run = Supervisor(staged, spec)  # refuses a bad spec before anything is claimed
        with open(os.path.join(staged, ".reserve"), "wb") as file:
            file.write(os.urandom(RESERVE_BYTES))  # not zeros: a compressing disk would reserve nothing
        with open(os.path.join(staged, "supervise.log"), "wb"):
            pass  # made now, while a full disk is still an error of the start
        write_json(os.path.join(staged, "run.json"), spec, sync=True)
        run.heartbeat()
        os.rename(staged, folder)
    except OSError as error:
        remove_tree(staged)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return None
        raise
    except BaseException:
        remove_tree(staged)
        raise
    with contextlib.suppress(OSError):  # it is claimed: from here on trouble is the run's, not the caller's
        sync_folder(runs)
        _own_log(folder)
    return folder, spec


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
    done = answer in ("claimed", "exists")
    print(answer if done else f"supervise: {answer}", file=sys.stdout if done else sys.stderr, flush=True)
    os._exit(0 if done else 1)


def main(arguments: list[str]) -> int:
    """Supervise one run; see the top of this file."""
    detached = arguments[:1] == ["--detach"]
    if len(arguments) != 2 + detached:
        print("usage: supervise.py [--detach] ROOT NAME", file=sys.stderr)
        return 2
    root, name = os.path.abspath(arguments[-2]), arguments[-1]
    report = _detach() if detached else None
    try:
        claimed = claim(root, name)
        answer = "claimed" if claimed else "exists"
    except (OSError, ValueError) as error:
        claimed, answer = None, one_line(str(error))
        if report is None:
            print(f"supervise: {answer}", file=sys.stderr)
    if report is not None:
        with contextlib.suppress(OSError):  # whoever asked may be gone; the run goes on
            os.write(report, answer.encode("utf-8", "replace"))
        os.close(report)
    if claimed:
        Supervisor(*claimed).run()
    return 0 if answer in ("claimed", "exists") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
