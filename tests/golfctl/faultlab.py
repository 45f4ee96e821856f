"""Campaigns on hosts behind real sshd that faults are done to, and the account of what a fault cost.

The training script of these campaigns keeps its own books outside every run folder (FAR/side): it notes each start, and
writes every byte of its log a second time. So a run started twice, or a log that is not the host's, is seen by somebody
golfctl knows nothing of. FAR/side/hold-HOST keeps the runs of a host at half time, its log growing, until it is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from golfctl.domain.event import Type
from golfctl.hostside import leases
from golfctl.store.bases import freeze_script
from golfctl.store.campaign import load
from golfctl.store.ledger import Ledger
from tests.golfctl.campaigns import GOLFCTL, golfctl
from tests.golfctl.sshlab import Home, Net, NetHost, Proxy, Sshd, wait_until

SCRIPT = Path(__file__).parent / "foreign" / "sgd.py"
GOLF = """\
name: faults
seeds: [1, 2, 3]
rules: {score_label: final_exact}
gates:
  1: {name: smoke, kind: threshold, env: {ITERATIONS: 8}, require: {step_avg_ms: "<= 60000"}}
  2: {name: full, kind: threshold, seeds: 2, parent_seeds: 2, env: {ITERATIONS: 16}, require: {score: "<= base - 0.02"}}
"""
PLAN = """\
id: fast
title: A higher rate
hypothesis: it learns more in the same steps
diffs:
  - set: {RATE: 0.01}
