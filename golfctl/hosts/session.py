"""One conversation with hostside/serve.py over a channel: requests down, answers up, everything bounded and timed.

The host is not trusted to be sane: it may print a banner first, answer garbage, or answer for ever.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from golfctl.errors import HostError, HostUnreachable
from golfctl.hostside.files import one_line
from golfctl.hostside.package import single_file

SEND_BYTES = 1 << 18
NOISE_BYTES = 1 << 18
"""Most bytes a login may print before our own first line."""
LINE_BYTES = 1 << 24
BLOCK_BYTES = 1 << 26
"""Longest line and block an answer may have."""
SLOWEST_BYTES_S = 1024
"""What comes slower than this, beyond the silence that is allowed, does not come: a byte now and then is no answer."""

# Typed at the far shell as one line: plain enough for sh, bash, zsh, csh, tcsh and fish. Everything else goes through stdin.
COMMAND = '{python} -I -S -c "exec(input())"'
# Runs there before anything of ours is there. Brings the travelling file under the name of its content, then becomes it.
_BOOT = """
import hashlib, os, sys, zlib
nonce, root, sha = {nonce!r}, os.path.abspath(os.path.expanduser({root!r})), {sha!r}
def say(text):
    os.write(1, (nonce + " " + text + chr(10)).encode())
try:
    if sys.version_info < (3, 9):
        raise ValueError("python is " + sys.version.split()[0] + "; at least 3.9 is needed")
    path = os.path.join(root, "supervise-" + sha[:16] + ".pyz")
    if not os.path.exists(path):
        os.makedirs(root, exist_ok=True)
        say("send")
        left, parts = {size}, []
        while left:
            part = os.read(0, min(left, 65536))
            if not part:
                sys.exit(1)
            parts.append(part)
            left -= len(part)
        content = zlib.decompress(b"".join(parts))
        if hashlib.sha256(content).hexdigest() != sha:
            raise ValueError("what arrived is not what was sent")
        new = path + "." + str(os.getpid()) + ".new"
        with open(new, "wb") as file:
            file.write(content)
        sys.path.insert(0, new)
        from golfctl.hostside.compiled import install
        install(new, path)
    os.execv(sys.executable, [sys.executable, "-I", "-S", path, "serve", root, nonce])
except (OSError, ValueError) as error:
    say("error " + " ".join(str(error).split())[:300])
"""


@functools.cache
def travelling() -> tuple[str, bytes]:
    """The travelling file: hash of its content, and the content compressed."""
    content = single_file()
    return hashlib.sha256(content).hexdigest(), zlib.compress(content)


class Channel(Protocol):
    """What a session needs of a connection; paramiko's Channel has it. recv and sendall raise OSError, TimeoutError too."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, content: bytes, /) -> None: ...
    def settimeout(self, seconds: float, /) -> None: ...
    def close(self) -> None: ...


