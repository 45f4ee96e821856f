"""The lab itself: its servers, networks and proxies do what they say, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from golfctl.hosts.connect import connect
from tests.golfctl.sshlab import DelayProxy, Home, Net, Proxy, Sshd, net, ssh_home, sshd, throwaway_user, wait_until

pytestmark = pytest.mark.service
__all__ = ["net", "ssh_home", "sshd"]


def ssh(home: Home, alias: str, command: str) -> subprocess.CompletedProcess[str]:
    """OpenSSH's own client."""
    options = [f"UserKnownHostsFile={home.known_hosts}", "ConnectTimeout=20", "BatchMode=yes"]
    words = [
        "ssh",
        "-F",
        str(home.config),
        "-i",
        str(home.key),
        *(word for option in options for word in ("-o", option)),
    ]
    return subprocess.run(
        [*words, alias, command], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_lab_sshd_serves_openssh(ssh_home: Home, sshd: Sshd) -> None:
    """The plain client gets in; the session has the environment the test asked for."""
    with Sshd(environment={"HOME": "/tmp", "COLOUR": "blue green"}) as other:
        ssh_home.add("pod2", other)
        done = ssh(ssh_home, "pod2", "echo $HOME $COLOUR")
        assert (done.returncode, done.stdout) == (0, "/tmp blue green\n"), done.stderr
    assert ssh(ssh_home, "pod1", "echo $GOLF_LAB").stdout == f"{sshd.tag}\n"


def test_lab_sshd_restart_keeps_sessions_and_close_ends_all(ssh_home: Home) -> None:
    """restart: the session lives on; drop: it ends, background work does not; close: nothing is left."""
    with Sshd() as server:
        spec, port = ssh_home.add("pod1", server), server.port
        connection = connect(spec, 30)
        connection.transport.open_session().exec_command("setsid sleep 301 & wait")
        wait_until(server.session_pids)
        server.restart()
        assert server.port == port
        assert connection.alive
        with connect(spec, 30):
            pass
        assert server.drop() >= 1
        wait_until(lambda: not connection.alive)
        connection.close()
        left = server.session_pids()
        assert left, "what runs there goes on"
        folder = server.folder
    assert not any(Path(f"/proc/{pid}/cwd").exists() for pid in left)
    assert not folder.exists()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port)).close()


def test_lab_sshd_kill_ends_connections(ssh_home: Home, sshd: Sshd) -> None:
    """kill: nobody answers and every connection is gone, those of earlier listeners too."""
    connection = connect(ssh_home.spec("pod1"), 30)
    sshd.restart()
    sshd.kill()
    wait_until(lambda: not connection.alive)
    connection.close()
    sshd.start()
    connect(ssh_home.spec("pod1"), 30).close()


def test_lab_throwaway_user_is_gone_afterwards() -> None:
    """With home folder and processes."""
    with throwaway_user("/bin/dash", {"note": "x"}) as name:
        home = Path(f"~{name}").expanduser()
        assert (home / "note").owner() == name
        process = subprocess.Popen(["sleep", "300"], user=name)
    assert process.wait(30) == -signal.SIGKILL
    assert not home.exists()
    assert subprocess.run(["id", name], check=False, capture_output=True).returncode != 0


def test_lab_net_hosts_are_apart_and_cut(ssh_home: Home, net: Net) -> None:
    """Each host sees its own line only; a cut one is silent while the other answers; power_off ends its processes."""
    one, two = net.host("one"), net.host("two")
    assert one.address != two.address
    assert one.address in ssh(ssh_home, "one", "ip -o addr").stdout
    assert two.address not in ssh(ssh_home, "one", "ip -o addr").stdout
    connect(one.spec, 30).transport.open_session().exec_command("setsid sleep 302 & wait")
    wait_until(lambda: len(one.server.session_pids()) >= 1)
    wait_until(lambda: one.server.session_pids() <= one.pids(), what="a session outside of its namespace")
    for silent in (False, True):
        one.cut(silent)
        with pytest.raises(OSError):
            socket.create_connection((one.address, one.port), timeout=0.5).close()
        assert ssh(ssh_home, "two", "echo hi").stdout == "hi\n"
        one.restore()
        assert ssh(ssh_home, "one", "echo hi").stdout == "hi\n"
    one.power_off()
    assert one.pids() == set() == one.server.session_pids()
    one.server.start()
    assert ssh(ssh_home, "one", "echo back").stdout == "back\n"


