"""Children of a tool: they die with it, their output is read with a deadline. Standard library, Python >= 3.9."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

from golfctl import hostside
from golfctl.hostside.files import one_line

# Asks the kernel for KILL when the parent dies (prctl PR_SET_PDEATHSIG; it survives exec), then becomes the command.
_LEASH = """
import os, sys
try:
    import ctypes
    sys.platform.startswith("linux") and ctypes.CDLL(None).prctl(1, 9)
except (ImportError, OSError, AttributeError):
    pass
os.getppid() == int(sys.argv[1]) or os._exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"can't start {sys.argv[2]}: {error.strerror}")
"""

# A child is told where this package is: a folder or the archive that travels. Its interpreter may be another than ours.
_ENTER = "import sys; sys.path.insert(0, sys.argv[1]); from {module} import {name}; {name}(*sys.argv[2:])"


def leashed(command: Sequence[str]) -> list[str]:
    """The command so that it dies with us (on Linux). Started from a thread it dies with that thread."""
    return [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]


def entry(python: str, module: str, name: str, *arguments: str) -> list[str]:
    """A command that calls `name` of one of our modules with words, under this interpreter."""
    home = os.path.dirname(os.path.dirname(next(iter(hostside.__path__))))
    return [python, "-I", "-c", _ENTER.format(module=module, name=name), home, *arguments]


def run_lines(
    command: Sequence[str],
    on_line: Callable[[str], None] = lambda _: None,
    timeout_s: float = 600.0,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    keep: Iterable[int] = (),
) -> tuple[int, list[str]]:
    """Run to the end: (exit code, last 30 lines of stdout and stderr). `env` is added to ours; `keep`: descriptors to inherit.

    Raises TimeoutError after timeout_s, when the child is killed, and OSError if it can't be started.
    """
    with Child(command, env=env, keep=keep, merge=True) as child:
        child.send(stdin, last=True)
        tail: deque[str] = deque(maxlen=30)
        deadline = time.monotonic() + timeout_s
        while True:
            line = child.line(deadline - time.monotonic())
            if line is None:
                return child.process.wait(), list(tail)
            tail.append(line)
            on_line(line)


class Child:
    """A leashed process and a thread that reads its lines. As a context manager it kills what is left at the end.

    With merge its stderr is among the lines, else it is kept: `complaint` is its last line.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        keep: Iterable[int] = (),
        merge: bool = False,
    ) -> None:
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            leashed(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            env={**os.environ, **(env or {})},
            pass_fds=tuple(keep),
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._complaints: deque[str] = deque(maxlen=30)
        self._threads = [self._reader(self.process.stdout, self._lines.put, lambda: self._lines.put(None))]
        if not merge:
            self._threads.append(self._reader(self.process.stderr, self._complaints.append, lambda: None))

    @staticmethod
    def _reader(stream: IO[bytes] | None, put: Callable[[str], None], end: Callable[[], None]) -> threading.Thread:
        def read() -> None:
            with contextlib.suppress(OSError, ValueError):  # closed under us
                for line in stream or ():
                    put(line.decode("utf-8", "replace").rstrip("\r\n"))
            end()

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(2.0)  # a grandchild may hold the pipe; the thread is a daemon then
        if not any(thread.is_alive() for thread in self._threads):
            for stream in filter(None, (self.process.stdin, self.process.stdout, self.process.stderr)):
                with contextlib.suppress(OSError):
                    stream.close()

    def send(self, data: bytes, last: bool = False) -> None:
        """Write to its stdin; `last` closes it. A child that is gone is noticed when its lines end."""
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.write(data)
            self.process.stdin.flush()
        if last:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def line(self, timeout_s: float) -> str | None:
        """The next line of stdout; None at its end. Raises TimeoutError."""
        try:
            return self._lines.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            raise TimeoutError(f"no answer of process {self.process.pid}") from None

    @property
    def complaint(self) -> str:
        """The last line on stderr with letters in it, scrubbed."""
        for thread in self._threads:
            thread.join(0.5)
        return last_words(self._complaints)


def last_words(lines: Iterable[str]) -> str:
    """The last of these lines that says something, scrubbed; "" if none does."""
    said = [line for line in lines if any(letter.isalpha() for letter in line)]
    return one_line(said[-1]) if said else ""


def find_json(lines: Iterable[str], mark: str) -> dict[str, Any]:
    """The JSON object on the line that begins with `mark`: libraries print around it. Raises ValueError if there is none."""
    for line in lines:
        if line.startswith(mark):
            content = json.loads(line[len(mark) :])
            if isinstance(content, dict):
                return content
    raise ValueError(f"no answer; its last line was {last_words(lines)!r}")
