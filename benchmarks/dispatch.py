"""From the command to the first trainer line on the host's disk, against plain ssh. Writes results/dispatch.md.

A real sshd on loopback, then the same through a proxy that makes a round trip take 40 ms. In turn: `golfctl gate run`, in a
terminal, on a plan that never ran, so that its bundle goes up each time; and `ssh pod1 'cd BUNDLE && python3 SCRIPT'` on the
bundle that just arrived, over a new connection. The script's first act is to print a line and to note CLOCK_MONOTONIC; its
last one, too. The first `gate run` of all meets a host golfctl was never on: it brings the travelling file and is examined.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
from machine import describe

from golfctl.store.bases import freeze_script
from golfctl.store.campaign import load
from tests.golfctl.campaigns import add_plan
from tests.golfctl.sshlab import DelayProxy, Home, Sshd

RESULT = Path(__file__).parent / "results" / "dispatch.md"
ALLOWED = {0.0: 1.0, 40.0: 3.0}
"""Milliseconds of a round trip -> seconds golfctl may take beyond plain ssh."""
SCRIPT = """
import os, time
os.write(1, b"step:1/2 train_loss:3.0000 train_time:1ms step_avg:1.00ms\\n")
first = time.monotonic()
print(f"first:{first}", flush=True)
from pathlib import Path
SEED = os.environ.get("SEED", "1")
ITERATIONS = os.environ.get("ITERATIONS", "2")
TAG = os.environ.get("TAG", "0")
time.sleep(float(os.environ.get("PAUSE", "1.5")))
Path(os.environ.get("OUT_DIR", "."), "model.json").write_text("{}")
print("step:2/2 train_loss:3.0000 train_time:1ms step_avg:1.00ms")
print("final_exact val_loss:1.00000000 val_bpb:1.00000000")
print(f"last:{time.monotonic()}", flush=True)
"""
GOLF = """\
name: dispatch
seeds: [1]
rules: {score_label: final_exact}
gates:
  1: {name: smoke, kind: threshold, env: {ITERATIONS: 2}, require: {step_avg_ms: "<= 5000"}}
  2: {name: final, kind: threshold, env: {ITERATIONS: 3}, require: {step_avg_ms: "<= 5000"}}
"""

TRACED = """
import importlib.util, json, os, sys, time
marks, wanted = {}, {
    "golfctl.cli.gate": [("go", "campaign and plans are read", "")],
    "golfctl.cli.queue": [
        ("on_device", "paramiko, runner and live view are imported", ""),
        ("_agreed", "", "estimate made, preflight found fresh"),
    ],
    "golfctl.hosts.ssh": [("connect", "paramiko is imported", "logged in"), ("_greet", "", "the host has greeted")],
    "golfctl.runner.fleet": [("Fleet.make_ready", "", "host checked, folders made"), ("Fleet.bring", "", "the bundle is there")],
    "golfctl.hosts.folder": [
        ("FolderHost.has_bundle", "plan recorded", ""),
        ("FolderHost.start", "the intent is recorded", "start answered: the run is claimed"),
    ],
}
def mark(owner, name, before, after):
    inner = getattr(owner, name)
    def outer(*words, **more):
        before and marks.setdefault(before, time.monotonic())
        try:
            return inner(*words, **more)
        finally:
            after and marks.setdefault(after, time.monotonic())
    setattr(owner, name, outer)
class Finder:
    def find_spec(self, name, path=None, target=None):
        points = wanted.pop(name, None)
        if points is None:
            return None
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            for what, before, after in points:
                *owner, last = what.split(".")
                mark(getattr(module, owner[0]) if owner else module, last, before, after)
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder())
from golfctl.cli import app, run
marks["the command line is imported"] = time.monotonic()
try:
    run.run(sys.argv[1:])
finally:
    with open(os.environ["MARKS"], "w") as file:
        json.dump(marks, file)
