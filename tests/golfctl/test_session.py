"""A conversation with far sides that are not what they should be: real processes over pipes, and behind a real sshd."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from golfctl.errors import HostError, HostUnreachable
from golfctl.hosts import session, ssh
from golfctl.hosts.session import Session
from golfctl.hosts.ssh import SshHost
from tests.golfctl.sshlab import Home, Sshd, ssh_home, wait_until

__all__ = ["ssh_home"]
pytestmark = pytest.mark.service
HONEST = [sys.executable, "-I", "-S", "-c", "exec(input())"]
SILENCE_S = 2.0
LONG_S = 60.0
"""What is bounded by a second or two has long ended by then, on a busy machine too."""

GREETS = r"""
import os, re, sys, time
def put(content):
    while content:
        content = content[os.write(1, content):]
def end():
    os._exit(0)
boot = sys.stdin.buffer.readline()
nonce = re.search(rb"golfctl-[0-9a-f]{16}", boot)[0]
"""
ANSWERS = GREETS + "put(nonce + b' ready\\n'); sys.stdin.buffer.readline()\n"


class Far:
    """A channel to a process over pipes, as paramiko's Channel is one to a process over ssh."""

    def __init__(self, command: list[str], **more: Any) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0, **more)
        assert self.process.stdin and self.process.stdout
        self._down, self._up = self.process.stdin, self.process.stdout
        os.set_blocking(self._down.fileno(), False)
        self._timeout_s = LONG_S
        self.closed = False

    def settimeout(self, seconds: float, /) -> None:
        self._timeout_s = seconds

    def recv(self, size: int, /) -> bytes:
        if not select.select([self._up], [], [], self._timeout_s)[0]:
            raise TimeoutError
        return os.read(self._up.fileno(), size)

    def sendall(self, content: bytes, /) -> None:
        while content:
            if not select.select([], [self._down], [], self._timeout_s)[1]:
                raise TimeoutError
            content = content[os.write(self._down.fileno(), content) :]

    def close(self) -> None:
        self.closed = True
        self.process.kill()
        self.process.wait()
        for end in (self._up, self._down):
            with contextlib.suppress(BrokenPipeError):
                end.close()


