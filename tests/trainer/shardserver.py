"""An HTTP server of files with moods: each request for a path takes the path's next mood; after the last it behaves."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Mood = str
"""One of the words in `Handler._answer`, some with a number: "cut:100" sends 100 bytes of the body and hangs up."""


class ShardServer(ThreadingHTTPServer):
    """files: path to content. moods: path to what goes wrong, in order. asked: every (path, Range) that was requested.
    wait: the Retry-After of its errors."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.moods: dict[str, list[Mood]] = defaultdict(list)
        self.asked: list[tuple[str, str | None]] = []
        self.tags = True
        self.wait = "0"
        self.closing = threading.Event()

    @property
    def base(self) -> str:
        """Address of the files."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    """GET with Range and If-Range, unless in a mood."""

    server: ShardServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        span = self.headers.get("Range")
        self.server.asked.append((path, span))
        moods = self.server.moods[path]
        mood, _, number = (moods.pop(0) if moods else "good").partition(":")
        self.close_connection = True
        if path not in self.server.files:
            self._error(404)
        elif mood.isdigit():
            self._error(int(mood))
        else:
            self._answer(self.server.files[path], span, mood, int(number or 0))

    def _error(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Retry-After", self.server.wait)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, content: bytes, span: str | None, mood: Mood, number: int) -> None:
        tag = f'"{hash(content)}"'
        same = self.headers.get("If-Range", tag) == tag
        start = int(span.split("=")[1].rstrip("-")) if span and same and mood != "no-range" else 0
        if start >= len(content) and start:
            self._error(416)
            return
        if mood == "wrong-bytes":
            content = content[:-1] + bytes([content[-1] ^ 1])
        body = content[start:]
        announced = len(body) + (number if mood == "too-long" else -number if mood == "too-short" else 0)
        self.send_response(206 if start else 200)
        if start:
            claimed = start - number if mood == "wrong-part" else start
            self.send_header("Content-Range", f"bytes {claimed}-{len(content) - 1}/{len(content)}")
        if self.server.tags:
            self.send_header("ETag", tag)
        if mood not in ("no-length", "endless"):
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        if mood == "endless":
            self.wfile.write(body)
            while not self.server.closing.is_set():
                self.wfile.write(bytes(1 << 16))
        if mood == "drip":
            for at in range(len(body)):
                if self.server.closing.wait(0.02):
                    break
                self.wfile.write(body[at : at + 1])
            return
        self.wfile.write(body[: number if mood in ("cut", "stall") else len(body)])
        self.wfile.flush()
        if mood == "stall":
            self.server.closing.wait(20)

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def serving() -> Iterator[ShardServer]:
    """A server that runs while the block does."""
    server = ShardServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
