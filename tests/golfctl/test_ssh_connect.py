"""Connecting to real sshds: keys to log in with, jumps, and every way it can fail."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from golfctl.errors import HostError, HostUnreachable
from golfctl.hosts import hostkeys
from golfctl.hosts.connect import connect, scan
from golfctl.hosts.sshconfig import resolve
from tests.golfctl.sshlab import (
    Home,
    Net,
    Proxy,
    Sshd,
    net,
    new_key,
    nothing_left,
    refused,
    remote,
    ssh_home,
    sshd,
    throwaway_user,
    wait_until,
)

pytestmark = pytest.mark.service
__all__ = ["net", "nothing_left", "ssh_home", "sshd"]


def test_ssh_connect_runs_commands(ssh_home: Home, sshd: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
    """Log in with the key of ~/.ssh, run something, hang up; fast ciphers, large windows, nothing on stderr."""
    with connect(ssh_home.spec("pod1")) as connection:
        assert remote(connection, "echo $((6 * 7))") == b"42\n"
        assert connection.alive
        assert vars(connection.transport)["remote_cipher"] == "aes128-gcm@openssh.com"
        assert connection.transport.default_window_size == 64 << 20
    connection.close()
    assert not connection.transport.is_active()
    assert capfd.readouterr().err == ""


def test_ssh_connect_by_spec_alone(ssh_home: Home, sshd: Sshd) -> None:
    """No entry in ~/.ssh/config: address, port, user and identity of hosts.yaml do."""
    ssh_home.config.unlink()
    key = ssh_home.key.rename(ssh_home.folder / "elsewhere")
    spec = ssh_home.spec("pod1", address="127.0.0.1", port=sshd.port, user=sshd.user, identity=str(key))
    with connect(spec) as connection:
        assert remote(connection, "echo hi") == b"hi\n"


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_ssh_connect_key_kinds(ssh_home: Home, sshd: Sshd, kind: str) -> None:
    """ecdsa, and rsa with SHA-2 signatures; one kind of them must do."""
    key = new_key(ssh_home.folder / "other", kind)
    sshd.authorized.write_text(key.with_name("other.pub").read_text())
    with connect(ssh_home.spec("pod1", identity=str(key))) as connection:
        assert remote(connection, "echo hi") == b"hi\n"
    wait_until(lambda: "Accepted publickey" in sshd.log_text())


def _listens(plug: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(str(plug)) == 0


@contextmanager
def agent(monkeypatch: pytest.MonkeyPatch, home: Home, *keys: Path) -> Iterator[Path]:
    """A real ssh-agent holding these keys (their passphrase, if any, is `secret`)."""
    plug = home.folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(plug)], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(plug))  # the file is there a moment before anybody listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(plug))
        ask = home.folder / "ask"
        ask.write_text("#!/bin/sh\necho secret\n")
        ask.chmod(0o700)
        for key in keys:
            environment = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
            subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True, stdin=subprocess.DEVNULL)
        yield plug
    finally:
        process.terminate()
        process.wait(30)


def test_ssh_connect_encrypted_key_needs_the_agent(ssh_home: Home, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an agent the line says what to do; with the key in it, it works, FILE.pub present or not."""
    ssh_home.key.unlink()
    ssh_home.public.unlink()
    key = new_key(ssh_home.ssh / "id_ed25519", passphrase="secret")
    sshd.authorize(ssh_home.public)
    assert f"{key} is encrypted and not in the agent: ssh-add {key}" in refused(ssh_home.spec("pod1"))
    with agent(monkeypatch, ssh_home, key):
        for _ in range(2):
            with connect(ssh_home.spec("pod1", identity=str(key))) as connection:
                assert remote(connection, "echo hi") == b"hi\n"
            ssh_home.public.unlink(missing_ok=True)


