"""A host as its folder ROOT: all that local and remote machines have in common. What differs is how it is asked."""

from __future__ import annotations

import contextlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from golfctl.domain.host import HostSpec, Look, Poll
from golfctl.domain.run import RunSpec
from golfctl.domain.rundir import PULLED
from golfctl.errors import HostError
from golfctl.hosts.facts import text_at
from golfctl.hosts.transfer import Reader, pull_dead, pull_verified, whole
from golfctl.hostside.files import one_line
from golfctl.hostside.supervise import NAME

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
STATES = ("absent", "running", "exited", "dead", "broken")
LOOK_BYTES = 1 << 20
"""Most bytes of one log brought by one look."""
TOLD_BYTES = 1 << 24
"""Most that a longer job may tell of its progress."""
HEARTBEAT_S = 1.0
DATA = "GOLFCTL_DATA"
"""Variable that tells a supervisor its host's data folder."""
CACHE = "/tmp/golfctl-cache"
"""Compile caches of a GPU host that names no folder: a disk of its own, whatever ROOT lies on."""


class FolderHost(ABC):
    """Asks hostside/root.py. See base.Host for what each method promises."""

    def __init__(self, spec: HostSpec) -> None:
        """Touches nothing. Raises HostError if the spec has no root."""
        if not spec.root:
            raise HostError(f"host {spec.alias}: root is not set; it must name a folder for bundles and runs")
        self._spec = spec

    @property
    def spec(self) -> HostSpec:
        """The machine as the user described it."""
        return self._spec

    @abstractmethod
    def _ask(self, operation: str, payload: bytes = b"", **arguments: Any) -> tuple[Any, Iterator[bytes]]:
        """What Root.ask answers. Raises HostError, FileNotFoundError for a file that is not there."""

    # -- readiness

    def approach(self, patience_s: float = 0.0) -> None:  # noqa: B027 - nothing to do, unless there is a connection to make
        """Begin to connect, so that the first answer comes sooner. Never raises."""

    def check(self) -> list[str]:
        """Problems, one line each: the root, the free disk, the system."""
        problems = self._ask_for(list, "check", min_free_bytes=self._spec.options.get("min_free_bytes"))
        return [one_line(str(line)) for line in problems]

    def prepare(self, keep: bool = True) -> None:
        """Make the folders, tell the host what to do when nobody comes back."""
        spec = self._spec
        idle = {"abandon_after_s": spec.abandon_after_s, "on_idle": spec.on_idle, "persistent": spec.persistent}
        self._ask("prepare", idle=idle | {"leases": spec.leases}, keep=keep)

    # -- down: bundles and runs

    def has_bundle(self, sha: str) -> bool:
        """Whether ROOT/bundles/<sha> is there; it appears complete."""
        return self._ask("has_bundle", sha=sha)[0] is True

    def put(self, sha: str, archive: Path) -> None:
        """One compressed stream down, unpacked under another name, then renamed."""
        try:
            content = archive.read_bytes()
        except OSError as error:
            raise HostError(f"{archive}: {error.strerror}") from None
        self._ask("put", content, sha=sha, what=archive.name)

    def start(self, run: RunSpec) -> str:
        """Hand the spec over, start the supervisor, wait for its word."""
        secrets = {name: value for name in self._spec.secret_env if (value := os.environ.get(name)) is not None}
        spec = self._inbox_spec(run, tuple(secrets))
        # Where the data lie is the host's affair: it fills {data}, and no record says it.
        answer = self._ask("start", name=run.name, spec=spec, secrets=secrets | {DATA: self._spec.data})[0]
        if answer not in ("claimed", "ours", "exists", "full"):
            raise HostError(f"{self._place(run.name)}: answered {one_line(repr(answer))} to start")
        return str(answer)

    def _inbox_spec(self, run: RunSpec, secrets: tuple[str, ...]) -> dict[str, Any]:
        """What hostside/supervise.py reads. Raises HostError on what no process can be started with."""
        if not run.argv:
            raise HostError(f"{self._place(run.name)}: argv is empty; it must name a program")
        for key, value in run.env.items():
            if not ENV_NAME.match(key) or "\0" in value:
                raise HostError(f"{self._place(run.name)}: environment variable {key!r}: name or value not allowed")
        spec = self._spec
        return {
            "name": run.name,
            "campaign": run.campaign,
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
            "secret_env": list(secrets),
            "ledger": dict(run.witness),
            "rules": dict(run.rules),
            "heartbeat_s": HEARTBEAT_S,
            "lease": {
                "folder": spec.leases or "leases",
                "slots": [str(slot) for slot in range(spec.slots)],
                "need": min(run.processes, spec.slots),
                "gpus": bool(spec.gpu),
                "cache": spec.cache or (CACHE if spec.gpu else ""),
            },
        }

    # -- watching

    def look(self, offsets: Mapping[str, int]) -> dict[str, Look]:
        """Every run named, in one exchange."""
        if not offsets:
            return {}
        seen, blocks = self._ask("look", runs=dict(offsets), limit=LOOK_BYTES)
        return self._sorted_out(offsets, seen, self._gathered("look", blocks, LOOK_BYTES * len(offsets)))

    def _sorted_out(self, offsets: Mapping[str, int], seen: Any, content: bytes) -> dict[str, Look]:
        looks, at = {}, 0
        for name in offsets:
            fact = seen.get(name) if isinstance(seen, dict) else None
            size = fact.get("log") if isinstance(fact, dict) else None
            size = size if isinstance(size, int) and 0 <= size <= len(content) - at else None
            if not isinstance(fact, dict) or fact.get("state") not in STATES or size is None:
                raise HostError(f"{self._place(name)}: its state was answered with something else; update golfctl")
            why = one_line(str(fact.get("why", "")))
            poll = Poll(fact["state"], _dict(fact.get("exit")), _dict(fact.get("heartbeat")), why)
            looks[name] = Look(poll, content[at : at + size])
            at += size
        return looks

    def poll(self, name: str) -> Poll:
        """State of a run from its files and its supervisor's process."""
        seen, blocks = self._ask("look", runs={name: 0}, limit=0)
        return self._sorted_out({name: 0}, seen, self._gathered("look", blocks, 0))[name].poll

    def read(self, name: str, file: str, offset: int, limit: int = 1 << 20) -> bytes:
        """A piece of a file; links are not followed."""
        blocks = self._ask("read", name=name, file=file, offset=offset, limit=limit)[1]
        return self._gathered(f"{name}/{file}", blocks, limit)

    def _gathered(self, what: str, blocks: Iterator[bytes], limit: int) -> bytes:
        """All blocks together; no more than was asked for."""
        content = bytearray()
        for block in blocks:
            content += block
            if len(content) > limit:
                if isinstance(blocks, Generator):
                    blocks.close()  # now, not some time: what goes on coming is no answer to the next question
                raise HostError(f"{self._place(what)}: more came than the {limit} bytes that were asked for")
        return bytes(content)

    def stop(self, name: str, reason: str) -> None:
        """Lay the stop file."""
        self._ask("stop", name=name, reason=reason)

    def runs(self, held: bool = False) -> list[str]:
        """Names ever claimed here, or only those with more than a tombstone, sorted."""
        return [name for name in self._ask_for(list, "runs", held=held) if isinstance(name, str) and NAME.match(name)]

    def busy(self) -> int:
        """How many runs have a living supervisor."""
        return int(self._ask_for(int, "busy"))

    def holders(self) -> dict[str, Any]:
        """Who holds which slot."""
        answer = self._ask_for(dict, "holders", folder=self._spec.leases or "leases")
        return {one_line(slot): info for slot, info in answer.items() if isinstance(info, dict)}

    def idle(self) -> dict[str, Any]:
        """What the host did by itself when nobody came back."""
        return dict(self._ask_for(dict, "idle"))

    def sweep(self) -> dict[str, Any]:
        """Every run here with its state; what dead supervisors left is killed."""
        answer, found = self._ask_for(dict, "sweep"), {}
        for name, fact in answer.items():
            if not (NAME.match(name) and isinstance(fact, dict) and fact.get("state") in STATES):
                raise HostError(f"{self._place('sweep')}: answered {one_line(repr((name, fact)))}, which is no run")
            found[name] = {**fact, "unpulled": bool(fact.get("unpulled")), "campaign": text_at(fact, "campaign")}
        return found

    def _ask_for(self, kind: type, operation: str, **arguments: Any) -> Any:
        """An answer of this kind. Raises HostError for any other: the host is not trusted to be sane."""
        answer = self._ask(operation, **arguments)[0]
        if not isinstance(answer, kind) or isinstance(answer, bool):
            raise HostError(f"{self._place(operation)}: answered {one_line(repr(answer))}; update golfctl")
        return answer

    # -- up: results

    def pull(self, name: str, into: Path) -> None:
        """Copy, verify, rename; see transfer.pull_verified."""
        if whole(into):
            return
        state = self.poll(name).state
        if state != "exited":
            raise HostError(f"{self._place(name)}: is {state}; only a run that exited can be pulled")
        with _disk_here(into):
            pull_verified(self._place(name), lambda file: self._blocks(name, file), into)

    def pull_partial(self, name: str, into: Path) -> None:
        """Copy what is there; see transfer.pull_dead."""
        if whole(into):
            return
        state = self.poll(name).state
        if state != "dead":
            raise HostError(f"{self._place(name)}: is {state}; only a dead run is pulled in part")
        with _disk_here(into):
            pull_dead(self._place(name), *self.contents(name), into)

    def contents(self, name: str) -> tuple[list[str], Reader]:
        """Names of the files a run has now, and a way to read them."""
        names = [str(file) for file in self._ask_for(list, "names", name=name) if file != PULLED]
        return names, lambda file: self._blocks(name, file)

    def _blocks(self, name: str, file: str) -> Iterator[bytes]:
        yield from self._ask("send", name=name, file=file)[1]

    def release(self, name: str) -> None:
        """Delete all but the tombstone."""
        self._ask("release", name=name)

    # -- longer jobs

    def tool(self, tool: str, request: Mapping[str, Any], say: Callable[[str], None], bare: bool = False) -> Any:
        """Run a tool there (hostside/tools.py). Raises HostError with its own word where it fails."""
        lines, size = self._ask("tool", tool=tool, request=dict(request), bare=bare)[1], 0
        for line in lines:
            kind, content = _message(line)
            if kind == "done":
                if not isinstance(content, dict):
                    raise HostError(f"{self._spec.alias}: {tool}: answered {one_line(repr(content))}; update golfctl")
                return content
            if kind == "error":
                raise HostError(f"{self._spec.alias}: {tool}: {one_line(str(content))}")
            size += len(line)
            if size > TOLD_BYTES:
                raise HostError(f"{self._spec.alias}: {tool}: tells of its progress without end")
            say(one_line(str(content)))
        raise HostError(f"{self._spec.alias}: {tool}: ended without an answer")

    def close(self) -> None:  # noqa: B027 - nothing to let go of, unless there is a connection
        """Let go of the host; what runs there goes on."""

    # -- helpers

    def _place(self, name: str) -> str:
        return f"{self._spec.alias}:{name}"


def _message(line: bytes) -> tuple[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    return next(iter(content.items())) if isinstance(content, dict) and content else ("say", "")


def _dict(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def told(error: OSError) -> str:
    """What the system says about a path, as the end of a line."""
    return f"{error.filename}: {error.strerror or error}" if error.filename else str(error.strerror or error)


@contextlib.contextmanager
def _disk_here(into: Path) -> Iterator[None]:
    """The disk of this machine may fail while files come up: one HostError line."""
    try:
        yield
    except OSError as error:
        raise HostError(told(error) if error.filename else f"{into}: {told(error)}") from error
