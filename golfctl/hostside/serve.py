"""Answers a controller over stdin and stdout for as long as its connection lives. Standard library, Python >= 3.9.

A request is a line of JSON {"op", "args", "payload": bytes that follow} and its payload. The answer is a line of JSON,
{"ok": answer, "blocks": whether any follow} or {"error": line, "missing": whether a file was not there}; blocks come as a
line with their length and their bytes, a length of 0 ends them, -1 is followed by a line of JSON {"error"}. No value of
a request ever reaches a shell.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from golfctl.hostside import keeper
from golfctl.hostside.files import one_line
from golfctl.hostside.root import Root

IDLE_S = 150
"""Without a request, or with an answer nobody takes, for so long the connection counts as dead and this process ends."""
MAX_LINE = 1 << 24
MAX_PAYLOAD = 1 << 31


def main(arguments: list[str]) -> int:
    """Serve ROOT until the controller goes. NONCE begins the first line, so that it is found behind any banner."""
    folder, nonce = arguments
    venv = os.path.join(folder, "venv", "bin", "python")
    python = venv if os.access(venv, os.X_OK) else sys.executable
    root = Root(folder, os.path.abspath(sys.argv[0]), python)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _send(sink, f"{nonce} ready\n".encode())
    while True:
        signal.alarm(IDLE_S)  # its default action ends us: nothing here needs an end of its own
        line = source.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            return 0
        request = json.loads(line)
        size = int(request.get("payload", 0))
        payload = source.read(size) if 0 < size <= MAX_PAYLOAD else b""
        if len(payload) != size:
            return 0
        keeper.contact(folder)
        _answer(root, request, payload, sink)


def _answer(root: Root, request: dict[str, Any], payload: bytes, sink: BinaryIO) -> None:
    try:
        answer, blocks = root.ask(str(request["op"]), request.get("args", {}), payload)
    except Exception as error:
        _send(sink, _line({"error": _told(error), "missing": isinstance(error, FileNotFoundError)}))
        return
    _send(sink, _line({"ok": answer, "blocks": blocks is not None}))
    if blocks is not None:
        _send_blocks(root, sink, blocks)


def _send_blocks(root: Root, sink: BinaryIO, blocks: Iterator[bytes]) -> None:
    while True:
        signal.alarm(0)  # a tool may work in silence for long; _send notices when nobody listens
        try:
            block = next(blocks, b"")
        except Exception as error:
            _send(sink, b"-1\n" + _line({"error": _told(error)}))
            return
        if not block:
            break
        keeper.contact(str(root.root))  # a long transfer is no silence
        _send(sink, b"%d\n" % len(block) + block)
    _send(sink, b"0\n")


def _told(error: Exception) -> str:
    """One line: what the system, or our own check, said."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return one_line(f"{place}{error.strerror or error}")
    return one_line(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _send(sink: BinaryIO, content: bytes) -> None:
    signal.alarm(IDLE_S)
    sink.write(content)
    sink.flush()
