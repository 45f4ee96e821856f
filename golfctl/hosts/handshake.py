"""The SSH handshake over an open line, up to the point where the machine's key is known. Imports paramiko: import it late.

Everything here obeys one deadline (a value of time.monotonic()): paramiko's own timeouts start anew with each line of a
banner and are off during the key exchange.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import paramiko
from paramiko.packet import Packetizer

from golfctl.errors import HostError, HostUnreachable
from golfctl.hosts.hostkeys import HostKey, key_kinds
from golfctl.hosts.sshconfig import Target
from golfctl.hostside.files import one_line

WINDOW_BYTES = 64 << 20
PACKET_BYTES = 1 << 17
"""Longest packet the other side may send; OpenSSH itself sends at most 32 KiB of a channel at once, others may send more."""
MOST_PACKET_BYTES = 1 << 20
MOST_BANNER_BYTES = 1 << 16
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else logging prints its errors to stderr


class _Packetizer(Packetizer):
    """Bounds what a machine may make us read before anything is proven."""

    _banner_bytes = 0

    def _read_timeout(self, timeout: float) -> bytes:
        block: bytes = super()._read_timeout(timeout)  # type: ignore[misc]
        self._banner_bytes += len(block)
        if self._banner_bytes > MOST_BANNER_BYTES:
            raise paramiko.SSHException(f": not an SSH server, no banner in its first {MOST_BANNER_BYTES} bytes")
        return block

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if not 0 <= n <= MOST_PACKET_BYTES:
            raise paramiko.SSHException(f"announced a packet of {n} bytes")
        block: bytes = super().read_all(n, check_rekey)
        return block

    def start_handshake(self, timeout: float) -> None:
        """No timer thread: the deadline below does its work, and a timer outlives a failed handshake."""


class Transport(paramiko.Transport):
    """`goodbye`: what the machine said when it hung up, "" if it just did."""

    goodbye = ""

    def _parse_disconnect(self, m: Any) -> None:
        m.get_int()
        self.goodbye = one_line(m.get_text())


def shake_hands(target: Target, line: Any, deadline: float) -> tuple[Transport, HostKey]:
    """Agree on keys over `line` (a socket or a channel). Returns the transport and the machine's key, still unchecked.

    Keys of a kind already known are asked for first. On failure the line is closed and no thread is left; raises
    HostUnreachable (silence, garbage, hung up), HostError (no algorithm in common, a wrong signature).
    """
    transport = None
    try:
        transport = Transport(
            line,
            default_window_size=WINDOW_BYTES,
            default_max_packet_size=PACKET_BYTES,
            packetizer_class=_Packetizer,
        )
        options = transport.get_security_options()
        options.ciphers, options.digests = CIPHERS, MACS
        options.key_types = _ordered(tuple(options.key_types), key_kinds(target))
        transport.banner_timeout = max(0.1, deadline - time.monotonic())
        done = threading.Event()
        transport.start_client(event=done)
        if not done.wait(max(0.0, deadline - time.monotonic())):
            said = (
                f"it said {one_line(transport.remote_version)!r}, then nothing"
                if transport.remote_version
                else "silence"
            )
            raise HostUnreachable(f"{target.label}: no SSH handshake with {place(target)} in time: {said}")
        if not transport.is_active():
            raise _failure(target, transport)
        key = transport.get_remote_server_key()
        return transport, HostKey(key.get_name(), key.asbytes())
    except BaseException:
        end(transport, line)
        raise


def end(transport: Transport | None, line: Any) -> None:
    """Close both and wait for the thread, which notices within a tenth of a second."""
    if transport is not None:
        transport.close()
    line.close()
    if transport is not None and transport.is_alive():
        transport.join(5.0)


def place(target: Target) -> str:
    """ "host:port" for messages."""
    return f"[{target.hostname}]:{target.port}" if ":" in target.hostname else f"{target.hostname}:{target.port}"


def _ordered(kinds: tuple[str, ...], wanted: list[str]) -> tuple[str, ...]:
    """Kinds already known first; "ssh-rsa" keys are asked for by the names of their signatures."""
    names = {name for kind in wanted for name in ((kind,) if kind != "ssh-rsa" else ("rsa-sha2-512", "rsa-sha2-256"))}
    return tuple(kind for kind in kinds if kind in names) + tuple(kind for kind in kinds if kind not in names)


def _failure(target: Target, transport: Transport) -> HostError:
    error = transport.get_exception()
    said = one_line(transport.goodbye or str(error or "") or "it hung up")
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return HostError(f"{target.label}: no algorithm in common with {place(target)}: {said}; update its OpenSSH")
    if "ignature" in said:
        return HostError(f"{target.label}: {place(target)} can't prove that its key is its own: {said}")
    if isinstance(error, EOFError):
        said = transport.goodbye or "it hung up"
    return HostUnreachable(f"{target.label}: no SSH handshake with {place(target)}: {said}")
