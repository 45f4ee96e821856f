"""This machine as a host: no network, the same folders as everywhere. The embedded default and the test bed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from golfctl.domain.host import HostSpec, Poll
from golfctl.domain.run import RunSpec
from golfctl.domain.rundir import EXIT, HEARTBEAT, PULLED, SPEC, STOP
from golfctl.errors import HostError
from golfctl.hosts.archive import relative, unpack
from golfctl.hosts.transfer import pull_dead, pull_verified
from golfctl.hostside.files import list_files, log_tail, one_line, read_json, sync_folder
from golfctl.hostside.package import single_file
from golfctl.hostside.processes import alive, process_table, sweep
from golfctl.hostside.supervise import NAME

MIN_FREE_BYTES = 256 << 20
"""Less free disk is a problem `check` tells of; spec.options["min_free_bytes"] overrides it."""
START_TIMEOUT_S = 60.0
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class LocalHost:
    """Runs under ROOT = spec.root. See base.Host for what each method promises."""

    def __init__(self, spec: HostSpec) -> None:
        """Touches nothing. Raises HostError if the spec has no root."""
        if not spec.root:
            raise HostError(f"host {spec.alias}: root is not set; it must name a folder for bundles and runs")
        self._spec = spec
        self.root = Path(spec.root).expanduser().absolute()

    @property
    def spec(self) -> HostSpec:
        """The machine as the user described it."""
        return self._spec

    # -- readiness

    def check(self) -> list[str]:
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
            need = int(self._spec.options.get("min_free_bytes", MIN_FREE_BYTES))
            free = shutil.disk_usage(place).free
            if free < need:
                problems.append(f"{place}: {free:,} bytes free, at least {need:,} are needed")
        if not sys.platform.startswith(("linux", "darwin")):
            problems.append(f"{sys.platform} is not supported; runs need Linux or macOS")
        return problems

    def prepare(self) -> None:
        """Make the folders and the supervisor; remove litter of killed starts and puts."""
        with self._disk():
            for name in ("bundles", "inbox", "runs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._bring_supervisor()
            self._remove_litter()

    def _bring_supervisor(self) -> Path:
        """The supervisor under the name of its content: an upgrade of golfctl never changes the file a run lives on."""
        content = single_file()
        path = self.root / f"supervise-{hashlib.sha256(content).hexdigest()[:16]}.pyz"
        if not path.exists():
            self._write(path, content)
        return path

    def _remove_litter(self) -> None:
        """Hidden folders `.NAME.PID-...` in bundles and runs whose process is gone."""
        entries = [entry for name in ("bundles", "runs") for entry in (self.root / name).iterdir()]
        table = process_table()  # after the names: whoever made one and lives is in it
        for entry in entries:
            match = re.match(r"\..+\.(\d+)-\w+\Z", entry.name)
            if match and int(match[1]) not in table:
                shutil.rmtree(entry, ignore_errors=True)

    # -- down: bundles and runs

    def has_bundle(self, sha: str) -> bool:
        """Whether ROOT/bundles/<sha> is there; it appears complete."""
        return self._bundle(sha).is_dir()

    def put(self, sha: str, archive: Path) -> None:
        """Unpack under another name, then rename."""
        target = self._bundle(sha)
        if target.is_dir():
            return
        self.prepare()
        with self._disk():
            temporary = Path(tempfile.mkdtemp(prefix=f".{sha}.{os.getpid()}-", dir=target.parent))
            try:
                unpack(archive, temporary)
                temporary.chmod(0o755)
                try:
                    temporary.rename(target)
                except OSError:
                    if not target.is_dir():  # else another put of the same bundle was faster
                        raise
                sync_folder(str(target.parent))
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def start(self, run: RunSpec) -> bool:
        """Leave the spec in the inbox, start the supervisor detached, wait for its word."""
        folder, spec = self._run(run.name), self._inbox_spec(run)
        if os.path.lexists(folder):
            return False
        if not self.has_bundle(run.bundle):
            raise HostError(f"{self._spec.alias}: {self._bundle(run.bundle)}: no such bundle; put it first")
        self.prepare()
        inbox = self.root / "inbox" / f"{run.name}.json"
        log = inbox.with_suffix(".log")
        with self._disk():
            supervisor = self._bring_supervisor()
            self._write(inbox, json.dumps(spec, indent=1).encode())
            # -I -S: neither the user's environment variables nor site packages can change what the supervisor is.
            command = [sys.executable, "-I", "-S", str(supervisor), "--detach", str(self.root), run.name]
            with log.open("ab") as errors:
                try:
                    done = subprocess.run(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        cwd=self.root,
                        start_new_session=True,
                        timeout=START_TIMEOUT_S,
                        check=False,
                    )
                except subprocess.TimeoutExpired:
                    raise HostError(f"{self._place(run.name)}: no answer in {START_TIMEOUT_S:g} s; poll it") from None
        answer = done.stdout.decode("utf-8", "replace").strip()
        if answer not in ("claimed", "exists"):
            tail = one_line(" ".join(log_tail(str(log), 3))) or f"exit code {done.returncode}"
            raise HostError(f"{self._place(run.name)}: not started: {tail}")
        for path in (inbox, log):
            path.unlink(missing_ok=True)
        return answer == "claimed"

    def _inbox_spec(self, run: RunSpec) -> dict[str, Any]:
        """What hostside/supervise.py reads. Raises HostError on what no process can be started with."""
        if not run.argv:
            raise HostError(f"{self._place(run.name)}: argv is empty; it must name a program")
        for key, value in run.env.items():
            if not ENV_NAME.match(key) or "\0" in value:
                raise HostError(f"{self._place(run.name)}: environment variable {key!r}: name or value not allowed")
        return {
            "name": run.name,
            "owner": run.owner,
            "bundle": run.bundle,
            "gate": run.gate,
            "seed": run.seed,
            "attempt": run.attempt,
            "host": run.host,
            "shape": run.shape,
            "processes": run.processes,
            "argv": list(run.argv),
            "cwd": f"bundles/{run.bundle}",  # relative: run.json is published, and says nothing of this machine
            "own_copy": True,
            "env": dict(run.env),
            "unset": list(run.unset),
            "ledger": dict(run.witness),
            "rules": dict(run.rules),
            "heartbeat_s": 1.0,
        }

    # -- watching

    def poll(self, name: str) -> Poll:
        """State of a run from its files and its supervisor's process."""
        folder = self._run(name)
        with self._disk():
            # The order matters: the run may start or end between any two of these lines.
            if not os.path.lexists(folder):
                return Poll("absent")
            beat = self._json(folder / HEARTBEAT)  # a claim appears with one
            lives = alive(beat)  # before exit.json: a supervisor that ended in between has written it
            if lives:  # whatever files the child itself may have written
                return Poll("running", heartbeat=beat)
            end = self._json(folder / EXIT)
            if end is not None:
                return Poll("exited", exit=end, heartbeat=beat)
            left = sweep(str(folder))
        if left:
            raise HostError(f"{self._place(name)}: processes {left} of a dead run can't be killed")
        return Poll("dead", heartbeat=beat)

    def read(self, name: str, file: str, offset: int, limit: int = 1 << 20) -> bytes:
        """A piece of a file; links are not followed."""
        with self._disk(), contextlib.suppress(FileNotFoundError), self._open(name, file) as descriptor:
            return os.pread(descriptor, limit, offset)
        return b""

    def stop(self, name: str, reason: str) -> None:
        """Lay the stop file."""
        state = self.poll(name).state
        if state == "absent":
            raise HostError(f"{self._place(name)}: no such run")
        if state == "running":
            with self._disk():  # made elsewhere: a temporary file in the run folder might be taken for the run's
                self._write(self._run(name) / STOP, one_line(reason).encode(), by=self.root / "inbox")

    def runs(self) -> list[str]:
        """Names ever claimed here, sorted."""
        with self._disk(), contextlib.suppress(FileNotFoundError):
            return sorted(path.name for path in (self.root / "runs").iterdir() if NAME.match(path.name))
        return []

    def busy(self) -> int:
        """How many runs have a living supervisor."""
        with self._disk():
            folders = [self._run(name) for name in self.runs()]
            return sum(not (path / EXIT).exists() and alive(self._json(path / HEARTBEAT)) for path in folders)

    # -- up: results

    def pull(self, name: str, into: Path) -> None:
        """Copy, verify, rename; see transfer.pull_verified."""
        if (into / PULLED).is_file():
            return
        state = self.poll(name).state
        if state != "exited":
            raise HostError(f"{self._place(name)}: is {state}; only a run that exited can be pulled")
        with self._disk():
            pull_verified(self._place(name), lambda file: self._blocks(name, file), into)

    def pull_partial(self, name: str, into: Path) -> None:
        """Copy what is there; see transfer.pull_dead."""
        if (into / PULLED).is_file():
            return
        state = self.poll(name).state
        if state != "dead":
            raise HostError(f"{self._place(name)}: is {state}; only a dead run is pulled in part")
        with self._disk():
            names = [file for file in list_files(str(self._run(name)))[0] if file != PULLED]
            pull_dead(self._place(name), names, lambda file: self._blocks(name, file), into)

    def release(self, name: str) -> None:
        """Delete all but the tombstone."""
        state = self.poll(name).state
        if state not in ("exited", "dead"):
            raise HostError(f"{self._place(name)}: is {state}; only a run that has ended can be released")
        with self._disk():
            for entry in self._run(name).iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name not in (SPEC, EXIT):
                    entry.unlink()

    # -- helpers

    def _bundle(self, sha: str) -> Path:
        return self._named("bundles", sha)

    def _run(self, name: str) -> Path:
        return self._named("runs", name)

    def _named(self, kind: str, name: str) -> Path:
        if not NAME.match(name):
            raise HostError(f"{self._spec.alias}: {name!r} is no name in {kind}; allowed are letters, digits, . _ -")
        return self.root / kind / name

    def _place(self, name: str) -> str:
        return f"{self._spec.alias}:{name}"

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """What the system says about a path becomes one HostError line."""
        try:
            yield
        except OSError as error:
            where = error.filename or self.root
            raise HostError(f"{self._spec.alias}: {where}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _open(self, name: str, file: str) -> Iterator[int]:
        """Descriptor of a plain file of a run."""
        path = relative(file)
        if path is None:
            raise HostError(f"{self._place(name)}: {file!r} leads outside the run folder")
        # O_NONBLOCK: a pipe the run made must not hold us up before we can refuse it.
        descriptor = os.open(self._run(name) / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise HostError(f"{self._place(name)}/{file}: not a plain file")
            yield descriptor
        finally:
            os.close(descriptor)

    def _blocks(self, name: str, file: str) -> Iterator[bytes]:
        with self._open(name, file) as descriptor:
            while block := os.read(descriptor, 1 << 20):
                yield block

    def _json(self, path: Path) -> Mapping[str, Any] | None:
        try:
            return read_json(str(path))
        except ValueError as error:
            raise HostError(f"{self._spec.alias}: {path}: damaged ({error})") from None

    @staticmethod
    def _write(path: Path, content: bytes, by: Path | None = None) -> None:
        """Temporary name in `by` (the same folder if None), fsync, rename."""
        descriptor, temporary = tempfile.mkstemp(dir=by or path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
