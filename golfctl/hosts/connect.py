"""An authenticated connection to a host, through its jump hosts: every key on the way checked, every wait bounded."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from golfctl.domain.host import HostSpec
from golfctl.errors import HostError, HostUnreachable
from golfctl.hosts.hostkeys import HostKey, check
from golfctl.hosts.sshconfig import Target, resolve
from golfctl.hostside.files import one_line

if TYPE_CHECKING:
    from golfctl.hosts.handshake import Transport

FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
DEAD_LINE_S = 45.0
"""Sent bytes, keep-alives among them, that stay unacknowledged for so long end the connection."""
CONNECT_FAILED = 2
"""Reason code of RFC 4254 section 5.1; the other codes mean that the jump host does not want to."""


class Connection:
    """`transport`: paramiko's, authenticated. `target`: what it leads to. Context manager."""

    def __init__(self, target: Target, hops: list[tuple[Transport, Any]]) -> None:
        self.target = target
        self._hops = hops
        self.transport = hops[-1][0]

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """False once the connection is known to be lost."""
        return bool(self.transport.is_active())

    def close(self) -> None:
        """Hang up, jump hosts too. Never raises; may be called twice."""
        _close(self._hops)


def load() -> None:
    """Import what connecting needs, paramiko above all; takes a quarter of a second, the first time."""
    known: object = sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
    try:
        # paramiko's parser of ssh_config, which nobody here asks, does without `invoke` where it is missing: a quarter less.
        import golfctl.hosts.handshake
        import golfctl.hosts.identities  # noqa: F401
    finally:
        if known is None:
            sys.modules.pop("invoke", None)


def connect(spec: HostSpec, timeout_s: float = 10.0) -> Connection:
    """Connect and log in within `timeout_s`, all hops together (~/.ssh/config's ConnectTimeout may shorten each hop).

    Raises InputError (see sshconfig.resolve), HostError for what a person must mend (host key unknown or changed, login
    refused), HostUnreachable for what time may heal (no route, refused, silence, too many connections).
    """
    target = resolve(spec)
    load()
    deadline = time.monotonic() + timeout_s
    hops: list[tuple[Transport, Any]] = []
    try:
        for hop in (*target.jumps, target):
            transport, key = _reach(hop, hops, deadline)
            check(hop, key)
            _log_in(transport, hop, deadline)
    except BaseException:
        _close(hops)
        raise
    return Connection(target, hops)


def scan(target: Target, timeout_s: float = 10.0) -> tuple[Target, HostKey]:
    """The key of the first machine on the way whose key is not known, else that of the target itself, and which it is.

    Nothing is sent to that machine but the key exchange; hops before it are known and logged in to. Raises as connect.
    """
    load()
    deadline = time.monotonic() + timeout_s
    hops: list[tuple[Transport, Any]] = []
    try:
        for hop in target.jumps:
            transport, key = _reach(hop, hops, deadline)
            try:
                check(hop, key)
            except HostError:
                return hop, key
            _log_in(transport, hop, deadline)
        return target, _reach(target, hops, deadline)[1]
    finally:
        _close(hops)


def _reach(target: Target, hops: list[tuple[Transport, Any]], deadline: float) -> tuple[Transport, HostKey]:
    """One more hop, as far as its key; it is added to `hops`."""
    from golfctl.hosts.handshake import shake_hands

    if target.connect_timeout_s:
        deadline = min(deadline, time.monotonic() + target.connect_timeout_s)
    line = _tunnel(target, hops[-1][0], deadline) if hops else _dial(target, deadline)
    transport, key = shake_hands(target, line, deadline)
    hops.append((transport, line))
    return transport, key


def _log_in(transport: Transport, target: Target, deadline: float) -> None:
    from golfctl.hosts.identities import log_in

    log_in(transport, target, deadline)
    transport.set_keepalive(target.keepalive_s)


def _close(hops: list[tuple[Transport, Any]]) -> None:
    for transport, line in reversed(hops):
        from golfctl.hosts.handshake import end

        with contextlib.suppress(OSError, EOFError):
            end(transport, line)


def _dial(target: Target, deadline: float) -> socket.socket:
    """A TCP connection to the first address that takes one. Raises HostUnreachable."""
    addresses = _look_up(target, deadline)
    why = "no address"
    for number, (family, address) in enumerate(addresses):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        plug = socket.socket(family, socket.SOCK_STREAM)
        try:
            plug.settimeout(left / (len(addresses) - number))
            plug.connect(address)
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(DEAD_LINE_S * 1000))
        except OSError as error:
            plug.close()
            why = (
                f"no answer to the connection in {left:.0f} s"
                if isinstance(error, TimeoutError)
                else str(error.strerror)
            )
        except BaseException:
            plug.close()
            raise
        else:
            return plug
    from golfctl.hosts.handshake import place

    raise HostUnreachable(f"{target.label}: {place(target)}: {why}")


def _look_up(target: Target, deadline: float) -> list[tuple[int, Any]]:
    """Addresses of a name. The system's resolver can't be interrupted, so it gets a thread that ends by itself."""
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(
                socket.getaddrinfo(target.hostname, target.port, FAMILIES.get(target.family, 0), socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError) as error:
            found.append(error)

    try:
        ipaddress.ip_address(target.hostname.partition("%")[0])
        ask()
    except ValueError:
        thread = threading.Thread(target=ask, name=f"look up {target.hostname}", daemon=True)
        thread.start()
        thread.join(max(0.0, deadline - time.monotonic()))
    if not found:
        raise HostUnreachable(f"{target.label}: no answer from the name service about {target.hostname} in time")
    if isinstance(found[0], Exception):
        why = getattr(found[0], "strerror", None) or str(found[0])
        raise HostUnreachable(f"{target.label}: {target.hostname}: {why}; is the address right?")
    return [(row[0], row[4]) for row in found[0]]


def _tunnel(target: Target, through: Transport, deadline: float) -> Any:
    """A direct-tcpip channel of the hop before."""
    import paramiko

    from golfctl.hosts.handshake import place

    try:
        return through.open_channel(
            "direct-tcpip",
            (target.hostname, target.port),
            ("127.0.0.1", 0),
            timeout=max(0.1, deadline - time.monotonic()),
        )
    except paramiko.ChannelException as error:
        text = f"{target.label}: its jump host does not connect to {place(target)}: {one_line(error.text)}"
        raise (HostUnreachable if error.code == CONNECT_FAILED else HostError)(text) from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise HostUnreachable(
            f"{target.label}: no connection to {place(target)} through its jump host ({one_line(str(error))})"
        ) from None