def test_lab_net_leaves_nothing(ssh_home: Home) -> None:
    """Namespaces, links and processes are gone, also after a failure inside."""
    with pytest.raises(RuntimeError), Net(ssh_home) as made:
        host = made.host("gone")
        pids = host.pids()
        raise RuntimeError
    said = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert host.namespace not in said
    assert host.gateway not in subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    assert pids and not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids)


@contextmanager
def echo() -> Iterator[tuple[str, int]]:
    """A TCP server that sends everything back, then the end."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(plug: socket.socket) -> None:
        with plug:
            try:
                while block := plug.recv(1 << 18):
                    plug.sendall(block)
            except OSError:
                pass

    def serve() -> None:
        threads = []
        while True:
            try:
                plug = server.accept()[0]
            except OSError:
                break
            threads.append(threading.Thread(target=answer, args=(plug,)))
            threads[-1].start()
        for thread in threads:
            thread.join(30)

    main = threading.Thread(target=serve)
    main.start()
    try:
        yield server.getsockname()
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        main.join(60)


def read_all(plug: socket.socket, count: int) -> bytes:
    """So many bytes."""
    parts = []
    while count and (block := plug.recv(min(count, 1 << 18))):
        parts.append(block)
        count -= len(block)
    return b"".join(parts)


def test_lab_delay_proxy_delays_but_does_not_throttle() -> None:
    """The first answer takes two round trips (the handshake is one), the next one; 32 MB arrive faster than in lockstep."""
    with echo() as target, DelayProxy(target, rtt_ms=100) as proxy:
        begin = time.monotonic()
        with socket.create_connection(proxy.address) as plug:
            plug.settimeout(60)
            plug.sendall(b"a")
            assert plug.recv(1) == b"a"
            first = time.monotonic()
            plug.sendall(b"b")
            assert plug.recv(1) == b"b"
            assert first - begin >= 0.199
            assert time.monotonic() - first >= 0.099
            content = os.urandom(1 << 20) * 32
            sender = threading.Thread(target=plug.sendall, args=(content,))
            begin = time.monotonic()
            sender.start()
            assert read_all(plug, len(content)) == content
            sender.join(30)
            plug.shutdown(socket.SHUT_WR)
            assert plug.recv(1) == b"", "the end travels, too"
            assert time.monotonic() - begin < 0.1 * (32 << 20) / (1 << 16), "64 KiB per round trip would be lockstep"
    assert (proxy.up_bytes, proxy.connections) == ((32 << 20) + 2, 1)


def test_lab_proxy_makes_trouble() -> None:
    """Cuts after exactly so many bytes, resets, drops in order, stalls and goes on."""
    with echo() as target, Proxy(target) as proxy:
        proxy.cut_after(5)
        with socket.create_connection(proxy.address) as plug:
            plug.settimeout(30)
            plug.sendall(b"0123456789")
            got = b""
            with pytest.raises(ConnectionResetError):
                while True:
                    got += plug.recv(10)
                    assert len(got) <= 5
            assert got == b"01234"
        proxy.cut_after(None)
        with socket.create_connection(proxy.address) as plug:
            plug.settimeout(30)
            plug.sendall(b"x")
            assert plug.recv(1) == b"x"
            proxy.stall()
            plug.sendall(b"y")
            plug.settimeout(0.3)
            with pytest.raises(TimeoutError):
                plug.recv(1)
            proxy.resume()
            plug.settimeout(30)
            assert plug.recv(1) == b"y"
            assert proxy.drop() == 1
            assert plug.recv(1) == b""
        with socket.create_connection(proxy.address) as plug:
            plug.settimeout(30)
            plug.sendall(b"x")
            assert plug.recv(1) == b"x"
            assert proxy.reset() == 1
            with pytest.raises(ConnectionResetError):
                plug.recv(1)
        with socket.create_connection(proxy.address) as plug:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: not proxy.pairs)


def test_lab_ssh_through_the_delay_proxy(ssh_home: Home, sshd: Sshd) -> None:
    """A whole connection over a 40 ms line; its key is known under the proxy's address."""
    with DelayProxy((sshd.address, sshd.port), rtt_ms=40) as proxy:
        ssh_home.know(sshd, *proxy.address)
        spec = ssh_home.entry("far", *proxy.address, sshd.user)
        begin = time.monotonic()
        with connect(spec, 60):
            took = time.monotonic() - begin
        assert took >= 0.2, "at least five round trips: TCP, banner, key exchange, service, login"
