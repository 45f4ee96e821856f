"""Hostile values and hostile hosts, through the command line: nothing executed, nothing written outside, no escape shown.

A hostile host is a real sshd whose every login starts LIAR: it does what a host does, and lies in its answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from golfctl.domain.host import HostSpec
from golfctl.errors import GolfctlError, HostError, InputError
from golfctl.hosts import open_host
from golfctl.hosts.ssh import SshHost
from tests.golfctl.campaigns import GOLFCTL, add_plan, golfctl, make, processes_of
from tests.golfctl.sshlab import Home, Sshd, ssh_home, sshd, wait_until
from tests.golfctl.test_local_host import SHA, archive, run_spec

__all__ = ["ssh_home", "sshd"]
pytestmark = pytest.mark.service

LIAR = r"""
import json, os, re, runpy, sys
sys.path.insert(0, {repo!r})
from golfctl.hostside import package, serve
from golfctl.hostside.root import Root
root, lie = {root!r}, runpy.run_path({lies!r})["lie"]
boot = sys.stdin.buffer.readline().decode()
os.makedirs(root, exist_ok=True)
pyz = os.path.join(root, "supervise-liar.pyz")
if not os.path.exists(pyz):
    new = pyz + str(os.getpid())
    open(new, "wb").write(package.single_file())
    os.replace(new, pyz)
host = Root(root, pyz, {python!r})
def put(content):
    while content:
        content = content[os.write(1, content):]
put(re.search(r"golfctl-[0-9a-f]{{16}}", boot)[0].encode() + b" ready\n")
for line in sys.stdin.buffer:
    request = json.loads(line)
    payload = sys.stdin.buffer.read(request["payload"])
    try:
        answer, blocks = host.ask(request["op"], request["args"], payload)
        parts = None if blocks is None else [block for block in blocks if block]
        answer, parts = lie(request["op"], request["args"], answer, parts)
    except Exception as error:
        put(serve._line({{"error": serve._told(error), "missing": isinstance(error, FileNotFoundError)}}))
        continue
    put(serve._line({{"ok": answer, "blocks": parts is not None}}))
    if parts is not None:
        for part in parts:
            put(b"%d\n" % len(part) + part)
        put(b"0\n")
