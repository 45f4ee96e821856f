"""Hostile values and hostile hosts, through the command line: nothing executed, nothing written outside, no escape shown.

A hostile host is a real sshd whose every login starts LIAR: it does what a host does, and lies in its answers.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from golfctl.domain.host import HostSpec
from golfctl.domain.state import fold
from golfctl.errors import HostError
from golfctl.hosts import open_host
from golfctl.runner.collect import collect
from golfctl.runner.tails import Tails
from golfctl.store.bases import freeze_script
from golfctl.store.campaign import load
from golfctl.store.ledger import Ledger
from tests.golfctl.campaigns import GOLFCTL, add_plan, golfctl, make, processes_of
from tests.golfctl.sshlab import Home, Sshd, ssh_home, sshd
from tests.golfctl.test_local_host import SHA, archive, run_spec

__all__ = ["ssh_home", "sshd"]
pytestmark = pytest.mark.service

LIAR = r"""
import json, os, re, runpy, sys
sys.path.insert(0, {repo!r})
from golfctl.hostside import package, serve
from golfctl.hostside.root import Root
root, lies = {root!r}, runpy.run_path({lies!r})
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
        answer, parts = None, None
        if request["op"] not in lies.get("INSTEAD", ()):
            answer, blocks = host.ask(request["op"], request["args"], payload)
            parts = None if blocks is None else [block for block in blocks if block]
        answer, parts = lies["lie"](request["op"], request["args"], answer, parts)
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


def test_lies_about_the_end_of_a_run(liar: Liar) -> None:
    """Such a run is not brought home, its plan stops with one line, the command ends; an honest answer mends everything."""
    liar.lie(through_exit(LIES_OF_THE_END["outcome won"][0]))
    done = liar.gate(expect=1)
    assert re.search(LIES_OF_THE_END["outcome won"][1], done.stdout)
    campaign = load(liar.root)
    ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
    state, tails = fold(ledger.events()), Tails(campaign.state_folder / "tails")
    (record,) = state.runs.values()
    for name, (code, said) in LIES_OF_THE_END.items():
        liar.lie(through_exit(code))
        host = open_host(campaign.hosts["pod1"])
        with pytest.raises(HostError) as caught:
            collect(campaign, ledger, host, record, state, tails)
        host.close()
        assert re.search(said, str(caught.value)), (name, str(caught.value))
        assert str(caught.value).isprintable()
        assert not campaign.runs_folder.exists() or not list(campaign.runs_folder.iterdir()), name
    assert not fold(ledger.events()).runs[record.spec.name].finished
    liar.lie(HONEST)
    assert "PASS" in liar.gate(expect=0).stdout


TALK = f"""
import hashlib, json
evil = ("{EVIL}\\nstep:5/5 train_loss:1.0 step_avg:1.00ms {EVIL}\\n").encode("utf-8", "replace") + b"\\xff\\x9b2J\\n"
def change(end):
    end.update(outcome="crashed", reason="{EVIL}" + "<!-- event x -->", fault=["{EVIL}"], log_tail=["{EVIL}"], lines=["{EVIL}"])
    end["files"]["train.log"] = {{"bytes": len(evil), "sha256": hashlib.sha256(evil).hexdigest()}}
    return end
def lie(op, args, answer, parts):
    if op == "look":
        logs = []
        for name, fact in answer.items():
            if "exit" in fact: change(fact["exit"])
            offset = args["runs"][name]
            logs.append(evil[offset:] if args["limit"] else b"")
            fact["log"] = len(logs[-1])
        parts = [b"".join(logs)]
    if op == "send" and args["file"] == "exit.json":
        parts = [json.dumps(change(json.loads(b"".join(parts)))).encode()]
    if op == "send" and args["file"] == "train.log":
        parts = [evil]
    if op == "tool":
        parts = [json.dumps({{"say": "{EVIL}"}}).encode()] + parts
    return answer, parts
"""


