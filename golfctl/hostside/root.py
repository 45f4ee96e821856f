"""What a host is asked to do, in terms of its folder ROOT. Standard library, Python >= 3.9.

The same code answers a controller on this machine (hosts/local.py calls it) and one that came by ssh (serve.py). Every
operation may be repeated at any time and by several processes at once. Raises OSError, ValueError; one line each.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from golfctl.hostside import keeper, leases
from golfctl.hostside.files import list_files, log_tail, one_line, read_json, remove_tree, replace_file, sync_folder
from golfctl.hostside.processes import alive, process_table, sweep
from golfctl.hostside.supervise import ANSWERS, NAME

MIN_FREE_BYTES = 256 << 20
"""Less free disk is a problem `check` tells of."""
START_TIMEOUT_S = 60.0
CLAIM_S = 5.0
BLOCK = 1 << 18
"""Bytes of a file sent at once."""
TOMBSTONE = ("run.json", "exit.json")
"""What a released run keeps, so that its name stays claimed."""

_TEMPORARY = re.compile(r"\..+\.(\d+)-\w+(\.\w+)*\Z")
"""Names of what a process, its pid in the middle, makes and removes again."""
_QUESTIONS = ("check", "has_bundle", "look", "read", "runs", "busy", "holders", "idle", "names", "send")
_ORDERS = ("prepare", "put", "start", "stop", "release", "sweep", "tool")
OPERATIONS = frozenset(_QUESTIONS + _ORDERS)
Answer = tuple[Any, "Iterator[bytes] | None"]


class Root:
    """ROOT/bundles/<sha>, ROOT/inbox, ROOT/runs/<name>. `supervisor`: the travelling file (package.py), already there."""

    def __init__(self, root: str, supervisor: str, python: str = sys.executable) -> None:
        self.root, self.supervisor, self.python = Path(root), supervisor, python

    def ask(self, operation: str, arguments: Mapping[str, Any], payload: bytes = b"") -> Answer:
        """Do one of OPERATIONS; its answer, and bytes that follow it. Raises ValueError on an unknown one."""
        if operation not in OPERATIONS:
            raise ValueError(f"operation {operation!r} is unknown here; update golfctl")
        more = {"payload": payload} if operation == "put" else {}
        answer = getattr(self, operation)(**arguments, **more)
        return answer if isinstance(answer, tuple) else (answer, None)

    # -- readiness

    def check(self, min_free_bytes: int | None = None) -> list[str]:
        """Problems, one line each: the root, the free disk, the system."""
        problems = []
        place = self.root
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent  # prepare() makes what is missing
        if not place.is_dir():
            problems.append(f"{place}: not a folder")
        elif not os.access(place, os.W_OK | os.X_OK):
            problems.append(f"{place}: can't be written")
        else:
            need = MIN_FREE_BYTES if min_free_bytes is None else min_free_bytes
            free = shutil.disk_usage(place).free
            if free < need:
                problems.append(f"{place}: {free:,} bytes free, at least {need:,} are needed")
        if not sys.platform.startswith(("linux", "darwin")):
            problems.append(f"{sys.platform} is not supported; runs need Linux or macOS")
        return problems

    def prepare(self, idle: Mapping[str, Any] | None = None, keep: bool = True) -> None:
        """Make the folders; remove litter of killed starts and puts.

        idle: what to do when nobody comes back (keeper.py); keep: none asked for is no order to forget another's.
        """
        for name in ("bundles", "inbox", "runs"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        if idle is not None and (idle.get("abandon_after_s") is not None or not keep):
            keeper.configure(str(self.root), dict(idle))
        entries = [entry for name in ("bundles", "inbox", "runs") for entry in (self.root / name).iterdir()]
        found = [(entry, match) for entry in entries if (match := _TEMPORARY.match(entry.name))]
        table = process_table() if found else {}  # after the names: whoever made one and lives is in it
        for entry, match in found:
            if int(match[1]) not in table:
                remove_tree(str(entry))

    # -- down: bundles and runs

    def has_bundle(self, sha: str) -> bool:
        """Whether ROOT/bundles/<sha> is there; it appears complete."""
        return self._named("bundles", sha).is_dir()

    def put(self, sha: str, what: str, payload: bytes) -> None:
        """Unpack a tar.gz under another name, then rename. `what` names it in messages."""
        from golfctl.hostside.unpack import unpack

        target = self._named("bundles", sha)
        if target.is_dir():
            return
        self.prepare()
        temporary = Path(tempfile.mkdtemp(prefix=f".{sha}.{os.getpid()}-", dir=target.parent))
        try:
            unpack(io.BytesIO(payload), temporary, what)
            temporary.chmod(0o755)
            try:
                temporary.rename(target)
            except OSError:
                if not target.is_dir():  # else another put of the same bundle was faster
                    raise
            sync_folder(str(target.parent))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def start(self, name: str, spec: Mapping[str, Any], secrets: Mapping[str, str]) -> str:
        """Leave the spec in the inbox, start the supervisor detached, return its word: claimed, exists or full.

        "ours": this very spec was started before; whoever asks again after a lost answer is not told of a stranger's run.
        `secrets` go into the supervisor's environment and nowhere else.
        """
        if os.path.lexists(self._run(name)):
            return self._whose(name, spec)
        bundle = self._named("bundles", str(spec.get("bundle")))
        if not bundle.is_dir():
            raise ValueError(f"{bundle}: no such bundle; put it first")
        self.prepare()
        # A name of its own: who is told "full" or "exists" tidies up while another still reads.
        order = self.root / "inbox" / f".{name}.{os.getpid()}-{os.urandom(4).hex()}.json"
        log = order.with_suffix(".log")
        replace_file(str(order), json.dumps(spec, indent=1).encode())
        # -I -S: neither the user's environment variables nor site packages can change what the supervisor is.
        command = [self.python, "-I", "-S", self.supervisor, "--detach", str(self.root), name, order.name]
        with log.open("ab") as errors:
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=self.root,
                    env={**os.environ, **secrets},
                    start_new_session=True,
                    timeout=START_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise ValueError(f"{name}: no answer in {START_TIMEOUT_S:g} s; poll it") from None
        answer = done.stdout.decode("utf-8", "replace").strip()
        tail = one_line(" ".join(log_tail(str(log), 3))) or f"exit code {done.returncode}"
        for path in (order, log):
            remove_tree(str(path))
        if answer not in ANSWERS:
            raise ValueError(f"{name}: not started: {tail}")
        if answer == "claimed":
            keeper.ensure(str(self.root), self.supervisor)
        if answer == "full" and self._being_claimed(name, str((spec.get("lease") or {}).get("folder", ""))):
            answer = "exists"
        return self._whose(name, spec) if answer == "exists" else answer

    def _being_claimed(self, name: str, folder: str) -> bool:
        """Whether the slots are held for this very run by another starter, waiting until its claim shows."""
        until = time.monotonic() + CLAIM_S
        while time.monotonic() < until:
            if os.path.lexists(self._run(name)):
                return True
            holders = leases.holders(str(self.root / folder)).values()
            if not any(info["owner"].get("run") == name for info in holders):
                break
            time.sleep(0.02)
        return os.path.lexists(self._run(name))

    def _whose(self, name: str, spec: Mapping[str, Any]) -> str:
        kept = self._json(self._run(name) / "run.json") or {}
        asked = json.loads(json.dumps(spec))
        same = all(kept.get(key) == value for key, value in asked.items() if key != "lease")  # kept in another form
        return "ours" if same else "exists"

    # -- watching

    def look(self, runs: Mapping[str, int], limit: int) -> Answer:
        """State of each run, and how many bytes of its log from the offset given follow, in the same order."""
        seen, logs = {}, []
        for name, offset in runs.items():
            try:
                fact, log = self._poll(name), self._piece(name, "train.log", offset, limit)
            except (OSError, ValueError) as error:  # one odd file must not hide the other runs
                fact, log = {"state": "broken", "why": f"{type(error).__name__}: {error}"}, b""
            seen[name] = {**fact, "log": len(log)}
            logs.append(log)
        return seen, iter([b"".join(logs)])

    def _poll(self, name: str) -> dict[str, Any]:
        folder = self._run(name)
        # The order matters: the run may start or end between any two of these lines.
        if not os.path.lexists(folder):
            return {"state": "absent"}
        beat = self._json(folder / "heartbeat.json")  # a claim appears with one
        if alive(beat):  # before exit.json: a supervisor that ended in between has written it
            return {"state": "running", "heartbeat": beat}  # whatever files the child itself may have written
        end = self._json(folder / "exit.json")
        if end is not None:
            return {"state": "exited", "exit": end, "heartbeat": beat}
        left = sweep(str(folder))
        if left:
            raise ValueError(f"{name}: processes {left} of a dead run can't be killed")
        return {"state": "dead", "heartbeat": beat}

    def read(self, name: str, file: str, offset: int, limit: int) -> Answer:
        """A piece of a file; links are not followed. Empty while there is no such file."""
        return None, iter([self._piece(name, file, offset, limit)])

    def _piece(self, name: str, file: str, offset: int, limit: int) -> bytes:
        try:
            descriptor = self._open(name, file)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(descriptor, limit, offset)
        finally:
            os.close(descriptor)

    def stop(self, name: str, reason: str) -> None:
        """Lay the stop file."""
        state = self._poll(name)["state"]
        if state == "absent":
            raise ValueError(f"{name}: no such run")
        if state == "running":  # made elsewhere: a temporary file in the run folder might be taken for the run's
            replace_file(str(self._run(name) / "stop"), one_line(reason).encode(), by=str(self.root / "inbox"))

    def runs(self, held: bool = False) -> list[str]:
        """Names ever claimed here, sorted. held: only those that hold more than a tombstone."""
        with contextlib.suppress(FileNotFoundError):
            names = sorted(path.name for path in (self.root / "runs").iterdir() if NAME.match(path.name))
            return [name for name in names if not held or self._holds(name)]
        return []

    def _holds(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return any(entry.name not in TOMBSTONE for entry in self._run(name).iterdir())
        return False

    def busy(self) -> int:
        """How many runs have a living supervisor."""
        folders = [self._run(name) for name in self.runs()]
        return sum(not (path / "exit.json").exists() and alive(self._json(path / "heartbeat.json")) for path in folders)

    def holders(self, folder: str) -> dict[str, Any]:
        """Who holds which slot."""
        return leases.holders(str(self.root / folder))

    def idle(self) -> dict[str, Any]:
        """What the keeper did when nobody came (idle.json of keeper.py); empty if it never did anything."""
        return self._json(self.root / "idle.json") or {}

    # -- up: results

    def names(self, name: str) -> list[str]:
        """Every plain file of a run."""
        return list(list_files(str(self._run(name)))[0])

    def send(self, name: str, file: str) -> Answer:
        """A whole file of a run."""
        return None, _blocks(self._open(name, file))  # what can't be opened is an error before anything is sent

    def tool(self, tool: str, request: Mapping[str, Any], bare: bool = False) -> Answer:
        """Run one of main.TOOLS as a process of its own; each block that follows is a line of JSON, see tools.py.

        It runs under the python of the runs, or, if `bare`, under the one this file was started with.
        """
        python = sys.executable if bare else self.python
        command = [python, "-I", self.supervisor, "tool", tool]
        content = json.dumps({"root": str(self.root), **request}).encode()
        return None, _lines(command, content)

    def release(self, name: str) -> None:
        """Delete all but the tombstone."""
        state = self._poll(name)["state"]
        if state not in ("exited", "dead"):
            raise ValueError(f"{name}: is {state}; only a run that has ended can be released")
        for entry in self._run(name).iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name not in TOMBSTONE:
                entry.unlink()

    def sweep(self) -> dict[str, Any]:
        """What lies here, by run: state, unpulled, campaign, outcome, last_step. What dead supervisors left running is killed."""
        found = {}
        for name in self.runs():
            folder = self._run(name)
            seen = self._poll(name)
            spec = self._json(folder / "run.json") or {}
            end = seen.get("exit") or {}
            found[name] = {
                "state": seen["state"],
                "unpulled": self._holds(name) and seen["state"] in ("exited", "dead"),
                "campaign": spec.get("campaign", ""),
                "outcome": end.get("outcome"),
                "last_step": (seen.get("heartbeat") or end).get("last_step"),
            }
        return found

    # -- helpers

    def _run(self, name: str) -> Path:
        return self._named("runs", name)

    def _named(self, kind: str, name: str) -> Path:
        if not NAME.match(name):
            raise ValueError(f"{name!r} is no name in {kind}; allowed are letters, digits, . _ -")
        return self.root / kind / name

    def _open(self, name: str, file: str) -> int:
        """Descriptor of a plain file of a run; links are not followed."""
        from golfctl.hostside.unpack import relative

        path = relative(file)
        if path is None:
            raise ValueError(f"{name}: {file!r} leads outside the run folder")
        # O_NONBLOCK: a pipe the run made must not hold us up before we can refuse it.
        descriptor = os.open(self._run(name) / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ValueError(f"{name}/{file}: not a plain file")
        return descriptor

    @staticmethod
    def _json(path: Path) -> dict[str, Any] | None:
        try:
            return read_json(str(path))
        except ValueError as error:
            raise ValueError(f"{path}: damaged ({error})") from None


def _blocks(descriptor: int) -> Iterator[bytes]:
    try:
        while True:
            block = os.read(descriptor, BLOCK)
            if not block:
                return
            yield block
    finally:
        os.close(descriptor)


def _lines(command: list[str], content: bytes) -> Iterator[bytes]:
    """What a tool prints, line by line; it is ended when nobody reads on."""
    with tempfile.TemporaryFile() as errors:
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, start_new_session=True) as tool:
            try:
                assert tool.stdin and tool.stdout
                with contextlib.suppress(BrokenPipeError):  # it ended early; what it said comes below
                    tool.stdin.write(content)
                    tool.stdin.close()
                yield from tool.stdout
                if tool.wait() != 0:
                    errors.seek(0)
                    said = one_line(errors.read()[-2000:].decode("utf-8", "replace").strip().rpartition("\n")[2])
                    yield json.dumps({"error": said or f"ended with exit code {tool.returncode}"}).encode() + b"\n"
            finally:
                if tool.poll() is None:
                    with contextlib.suppress(OSError):
                        os.killpg(tool.pid, signal.SIGKILL)