"""
EXPECTED_RUNS = {
    ("fast", 1, 1),
    ("fast", 2, 1),
    ("fast", 2, 2),
    ("base", 2, 1),
    ("base", 2, 2),
}
"""(owner, gate, seed) of every run of an undisturbed campaign."""
VERDICTS = [("fast", 1, "PASS"), ("fast", 2, "PASS")]
GATES = ("gate", "run", "--through", "2", "--yes")
_numbers = itertools.count()


@dataclass
class Account:
    """What a fault cost, counted. All but `runs`, `logs` and `seconds` are 0 where nothing went wrong."""

    runs: int = 0
    logs: int = 0
    lost_events: int = 0
    double_starts: int = 0
    orphans: int = 0
    logs_differ: int = 0
    seconds: float | None = None
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.lost_events or self.double_starts or self.orphans or self.logs_differ or self.findings)


class Lab:
    """A campaign with hosts, all in one folder under /tmp that vanishes at the end. Context manager.

    aliases: hosts. entry: further keys of hosts.yaml for each. net: hosts in namespaces of their own (root only), else all
    share one sshd on loopback. proxy: a Proxy in front of it. environment: variables of the sessions. full_there, full_here:
    the first host's ROOT, or the campaign, lies on a small disk of its own (see `small_disk`; root only).
    """

    def __init__(
        self,
        *aliases: str,
        entry: str = "",
        gates: str = GOLF,
        plan: str = PLAN,
        settings: Mapping[str, str] | None = None,
        net: bool = False,
        proxy: bool = False,
        environment: Mapping[str, str] | None = None,
        full_there: bool = False,
        full_here: bool = False,
        slots: int = 2,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="golf-faults-"))
        self.aliases = aliases or ("pod1",)
        self.root, self.far = self.folder / "here", self.folder / "far"
        self.side = self.far / "side"
        self.controllers: list[subprocess.Popen[bytes]] = []
        self.seen: list[str] = []
        self._lost = 0
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._stack.callback(self._end_all)
        try:
            self.side.mkdir(parents=True)
            for alias in self.aliases:
                (self.far / alias).mkdir()
            self.root.mkdir()
            if full_there:
                self.small_disk(self.far / self.aliases[0])
            if full_here:
                self.small_disk(self.root)
            self._campaign(gates, plan, dict(settings or {}), entry, slots)
            self._serve(net, proxy, dict(environment or {}))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- making it

    def small_disk(self, place: Path) -> None:
        """Mount a disk there that `fill` makes full and `free` roomy."""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=6G", "golf-faults", place], check=False, capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
        self._stack.callback(lambda: subprocess.run(["umount", "-l", place], check=False))

    @staticmethod
    def fill(place: Path, room: int = 0) -> None:
        """From now on there are at most so many bytes of room on a small disk (a page more or less)."""
        status = os.statvfs(place)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        subprocess.run(["mount", "-o", f"remount,size={used + room}", place], check=True)

    @staticmethod
    def free(place: Path) -> None:
        """Room again."""
        subprocess.run(["mount", "-o", "remount,size=6G", place], check=True)

    def _campaign(self, gates: str, plan: str, settings: dict[str, str], entry: str, slots: int) -> None:
        for name in ("plans", "bases", "experiments"):
            (self.root / name).mkdir()
        (self.root / "golf.yaml").write_text(gates)
        freeze_script(
            load(self.root), "base", SCRIPT, score_label="final_exact", artifact=["model.json"], settings=settings
        )
        (self.root / "golf.yaml").write_text(gates + "base: base\n")
        (self.root / "plans" / "fast.yaml").write_text(plan)
        lines = [
            f"{alias}: {{kind: ssh, address: {alias}, slots: {slots}, root: {self.far / alias}{entry and ', ' + entry}}}\n"
            for alias in self.aliases
        ]
        (self.root / "hosts.yaml").write_text("".join(lines))

    def _serve(self, net: bool, proxy: bool, environment: dict[str, str]) -> None:
        self.home = Home(self.folder / "home")
        self.hosts: dict[str, NetHost] = {}
        if net:
            made = self._stack.enter_context(Net(self.home))
            self.hosts = {alias: made.host(alias) for alias in self.aliases}
            self.servers = [host.server for host in self.hosts.values()]
            return
        server = self._stack.enter_context(Sshd(environment=environment))
        self.servers = [server]
        for alias in self.aliases:
            self.home.add(alias, server)
        if proxy:
            self.proxy = self._stack.enter_context(Proxy((server.address, server.port)))
            for alias in self.aliases:
                self.home.entry(alias, "127.0.0.1", self.proxy.port, server.user)
            self.home.know(server, "127.0.0.1", self.proxy.port)

    # -- controllers

    def cli(self, *words: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """A command to its end; whoever asks for hosts gets all of them."""
        return golfctl(self.root, *self._words(words), expect=expect, HOME=str(self.home.folder))

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """`gate run`, or other words, in the background; what it says lies in `said`."""
        with (self.folder / f"controller-{next(_numbers)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*GOLFCTL, *self._words(words or GATES)],
                cwd=self.root,
                env=os.environ | {"HOME": str(self.home.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.controllers.append(process)
        return process

    def _words(self, words: tuple[str, ...]) -> list[str]:
        asked = words[:2] != ("gate", "run") or "--host" in words
        return [*words, *(() if asked else (word for alias in self.aliases for word in ("--host", alias)))]

    @property
    def said(self) -> str:
        """What all controllers in the background said."""
        files = sorted(self.folder.glob("controller-*.log"), key=lambda path: path.stat().st_mtime)
        return "".join(path.read_text(errors="replace") for path in files)

    def kill(self, controller: subprocess.Popen[bytes]) -> bool:
        """SIGKILL; whether it was alive."""
        alive = controller.poll() is None
        controller.kill()
        controller.wait()
        self.observe()
        return alive

    def end(self, controller: subprocess.Popen[bytes], expect: int = 0, seconds: float = 150.0) -> None:
        """Wait for its own end, which must have this exit code."""
        try:
            code = controller.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"gate run does not end\n{self.said[-2000:]}") from None
        assert code == expect, f"exit {code}\n{self.said[-2000:]}"
        self.observe()

    # -- what can be seen

    def hold(self, alias: str) -> Path:
        """From now on runs of this host wait at half time; remove the file to let them go on."""
        path = self.side / f"hold-{alias}"
        path.touch()
        return path

    def events(self, kind: Type | None = None) -> list[Any]:
        """The ledger's events, checked against chain and witness."""
        campaign = load(self.root)
        found = Ledger(campaign.ledger_folder, campaign.state_folder).events()
        return [event for event in found if kind in {None, event.type}]

    def observe(self) -> None:
        """Remember what the ledger holds; what was there before must still be."""
        now = [event.line().decode() for event in self.events()]
        self._lost += sum(old != new for old, new in itertools.zip_longest(self.seen, now[: len(self.seen)]))
        self.seen = now

    def outcomes(self) -> dict[str, str]:
        """Run name to its recorded end."""
        return {event.data["run"]: event.data["outcome"] for event in self.events(Type.RUN_FINISHED)}

    def intents(self) -> dict[str, dict[str, Any]]:
        """Run name to the spec in its intent, in order of launch."""
        return {event.data["spec"]["name"]: event.data["spec"] for event in self.events(Type.RUN_INTENT)}

    def verdicts(self) -> list[tuple[str, int, str]]:
        """(plan, gate, answer), sorted."""
        found = [event.data for event in self.events(Type.VERDICT)]
        return sorted((data["plan"], data["gate"], data["answer"]) for data in found)

    def scores(self) -> dict[tuple[str, int, int], float | None]:
        """(owner, gate, seed) to the score of its last recorded attempt."""
        specs, found = self.intents(), {}
        for event in self.events(Type.RUN_FINISHED):
            spec, result = specs[event.data["run"]], event.data.get("result") or {}
            found[spec["owner"], spec["gate"], spec["seed"]] = result.get("score")
        return found

    def run_folders(self, alias: str = "") -> list[Path]:
        """Run folders on the hosts, or one of them."""
        found = [self.far / name / "runs" for name in ([alias] if alias else self.aliases)]
        return [run for runs in found if runs.is_dir() for run in runs.iterdir() if not run.name.startswith(".")]

    def running(self, alias: str = "") -> dict[str, dict[str, Any]]:
        """Name to the heartbeat of runs whose child has a pid and whose end is not written."""
        found = {}
        for folder in self.run_folders(alias):
            with contextlib.suppress(OSError, ValueError):
                beat = json.loads((folder / "heartbeat.json").read_bytes())
                if beat["child_pid"] and not (folder / "exit.json").exists():
                    found[folder.name] = beat
        return found

    def wait_held(self, alias: str, count: int = 1) -> list[str]:
        """Names of runs that wait at the hold; at least so many."""

        def names() -> list[str]:
            logs = {name: self.side / f"{name}.log" for name in self.running(alias)}
            return [name for name, log in logs.items() if log.exists() and b"held:" in log.read_bytes()]

        wait_until(lambda: len(names()) >= count, 120, f"for {count} runs to be held\n{self.said[-1500:]}")
        return names()

    def heard(self, name: str) -> int:
        """Bytes of its log that reached us."""
        with contextlib.suppress(OSError):
            return (self.root / ".golfctl" / "tails" / f"{name}.log").stat().st_size
        return 0

    def wait_heard(self, name: str) -> None:
        """Until some of its log reached us and until more comes."""
        wait_until(lambda: self.heard(name), 120, "for a tail")
        before = self.heard(name)
        wait_until(lambda: self.heard(name) > before, 120, "for the tail to grow")

    def processes(self, *words: bytes) -> list[int]:
        """Processes of runs and their supervisors; with words, those with one of them and a host's ROOT on their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().split(b"\0")
                here = any(os.fsencode(self.far / alias) in command for alias in self.aliases)
                marked = not words and b"GOLFCTL_RUN=" + os.fsencode(self.far) in (entry / "environ").read_bytes()
                if marked or (here and any(word in command for word in words or (b"--detach",))):
                    found.append(int(entry.name))
        return found

    def _end_all(self) -> None:
        for controller in self.controllers:
            controller.kill()
            controller.wait()
        for _ in range(100):
            left = self.processes() + self.processes(b"serve", b"keep")
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    # -- the account

    def account(
        self,
        *,
        ends: Mapping[str, str] | None = None,
        verdicts: list[tuple[str, int, str]] | None = None,
        serving_s: float | None = 30.0,
        dying_s: float = 10.0,
    ) -> Account:
        """Count what went wrong, after the last controller's end.

        ends: runs that may have ended otherwise than completed, with their outcomes. verdicts: what is expected, else that
        of an undisturbed campaign with its scores. serving_s: how long serve processes may take to go (None: not looked at);
        dying_s: the same for processes of runs.
        """
        self.observe()
        found = Account(lost_events=self._lost)
        say = found.findings.append
        verified = self.cli("ledger", "verify", expect=None)
        if verified.returncode:
            say(f"ledger verify: {(verified.stdout + verified.stderr).strip()[-300:]}")
        self._count_starts(found, ends or {})
        if verdicts is None and self.scores() != undisturbed():
            say(f"scores are {self.scores()}, those of an undisturbed campaign {undisturbed()}")
        if self.verdicts() != (VERDICTS if verdicts is None else verdicts):
            say(f"verdicts are {self.verdicts()}")
        self._count_logs(found)
        self._count_left(found, serving_s, dying_s)
        return found

    def _count_starts(self, found: Account, ends: Mapping[str, str]) -> None:
        book = Counter((self.side / "starts").read_text().split())
        intents, outcomes = self.intents(), self.outcomes()
        finishes = Counter(event.data["run"] for event in self.events(Type.RUN_FINISHED))
        found.runs = len(book)
        found.double_starts += sum(count - 1 for count in book.values())
        unknown = sorted(set(book) - set(intents))
        twice = [name for name, count in finishes.items() if count > 1]
        open_ = sorted(set(intents) - set(finishes))
        if unknown or twice or open_:
            found.lost_events += len(unknown) + len(open_)
            found.findings.append(f"not in the ledger: {unknown}; ended twice: {twice}; without an end: {open_}")
        kept = Counter(
            (spec["owner"], spec["gate"], spec["seed"]) for name, spec in intents.items() if name not in ends
        )
        again = {key: count for key, count in kept.items() if count > 1}
        found.double_starts += sum(count - 1 for count in again.values())
        for name, outcome in outcomes.items():
            if outcome != ends.get(name, "completed"):
                found.findings.append(f"{name}: {outcome}, expected was {ends.get(name, 'completed')}")

    def _count_logs(self, found: Account) -> None:
        """The pulled log is the host's: all of what the script wrote, or for a run that was killed, what it had written."""
        for name, outcome in self.outcomes().items():
            book = self.side / f"{name}.log"
            pulled = self.root / "experiments" / "runs" / name / "train.log"
            if not book.exists() or (outcome == "lost" and not pulled.exists()):
                continue
            found.logs += 1
            wrote, have = book.read_bytes(), pulled.read_bytes() if pulled.exists() else b""
            end = next((folder / "exit.json" for folder in self.run_folders() if folder.name == name), Path("/none"))
            listed = json.loads(end.read_bytes())["files"].get("train.log", {}) if end.exists() else None
            same = have == wrote
            if outcome == "lost":
                same = wrote.startswith(have) or have.startswith(wrote)
            elif outcome != "completed":  # its last words, a traceback for example, go past the script's own books
                same = have.startswith(wrote)
            if listed is not None and outcome != "lost":
                same = same and listed.get("sha256") == hashlib.sha256(have).hexdigest()
            if not same:
                found.logs_differ += 1
                found.findings.append(
                    f"{name}: {outcome}, its log here has {len(have)} bytes, on the host {len(wrote)}"
                )

    def _count_left(self, found: Account, serving_s: float | None, dying_s: float) -> None:
        kinds: list[tuple[Callable[[], list[int]], float]] = [(self.processes, dying_s)]
        if serving_s is not None:
            kinds.append((lambda: self.processes(b"serve"), serving_s))
        for look, seconds in kinds:
            end = time.monotonic() + seconds
            while (left := look()) and time.monotonic() < end:
                time.sleep(0.05)
            found.orphans += len(left)
        for alias in self.aliases:
            held = [
                slot for slot, info in leases.holders(str(self.far / alias / "leases")).items() if not info["stale"]
            ]
            if held:
                found.findings.append(f"{alias}: slots {held} are still held")
        tails = [path.name for path in (self.root / ".golfctl" / "tails").glob("*")]
        if tails:
            found.findings.append(f"tails are left: {tails}")
        recorded = set(self.outcomes())
        for folder in self.run_folders():
            files = {path.name for path in folder.iterdir()}
            if folder.name in recorded and not files <= {"run.json", "exit.json"}:
                found.findings.append(f"{folder.name}: {sorted(files)} are left on the host")


_undisturbed: dict[tuple[str, int, int], float | None] = {}


def undisturbed() -> dict[tuple[str, int, int], float | None]:
    """Scores of a campaign no fault was done to, on this machine's own host; run once."""
    if not _undisturbed:
        with Lab() as lab:
            (lab.root / ".golfctl" / "side").mkdir(parents=True)
            lab.cli("gate", "run", "--through", "2", "--yes", "--host", "local")
            _undisturbed.update(lab.scores())
    return _undisturbed
