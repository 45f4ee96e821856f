"""Connecting to real sshds: configuration, host keys, keys to log in with, jumps, and every way it can fail."""

from __future__ import annotations

import base64
import gc
import hashlib
import hmac
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from golfctl.domain.host import HostSpec
from golfctl.errors import HostError, HostUnreachable, InputError
from golfctl.hosts import hostkeys
from golfctl.hosts.connect import Connection, connect, scan
from golfctl.hosts.sshconfig import resolve
from tests.golfctl.sshlab import Home, Net, Proxy, Sshd, net, new_key, ssh_home, sshd, throwaway_user, wait_until

pytestmark = pytest.mark.service
__all__ = ["net", "ssh_home", "sshd"]


def run(connection: Connection, command: str) -> bytes:
    """Output of a command there."""
    channel = connection.transport.open_session(timeout=30)
    channel.settimeout(30)
    channel.exec_command(command)
    said = b""
    while block := channel.recv(1 << 16):
        said += block
    channel.close()
    return said


def refused(spec: HostSpec, kind: type[HostError] = HostError, timeout_s: float = 20.0) -> str:
    """The one line connect() fails with."""
    with pytest.raises(HostError) as caught:
        connect(spec, timeout_s).close()
    assert type(caught.value) is kind, caught.value
    text = str(caught.value)
    assert text.startswith(spec.alias) and "\n" not in text
    return text


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread, no open socket: neither after success nor after failure (ResourceWarning is an error)."""
    gc.collect()
    threads, plugs = threading.active_count(), _sockets()
    yield
    gc.collect()
    wait_until(lambda: threading.active_count() <= threads, what=str(threading.enumerate()))
    assert _sockets() <= plugs


def _sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += str(entry.readlink()).startswith("socket")
    return count


# --- configuration


def test_ssh_config_is_read_as_ssh_reads_it(ssh_home: Home) -> None:
    """Patterns, negation, first value wins, Include (relative, nested, with ~), Match, % and ~ in files; spec fields win."""
    (ssh_home.ssh / "conf.d").mkdir()
    (ssh_home.ssh / "conf.d" / "a").write_text("Host pod*\n  User included\n  Include ~/.ssh/deeper\n")
    (ssh_home.ssh / "deeper").write_text("Host pod1\n  HostKeyAlias keyname\n  IdentitiesOnly yes\n")
    ssh_home.config.write_text(
        "Include conf.d/*\n"
        "Host pod* !pod9\n  HostName %h.example.net\n  Port 2201\n  User late\n  IdentityFile ~/.ssh/%h-%r\n"
        "  UserKnownHostsFile ~/.ssh/kh1 /etc/kh2\n  GlobalKnownHostsFile /etc/kh3\n  ConnectTimeout 7\n"
        "  ServerAliveInterval 40\n  IdentityAgent /run/agent-%n\n"
        'Match host pod3.example.net exec "true"\n  User matched\n  IdentityAgent none\n'
    )
    target = resolve(ssh_home.spec("pod1"))
    assert (target.hostname, target.port, target.user) == ("pod1.example.net", 2201, "included")
    assert target.identity_files == (ssh_home.ssh / "pod1.example.net-included",)
    assert (target.key_alias, target.key_name, target.identities_only) == ("keyname", "keyname", True)
    assert target.user_known_hosts == (ssh_home.ssh / "kh1", Path("/etc/kh2"))
    assert target.global_known_hosts == (Path("/etc/kh3"),)
    assert (target.connect_timeout_s, target.keepalive_s, target.agent) == (7.0, 40.0, "/run/agent-pod1")
    other = resolve(ssh_home.spec("pod9"))
    assert (other.hostname, other.port, other.user) == ("pod9", 22, "included")
    assert other.key_name == "pod9"
    assert other.user_known_hosts[0] == ssh_home.known_hosts
    won = resolve(ssh_home.spec("pod1", user="me", port=99, identity="~/.ssh/id_ed25519"))
    assert (won.user, won.port, won.identity_files, won.identities_only) == ("me", 99, (ssh_home.key,), True)
    assert resolve(ssh_home.spec("pod2")).key_name == "[pod2.example.net]:2201"


def test_ssh_config_match(ssh_home: Home) -> None:
    """Match host and exec decide as in ssh; `none` for the agent means none."""
    ssh_home.config.write_text(
        'Match host pod3 exec "true"\n  User yes\n  IdentityAgent none\nMatch exec "false"\n  User no\n'
    )
    assert (resolve(ssh_home.spec("pod3")).user, resolve(ssh_home.spec("pod3")).agent) == ("yes", "")
    assert resolve(ssh_home.spec("pod4")).user not in {"yes", "no"}


def test_ssh_config_jumps(ssh_home: Home) -> None:
    """One and two hops, nested entries, users and ports in the list, IPv6, none; circles end in an error."""
    ssh_home.config.write_text(
        "Host one\n  ProxyJump gate\nHost two\n  ProxyJump bob@gate:2200,[::1]:33\nHost nested\n  ProxyJump inner\n"
        "Host inner\n  ProxyJump gate\n  User in\nHost gate\n  HostName 10.0.0.9\n  User keeper\n"
        "Host list\n  ProxyJump gate,inner\nHost a\n  ProxyJump b\nHost b\n  ProxyJump a\nHost off\n  ProxyJump none\n"
    )

    def way(name: str, **fields: str) -> list[tuple[str, str, int]]:
        return [(hop.user, hop.hostname, hop.port) for hop in resolve(ssh_home.spec(name, **fields)).jumps]

    gate, me = ("keeper", "10.0.0.9", 22), resolve(ssh_home.spec("off")).user
    assert way("one") == [gate]
    assert way("two") == [("bob", "10.0.0.9", 2200), (me, "::1", 33)]
    assert way("nested") == [gate, ("in", "inner", 22)]
    assert way("list") == [gate, ("in", "inner", 22)], "the second hop of a list is reached through the first"
    assert way("off") == []
    assert way("one", jump="none") == []
    assert way("off", jump="inner") == [gate, ("in", "inner", 22)]
    with pytest.raises(InputError, match="circle: a -> b -> a"):
        resolve(ssh_home.spec("a"))


@pytest.mark.parametrize(
    "address", ["-oProxyCommand=touch x", "a b", "a\nb", "a;b", "$(x)", "`x`", "", "a\x1b[2J", "x" + chr(0)]
)
def test_ssh_address_is_never_an_option_nor_odd(ssh_home: Home, address: str) -> None:
    """What could be taken for an option or for more than one word is refused before ssh sees it."""
    with pytest.raises(InputError, match="pod1: address") as caught:
        resolve(HostSpec("pod1", kind="ssh", address=address))
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)
    for field in ("user", "jump"):
        with pytest.raises(InputError, match="pod1: "):
            resolve(HostSpec("pod1", kind="ssh", address="ok", **{field: address or "-x"}))  # type: ignore[arg-type]


def test_ssh_config_that_cannot_be_obeyed_is_an_error(ssh_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """ProxyCommand, revoked-keys files, nonsense, an identity that is missing, and a config without a client to read it."""
    ssh_home.config.write_text("Host pod1\n  ProxyCommand nc %h %p\nHost pod2\n  RevokedHostKeys /etc/revoked\n")
    with pytest.raises(InputError, match="pod1: proxycommand of pod1 .* is not supported; use ProxyJump"):
        resolve(ssh_home.spec("pod1"))
    with pytest.raises(InputError, match="pod2: revokedhostkeys"):
        resolve(ssh_home.spec("pod2"))
    with pytest.raises(InputError, match="pod3: identity /no/such is not there"):
        resolve(ssh_home.spec("pod3", identity="/no/such"))
    ssh_home.config.write_text("Host pod1\n  Prot 22\n")
    with pytest.raises(InputError, match="pod1: ssh refuses its configuration: .*prot"):
        resolve(ssh_home.spec("pod1"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="install openssh-client"):
        resolve(ssh_home.spec("pod1"))
    ssh_home.config.unlink()
    target = resolve(ssh_home.spec("pod1"))
    assert (target.hostname, target.port, target.user_known_hosts[0]) == ("pod1", 22, ssh_home.known_hosts)
    assert ssh_home.key in target.identity_files


def test_ssh_loads_late() -> None:
    """The command line and these modules load no paramiko."""
    code = "import sys, golfctl.cli, golfctl.hosts.connect; print('paramiko' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# --- connecting


def test_ssh_connect_runs_commands(ssh_home: Home, sshd: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
    """Log in with the key of ~/.ssh, run something, hang up; fast ciphers, large windows, nothing on stderr."""
    with connect(ssh_home.spec("pod1")) as connection:
        assert run(connection, "echo $((6 * 7))") == b"42\n"
        assert connection.alive
        assert connection.transport.remote_cipher == "aes128-gcm@openssh.com"
        assert connection.transport.default_window_size == 64 << 20
    assert not connection.alive
    connection.close()
    assert capfd.readouterr().err == ""


def test_ssh_connect_by_spec_alone(ssh_home: Home, sshd: Sshd) -> None:
    """No entry in ~/.ssh/config: address, port, user and identity of hosts.yaml do."""
    ssh_home.config.unlink()
    key = ssh_home.key.rename(ssh_home.folder / "elsewhere")
    spec = ssh_home.spec("pod1", address="127.0.0.1", port=sshd.port, user=sshd.user, identity=str(key))
    with connect(spec) as connection:
        assert run(connection, "echo hi") == b"hi\n"


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_ssh_connect_key_kinds(ssh_home: Home, sshd: Sshd, kind: str) -> None:
    """ecdsa, and rsa with SHA-2 signatures; one kind of them must do."""
    key = new_key(ssh_home.folder / "other", kind)
    sshd.authorized.write_text(key.with_name("other.pub").read_text())
    with connect(ssh_home.spec("pod1", identity=str(key))) as connection:
        assert run(connection, "echo hi") == b"hi\n"
    wait_until(lambda: "Accepted publickey" in sshd.log_text())


@contextmanager
def agent(monkeypatch: pytest.MonkeyPatch, home: Home, *keys: Path) -> Iterator[Path]:
    """A real ssh-agent holding these keys (their passphrase, if any, is `secret`)."""
    plug = home.folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(plug)], stdout=subprocess.DEVNULL)
    try:
        wait_until(plug.exists)
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
                assert run(connection, "echo hi") == b"hi\n"
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
            assert run(connection, "echo hi") == b"hi\n"
        ssh_home.config.write_text(
            f"Host pod1\n  IdentitiesOnly yes\n  IdentityFile {right}\n" + ssh_home.config.read_text()
        )
        with connect(ssh_home.spec("pod1")) as connection:
            assert run(connection, "echo hi") == b"hi\n"
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
                assert run(connection, "echo hi") == b"hi\n"
            return
        with agent(monkeypatch, ssh_home, ssh_home.key):
            ssh_home.key.unlink()
            with connect(ssh_home.spec("pod1")) as connection:
                assert run(connection, "echo hi") == b"hi\n"


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
                said = run(connection, "id -un").decode().split()
            assert said[-1] == user
            assert (said[0] == "NOISE") == (shell == "/bin/bash")


# --- host keys


def test_ssh_host_key_unknown_then_trusted(ssh_home: Home, sshd: Sshd) -> None:
    """The line holds the fingerprint ssh-keygen prints and the command; after trust() the same call connects."""
    ssh_home.config.write_text("HashKnownHosts no\n" + ssh_home.config.read_text())
    ssh_home.known_hosts.write_text("# mine\nother.example ssh-rsa AAAA\nlast line without end")
    before = ssh_home.known_hosts.read_bytes()
    text = refused(ssh_home.spec("pod1"))
    public = sshd.keys["ed25519"].with_suffix(".pub")
    said = subprocess.run(
        ["ssh-keygen", "-lf", str(public)], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    assert text == (
        f"pod1: key ED25519 {said} is unknown: compare it with your provider's page, then golfctl host trust pod1"
    )
    target = resolve(ssh_home.spec("pod1"))
    hop, key = scan(target)
    assert (hop, key.fingerprint) == (target, said)
    assert "Accepted" not in sshd.log_text(), "a scan never logs in"
    assert hostkeys.trust(hop, key) == f"{ssh_home.known_hosts}:4"
    assert ssh_home.known_hosts.read_bytes().startswith(before + b"\n[127.0.0.1]:")
    assert hostkeys.trust(hop, key) == f"{ssh_home.known_hosts}:4", "twice is as good as once"
    assert len(ssh_home.known_hosts.read_bytes().splitlines()) == 4
    connect(ssh_home.spec("pod1")).close()


def test_ssh_host_key_trust_makes_the_file(ssh_home: Home, sshd: Sshd) -> None:
    """Folder 0700, file 0600; hashed where HashKnownHosts says so, and OpenSSH's own ssh-keygen finds it."""
    ssh_home.known_hosts.unlink()
    ssh_home.config.write_text(
        f"Host pod1\n  HashKnownHosts yes\n  UserKnownHostsFile {ssh_home.folder}/new/kh\n"
        + ssh_home.config.read_text()
    )
    place = hostkeys.trust(*scan(resolve(ssh_home.spec("pod1"))))
    file = ssh_home.folder / "new" / "kh"
    assert place == f"{file}:1"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert file.read_text().startswith("|1|")
    assert (
        subprocess.run(["ssh-keygen", "-F", f"[127.0.0.1]:{sshd.port}", "-f", str(file)], check=False).returncode == 0
    )
    connect(ssh_home.spec("pod1")).close()