def open_files() -> int:
    """Descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_mib() -> float:
    """Memory of this process."""
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folder on the far side."""
    return tmp_path / "far"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Neither threads nor descriptors nor memory stay behind."""
    threads, files, memory = set(threading.enumerate()), open_files(), resident_mib()
    yield
    wait_until(lambda: set(threading.enumerate()) <= threads, what="for threads to end")
    wait_until(lambda: open_files() <= files, what="for descriptors to be closed")
    assert resident_mib() - memory < 200


def converse(command: list[str], root: Path, timeout_s: float = LONG_S, **more: Any) -> tuple[Any, bytes]:
    """Greet, ask one question, hear the answer to its end; the channel is closed whatever happens."""
    far = Far(command, **more)
    try:
        talk = Session("pod1", far, str(root), timeout_s)
        answer, blocks = talk.request("look", b"", {"runs": {"r1": 0}, "limit": 10})
        return answer, b"".join(blocks)
    finally:
        far.close()


def trouble(command: list[str], root: Path, said: str = "", **more: Any) -> str:
    """What is said about a far side that fails us: one harmless line, in time.

    Only what is about silence gets little patience: on a busy machine everything else may take a while.
    """
    began = time.monotonic()
    patience = SILENCE_S if re.search("no answer|no data", said) else LONG_S
    with pytest.raises(HostError, match="^pod1: ") as caught:
        converse(command, root, patience, **more)
    text = str(caught.value)
    assert time.monotonic() - began < LONG_S
    assert text.isprintable()
    assert len(text) < 700
    assert re.search(said, text), text
    return text


def program(text: str) -> list[str]:
    """A far side in Python."""
    return [sys.executable, "-I", "-S", "-c", text]


def test_an_honest_far_side_answers(root: Path) -> None:
    """The file is brought once, a second conversation finds it, and a short timeout harms neither."""
    for _ in range(2):
        assert converse(HONEST, root) == ({"r1": {"state": "absent", "log": 0}}, b"")
    assert len(list(root.glob("*.pyz"))) == 1


def test_a_banner_before_the_first_line_is_passed_over(root: Path) -> None:
    """Text without an end of line, colours, a quarter of our limit in noise: the greeting is found behind it."""
    noise = f"os.write(1, b'Welcome!\\x1b[31m\\n' * 4000 + b'no end of line'); os.execv({HONEST[0]!r}, {HONEST!r})"
    assert converse(program(f"import os; {noise}"), root)[0]["r1"]["state"] == "absent"


NOT_A_HOST = {
    "says nothing and goes": ("", "connection (closed by the host|lost .*)$"),
    "says no and goes": ("print('account expired')", "connection (closed|lost).*; it said 'account expired'"),
    "hangs": ("import time; time.sleep(600)", "no answer; the connection counts as lost$"),
    "asks and hangs": (
        "import time; print('Your password has expired.', flush=True); time.sleep(600)",
        "no answer; the connection counts as lost; it said 'Your password has expired.'",
    ),
    "lines for ever": ("while True: print('y' * 60)", "prints without end instead of starting python; it said 'yyy"),
    "one line for ever": ("import os\nwhile True: os.write(1, b'y' * 9999)", "prints without end; it said 'yyy"),
    "empty lines for ever": ("import os\nwhile True: os.write(1, b'\\n' * 9999)", "prints without end"),
    "noise": ("import os\nwhile True: os.write(1, os.urandom(9999).replace(b'\\n', b''))", "prints without end"),
    "a byte now and then": (
        "import os, time\nwhile True: os.write(1, b'.'); time.sleep(0.2)",
        r"\d+ bytes in \d+ s are no answer; it said '\.+'",
    ),
    "a line now and then": (
        "import os, time\nwhile True: os.write(1, b'wait\\n'); time.sleep(0.2)",
        r"\d+ bytes in \d+ s are no answer; it said 'wait'",
    ),
    "an echo": ("import os\nwhile True: os.write(1, os.read(0, 9999))", "no answer; .* it said"),
    "takes nothing": ("import os; os.write(1, b''); import time; time.sleep(600)", "no answer"),
    "goes while we send": (GREETS + "put(nonce + b' send\\n'); end()", "connection (closed|lost)"),
    # It takes what it is sent: the file that travels is longer than a pipe holds.
    "asks twice to send": (
        GREETS + "put(nonce + b' send\\n'); put(nonce + b' send\\n')\nwhile os.read(0, 65536): pass\ntime.sleep(600)",
        "send",
    ),
    "asks and takes nothing": (GREETS + "put(nonce + b' send\\n'); time.sleep(600)", "takes no data|no answer"),
    "half a greeting": (GREETS + "put(nonce + b' rea'); end()", r"closed by the host; it said .* rea'"),
    "another word": (GREETS + "put(nonce + b' hello \\x1b[2J\\n')", "hello"),
    "another nonce": (GREETS + "put(b'golfctl-0123456789abcdef ready\\n')", "closed by the host; it said .*ready'"),
    "an error with escapes": (GREETS + "put(nonce + b' error \\x1b[2J\\x1b]0;x\\x07 no disk\\n')", "pod1:  ?no disk$"),
}


@pytest.mark.parametrize("name", NOT_A_HOST)
def test_what_is_no_host_is_told_in_one_line(name: str, root: Path) -> None:
    """Before the greeting: banners, silence, floods, dribbles, ends at each stage."""
    code, said = NOT_A_HOST[name]
    trouble(program(code), root, said)
    assert not root.exists()


BAD_ANSWERS = {
    "goes": ("end()", "connection closed by the host"),
    "hangs": ("time.sleep(600)", "no answer"),
    "text": ("put(b'Segmentation fault\\n')", "answered 'Segmentation fault' where"),
    "bytes": ("put(b'\\x80\\xff\\x00\\x1b[2J\\n')", "answered '.*' where"),
    "a list": ("put(b'[1, 2]\\n')", "where golfctl's own words were expected"),
    "a number": ("put(b'7\\n')", "where golfctl's own words"),
    "NaN": ("put(b'NaN\\n')", "where golfctl's own words"),
    "null": ("put(b'null\\n')", "where golfctl's own words"),
    "nested": ("put(b'[' * 100000 + b'\\n')", "where golfctl's own words"),
    "nested objects": ("put(b'{\"a\":' * 100000 + b'\\n')", "where golfctl's own words"),
    "many digits": ("put(b'9' * 100000 + b'\\n')", "where golfctl's own words"),
    "nothing in it": ("put(b'{}\\n')", "an answer without a result"),
    "half": ("put(b'{\"ok\": '); end()", "closed by the host; it said '{\"ok\":'"),
    "half and hangs": ("put(b'{\"ok\": '); time.sleep(600)", "no answer"),
    "for ever": ("while True: put(b'{' * 99999)", "prints without end"),
    "a dribble": ("while True: put(b'{'); time.sleep(0.2)", "bytes in .* s are no answer"),
    "error with escapes": ('put(b\'{"error": "a\\\\u001b[2Jb\\\\nc"}\\n\')', "pod1: ab? ?b? c$"),
    "error is a list": ("put(b'{\"error\": [1]}\\n')", r"pod1: \[1\]"),
    "no block": ('put(b\'{"ok": 1, "blocks": true}\\n\'); end()', "closed by the host"),
    "10^18 bytes": ('put(b\'{"ok": 1, "blocks": true}\\n1000000000000000000\\n\')', "a block of 1000000000000000000"),
    "many digits in a size": ("put(b'{\"ok\": 1, \"blocks\": true}\\n' + b'9' * 9999 + b'\\n')", "answered '999"),
    "negative": ('put(b\'{"ok": 1, "blocks": true}\\n-5\\n{"error": "disk\\\\u001b[2J"}\\n\')', "pod1: disk$"),
    "negative and garbage": ('put(b\'{"ok": 1, "blocks": true}\\n-5\\nxyz\\n\')', "answered 'xyz'"),
    "no number": ('put(b\'{"ok": 1, "blocks": true}\\n1e3\\n\')', "answered '1e3'"),
    "nan bytes": ('put(b\'{"ok": 1, "blocks": true}\\nnan\\n\')', "answered 'nan'"),
    "half a block": ('put(b\'{"ok": 1, "blocks": true}\\n5\\nabc\'); end()', "closed by the host; it said 'abc'"),
    "half a block, hangs": ('put(b\'{"ok": 1, "blocks": true}\\n5\\nabc\'); time.sleep(600)', "no answer"),
    "end after a block": ('put(b\'{"ok": 1, "blocks": true}\\n3\\nabc\'); end()', "closed by the host"),
    "dribbled blocks": (
        "put(b'{\"ok\": 1, \"blocks\": true}\\n')\nwhile True: put(b'1\\na'); time.sleep(0.2)",
        "bytes in .* s are no answer",
    ),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_is_told_in_one_line(name: str, root: Path) -> None:
    """After a proper greeting: ends, silence, garbage, floods, sizes that are none."""
    code, said = BAD_ANSWERS[name]
    trouble(program(ANSWERS + code + "\ntime.sleep(600)\n"), root, said)


def test_a_far_side_that_takes_nothing_while_we_send(root: Path) -> None:
    """A payload larger than any pipe: the wait for it is bounded."""
    far = Far(program(ANSWERS + "time.sleep(600)"))
    try:
        talk = Session("pod1", far, str(root), LONG_S)
        talk.timeout(SILENCE_S)
        with pytest.raises(HostUnreachable, match="pod1: takes no data; the connection counts as lost"):
            talk.request("put", bytes(8 << 20), {"sha": "x"})
        assert far.closed
    finally:
        far.close()


def test_blocks_for_ever_cost_no_memory(root: Path) -> None:
    """Whoever reads block by block decides when it is enough: 300 MiB go by and none of it stays."""
    far = Far(
        program(ANSWERS + "put(b'{\"ok\": 1, \"blocks\": true}\\n')\nwhile True: put(b'1000000\\n' + b'x' * 1000000)")
    )
    try:
        talk = Session("pod1", far, str(root), LONG_S)
        before, most = resident_mib(), 0.0
        for number, block in enumerate(talk.request("send", b"", {})[1]):
            assert len(block) == 1_000_000
            most = max(most, resident_mib() - before)
            if number == 300:
                break
        assert most < 100
    finally:
        far.close()


def test_our_own_pauses_are_not_the_hosts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that writes to a slow disk between blocks does not make the host look slow."""
    monkeypatch.setattr(session, "SLOWEST_BYTES_S", 1 << 30)
    blocks = "put(b'{\"ok\": 1, \"blocks\": true}\\n' + b'3\\nabc' * 5 + b'0\\n'); time.sleep(600)"
    far = Far(program(ANSWERS + blocks))
    try:
        talk = Session("pod1", far, str(root), LONG_S)
        talk.timeout(SILENCE_S)
        content = b""
        for block in talk.request("send", b"", {})[1]:
            time.sleep(SILENCE_S / 4)
            content += block
        assert content == b"abc" * 5
    finally:
        far.close()