"""
"""golfctl, taking times at some of its functions as their modules come in; nothing is imported earlier than it would be."""
PARTS = 7


class Trial(NamedTuple):
    """One `gate run` and the plain ssh beside it; seconds. `end_to_*`: from the script's last line on."""

    golfctl: float
    plain: float
    shown: float
    end_to_verdict: float
    end_to_prompt: float

    @property
    def extra(self) -> float:
        return self.golfctl - self.plain


class Bench:
    """A campaign, a host called pod1 and a way to both."""

    def __init__(self, folder: Path, home: Home) -> None:
        self.root, self.far, self.home, self.count = folder / "campaign", folder / "far", home, 0
        for name in ("plans", "bases", "experiments"):
            (self.root / name).mkdir(parents=True)
        script = folder / "first.py"
        script.write_text(SCRIPT)
        (self.root / "golf.yaml").write_text(GOLF)
        freeze_script(load(self.root), "first", script, score_label="final_exact", artifact=["model.json"])
        (self.root / "golf.yaml").write_text(GOLF + "base: first\n")
        host = f"pod1: {{kind: ssh, address: pod1, root: {self.far}}}\n"
        (self.root / "hosts.yaml").write_text(host)

    def command(self, *program: str) -> tuple[float, dict[str, float], Path]:
        """Run a plan that never ran. Returns when the command began, what was on the screen when, and the run's folder."""
        self.count += 1
        plan = f"p{self.count}"
        add_plan(self.root, plan, f"TAG: {self.count}")
        began = time.monotonic()
        seen = on_screen(
            [sys.executable, *program, "gate", "run", plan, "--through", "1", "--host", "pod1", "--yes"],
            self.root,
            {"shown": r"\b[12]/2\b", "verdict": r"PASS"},
        )
        return began, seen, next((self.root / "experiments" / "runs").glob(f"{plan}.*"))

    def marks(self) -> dict[str, float]:
        """Seconds from the command to each part of its way."""
        file = self.root.parent / "marks"
        os.environ["MARKS"] = str(file)
        began, _, run = self.command("-c", TRACED)
        found = {name: at - began for name, at in json.loads(file.read_text()).items()}
        found["the first line is on disk"] = stamp((run / "train.log").read_text(), "first") - began
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def trial(self) -> Trial:
        """One of each."""
        began, seen, run = self.command("-m", "golfctl")
        log = (run / "train.log").read_text()
        first, last = stamp(log, "first"), stamp(log, "last")
        bundle = self.far / "bundles" / json.loads((run / "run.json").read_text())["bundle"]
        return Trial(
            first - began,
            self.plain(bundle),
            seen["shown"] - began,
            seen["verdict"] - last,
            seen["end"] - last,
        )

    def plain(self, bundle: Path) -> float:
        """Seconds to the first line by ssh alone."""
        files = ["-F", str(self.home.config), "-o", f"UserKnownHostsFile={self.home.known_hosts}"]
        command = [
            "ssh",
            *files,
            "-i",
            str(self.home.key),
            "pod1",
            f"cd {bundle} && PAUSE=0 OUT_DIR=/tmp python3 first.py",
        ]
        began = time.monotonic()
        done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return stamp(done.stdout, "first") - began


def stamp(log: str, name: str) -> float:
    """What the script noted."""
    found = re.search(rf"^{name}:([0-9.]+)$", log, re.MULTILINE)
    if not found:
        raise RuntimeError(f"no {name!r} in {log!r}")
    return float(found[1])


def on_screen(command: Sequence[str], cwd: Path, patterns: Mapping[str, str]) -> dict[str, float]:
    """Run a command in a terminal; when each pattern was first on the screen, and when the command ended ("end")."""
    near, far = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
    with subprocess.Popen(command, cwd=cwd, stdin=far, stdout=far, stderr=far, env=environment) as process:
        os.close(far)
        text, seen = "", {}
        while True:
            select.select([near], [], [], 60)
            try:
                block = os.read(near, 65536)
            except OSError:  # how a terminal says that nobody writes to it any more
                break
            now = time.monotonic()
            text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", block.decode("utf-8", "replace"))
            for name, pattern in patterns.items():
                if name not in seen and re.search(pattern, text):
                    seen[name] = now
        os.close(near)
        seen["end"] = time.monotonic()
    missing = [name for name in patterns if name not in seen]
    if process.returncode or missing:
        raise RuntimeError(f"exit code {process.returncode}, not shown: {missing}: {text}")
    return seen


