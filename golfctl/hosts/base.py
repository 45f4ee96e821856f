"""What golfctl asks of a machine. Two wires, each one way: a bundle goes down, a run's files come up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from golfctl.domain.host import HostSpec, Look, Poll
from golfctl.domain.run import RunSpec


class Host(Protocol):
    """A machine that holds ROOT/bundles/<sha>, ROOT/inbox, ROOT/runs/<name>.

    Every method may be repeated at any time and by several processes at once: a controller can be killed between any
    two of its steps, and the next one just asks again. All raise HostError, one line: what, where, what was allowed; its
    kind HostUnreachable means that nothing is known, and asking again is right.
    """

    @property
    def spec(self) -> HostSpec:
        """The machine as the user described it."""
        ...

    def approach(self, patience_s: float = 0.0) -> None:
        """Begin to connect, if there is a connection to make; return once logged in, or after so many seconds.

        What came of it is told when something is asked.
        """
        ...

    def check(self) -> list[str]:
        """Problems that would keep runs from working, one line each; empty: ready. Changes nothing, raises nothing."""
        ...

    def prepare(self, keep: bool = True) -> None:
        """Make the folders and bring the supervisor; removes litter of starts that were killed.

        keep: where hosts.yaml asks for no on_idle, one that another campaign asked for stays.
        """
        ...

    def has_bundle(self, sha: str) -> bool:
        """Whether the bundle is there, complete."""
        ...

    def put(self, sha: str, archive: Path) -> None:
        """Unpack a tar.gz into ROOT/bundles/<sha>, files read-only; it appears by rename, complete or not at all.

        Only plain files and folders inside the archive's own tree are accepted. A bundle that is there is kept.
        """
        ...

    def start(self, run: RunSpec) -> str:
        """Start a run in ROOT/bundles/<run.bundle>: "claimed"; "ours" (this very run was started before); "exists" (the name is
        taken by another run); "full" (no slot is free).

        Returns once the claim of the name is visible. A name can be claimed once, ever.
        """
        ...

    def look(self, offsets: Mapping[str, int]) -> dict[str, Look]:
        """Several runs in one exchange: the state of each, and what its log holds from the offset given (at most 1 MiB)."""
        ...

    def poll(self, name: str) -> Poll:
        """State of a run. What a dead supervisor left running is killed before "dead" is answered."""
        ...

    def read(self, name: str, file: str, offset: int, limit: int = 1 << 20) -> bytes:
        """At most `limit` bytes of a run's file from `offset`; empty at its end, or while there is no such file."""
        ...

    def stop(self, name: str, reason: str) -> None:
        """Ask the supervisor to abort; `poll` shows when it has. Nothing happens to a run that has ended."""
        ...

    def pull(self, name: str, into: Path) -> None:
        """Copy what exit.json lists, verify bytes and sha256 of each file, then let `into` appear by rename.

        `into` also gets run.json, exit.json and pulled.json. A folder that holds pulled.json is left as it is. After an
        error there is nothing under `into`.
        """
        ...

    def pull_partial(self, name: str, into: Path) -> None:
        """Copy what a dead run left, unverifiable as it is: hashes are of the copies; pulled.json says "dead": true."""
        ...

    def contents(self, name: str) -> tuple[list[str], Callable[[str], Iterator[bytes]]]:
        """Names of the files a run has now, and a way to read them in blocks; for a look at a run that goes on."""
        ...

    def release(self, name: str) -> None:
        """Delete the files of an ended run but run.json and exit.json, which keep its name claimed."""
        ...

    def runs(self, held: bool = False) -> list[str]:
        """Names ever claimed here, sorted. held: without those of released runs."""
        ...

    def busy(self) -> int:
        """How many runs are going on."""
        ...

    def holders(self) -> dict[str, Any]:
        """Which slots are leased, by whom."""
        ...

    def idle(self) -> dict[str, Any]:
        """What the host did by itself when nobody came back (idle.json, see hostside/keeper.py); empty: nothing."""
        ...

    def sweep(self) -> dict[str, Any]:
        """Every run that lies there, with its state; what dead supervisors left running is killed."""
        ...

    def tool(self, tool: str, request: Mapping[str, Any], say: Callable[[str], None], bare: bool = False) -> Any:
        """Run a longer job there (hostside/tools.py), telling its progress; its answer. `bare`: without the runs' packages."""
        ...

    def close(self) -> None:
        """Let go of the host; what runs there goes on."""
        ...
