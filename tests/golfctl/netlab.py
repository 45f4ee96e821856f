"""Hosts in network namespaces, each at the end of a veth pair that can be cut. Needs root on Linux and iproute2."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from golfctl.domain.host import HostSpec
    from tests.golfctl.sshlab import Home, Sshd

_numbers = itertools.count()


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if check and done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done


class NetHost:
    """One namespace with an sshd in it. `spec` is its HostSpec, `server` its Sshd, `address` and `port` where it listens.

    cut() and restore() play with its line; its processes see no other network than the line to this machine.
    """

    def __init__(self, net: Net, alias: str, **sshd: Any) -> None:
        from tests.golfctl.sshlab import Sshd

        self.alias = alias
        number = next(_numbers)
        self.namespace = f"golf-{os.getpid()}-{number}"
        self._here, self._there = f"gh{os.getpid()}x{number}"[-15:], "line0"
        self._plug()
        try:
            prefix = ("ip", "netns", "exec", self.namespace)
            self.server: Sshd = Sshd(address=self.address, port=22, prefix=prefix, **sshd).start()
            self.port = self.server.port
            self.spec: HostSpec = net.home.add(alias, self.server)
        except BaseException:
            self.close()
            raise

    def _plug(self) -> None:
        made = _ip("netns", "add", self.namespace, check=False)
        if made.returncode:
            pytest.skip(f"needs the right to make network namespaces: {made.stderr.strip()}")
        try:
            pair = _ip(
                *("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self.namespace),
                check=False,
            )
            if pair.returncode:
                pytest.skip(f"needs the right to make veth pairs: {pair.stderr.strip()}")
            self.gateway, self.address = _free_subnet(self._here)
            _ip("-n", self.namespace, "addr", "add", f"{self.address}/30", "dev", self._there)
            for words in (["link", "set", self._here, "up"], ["-n", self.namespace, "link", "set", self._there, "up"]):
                _ip(*words)
            _ip("-n", self.namespace, "link", "set", "lo", "up")
        except BaseException:
            _ip("netns", "del", self.namespace, check=False)
            raise

    def cut(self, silent: bool = False) -> None:
        """Pull the plug: packets get lost on the line (the link is down at the host's end).

        silent: the link stays up and the host throws away all it wants to send, so that not even ARP tells.
        """
        if silent:
            _ip("-n", self.namespace, "route", "replace", "blackhole", f"{self.gateway}/32")
        else:
            _ip("-n", self.namespace, "link", "set", self._there, "down")

    def restore(self) -> None:
        """Mend what cut() did, whichever it was."""
        _ip("-n", self.namespace, "route", "del", "blackhole", f"{self.gateway}/32", check=False)
        _ip("-n", self.namespace, "link", "set", self._there, "up")
        _ip("neigh", "flush", "dev", self._here)  # else the failed look-up of its address is remembered for a while

    def pids(self) -> set[int]:
        """All processes on the host, sshd included."""
        return {int(word) for word in _ip("netns", "pids", self.namespace, check=False).stdout.split()}

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, as its console would."""
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command], check=False, capture_output=True, text=True
        )

    def power_off(self) -> None:
        """All processes of the host die at once; start again with `server.start()`."""
        for _ in range(100):
            left = self.pids()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.server.process and self.server.process.pid in left:
                self.server.kill()
            if not left:
                return

    def close(self) -> None:
        """End all its processes, then the namespace with its line."""
        if hasattr(self, "server"):
            self.power_off()
            self.server.close()
        _ip("netns", "del", self.namespace, check=False)
        _ip("link", "del", self._here, check=False)


class Net:
    """Hosts that share nothing but this machine at the other end of their lines. Context manager."""

    def __init__(self, home: Home) -> None:
        if os.geteuid() != 0 or not Path("/proc/self/ns/net").exists() or not shutil.which("ip"):
            pytest.skip("needs root on Linux and iproute2: makes network namespaces")
        self.home = home
        self.hosts: list[NetHost] = []

    def host(self, alias: str, **sshd: Any) -> NetHost:
        """A new host with an sshd on port 22, known as `alias` (sshd: arguments of Sshd, such as options, environment)."""
        made = NetHost(self, alias, **sshd)
        self.hosts.append(made)
        return made

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.close()


def _free_subnet(device: str) -> tuple[str, str]:
    """Give the device an address of 10.77.0.0/16 nobody here uses; returns it and the one of the other end."""
    for _ in range(100):
        base = random.SystemRandom().randrange(1 << 14) * 4
        here, there = (f"10.77.{(base + i) >> 8}.{(base + i) & 255}" for i in (1, 2))
        if not _ip("-o", "addr", "show", "to", f"{here}/30").stdout:
            _ip("addr", "add", f"{here}/30", "dev", device)
            return here, there
    raise OSError("no free subnet in 10.77.0.0/16")