"""
HONEST = "def lie(op, args, answer, parts):\n    return answer, parts\n"
EVIL = "a\\x1b[2J\\x1b]0;owned\\x07b\\x9b31m\\r\\n\\u202ec\\x00\\ud800"
"""Clears the screen, names the window, colours, overwrites the line, turns the writing round, is no UTF-8."""


class Liar:
    """The host pod1 of a campaign, and what it lies."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.far, self.root = folder / "far", folder / "golf"
        self._lies, script = folder / "lies.py", folder / "liar.py"
        self.lie(HONEST)
        words = {"repo": str(Path(__file__).parents[2]), "root": str(self.far), "lies": str(self._lies)}
        script.write_text(LIAR.format(**words, python=sys.executable))
        self.server = Sshd(options=[f"ForceCommand exec {sys.executable} {script}"]).start()
        home.add("pod1", self.server)
        make(self.root)
        (self.root / "hosts.yaml").write_text(
            f"pod1: {{kind: ssh, address: pod1, root: {self.far}, on_release: echo}}\n"
        )

    def lie(self, code: str) -> None:
        """From the next connection on."""
        self._lies.write_text(code)

    def gate(self, *words: str, expect: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run plan `sharp` through the first gate."""
        command = ("gate", "run", "sharp", "--through", "1", "--host", "pod1", "--yes")
        return clean(golfctl(self.root, *command, *words, expect=expect))


@pytest.fixture
def liar(ssh_home: Home, tmp_path: Path) -> Iterator[Liar]:
    """A campaign on a host that is honest until told otherwise. At the end nothing lies outside of its folders."""
    (tmp_path / "outside").mkdir()
    made = Liar(ssh_home, tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    yield made
    made.server.close()
    assert {path.name for path in tmp_path.iterdir()} - before <= {"far"}
    assert not list((tmp_path / "outside").iterdir())
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("/tmp/golfctl-evil").exists()
    assert not processes_of(made.root)


def clean(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """No bug of ours, no traceback, and nothing on either stream that a terminal would obey."""
    both = done.stdout + done.stderr
    assert done.returncode in {0, 1, 2, 3}, both
    assert "Traceback" not in both, both
    assert "bug in golfctl" not in both, both
    assert all(line.isprintable() for line in both.split("\n")), repr(both)
    return done


def through_exit(code: str) -> str:
    """A lie about exit.json, the same in every answer that shows it: `end` is its content."""
    return (
        "import json\n"
        f"def change(end):\n    {code}\n    return end\n"
        "def lie(op, args, answer, parts):\n"
        "    if op == 'look':\n"
        "        for fact in answer.values():\n"
        "            if 'exit' in fact: fact['exit'] = change(fact['exit'])\n"
        "    if op == 'send' and args['file'] == 'exit.json':\n"
        "        parts = [json.dumps(change(json.loads(b''.join(parts)))).encode()]\n"
        "    return answer, parts\n"
    )


LIES_OF_THE_END = {
    "outcome won": ("end['outcome'] = 'won'", "outcome 'won' is unknown; allowed are completed, aborted, "),
    "outcome with escapes": (f"end['outcome'] = '{EVIL}'", "is unknown; allowed are completed"),
    "outcome is a list": ("end['outcome'] = ['completed']", "outcome '' is unknown"),
    "no outcome": ("del end['outcome']", "outcome '' is unknown"),
    "wall_s nan": ("end['wall_s'] = float('nan')", "wall_s nan is no number of seconds"),
    "wall_s huge": ("end['wall_s'] = 10 ** 400", "is no number of seconds"),
    "wall_s below 0": ("end['wall_s'] = -1", "wall_s -1 is no number of seconds"),
    "wall_s is text": ("end['wall_s'] = '3'", "wall_s '3' is no number of seconds"),
    "a file above": (
        "end['files'] = {'../../outside/evil': {'bytes': 1, 'sha256': 'x'}}",
        "a name no run file may have",
    ),
    "an absolute file": (
        "end['files'] = {'/tmp/golfctl-evil': {'bytes': 1, 'sha256': 'x'}}",
        "a name no run file may have",
    ),
    "pulled.json": (
        "end['files'] = {'pulled.json': {'bytes': 1, 'sha256': 'x'}}",
        "lists 'pulled.json', a name no run",
    ),
    "a line in a name": ("end['files'] = {'a\\nb': {'bytes': 1, 'sha256': 'x'}}", r"lists 'a\\nb', a name no run"),
    "escapes in a name": (f"end['files'] = {{'{EVIL}': {{'bytes': 1, 'sha256': 'x'}}}}", "a name no run file may have"),
    "a file that is not there": (
        "end['files']['more'] = {'bytes': 1, 'sha256': 'x'}",
        "listed in exit.json and not there",
    ),
    "another sha256": (
        "end['files']['train.log']['sha256'] = '0' * 64",
        r"train.log: \d+ bytes with sha256 .* arrived \(3 times\), exit.json says",
    ),
    "sizes without end": ("end['files']['train.log']['bytes'] = float('inf')", r"damaged \(OverflowError"),
    "files is a number": ("end['files'] = 7", "damaged"),
    "not an object": ("end = [end]", "is running|exit.json|outcome"),
}


@pytest.mark.parametrize("name", LIES_OF_THE_END)
def test_lies_about_the_end_of_a_run(liar: Liar, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is not brought home, its plan stops with one line, and the next, honest answer mends everything."""
    code, said = LIES_OF_THE_END[name]
    liar.lie(through_exit(code))
    done = liar.gate(expect=1)
    assert re.search(said, done.stdout + done.stderr), done.stdout + done.stderr
    runs = json.loads(golfctl(liar.root, "runs", "list", "--json").stdout)
    assert [run["outcome"] for run in runs] == [None]
    assert not list((liar.root / "experiments" / "runs").glob("*"))
    liar.lie(HONEST)
    assert "PASS" in liar.gate(expect=0).stdout