def test_ssh_host_key_changed(ssh_home: Home, sshd: Sshd) -> None:
    """Both fingerprints and the place of the old one; trust alone refuses, --replace changes that one line only."""
    ssh_home.config.write_text("HashKnownHosts no\n" + ssh_home.config.read_text())
    old = scan(resolve(ssh_home.spec("pod1")))[1]
    sshd.stop()
    for file in (sshd.keys["ed25519"], sshd.keys["ed25519"].with_suffix(".pub")):
        file.unlink()
    new_key(sshd.keys["ed25519"])
    sshd.start()
    shared = ssh_home.known_hosts.read_text().replace("[127", "friend.example,[127")
    ssh_home.known_hosts.write_text("# first\n" + shared + "\tlast   line  \r\n")
    text = refused(ssh_home.spec("pod1"))
    target = resolve(ssh_home.spec("pod1"))
    new = scan(target)[1]
    assert "its key CHANGED" in text and old.fingerprint in text and new.fingerprint in text
    assert f"({ssh_home.known_hosts}:2)" in text and text.endswith("golfctl host trust pod1 --replace")
    with pytest.raises(HostError, match="CHANGED"):
        hostkeys.trust(target, new)
    hostkeys.trust(target, new, replace=True)
    lines = ssh_home.known_hosts.read_bytes().split(b"\n")
    assert lines[:3] == [
        b"# first",
        shared.replace(f",[127.0.0.1]:{sshd.port}", "").strip().encode(),
        b"\tlast   line  \r",
    ]
    assert lines[3].startswith(f"[127.0.0.1]:{sshd.port} ssh-ed25519 ".encode()) and lines[4:] == [b""]
    connect(ssh_home.spec("pod1")).close()