class Session:
    """A conversation; one request at a time. Any HostUnreachable leaves it unusable: open a new one."""

    def __init__(self, place: str, channel: Channel, root: str, timeout_s: float) -> None:
        """Greets the far side; brings the travelling file if it is not there.

        Raises HostError, HostUnreachable; closing the channel is then up to the caller, who may want its last words.
        """
        self.place, self._channel, self._buffer, self._noise = place, channel, bytearray(), b""
        self.timeout(timeout_s)
        sha, packed = travelling()
        nonce = f"golfctl-{os.urandom(8).hex()}"
        boot = _BOOT.format(nonce=nonce, root=root, sha=sha, size=len(packed))
        # repr() has no line break and no byte beyond ASCII: it arrives as it is in any locale.
        self._send(f"exec({boot!a})\n".encode("ascii"))
        word = self._greeting(nonce)
        if word == "send":
            self._send(packed)
            word = self._greeting(nonce)
        if word != "ready":
            raise HostError(f"{place}: {one_line(word.removeprefix('error ')) or 'did not greet'}")

    def request(self, operation: str, payload: bytes, arguments: dict[str, Any]) -> tuple[Any, Iterator[bytes]]:
        """The answer and the blocks that follow. Raises HostError, HostUnreachable, FileNotFoundError.

        The blocks must be read to their end before the next request.
        """
        head = {"op": operation, "args": arguments, "payload": len(payload)}
        self._send(json.dumps(head).encode() + b"\n" + payload)
        answer = self._json()
        if "error" in answer:
            text = one_line(str(answer["error"]))
            raise FileNotFoundError(text) if answer.get("missing") else HostError(f"{self.place}: {text}")
        if "ok" not in answer:
            raise self._garbage("an answer without a result")
        return answer["ok"], self._blocks(at_leisure=operation == "tool") if answer.get("blocks") else iter(())

    def timeout(self, seconds: float) -> None:
        """From now on, silence for so long means that the host is unreachable."""
        self._timeout_s = seconds
        self._channel.settimeout(seconds)

    def close(self) -> None:
        """End it; the far side notices."""
        self._channel.close()

    # -- the wire

    def _greeting(self, nonce: str) -> str:
        """What follows our mark on its line; anything before it is a banner or a noisy login script."""
        seen, watch = 0, _Watch()
        while True:
            line = self._line(NOISE_BYTES, watch)
            head, mark, word = line.partition(nonce.encode() + b" ")
            if mark:
                self._noise = b""
                return word.decode("utf-8", "replace").strip()
            seen, self._noise = seen + len(line) + 1, line or self._noise
            if seen > NOISE_BYTES:
                self.close()
                raise HostError(f"{self.place}: prints without end instead of starting python; it said {_shown(head)}")

    def _blocks(self, at_leisure: bool) -> Iterator[bytes]:
        watch = _Watch()
        while True:
            if at_leisure:  # a longer job: each of its lines may take its time
                watch = _Watch()
            size = self._number(watch)
            if size == 0:
                return
            if size < 0:
                raise HostError(f"{self.place}: {one_line(str(self._json().get('error')))}")
            if size > BLOCK_BYTES:
                raise self._garbage(f"a block of {size} bytes")
            content = self._exactly(size, watch)
            paused = time.monotonic()
            yield content
            watch.began += time.monotonic() - paused  # what we do with it is not the host's delay

    def _number(self, watch: _Watch) -> int:
        line = self._line(32, watch)
        try:
            return int(line)
        except ValueError:
            raise self._garbage(_shown(line)) from None

    def _json(self) -> dict[str, Any]:
        line = self._line(LINE_BYTES, _Watch())
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise self._garbage(_shown(line))
        return content

    def _garbage(self, what: str) -> HostError:
        self.close()
        return HostUnreachable(f"{self.place}: answered {what} where golfctl's own words were expected")

    def _line(self, limit: int, watch: _Watch) -> bytes:
        at = 0
        while (end := self._buffer.find(b"\n", at)) < 0:
            at = len(self._buffer)
            if at > limit:
                self.close()
                raise HostError(f"{self.place}: prints without end; it said {_shown(bytes(self._buffer[:200]))}")
            self._more(watch)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _exactly(self, size: int, watch: _Watch) -> bytes:
        while len(self._buffer) < size:
            self._more(watch)
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        return content

    def _more(self, watch: _Watch) -> None:
        waited = time.monotonic() - watch.began
        if waited > self._timeout_s + watch.bytes / SLOWEST_BYTES_S:
            self.close()
            raise HostUnreachable(f"{self.place}: {watch.bytes} bytes in {waited:.0f} s are no answer{self._said()}")
        try:
            content = self._channel.recv(1 << 18)
        except TimeoutError:
            self.close()
            raise HostUnreachable(f"{self.place}: no answer; the connection counts as lost{self._said()}") from None
        except Exception as error:  # paramiko hands on whatever ended its thread: EOFError and its own among them
            raise HostUnreachable(f"{self.place}: connection lost ({_reason(error)})") from None
        if not content:
            raise HostUnreachable(f"{self.place}: connection closed by the host{self._said()}")
        self._buffer += content
        watch.bytes += len(content)

    def _said(self) -> str:
        """What it printed instead of an answer, as the end of a line."""
        words = bytes(self._buffer[-200:]) or self._noise
        return f"; it said {_shown(words)}" if words.strip() else ""

    def _send(self, content: bytes) -> None:
        try:
            for at in range(0, len(content), SEND_BYTES):  # paramiko copies what is left of a block again and again
                self._channel.sendall(content[at : at + SEND_BYTES])
        except TimeoutError:
            self.close()
            raise HostUnreachable(f"{self.place}: takes no data; the connection counts as lost") from None
        except Exception as error:
            with contextlib.suppress(Exception):
                self._buffer += self._channel.recv(4096)  # it may have said why
            raise HostUnreachable(f"{self.place}: connection lost ({_reason(error)}){self._said()}") from None


class _Watch:
    """Since when an answer is awaited, and how much of it has come."""

    def __init__(self) -> None:
        self.began, self.bytes = time.monotonic(), 0


def _reason(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__


def _shown(content: bytes) -> str:
    """The last words of what a host printed, as one harmless line."""
    return repr(one_line(content[-200:].decode("utf-8", "replace")))