def test_what_a_host_says_harms_no_terminal(liar: Liar) -> None:
    """Reason, lines and log of a run come from the host: every command that shows them does so without a control byte."""
    liar.lie(TALK)
    terminal = Terminal(liar.root, "gate", "run", "sharp", "--through", "1", "--host", "pod1", "--yes")
    assert terminal.end() in {0, 1}
    harmless(terminal.raw)
    assert b"crashed" in terminal.raw
    for command in (
        ["runs", "tail", "sharp", "--no-follow"],
        ["runs", "show", "sharp"],
        ["runs", "list"],
        ["runs", "list", "--json"],
        ["gate", "status"],
        ["fail", "list"],
        ["report"],
        [],
    ):
        clean(golfctl(liar.root, *command, expect=None))
        terminal = Terminal(liar.root, *command)
        assert terminal.end() in {0, 1}, terminal.text
        harmless(terminal.raw)
    for path in ("experiments/log.md", "experiments/report.md", "failures.md"):
        text = (liar.root / path).read_text()
        assert all(line.isprintable() for line in text.split("\n")), path
    golfctl(liar.root, "ledger", "verify")


LIES = {
    "sweep: names": ("sweep", "{'../../outside/evil': {'state': 'exited', 'unpulled': True}}", "is no run"),
    "sweep: facts": ("sweep", "{'r1': 'running'}", "is no run"),
    "sweep: states": ("sweep", "{'r1': {'state': '" + EVIL + "'}}", "is no run"),
    "sweep: a list": ("sweep", "[1]", r"answered \[1\]; update golfctl"),
    "holders": ("holders", "7", "answered 7; update golfctl"),
    "check": ("check", "'ok'", "answered 'ok'; update golfctl"),
    "check: escapes": ("check", f"['{EVIL}']", "FAIL  ab"),
    "busy": ("busy", "'many'", ""),
    "look: a state": ("look", "{name: {'state': 'fine', 'log': 0} for name in args['runs']}", ""),
}


@pytest.mark.parametrize("name", LIES)
def test_answers_of_a_wrong_kind(liar: Liar, name: str) -> None:
    """Names, numbers, lists where something else is due: one line, and the commands end."""
    operation, answer, said = LIES[name]
    liar.lie(f"def lie(op, args, answer, parts):\n    return ({answer} if op == {operation!r} else answer), parts\n")
    found = ""
    for command in (["check", "pod1", "--no-speed"], ["sweep", "pod1", "--fetch", "--stop"], ["release", "pod1"]):
        done = clean(golfctl(liar.root, "host", *command, expect=None))
        assert len(done.stderr.splitlines()) <= 3, done.stderr
        found += done.stdout + done.stderr
    assert re.search(said, found), found


FACTS = """
import json
INSTEAD = ["tool"]  # not even done
def lie(op, args, answer, parts):
    if op == "tool":
        parts = [json.dumps({{"say": "{evil}"}}).encode()] * 3 + [json.dumps({{"done": {done}}}).encode()]
    return answer, parts
"""


@pytest.mark.parametrize(
    "done",
    [
        "7",
        "{}",
        "{'cpu': 'x', 'gpus': [1, 'a', {'name': ['x'], 'processes': 5}], 'disk': 5, 'time': 'now', 'memory': [], "
        "'torch': 3, 'data': 'none', 'boot': {}, 'driver': float('nan'), 'python': 1}",
        "{'time': 1e300, 'took_s': float('inf'), 'cpu': {'usable': float('nan')}, 'disk': {'root': {'free_bytes': 'x'}}, "
        "'data': {'problems': ['"
        + EVIL
        + "', 5, None], 'summary': '"
        + EVIL
        + "'}, 'memory': {'total_bytes': 10 ** 300}}",
        "{'figures': {'matmul_tflops': 'x', '"
        + EVIL
        + "': {'value': 'y', 'unit': 5}, 'disk_read_mb_s': 7}, 'notes': 'x', "
        "'versions': ['a'], 'files': 'b', 'wall_s': 'long', 'changed': 1}",
        "{'figures': [], 'notes': ['" + EVIL + "'], 'versions': {'" + EVIL + "': '" + EVIL + "'}, 'wall_s': -1e308}",
    ],
)
def test_facts_of_a_wrong_kind(liar: Liar, done: str) -> None:
    """What probe, speed and setup answer: anything may be anything."""
    liar.lie(FACTS.format(evil=EVIL, done=done))
    for command in (["check", "pod1"], ["check", "pod1", "--json"], ["bench", "pod1"], ["prepare", "pod1"]):
        clean(golfctl(liar.root, "host", *command, expect=None))