def test_ssh_connect_identities_only_filters_the_agent(
    ssh_home: Home, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many keys in the agent lock one out; naming the one key (its public half is enough) lets one in."""
    many = [new_key(ssh_home.folder / f"wrong{number}") for number in range(7)]
    right = new_key(ssh_home.folder / "right")
    sshd.authorized.write_text(right.with_name("right.pub").read_text())
    with agent(monkeypatch, ssh_home, *many, right):
        text = refused(ssh_home.spec("pod1"))
        assert "Too many authentication failures" in text and "set identity" in text
        right.unlink()
        with connect(ssh_home.spec("pod1", identity=str(right.with_name("right.pub")))) as connection:
            assert remote(connection, "echo hi") == b"hi\n"
        ssh_home.config.write_text(
            f"Host pod1\n  IdentitiesOnly yes\n  IdentityFile {right}\n" + ssh_home.config.read_text()
        )
        with connect(ssh_home.spec("pod1")) as connection:
            assert remote(connection, "echo hi") == b"hi\n"
        ssh_home.config.write_text("Host pod1\n  IdentityAgent none\n" + ssh_home.config.read_text())
        assert "no key to log in with (agent: none" in refused(ssh_home.spec("pod1"))


@pytest.mark.parametrize("in_agent", [False, True])
def test_ssh_connect_with_a_certificate(ssh_home: Home, monkeypatch: pytest.MonkeyPatch, in_agent: bool) -> None:
    """FILE-cert.pub is offered, from the file and from the agent; the server knows only the authority."""
    authority = new_key(ssh_home.folder / "authority")
    with Sshd(options=[f"TrustedUserCAKeys {authority}.pub"]) as server:
        ssh_home.add("pod1", server, authorize=False)
        refused(ssh_home.spec("pod1"))
        sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", server.user, str(ssh_home.public)]
        subprocess.run(sign, check=True)
        if not in_agent:
            with connect(ssh_home.spec("pod1")) as connection:
                assert remote(connection, "echo hi") == b"hi\n"
            return
        with agent(monkeypatch, ssh_home, ssh_home.key):
            ssh_home.key.unlink()
            with connect(ssh_home.spec("pod1")) as connection:
                assert remote(connection, "echo hi") == b"hi\n"


def test_ssh_connect_refused_login_names_the_keys(
    ssh_home: Home, sshd: Sshd, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wrong key, damaged key, no key at all: one line each that names them; stderr stays empty."""
    sshd.authorized.write_text("")
    text = refused(ssh_home.spec("pod1"))
    assert f"refuses {sshd.user}; keys tried: {ssh_home.key} ED25519 SHA256:" in text and "authorized_keys" in text
    ssh_home.key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    assert "can't be used as a key" in refused(ssh_home.spec("pod1"))
    ssh_home.key.unlink()
    ssh_home.public.unlink()
    text = refused(ssh_home.spec("pod1"))
    assert "no key to log in with" in text and str(ssh_home.key) in text and "ssh-keygen" in text
    assert capfd.readouterr().err == ""


def test_ssh_connect_never_gives_a_password(ssh_home: Home) -> None:
    """A server that takes passwords only is told nothing; the line says why."""
    with Sshd(options=["PubkeyAuthentication no", "PasswordAuthentication yes"]) as server:
        ssh_home.add("pod1", server)
        assert "takes no keys" in refused(ssh_home.spec("pod1"))
        assert "password for" not in server.log_text()
    with Sshd(options=["AuthenticationMethods publickey,password", "PasswordAuthentication yes"]) as server:
        ssh_home.add("pod2", server)
        assert "wants more than a key" in refused(ssh_home.spec("pod2"))


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/csh", "/bin/bash"])
def test_ssh_connect_login_shells(ssh_home: Home, shell: str) -> None:
    """Users with another shell, a banner before the login and a noisy .bashrc: the connection is the same."""
    with throwaway_user(shell, {".bashrc": "echo NOISE\n"}) as user:
        banner = Path("/etc/os-release")
        with Sshd(user=user, options=[f"Banner {banner}"]) as server:
            ssh_home.add("pod1", server)
            with connect(ssh_home.spec("pod1")) as connection:
                said = remote(connection, "id -un").decode().split()
            assert said[-1] == user
            assert (said[0] == "NOISE") == (shell == "/bin/bash")


# --- jumps


def test_ssh_connect_through_two_hops(ssh_home: Home) -> None:
    """Every hop's key is checked and trusted one after the other; all of them hang up at close."""
    with Sshd() as outer, Sshd() as inner, Sshd() as last:
        ssh_home.add("outer", outer, known=False)
        ssh_home.add("inner", inner, known=False, ProxyJump="outer")
        ssh_home.add("pod1", last, known=False, ProxyJump="inner")
        spec = ssh_home.spec("pod1")
        for hop, server in (("jump host outer: ", outer), ("jump host inner: ", inner), ("", last)):
            assert refused(spec).startswith(f"pod1: {hop}key ED25519 ")
            found, key = scan(resolve(spec))
            assert found.port == server.port
            hostkeys.trust(found, key)
        with connect(spec) as connection:
            assert remote(connection, "echo $SSH_CONNECTION").split()[3] == str(last.port).encode()
        for server in (outer, inner, last):
            wait_until(partial(_idle, server))
        last.stop()
        text = refused(spec, HostUnreachable)
        assert f"jump host does not connect to 127.0.0.1:{last.port}" in text
        inner.authorized.write_text("")
        assert refused(spec).startswith("pod1: jump host inner: 127.0.0.1:")


def _idle(server: Sshd) -> bool:
    return not server.connection_pids()


def test_ssh_connect_jump_that_forbids_forwarding(ssh_home: Home, sshd: Sshd) -> None:
    """That is for a person to mend."""
    with Sshd(options=["AllowTcpForwarding no"]) as gate:
        ssh_home.add("gate", gate)
        assert "its jump host does not connect" in refused(ssh_home.spec("pod1", jump="gate"))


# --- trouble


@contextmanager
def listener(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that is no sshd: each connection is given to `talk`, then held open until the end."""
    server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                held.append(server.accept()[0])
                talk(held[-1])
            except OSError:
                if server.fileno() < 0:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for plug in held:
            plug.close()
        thread.join(30)


def _garbage(block: bytes) -> Callable[[socket.socket], None]:
    def talk(plug: socket.socket) -> None:
        while True:
            plug.sendall(block)

    return talk


def _too_many(plug: socket.socket) -> None:
    plug.sendall(b"Exceeded MaxStartups\r\n")
    plug.close()


TALKS: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "silent": (lambda plug: None, "silence"),
    "garbage": (_garbage(os.urandom(4096).replace(b"\n", b"x")), "not an SSH server"),
    "garbage lines": (_garbage(b"220 hello\r\n"), "no SSH handshake"),
    "null bytes": (_garbage(bytes(65536)), "not an SSH server"),
    "after banner": (lambda plug: plug.sendall(b"SSH-2.0-x\r\n"), "it said 'SSH-2.0-x', then nothing"),
    "huge packet": (lambda plug: plug.sendall(b"SSH-2.0-x\r\n\x7f\xff\xff\xfc" + bytes(64)), "packet of"),
    "old": (lambda plug: plug.sendall(b"SSH-1.5-x\r\n"), "Incompatible version"),
    "max startups": (_too_many, "no SSH handshake"),
}


@pytest.mark.parametrize("name", TALKS)
def test_ssh_connect_to_what_is_no_ssh_server(ssh_home: Home, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Silence and endless garbage end within the time given, with one line; nothing reaches stderr."""
    talk, expected = TALKS[name]
    with listener(talk) as port:
        begin = time.monotonic()
        spec = ssh_home.spec("pod1", address="127.0.0.1", port=port)
        text = refused(spec, HostError if name == "old" else HostUnreachable, timeout_s=1.5)
        assert expected in text and len(text) < 400
        assert time.monotonic() - begin < 12, "the limit was 1.5 s"
        if name in {"silent", "after banner"}:
            assert time.monotonic() - begin >= 1.4
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("part", [0.01, 0.3, 0.5, 0.75])
@pytest.mark.parametrize("how", ["stall", "reset"])
def test_ssh_connect_trouble_in_the_middle(ssh_home: Home, sshd: Sshd, part: float, how: str) -> None:
    """A line that stops or breaks within banner, key exchange or login is unreachable, in time."""
    with Proxy((sshd.address, sshd.port)) as proxy:
        ssh_home.know(sshd, *proxy.address)
        spec = ssh_home.entry("pod2", *proxy.address, sshd.user)
        with connect(spec, 60):
            whole = proxy.down_bytes
        wait_until(lambda: not proxy.pairs)
        proxy.down_bytes = 0
        after = int(part * whole)
        (proxy.stall_after if how == "stall" else proxy.cut_after)(after)
        begin = time.monotonic()
        refused(spec, HostUnreachable, timeout_s=2.0)
        assert time.monotonic() - begin < 15, "the limit was 2 s"
        assert proxy.down_bytes <= after


def test_ssh_connect_nobody_there(ssh_home: Home, sshd: Sshd) -> None:
    """Refused, unknown name, no route: time may heal each of them, and the line tells which."""
    sshd.stop()
    assert f"127.0.0.1:{sshd.port}: Connection refused" in refused(ssh_home.spec("pod1"), HostUnreachable)
    text = refused(ssh_home.spec("pod2", address="no-such-host.invalid"), HostUnreachable, timeout_s=30)
    assert "no-such-host.invalid" in text
    sshd.start()
    connect(ssh_home.spec("pod1")).close()


def test_ssh_connect_too_many_at_once(ssh_home: Home) -> None:
    """MaxStartups: told as unreachable, so that it is tried again; nobody is locked out."""
    with Sshd(options=["MaxStartups 1"]) as server:
        ssh_home.add("pod1", server)
        with socket.create_connection((server.address, server.port)):
            wait_until(lambda: bool(server.connection_pids()))
            assert "no SSH handshake" in refused(ssh_home.spec("pod1"), HostUnreachable)
        wait_until(lambda: not server.connection_pids())
        connect(ssh_home.spec("pod1")).close()


def test_ssh_connection_over_a_cut_line(ssh_home: Home, net: Net) -> None:
    """In a namespace: works, is unreachable while the line is cut either way, works again."""
    host = net.host("pod1")
    for silent in (False, True):
        with connect(host.spec, 30) as connection:
            assert remote(connection, "ip -o addr show line0").count(host.address.encode()) == 1
        host.cut(silent)
        begin = time.monotonic()
        refused(host.spec, HostUnreachable, timeout_s=1.5)
        assert time.monotonic() - begin < 15, "the limit was 1.5 s"
        host.restore()
    connect(host.spec, 30).close()
