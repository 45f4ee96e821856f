"""Host keys against real sshds: unknown, changed, revoked, every way to write a line, and what trust() writes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
from dataclasses import replace

import pytest

from golfctl.errors import HostError
from golfctl.hosts import hostkeys
from golfctl.hosts.connect import connect, scan
from golfctl.hosts.sshconfig import resolve
from tests.golfctl.sshlab import Home, Sshd, new_key, nothing_left, refused, ssh_home, sshd

pytestmark = pytest.mark.service
__all__ = ["nothing_left", "ssh_home", "sshd"]


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