def measure(rtt_ms: float, pairs: int) -> tuple[Trial, list[Trial], list[dict[str, float]]]:
    """The first trial on a new host, `pairs` more, and the parts of PARTS commands after them."""
    with tempfile.TemporaryDirectory(prefix="golf-dispatch-") as name, Sshd() as server:
        folder = Path(name)
        home = Home(folder / "home")
        os.environ["HOME"] = str(home.folder)
        os.environ.pop("SSH_AUTH_SOCK", None)
        home.add("pod1", server)
        proxy = DelayProxy((server.address, server.port), rtt_ms) if rtt_ms else None
        if proxy:
            home.know(server, *proxy.address)
            home.entry("pod1", *proxy.address, server.user)
        try:
            bench = Bench(folder, home)
            first = bench.trial()
            return first, [bench.trial() for _ in range(pairs)], [bench.marks() for _ in range(PARTS)]
        finally:
            if proxy:
                proxy.close()
            shutil.rmtree(folder / "far", ignore_errors=True)


def row(name: str, values: Sequence[float]) -> str:
    return f"| {name} | {statistics.median(values):.2f} | {max(values):.2f} |"


def parts(marks: Sequence[Mapping[str, float]]) -> str:
    """Medians, in order."""
    medians = {name: statistics.median(mark[name] for mark in marks) for name in marks[0]}
    return "\n".join(f"| {at:.2f} | {name} |" for name, at in sorted(medians.items(), key=lambda item: item[1]))


def section(rtt_ms: float, first: Trial, trials: Sequence[Trial], marks: Sequence[Mapping[str, float]]) -> str:
    line = f"{rtt_ms:g} ms round trip" if rtt_ms else "Loopback"
    rows = [
        row("command to first line, golfctl", [trial.golfctl for trial in trials]),
        row("command to first line, plain ssh", [trial.plain for trial in trials]),
        row("**golfctl minus ssh, pair by pair**", [trial.extra for trial in trials]),
        row("command to first step on the screen", [trial.shown for trial in trials]),
        row("end of the run to its verdict on the screen", [trial.end_to_verdict for trial in trials]),
        row("end of the run to the prompt", [trial.end_to_prompt for trial in trials]),
    ]
    return f"""## {line}

{len(trials)} pairs; allowed are {ALLOWED[rtt_ms]:g} s beyond plain ssh.

| seconds | median | worst |
|---|---|---|
{chr(10).join(rows)}

The first command of all, on a host golfctl was never on: {first.golfctl:.2f} s, {first.extra:.2f} s beyond plain ssh.

Where the time goes, medians of {len(marks)} commands:

| s | until |
|---|---|
{parts(marks)}
"""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Dispatch overhead over ssh.")
    parser.add_argument("--pairs", type=int, default=12)
    options = parser.parse_args()
    sections = []
    for rtt_ms in ALLOWED:
        sections.append(section(rtt_ms, *measure(rtt_ms, options.pairs)))
        print(sections[-1], flush=True)
    machine = describe()
    ahead = os.sched_getscheduler(0) != os.SCHED_OTHER
    beside = "\nAll of it, host and plain ssh too, went before other work on the machine (chrt -r 1)." if ahead else ""
    RESULT.write_text(f"""# Dispatch overhead

Seconds from the command to the first trainer line on the host's disk: `golfctl gate run` (a new bundle goes up each time) in
turn with `ssh pod1 'cd BUNDLE && python3 SCRIPT'` (the bundle already there, a new connection). Preflight fresh except for the
first command. Made by `benchmarks/dispatch.py`.
{machine["processor"]}, {machine["cores"]} cores, Python {machine["python"]}; {machine["note"]}.{beside}

{chr(10).join(sections)}""")


if __name__ == "__main__":
    main()