def test_names_of_a_dead_run_lead_nowhere(liar: Liar, tmp_path: Path) -> None:
    """`runs fetch` of a run that goes on copies what the host names: never outside of the folder it makes."""
    golfctl(liar.root, "gate", "run", "sharp", "--through", "1", "--host", "pod1", "--yes")
    run = json.loads(golfctl(liar.root, "runs", "list", "--json").stdout)[0]["spec"]["name"]
    for name in ("../../outside/evil", "/tmp/golfctl-evil", "a\\nb", "sub/../../evil", "", ".", EVIL):
        liar.lie(
            "def lie(op, args, answer, parts):\n"
            "    if op == 'look': answer = {name: {'state': 'running', 'log': 0} for name in args['runs']}\n"
            f"    if op == 'names': answer = ['{name}']\n"
            "    return answer, parts if op != 'send' else [b'owned']\n"
        )
        done = clean(golfctl(liar.root, "runs", "fetch", run, "--into", "copy", expect=3))
        assert "a name no run file may have" in done.stderr
        assert not (liar.root / "copy").exists()


# -- values of ours

NOTED = (
    (Path(__file__).parent / "foreign" / "bigram.py")
    .read_text()
    .replace(
        "def main():",
        'NOTE = os.environ.get("NOTE", "")\n\n\ndef main():\n    (OUT_DIR / "note.json").write_text(json.dumps(NOTE))',
        1,
    )
)
NASTY = """$(touch /tmp/golfctl-evil) `touch /tmp/golfctl-evil` "; touch /tmp/golfctl-evil; ' && || > * ? ~ # \\ $HOME %s é \t!"""


