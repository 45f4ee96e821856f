"""A TCP proxy that adds distance or trouble between a client and a real server."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
PAUSE_BYTES = 64 << 20
"""So much may be on its way in one direction before the sender is held back: more than any window times 40 ms needs."""


class Proxy:
    """Listens on 127.0.0.1:`port` and passes connections on to `target`, each byte rtt_ms/2 later. Context manager.

    Bytes travel side by side as on a long line: the delay limits no throughput. The first bytes of a connection also
    wait for the handshake that the line would have needed. Counters: `up_bytes`, `down_bytes`, `connections`.
    """

    def __init__(self, target: tuple[str, int], rtt_ms: float = 0.0) -> None:
        self.target, self.delay_s = target, rtt_ms / 2000
        self.up_bytes = self.down_bytes = self.connections = 0
        self.limits: dict[str, int | None] = {"up": None, "down": None}
        self.stall_there = False
        self.stalled = False
        self.pairs: set[_Pair] = set()
        self.open: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.address = ("127.0.0.1", self.port)

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(lambda: _Pair(self, self._loop).near, "127.0.0.1", 0)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def drop(self) -> int:
        """Close all connections in order (FIN) at once. Returns how many there were."""
        return self._call(lambda: self._end(abort=False))

    def reset(self) -> int:
        """End all connections with RST."""
        return self._call(lambda: self._end(abort=True))

    def stall(self) -> None:
        """Keep all connections open, new ones too, and pass nothing on."""
        self._call(lambda: setattr(self, "stalled", True))

    def resume(self) -> None:
        """Pass on what waited, and what comes."""

        def go() -> None:
            self.stalled = False
            for pair in self.pairs:
                pair.near.flush()
                pair.far.flush()

        self._call(go)

    def cut_after(self, bytes_: int | None, direction: str = "down") -> None:
        """End every connection with RST once so many bytes of it went that way ("up": to the server); None: never."""
        self._limit(bytes_, direction, stall=False)

    def stall_after(self, bytes_: int | None, direction: str = "down") -> None:
        """Hold every connection still, both ways and for good, once so many bytes of it went that way; None: never."""
        self._limit(bytes_, direction, stall=True)

    def _limit(self, bytes_: int | None, direction: str, stall: bool) -> None:
        def put() -> None:
            self.limits[direction], self.stall_there = bytes_, stall

        self._call(put)

    def close(self) -> None:
        """Stop listening, end all connections, end the thread."""
        if self._loop.is_closed():
            return

        async def stop() -> None:
            # The loop loses a socket it accepted if the server is closed before its own task has handed that over.
            while len(asyncio.all_tasks()) > 1:
                self._end(abort=True)
                await asyncio.sleep(0.001)
            self._server.close()
            while self.open:
                self._end(abort=True)
                for transport in list(self.open):
                    transport.abort()
                await asyncio.sleep(0.001)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def _end(self, abort: bool) -> int:
        pairs = list(self.pairs)
        for pair in pairs:
            pair.end(abort)
        return len(pairs)

    def _call(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(30)


class DelayProxy(Proxy):
    """A line of so many milliseconds there and back, handshake included."""

    def __init__(self, target: tuple[str, int], rtt_ms: float) -> None:
        super().__init__(target, rtt_ms)


class _Pair:
    """One connection through the proxy: `near` is the client's side, `far` the server's."""

    def __init__(self, proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        self.proxy, self.loop = proxy, loop
        self.opened = loop.time()
        self.frozen = False
        self.near = _Side(self, "up", 3 * proxy.delay_s)
        self.far = _Side(self, "down", 4 * proxy.delay_s)
        self.near.peer, self.far.peer = self.far, self.near
        self.connecting: asyncio.Task[Any] | None = None

    def start(self) -> None:
        self.proxy.pairs.add(self)
        self.proxy.connections += 1
        self.connecting = self.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self.loop.create_connection(lambda: self.far, *self.proxy.target)
        except OSError:
            self.end(abort=True)

    def cut(self) -> None:
        """What was passed on arrives, then both sides get RST."""
        self.near.over = self.far.over = True
        self.loop.call_later(0.05, self.end, True)

    def end(self, abort: bool) -> None:
        self.proxy.pairs.discard(self)
        if self.connecting and not self.connecting.done() and self.far.transport is None:
            self.connecting.cancel()
        for side in (self.near, self.far):
            side.over = True
            if side.transport is None:
                continue
            if abort:
                plug = side.transport.get_extra_info("socket")
                if plug is not None and plug.fileno() >= 0:
                    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.transport.abort()
            else:
                side.transport.close()


class _Side(asyncio.Protocol):
    """Reads from one end and hands the bytes, in order and delayed, to the other. An empty block is the end of data."""

    peer: _Side

    def __init__(self, pair: _Pair, direction: str, first_s: float) -> None:
        self.pair, self.direction = pair, direction
        self.ready = pair.opened + first_s
        self.transport: asyncio.Transport | None = None
        self.queue: deque[tuple[float, bytes]] = deque()
        self.waiting = self.passed = 0
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(PAUSE_BYTES)
        self.transport = transport
        self.pair.proxy.open.add(transport)
        if self.over:
            transport.abort()
        elif self.direction == "up":
            self.pair.start()
        else:
            self.peer.flush()

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def eof_received(self) -> bool:
        self._take(b"")
        return True  # the other direction goes on

    def connection_lost(self, error: Exception | None) -> None:
        assert self.transport
        self.pair.proxy.open.discard(self.transport)
        if error is not None and not self.over:
            self.pair.end(abort=True)

    def pause_writing(self) -> None:
        if self.peer.transport:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer.transport:
            self.peer.transport.resume_reading()

    def _take(self, data: bytes) -> None:
        due = max(self.pair.loop.time() + self.pair.proxy.delay_s, self.ready)
        self.queue.append((due, data))
        self.waiting += len(data)
        if self.waiting > PAUSE_BYTES and self.transport:
            self.transport.pause_reading()
        if due <= self.pair.loop.time():
            self.flush()
        else:
            self.pair.loop.call_at(due, self.flush)

    def flush(self) -> None:
        """Hand on what is due."""
        proxy, now = self.pair.proxy, self.pair.loop.time()
        while self.queue and not (self.over or proxy.stalled or self.pair.frozen or self.peer.transport is None):
            if self.queue[0][0] > now:
                self.pair.loop.call_at(self.queue[0][0], self.flush)
                return
            data = self.queue.popleft()[1]
            self.waiting -= len(data)
            limit = proxy.limits[self.direction]
            if limit is not None and self.passed + len(data) > limit:
                if limit > self.passed:
                    self._pass(data[: limit - self.passed])
                self.pair.frozen = proxy.stall_there
                if not proxy.stall_there:
                    self.pair.cut()
                return
            self._pass(data)
        if self.waiting <= PAUSE_BYTES // 2 and self.transport and not self.over and not self.transport.is_closing():
            self.transport.resume_reading()

    def _pass(self, data: bytes) -> None:
        assert self.peer.transport
        self.passed += len(data)
        if self.direction == "up":
            self.pair.proxy.up_bytes += len(data)
        else:
            self.pair.proxy.down_bytes += len(data)
        if data:
            self.peer.transport.write(data)
        elif self.peer.transport.can_write_eof() and not self.peer.transport.is_closing():
            try:
                self.peer.transport.write_eof()
            except OSError:  # that end broke a moment ago
                self.pair.end(abort=True)
                return
            self.over = True
            if self.peer.over:
                self.pair.end(abort=False)