def test_ssh_host_key_replace_refuses_patterns_and_foreign_files(ssh_home: Home, sshd: Sshd) -> None:
    """What --replace can't take out cleanly it leaves alone, and says where it is."""
    wrong = new_key(ssh_home.folder / "wrong").with_name("wrong.pub").read_text()
    ssh_home.known_hosts.write_text(f"[127.0.0.*]:* {wrong}")
    target = resolve(ssh_home.spec("pod1"))
    _, key = scan(target)
    with pytest.raises(
        HostError, match=r"known_hosts:1 under a pattern, \[127\.0\.0\.\*\]:\*; change that line by hand"
    ):
        hostkeys.trust(target, key, replace=True)
    assert ssh_home.known_hosts.read_text() == f"[127.0.0.*]:* {wrong}"
    ssh_home.known_hosts.unlink()
    foreign = ssh_home.folder / "global"
    foreign.write_text(f"[127.0.0.1]:{sshd.port} {wrong}")
    with pytest.raises(HostError, match="not yours to change"):
        hostkeys.trust(replace(target, global_known_hosts=(foreign,)), key, replace=True)


def test_ssh_host_key_revoked(ssh_home: Home, sshd: Sshd) -> None:
    """A revoked key is refused even if another line knows it, and can't be trusted."""
    line = ssh_home.known_hosts.read_text()
    ssh_home.known_hosts.write_text(f"{line}@revoked * {line.split(' ', 1)[1]}")
    text = refused(ssh_home.spec("pod1"))
    assert "is revoked at" in text and f"{ssh_home.known_hosts}:2" in text
    target = resolve(ssh_home.spec("pod1"))
    with pytest.raises(HostError, match="revoked"):
        hostkeys.trust(target, scan(target)[1], replace=True)