def test_values_of_a_plan_reach_the_code_unchanged(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> None:
    """Quotes, $(...), backticks and the rest: no shell sees them, here or there."""
    root = make(tmp_path / "golf")
    (tmp_path / "noted.py").write_text(NOTED)
    freeze_script(
        load(root), "noted", tmp_path / "noted.py", score_label="final_exact", artifact=["model.json"], settings={}
    )
    add_plan(root, "nasty", f"NOTE: {json.dumps(NASTY)}", more="base: noted\n")
    (root / "hosts.yaml").write_text(f"pod1: {{kind: ssh, address: pod1, root: {tmp_path / 'far it is'}}}\n")
    golfctl(root, "gate", "run", "nasty", "--through", "1", "--host", "pod1", "--yes")
    (note,) = (root / "experiments" / "runs").glob("nasty*/note.json")
    assert json.loads(note.read_text()) == NASTY
    assert not Path("/tmp/golfctl-evil").exists()


@pytest.mark.parametrize("value", ["a\nb", "a\0b"])
def test_values_no_environment_can_hold_are_refused(tmp_path: Path, value: str) -> None:
    """Newlines and NULs, at their place in the plan; nothing is run."""
    root = make(tmp_path / "golf")
    add_plan(root, "bad", f"SMOOTHING: {json.dumps(value)}")
    done = clean(golfctl(root, "gate", "run", "bad", "--through", "1", "--yes", expect=2))
    assert re.search(r"plans/bad.yaml:\d+:\d+ .*more than one line", done.stderr), done.stderr


@pytest.mark.parametrize(
    "name", ["a/b", "../x", "..", ".", "-rf", "", "a b", "a\nb", "\x1b[2J", "x" * 65, "é", "a;b", "$(x)"]
)
def test_names_that_are_no_names(tmp_path: Path, name: str) -> None:
    """As plan, host and run: refused in one line, and nothing is written."""
    root = make(tmp_path / "golf")
    before = sorted(tmp_path.rglob("*"))
    for command in (["plan", "new"], ["host", "check"], ["host", "sweep"], ["runs", "tail"], ["gate", "run"]):
        done = clean(golfctl(root, *command, "--", name, expect=2))
        assert done.stderr.strip(), command
    done = clean(golfctl(root, "host", "add", "--", name, "192.0.2.1", expect=2))
    assert [path for path in sorted(tmp_path.rglob("*")) if ".golfctl" not in path.parts] == before


@pytest.mark.parametrize(
    "address",
    ["-oProxyCommand=touch /tmp/golfctl-evil", "a b", "", "a;b", "$(touch /tmp/golfctl-evil)", "a@", "a\nb", "x@-y"],
)
def test_addresses_that_are_no_addresses(tmp_path: Path, address: str) -> None:
    """Refused when they are added, and, where somebody wrote them into hosts.yaml, when they are used."""
    root = make(tmp_path / "golf")
    done = clean(golfctl(root, "host", "add", "--", "pod1", address, expect=2))
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (root / "hosts.yaml").exists()
    (root / "hosts.yaml").write_text(json.dumps({"pod1": {"kind": "ssh", "address": address}}))
    for command in (["check", "pod1"], ["trust", "pod1", "--yes"]):
        done = clean(golfctl(root, "host", *command, expect=2))
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not Path("/tmp/golfctl-evil").exists()


def test_values_a_host_cannot_take(tmp_path: Path) -> None:
    """NULs and names that are none, below the checks of plan files."""
    host = open_host(HostSpec("here", root=str(tmp_path / "root")))
    host.put(SHA, archive(tmp_path / "b.tar.gz", {"pkg/main.py": "print('step:1/1 ')"}))
    for env in ({"A": "x\0y"}, {"A B": "x"}, {"A=B": "x"}, {"": "x"}, {"A\n": "x"}, {"1A": "x"}):
        with pytest.raises(HostError, match="name or value not allowed"):
            host.start(run_spec(env=env))
    with pytest.raises(HostError, match="argv is empty"):
        host.start(run_spec(argv=()))
    for name in ("../x", "/x", "-rf", "a/b", "..", "", "a\n", "x" * 300):
        with pytest.raises(HostError):
            host.start(run_spec(name))
    assert host.runs() == []


# -- a terminal


class Terminal:
    """A command under a pseudo-terminal of its own, as a person sees it: `raw` is every byte that reached the screen."""

    def __init__(self, root: Path, *words: str, columns: int = 80, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [*GOLFCTL, *words],
            cwd=root,
            env={**os.environ, "TERM": "xterm-256color", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - or Ctrl-C would be a byte
        )
        os.close(slave)
        self.raw = b""
        self._open = True

    @property
    def text(self) -> str:
        """What was shown, without the escapes of a terminal."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw.decode(errors="replace")).replace("\r", "")

    def read(self, seconds: float = 0.1) -> None:
        """Take what is there, waiting for it so long."""
        if not (self._open and select.select([self._master], [], [], seconds)[0]):
            return
        try:
            content = os.read(self._master, 65536)
        except OSError:
            content = b""  # nobody is left on the other side
        self.raw += content
        if not content:
            self._open = False
            os.close(self._master)

    def wait_for(self, pattern: str, seconds: float = 120.0) -> str:
        """Until this was shown; the text so far."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            if not self._open or time.monotonic() > end:
                self.process.kill()
                self.end(5.0)
                raise AssertionError(f"{pattern!r} was not shown:\n{self.text}")
            self.read()
        return self.text

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._master, keys)

    def end(self, seconds: float = 120.0) -> int:
        """The exit code; everything was read."""
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            self.read()
        if self._open:
            self.process.kill()
            os.close(self._master)
            self._open = False
        code = self.process.wait()
        assert time.monotonic() < end, self.text
        return code


def harmless(raw: bytes) -> None:
    """Colours, cursor movements and erased lines are rich's own; whatever a host could add is not there."""
    for bad in (b"\x1b]", b"\x1b[2J", b"\x07", b"\xc2\x9b", b"\x9b", b"\xe2\x80\xae", b"\0", b"owned"):
        assert bad not in raw, (bad, raw)
