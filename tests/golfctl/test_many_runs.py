"""Many runs at once on one host: every byte of every log is heard while they go on, at little cost. Also used by a benchmark."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from golfctl.store.bases import freeze_script
from golfctl.store.campaign import load
from tests.golfctl.campaigns import GOLFCTL, add_plan, golfctl
from tests.golfctl.sshlab import Home, Sshd, ssh_home, sshd, wait_until

__all__ = ["ssh_home", "sshd"]
pytestmark = pytest.mark.service

SCRIPT = """
import os, time
from pathlib import Path
SEED = int(os.environ.get("SEED", "1"))
ITERATIONS = int(os.environ.get("ITERATIONS", "2"))
TAG = os.environ.get("TAG", "")
END = os.environ.get("END_FILE", "")
pause, step = 0.2 + 0.1 * (SEED % 4), 0
while not os.path.exists(END) or step < ITERATIONS:
    step += 1
    line = f"step:{step}/9999 train_loss:3.0000 train_time:{step}ms step_avg:1.00ms at:{time.monotonic():.3f}"
    print(line, flush=True)
    time.sleep(pause)
Path(os.environ.get("OUT_DIR", "."), "model.json").write_text("{}")
print("final_exact val_loss:1.00000000 val_bpb:1.00000000", flush=True)
"""
"""Prints a line every 0.2 to 0.5 s, numbered and with the time of its writing, until a file appears."""
GOLF = """\
name: many
seeds: [{seeds}]
rules: {{score_label: final_exact}}
gates:
  1: {{name: smoke, kind: threshold, seeds: {count}, env: {{ITERATIONS: 2}}, require: {{step_avg_ms: "<= 5000"}}}}
  2: {{name: final, kind: threshold, seeds: {count}, env: {{ITERATIONS: 3}}, require: {{step_avg_ms: "<= 5000"}}}}
"""
LINE = re.compile(rb"^step:(\d+)/.* at:([0-9.]+)$", re.MULTILINE)


class Many:
    """`plans` x `seeds` runs on one host with as many slots, started by one command. `copies`: what it heard, by run."""

    def __init__(self, folder: Path, plans: int, seeds: int) -> None:
        self.count, self.root, self.far, self.end = plans * seeds, folder / "c", folder / "far", folder / "end"
        self.kept = folder / "kept"
        self.kept.mkdir(parents=True)
        for name in ("plans", "bases", "experiments"):
            (self.root / name).mkdir(parents=True)
        text = GOLF.format(seeds=", ".join(map(str, range(1, seeds + 1))), count=seeds)
        (self.root / "golf.yaml").write_text(text)
        script = folder / "beats.py"
        script.write_text(SCRIPT)
        settings = {"END_FILE": str(self.end)}
        freeze_script(
            load(self.root), "beats", script, score_label="final_exact", artifact=["model.json"], settings=settings
        )
        (self.root / "golf.yaml").write_text(text + "base: beats\n")
        host = f"pod1: {{kind: ssh, address: pod1, slots: {self.count}, root: {self.far}}}\n"
        (self.root / "hosts.yaml").write_text(host)
        for number in range(plans):
            add_plan(self.root, f"p{number}", f"TAG: t{number}")
        self.copies: dict[str, bytes] = {}
        self.lags: list[float] = []
        self._open: dict[str, int] = {}

    @contextlib.contextmanager
    def command(self, terminal: bool = False) -> Iterator[subprocess.Popen[bytes]]:
        """The controller at work; what it prints goes to `said`, or to a terminal of 80 lines and from there to `said`."""
        self.said = self.root.parent / "said"
        words = [*GOLFCTL, "gate", "run", "--through", "1", "--host", "pod1", "--yes"]
        with self.said.open("wb") as said:
            near, far = pty.openpty() if terminal else (None, said.fileno())
            environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "80"}
            process = subprocess.Popen(
                words, cwd=self.root, stdin=subprocess.DEVNULL, stdout=far, stderr=far, env=environment
            )
            if near is not None:
                os.close(far)
                threading.Thread(target=_copy, args=(near, said.fileno()), daemon=True).start()
            try:
                yield process
            finally:
                self.end.touch()
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
                process.wait()
                for descriptor in self._open.values():
                    os.close(descriptor)

    def listen(self) -> int:
        """Read on in the controller's copies of the logs, deleted ones too; returns how many runs were heard of so far."""
        with contextlib.suppress(FileNotFoundError):
            for path in (self.root / ".golfctl" / "tails").iterdir():
                if path.stem not in self._open:
                    with contextlib.suppress(FileNotFoundError):
                        self._open[path.stem] = os.open(path, os.O_RDONLY)
                        self.copies[path.stem] = b""
        for name, descriptor in self._open.items():
            known = self.copies[name]
            new = os.pread(descriptor, 1 << 20, len(known))
            if new:
                now = time.monotonic()
                self.lags += [now - float(match[2]) for match in LINE.finditer(new)]
                self.copies[name] = known + new
        return len(self.copies)

    def all_speak(self, lines: int) -> bool:
        """Whether so many lines of every run have been heard."""
        return self.listen() == self.count and min(copy.count(b"\n") for copy in self.copies.values()) >= lines

    def check(self) -> int:
        """Every log: host's hash, copy at home and what was heard agree, and no line is missing. Returns their bytes in all."""
        total, begun, ended = 0, [], []
        for name, heard in self.copies.items():
            log = (self.root / "experiments" / "runs" / name / "train.log").read_bytes()
            host = json.loads((self.far / "runs" / name / "exit.json").read_text())
            assert host["outcome"] == "completed"
            assert hashlib.sha256(log).hexdigest() == host["files"]["train.log"]["sha256"]
            assert heard == log, f"{name}: heard {len(heard)} bytes, {len(log)} were written"
            lines = [(int(match[1]), float(match[2])) for match in LINE.finditer(log)]
            assert [number for number, _ in lines] == list(range(1, len(lines) + 1))
            begun.append(lines[0][1])
            ended.append(lines[-1][1])
            total += len(log)
        assert len(begun) == self.count
        assert max(begun) < min(ended), "they were not all going on at once"
        return total


def _copy(near: int, file: int) -> None:
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while block := os.read(near, 65536):
            os.write(file, block)
    os.close(near)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process with all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Most memory a process ever had resident."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def test_sixteen_runs_at_once_are_heard_to_the_last_byte(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> None:
    """Four plans with four seeds each: all go on at once, all is heard live, the logs at home are the host's."""
    many = Many(tmp_path / "many", plans=4, seeds=4)
    with many.command() as controller:
        wait_until(lambda: many.all_speak(5) or controller.poll() is not None, 200)
        assert controller.poll() is None, many.said.read_text()
        began, before = time.monotonic(), cpu_seconds(controller.pid)
        wait_until(lambda: many.all_speak(15), 60)
        used = (cpu_seconds(controller.pid) - before) / (time.monotonic() - began)
        peak = peak_mib(controller.pid)
        many.end.touch()
        wait_until(lambda: many.listen() and controller.poll() is not None, 120)
        many.listen()
        assert controller.returncode == 0, many.said.read_text()
        many.check()
    assert peak < 300
    assert used < 1
    assert many.said.read_text().count("PASS") == 4
    golfctl(many.root, "ledger", "verify")
    assert not list((many.root / ".golfctl" / "tails").iterdir())
