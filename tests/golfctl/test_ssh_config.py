"""How a host is reached: ~/.ssh/config as OpenSSH reads it, completed by hosts.yaml, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from golfctl.domain.host import HostSpec
from golfctl.errors import InputError
from golfctl.hosts.sshconfig import resolve
from tests.golfctl.sshlab import Home, ssh_home

pytestmark = pytest.mark.service
__all__ = ["ssh_home"]


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
