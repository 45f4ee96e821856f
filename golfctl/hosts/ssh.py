"""A machine reached by ssh: the same folders, asked over one channel. A lost connection says nothing about the runs there."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from golfctl.domain.host import HostSpec
from golfctl.errors import HostError, HostUnreachable, InputError
from golfctl.hosts.background import Background
from golfctl.hosts.connect import Connection, connect, load
from golfctl.hosts.folder import FolderHost
from golfctl.hosts.session import COMMAND, Session, travelling
from golfctl.hostside.files import one_line

CONNECT_S = 10.0
ANSWER_S = 20.0
"""Longest silence while an answer is due; then the connection counts as lost."""
SLOW_ANSWER_S = {"start": 75.0, "put": 120.0, "tool": 900.0}
BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits between attempts to reach a host that answered before; the last one repeats."""
RECONNECT_PATIENCE_S = 3.0
"""How long a question waits for a connection that broke a moment ago; later ones are told at once that it is down."""
WINDOW_BYTES = 1 << 24
PYTHON = re.compile(r"~?[A-Za-z0-9_./+-]+\Z")


class SshHost(FolderHost):
    """Runs under ROOT of another machine."""

    def __init__(self, spec: HostSpec) -> None:
        """Touches nothing. Raises HostError if the spec has no root, InputError if it can't be a host."""
        super().__init__(spec)
        if not spec.address:
            raise InputError(
                f"host {spec.alias}: address is not set; it must name a machine or a Host of ~/.ssh/config"
            )
        if not PYTHON.match(spec.python):
            raise InputError(f"host {spec.alias}: python {spec.python!r} must be a plain path or name")
        self._link = _Link(spec)

    @property
    def silent_s(self) -> float:
        """Seconds since the host last answered, or since it was first asked."""
        return self._link.silent_s

    def approach(self, patience_s: float = 0.0) -> None:
        """Begin to connect."""
        load()  # here: in a thread it would only take turns with what the caller does next
        self._link.approach()
        travelling()
        self._link.logged_in.wait(patience_s)

    def _ask(self, operation: str, payload: bytes = b"", **arguments: Any) -> tuple[Any, Iterator[bytes]]:
        if operation == "tool":
            return self._ask_aside(operation, payload, arguments)
        try:
            return self._ask_once(operation, payload, arguments)
        except HostUnreachable:
            if not self._link.worked:
                raise
        # It answered before: most likely it only hung up meanwhile. Every operation may be repeated.
        return self._ask_once(operation, payload, arguments)

    def _ask_once(self, operation: str, payload: bytes, arguments: dict[str, Any]) -> tuple[Any, Iterator[bytes]]:
        session = self._link.session()
        session.timeout(SLOW_ANSWER_S.get(operation, ANSWER_S))
        try:
            answer, blocks = session.request(operation, payload, arguments)
        except HostUnreachable as error:
            self._link.broken(str(error))
            raise
        self._link.answered()
        return answer, self._guarded(blocks)

    def _guarded(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The blocks; a conversation whose answer was not heard to its end can't be continued."""
        whole = False
        try:
            for block in blocks:
                self._link.answered()
                yield block
            whole = True
        except HostUnreachable as error:
            self._link.broken(str(error))
            raise
        finally:
            if not whole:
                self._link.broken("an answer was not heard to its end")

    def _ask_aside(self, operation: str, payload: bytes, arguments: dict[str, Any]) -> tuple[Any, Iterator[bytes]]:
        """A longer job gets a conversation of its own, so that the first one stays free."""
        self._link.session()
        session = self._link.another()
        session.timeout(SLOW_ANSWER_S[operation])

        def blocks() -> Iterator[bytes]:
            try:
                yield from session.request(operation, payload, arguments)[1]
            finally:
                session.close()

        return None, blocks()

    def close(self) -> None:
        """Let go of the host; what runs there goes on."""
        self._link.close()


class _Link:
    """The connection, opened when needed and again when lost: the first time at once, later in the background."""

    def __init__(self, spec: HostSpec) -> None:
        self._spec = spec
        self._connection: Connection | None = None
        self._session: Session | None = None
        self._attempt: Background[tuple[Connection, Session]] | None = None
        self._failures, self._next_try, self._why = 0, 0.0, ""
        self._last_answer = time.monotonic()
        self.worked, self._closings = False, 0
        self.logged_in = threading.Event()
        """Set when the first attempt came so far, or failed."""

    @property
    def silent_s(self) -> float:
        return time.monotonic() - self._last_answer

    def answered(self) -> None:
        self.worked, self._failures, self._last_answer = True, 0, time.monotonic()

    def session(self) -> Session:
        """The conversation. Raises HostUnreachable at once while an attempt is under way or not yet due."""
        if self._session:
            return self._session
        if self._attempt is None:
            if time.monotonic() < self._next_try:
                raise HostUnreachable(self._why)
            self._attempt = Background(self._open)
        patience = 2 * CONNECT_S if not self.worked else RECONNECT_PATIENCE_S if self._failures <= 1 else 0.0
        if not self._attempt.over.wait(patience):
            self._failures += 1
            raise HostUnreachable(f"{self._spec.alias}: {self._why or 'no connection yet'}; trying again")
        attempt, self._attempt = self._attempt, None
        try:
            self._connection, self._session = attempt.result()
        except HostError as error:
            self._wait(str(error))
            raise
        self.worked = True  # it greeted; where it hangs up after a long silence, it is worth another attempt
        return self._session

    def approach(self) -> None:
        """Begin the first attempt; session() tells what came of it."""
        if self._session is None and self._attempt is None:
            self._attempt = Background(self._open)

    def another(self) -> Session:
        """A second conversation over the same connection."""
        assert self._connection
        return _greet(self._spec, self._connection)

    def broken(self, why: str) -> None:
        """The conversation can't go on."""
        if self._session:
            self._hang_up()
            self._wait(why)
            self._next_try = 0.0  # it worked until now

    def _wait(self, why: str) -> None:
        self._next_try = time.monotonic() + BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
        self._failures += 1
        self._why = why

    def _open(self) -> tuple[Connection, Session]:
        closings = self._closings
        try:
            connection = connect(self._spec, CONNECT_S)
        finally:
            self.logged_in.set()
        try:
            session = _greet(self._spec, connection)
        except BaseException:
            connection.close()
            raise
        if self._closings != closings:  # nobody waits for it any more
            _close(session, connection)
        return connection, session

    def _hang_up(self) -> None:
        session, connection = self._session, self._connection
        self._session = self._connection = None
        # Closing a dead connection may wait for its threads: not in the way of what we are asked to do.
        threading.Thread(target=_close, args=(session, connection), daemon=True).start()

    def close(self) -> None:
        self._closings += 1
        self._attempt = None
        session, connection, self._session, self._connection = self._session, self._connection, None, None
        _close(session, connection)


def _greet(spec: HostSpec, connection: Connection) -> Session:
    import paramiko

    try:
        channel = connection.transport.open_session(window_size=WINDOW_BYTES, timeout=CONNECT_S)
        late = threading.Timer(CONNECT_S, channel.close)  # paramiko itself would wait for this answer for ever
        late.daemon = True
        late.start()
        try:
            channel.exec_command(COMMAND.format(python=spec.python))
        finally:
            late.cancel()
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise HostUnreachable(f"{spec.alias}: no channel: {one_line(str(error)) or type(error).__name__}") from None
    try:
        session = Session(spec.alias, channel, spec.root, ANSWER_S)
    except HostUnreachable as error:
        code, said = _last_words(channel)
        channel.close()
        if code > 0:
            said = said or f"exit code {code}; {str(error).removeprefix(f'{spec.alias}: ')}"
            raise HostError(f"{spec.alias}: {spec.python} can't be started there: {said}") from None
        raise error from None
    except HostError:
        channel.close()
        raise
    channel.settimeout(ANSWER_S)
    return session


def _last_words(channel: Any) -> tuple[int, str]:
    """Exit code of the far shell, -1 if it lives or was cut off, and what it said on its standard error before it gave up."""
    with contextlib.suppress(OSError):
        channel.settimeout(1.0)
        if channel.status_event.wait(1.0) and channel.recv_exit_status() > 0:
            return channel.recv_exit_status(), one_line(channel.recv_stderr(4096).decode("utf-8", "replace"))
    return -1, ""


def _close(session: Session | None, connection: Connection | None) -> None:
    with contextlib.suppress(Exception):
        if session:
            session.close()
    with contextlib.suppress(Exception):
        if connection:
            connection.close()