def test_an_old_python_is_named_with_what_is_needed(root: Path) -> None:
    """A python3 that says it is 3.6.9, as on old images."""
    old = "import sys; sys.version_info = (3, 6, 9); sys.version = '3.6.9 (default)'; exec(input())"
    assert trouble(program(old), root) == "pod1: python is 3.6.9; at least 3.9 is needed"
    assert not root.exists()


def test_what_arrives_damaged_is_never_started(root: Path) -> None:
    """The travelling file is flipped by a far side in between: it is not stored under its name, and not run."""
    flip = (
        "import os, subprocess, sys, threading\n"
        f"child = subprocess.Popen({HONEST!r}, stdin=subprocess.PIPE)\n"
        "seen = 0\n"
        "while True:\n"
        "    data = bytearray(os.read(0, 65536))\n"
        "    if not data: break\n"
        "    if seen < 30000 <= seen + len(data): data[30000 - seen] ^= 255\n"
        "    seen += len(data)\n"
        "    child.stdin.write(data); child.stdin.flush()\n"
    )
    trouble(program(flip), root, "decompress|not what was sent|closed|no answer")
    assert not list(root.glob("*.pyz"))


# -- behind a real sshd


@pytest.fixture
def far_side(ssh_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], SshHost]]:
    """A host whose sshd starts this shell command, whatever it is asked for; waits are a few seconds."""
    monkeypatch.setattr(ssh, "ANSWER_S", 2.0)
    servers: list[Sshd] = []
    hosts: list[SshHost] = []

    def start(command: str) -> SshHost:
        server = Sshd(options=[f"ForceCommand {command}"])
        servers.append(server)
        ssh_home.add("pod1", server.start())
        hosts.append(SshHost(ssh_home.spec("pod1", root=str(server.folder / "root"))))
        return hosts[-1]

    yield start
    for host in hosts:
        host.close()
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("exec sleep 600", "pod1: no answer"),
        ("exec yes", "pod1: prints without end"),
        ("exec yes >&2", "pod1: no answer"),
        ("(yes & yes >&2)", "pod1: prints without end"),
        ("exec cat", "pod1: no answer"),
        ("exec cat /dev/zero", "pod1: prints without end"),
        ("echo This account is closed.; exit 1", "This account is closed"),
        ("echo This account is closed. >&2; exit 1", "pod1: python3 can't be started there: This account is closed."),
        ("exec no-such-python", "pod1: python3 can't be started there: .*not found"),
        ("exec perl -e 1", "pod1: connection (closed by the host|lost)"),
        ("exec tr a-z A-Z", "pod1: no answer"),
    ],
)
def test_login_that_leads_elsewhere(far_side: Callable[[str], SshHost], command: str, said: str) -> None:
    """A shell that floods, hangs, echoes, refuses or starts something else: one line, in time, and memory is bounded."""
    host, before, began = far_side(command), resident_mib(), time.monotonic()
    for _ in range(2):
        with pytest.raises(HostError) as caught:
            host.runs()
        assert re.search(said, str(caught.value)), str(caught.value)
        assert str(caught.value).isprintable()
    assert time.monotonic() - began < LONG_S
    assert resident_mib() - before < 150