@pytest.mark.parametrize("form", ["hashed", "pattern", "negated", "plain", "alias", "upper"])
def test_ssh_host_key_forms(ssh_home: Home, sshd: Sshd, form: str) -> None:
    """All ways OpenSSH may have written the name."""
    name = f"[127.0.0.1]:{sshd.port}"
    salt = os.urandom(20)
    digest = base64.b64encode(hmac.new(salt, name.encode(), hashlib.sha1).digest()).decode()
    names = {
        "hashed": f"|1|{base64.b64encode(salt).decode()}|{digest}",
        "pattern": f"nothing,[127.0.?.*]:{sshd.port}",
        "negated": f"*,!{name},!127.0.0.1",
        "plain": "127.0.0.1",  # counts for other ports where nothing more exact is there
        "alias": "the-box",
        "upper": "THE-BOX",
    }
    ssh_home.known_hosts.write_text(sshd.known_hosts(names[form]))
    if form in {"alias", "upper"}:
        ssh_home.config.write_text("Host pod1\n  HostKeyAlias The-Box\n" + ssh_home.config.read_text())
    if form == "negated":
        assert "is unknown" in refused(ssh_home.spec("pod1"))
    else:
        connect(ssh_home.spec("pod1")).close()


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_ssh_host_key_of_the_known_kind_is_asked_for(ssh_home: Home, kind: str) -> None:
    """A server with three keys of which one is known shows that one; with none of its kinds known it is unknown."""
    with Sshd(host_keys=("rsa", "ecdsa", "ed25519")) as server:
        ssh_home.add("pod1", server, known=False)
        lines = server.known_hosts().splitlines()
        ssh_home.known_hosts.write_text(next(line for line in lines if kind in line) + "\n")
        connect(ssh_home.spec("pod1")).close()
    with Sshd(host_keys=("rsa",)) as server:
        ssh_home.add("pod2", server, known=False)
        wrong = new_key(ssh_home.folder / "wrong", "ed25519").with_name("wrong.pub").read_text()
        ssh_home.known_hosts.write_text(f"[127.0.0.1]:{server.port} {wrong}")
        text = refused(ssh_home.spec("pod2"))
        assert "key RSA SHA256:" in text and "is unknown (known is ED25519 " in text


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
            assert run(connection, "echo $SSH_CONNECTION").split()[3] == str(last.port).encode()
        for server in (outer, inner, last):
            wait_until(lambda server=server: not server.connection_pids())
        last.stop()
        text = refused(spec, HostUnreachable)
        assert f"jump host does not connect to 127.0.0.1:{last.port}" in text
        inner.authorized.write_text("")
        assert refused(spec).startswith("pod1: jump host inner: 127.0.0.1:")


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


TALKS: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "silent": (lambda plug: None, "silence"),
    "garbage": (_garbage(os.urandom(4096).replace(b"\n", b"x")), "not an SSH server"),
    "garbage lines": (_garbage(b"220 hello\r\n"), "no SSH handshake"),
    "null bytes": (_garbage(bytes(65536)), "not an SSH server"),
    "after banner": (lambda plug: plug.sendall(b"SSH-2.0-x\r\n"), "it said 'SSH-2.0-x', then nothing"),
    "huge packet": (lambda plug: plug.sendall(b"SSH-2.0-x\r\n\x7f\xff\xff\xfc" + bytes(64)), "packet of"),
    "old": (lambda plug: plug.sendall(b"SSH-1.5-x\r\n"), "Incompatible version"),
    "max startups": (lambda plug: (plug.sendall(b"Exceeded MaxStartups\r\n"), plug.close())[1], "no SSH handshake"),
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
            assert run(connection, "ip -o addr show line0").count(host.address.encode()) == 1
        host.cut(silent)
        begin = time.monotonic()
        refused(host.spec, HostUnreachable, timeout_s=1.5)
        assert time.monotonic() - begin < 15, "the limit was 1.5 s"
        host.restore()
    connect(host.spec, 30).close()
