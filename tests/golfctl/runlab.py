"""A root with real supervisors in it, for tests of what runs on a host."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from golfctl.hostside import package, processes
from golfctl.hostside.processes import members, sweep

# A child that prints, then sleeps in a grandchild of another session, as torchrun's workers do.
FAMILY = "import subprocess,sys,time; print('up'); subprocess.Popen(['sleep','300'], start_new_session=True); "


class Lab:
    """A root with the travelling file in it; supervisors run in the foreground of their own process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "supervise.pyz"
        self.file.write_bytes(package.single_file())
        (root / "inbox").mkdir()
        self.started: list[subprocess.Popen[bytes]] = []

    def launch(self, code: str, name: str = "r", **spec: Any) -> subprocess.Popen[bytes]:
        """Supervise `python -c code`."""
        self.order(code, name, **spec)
        process = subprocess.Popen([sys.executable, "-I", "-S", str(self.file), str(self.root), name])
        self.started.append(process)
        return process

    def run(self, code: str, name: str = "r", **spec: Any) -> dict[str, Any]:
        """Supervise to the end; the content of exit.json."""
        assert self.launch(code, name, **spec).wait(60) == 0
        return self.exit(name)

    def clean(self) -> None:
        """End every process of every run here."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        for beat in (self.root / "runs").glob("[!.]*/heartbeat.json"):  # of those in the background
            with contextlib.suppress(OSError, ValueError):
                content = json.loads(beat.read_text())
                if processes.alive(content):
                    os.kill(content["pid"], signal.SIGKILL)
        for folder in (self.root / "runs").glob("[!.]*"):
            sweep(str(folder))

    def ask(self, name: str = "r") -> tuple[int, str]:
        """Start it as hosts do, in the background; exit code and answer."""
        command = [sys.executable, "-I", "-S", str(self.file), "--detach", str(self.root), name]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False)
        return done.returncode, done.stdout.decode().strip()

    def order(self, code: str, name: str = "r", **spec: Any) -> None:
        """Leave a spec in the inbox, as hosts do: a supervisor of the same name may be reading it."""
        content = {"argv": ["{python}", "-c", code], "cwd": str(self.root), **spec}
        inbox = self.root / "inbox" / f"{name}.json"
        inbox.with_suffix(".new").write_text(json.dumps(content))
        inbox.with_suffix(".new").replace(inbox)

    def folder(self, name: str = "r") -> Path:
        return self.root / "runs" / name

    def exit(self, name: str = "r") -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder(name) / "exit.json").read_text())
        return content

    def beat(self, name: str = "r") -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder(name) / "heartbeat.json").read_text())
        return content

    def left(self, name: str = "r") -> set[int]:
        """Processes of a run still there."""
        return members(str(self.folder(name).resolve()), {})

    def finish(self, name: str) -> None:
        """Let a run end that waits for this file."""
        (self.folder(name) / "end").touch()

    def wait_for_log(self, text: str, name: str = "r") -> None:
        log = self.folder(name) / "train.log"
        wait_until(lambda: log.exists() and text in log.read_text(errors="replace"))


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@contextlib.contextmanager
def laboratory(root: Path) -> Iterator[Lab]:
    """A lab whose processes are gone afterwards."""
    lab = Lab(root)
    try:
        yield lab
    finally:
        lab.clean()
