"""Real OpenSSH servers for tests, with a HOME of their own that finds them.

    home = ssh_home fixture; home.add("pod1", server) writes ~/.ssh/config and known_hosts; home.spec("pod1") is the host.

Fixtures (import them by name): `ssh_home`, `sshd` (a running server known as "pod1"), `net` (namespaced hosts).
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from golfctl.domain.host import HostSpec
from golfctl.errors import HostError
from golfctl.hosts.connect import Connection, connect
from golfctl.hostside.processes import process_table
from tests.golfctl.proxies import DelayProxy, Proxy

__all__ = [
    "DelayProxy",
    "Home",
    "Net",
    "NetHost",
    "Proxy",
    "Sshd",
    "net",
    "new_key",
    "nothing_left",
    "refused",
    "remote",
    "ssh_home",
    "sshd",
    "throwaway_user",
    "wait_until",
]
BINARY = shutil.which("sshd") or "/usr/sbin/sshd"
_numbers = itertools.count()


def wait_until(condition: Callable[[], object], seconds: float = 30.0, what: str = "") -> None:
    """Poll until the condition holds; fail the test after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain {what}"
        time.sleep(0.02)


def new_key(path: Path, kind: str = "ed25519", passphrase: str = "", bits: int | None = None) -> Path:
    """Make a key pair: `path` and `path`.pub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = ["-b", str(bits)] if bits else []
    command = ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


class Sshd:
    """One sshd of its own: keys, configuration and log in a folder under /tmp that vanishes at close().

    address, port: where it listens. host_keys: kinds of host keys. options: further lines of sshd_config, such as
    "Banner /file" or "ForceCommand ...". environment: variables every session gets (HOME works). prefix: words before
    the command line, such as ip netns exec NAME. user: who may log in; another than ours needs root.
    Sessions inherit TAG, so that close() finds whatever they started, detached or not.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int | None = None,
        host_keys: Sequence[str] = ("ed25519",),
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        user: str = "",
    ) -> None:
        if not Path(BINARY).exists():
            pytest.skip("needs an OpenSSH server: apt-get install openssh-server")
        self.address, self.prefix = address, list(prefix)
        self.port = port or 0
        self.user = user or pwd.getpwuid(os.getuid()).pw_name
        self.tag = f"golf-lab-{os.getpid()}-{next(_numbers)}"
        self.folder = Path(tempfile.mkdtemp(prefix="golf-sshd-"))
        self.folder.chmod(0o755)  # sshd reads authorized_keys as the user who logs in
        # Sessions of our own account do not read its login scripts: what those do here is no part of any test.
        own = {} if user else {"HOME": str(self.folder), "PATH": f"{sys.base_prefix}/bin:{os.environ['PATH']}"}
        self.options, self.environment = list(options), {**own, **(environment or {})}
        self.keys = {kind: new_key(self.folder / f"host_{kind}", kind) for kind in host_keys}
        self.authorized = self.folder / "authorized_keys"
        self.authorized.touch(0o644)
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._orphans: set[tuple[int, str]] = set()

    def __enter__(self) -> Sshd:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def authorize(self, public: Path, before: str = "") -> None:
        """Let the key of this .pub file in; `before` holds authorized_keys options."""
        with self.authorized.open("a") as file:
            file.write(f"{before} {public.read_text().strip()}".strip() + "\n")

    def start(self) -> Sshd:
        """Listen. A free port is chosen at the first start and kept."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for _ in range(20):
            first = self.port == 0
            self.port = self.port or _free_port(self.address)
            said = self._try_start()
            if not said:
                return self
            if not first or "Address already in use" not in said:
                break
            self.port = 0
        self.close()
        raise AssertionError(f"sshd does not start: {said}")

    def log_text(self) -> str:
        """What the server has said since it started."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _try_start(self) -> str:
        """Start it; "" or what it said instead of listening."""
        config = self.folder / "sshd_config"
        environment = {"GOLF_LAB": self.tag, **self.environment}
        lines = [
            f"ListenAddress {self.address}:{self.port}",
            *(f"HostKey {path}" for path in self.keys.values()),
            f"AuthorizedKeysFile {self.authorized}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "AcceptEnv GOLF_*",
            "SetEnv " + " ".join(f'"{name}={value}"' for name, value in environment.items()),
            "LogLevel VERBOSE",
        ]
        defaults = {line.split()[0].lower() for line in self.options}
        lines = self.options + [line for line in lines if line.split()[0].lower() not in defaults]
        config.write_text("\n".join(lines) + "\n")
        command = [*self.prefix, BINARY, "-D", "-f", str(config), "-E", str(self.log)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            if "Server listening on" in self.log_text():
                return ""
            time.sleep(0.01)
        said = self.log_text() or "nothing"
        self._end_listener()
        return said

    def _end_listener(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self._orphans |= {one for one in self._descendants() if one[0] != self.process.pid}
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        self.process.wait(30)
        self.process = None
        with contextlib.suppress(OSError):
            self.log.rename(self.log.with_name(f"log.{next(_numbers)}"))

    def stop(self) -> None:
        """End the listener as `systemctl stop` does: nobody can connect, sessions go on."""
        self._end_listener()

    def restart(self) -> None:
        """The listener ends and starts again; sessions go on."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """The listener and all connections die at once (SIGKILL); what sessions started in the background goes on."""
        connections = self._connections()
        self._end_listener(signal.SIGKILL)
        for pid, _ in connections:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def drop(self) -> int:
        """Kill all connections, not the listener. Returns how many processes that were."""
        connections = self._connections()
        for pid, _ in connections:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(connections)

    def connection_pids(self) -> set[int]:
        """sshd processes that serve a connection now."""
        return {pid for pid, _ in self._connections()}

    def session_pids(self) -> set[int]:
        """Processes that sessions started and that live, detached ones too."""
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if f"GOLF_LAB={self.tag}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found.add(int(entry.name))
        return found

    def kill_sessions(self) -> None:
        """Kill all that sessions started, as a machine does that loses power."""
        end = time.monotonic() + 30
        while (left := self.session_pids()) and time.monotonic() < end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def close(self) -> None:
        """End listener, connections and everything sessions started; remove the folder."""
        connections = self._connections()
        self._end_listener()
        for pid, _ in connections:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kill_sessions()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _descendants(self) -> set[tuple[int, str]]:
        """(pid, start time) of the listener and all below it."""
        if self.process is None:
            return set()
        table = process_table()
        found, grown = {self.process.pid}, True
        while grown:
            more = {pid for pid, row in table.items() if row[0] in found} - found
            found |= more
            grown = bool(more)
        return {(pid, table[pid][1]) for pid in found if pid in table}

    def _connections(self) -> set[tuple[int, str]]:
        """sshd processes that serve a connection, those of earlier listeners too."""
        table = process_table()
        candidates = self._orphans | self._descendants()
        listener = self.process.pid if self.process else 0
        found = set()
        for pid, start in candidates:
            if pid != listener and pid in table and table[pid][1] == start:
                with contextlib.suppress(OSError):
                    if (Path("/proc") / str(pid) / "comm").read_text().startswith("sshd"):
                        found.add((pid, start))
        return found

    def known_hosts(self, name: str = "") -> str:
        """Lines of known_hosts for this server."""
        name = name or (self.address if self.port == 22 else f"[{self.address}]:{self.port}")
        keys = [path.with_name(path.name + ".pub").read_text().split()[:2] for path in self.keys.values()]
        return "".join(f"{name} {kind} {blob}\n" for kind, blob in keys)


class Home:
    """A HOME with ~/.ssh/config, known_hosts and one key, for ssh and golfctl alike."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ssh = folder / ".ssh"
        self.ssh.mkdir(mode=0o700, parents=True)
        self.config, self.known_hosts = self.ssh / "config", self.ssh / "known_hosts"
        self.key = new_key(self.ssh / "id_ed25519")
        self.public = self.ssh / "id_ed25519.pub"

    def add(self, alias: str, server: Sshd, *, known: bool = True, authorize: bool = True, **options: str) -> HostSpec:
        """Write an entry for `alias` (options: further keywords of ssh_config) and let our key in. Returns its spec."""
        if authorize:
            server.authorize(self.public)
        if known:
            with self.known_hosts.open("a") as file:
                file.write(server.known_hosts())
        return self.entry(alias, server.address, server.port, server.user, **options)

    def entry(self, alias: str, address: str, port: int, user: str, **options: str) -> HostSpec:
        """An entry for any address, for example a proxy's. A proxy in front of a server: HostKeyAlias or known lines."""
        words = {"HostName": address, "Port": str(port), "User": user, **options}
        text = f"Host {alias}\n" + "".join(f"    {name} {value}\n" for name, value in words.items())
        old = self.config.read_text() if self.config.exists() else ""
        self.config.write_text(text + old)  # the first value found wins in ssh_config
        return self.spec(alias)

    def know(self, server: Sshd, address: str, port: int) -> None:
        """The server's keys, known for another address too, for example a proxy's."""
        with self.known_hosts.open("a") as file:
            file.write(server.known_hosts(f"[{address}]:{port}"))

    def spec(self, alias: str, **fields: Any) -> HostSpec:
        """The host as hosts.yaml would have it."""
        return HostSpec(**{"alias": alias, "kind": "ssh", "address": alias, "root": "/tmp/golf", **fields})


def _free_port(address: str) -> int:
    with socket.socket() as plug:
        try:
            plug.bind((address, 0))
        except OSError:
            return 22  # an address of another namespace, where all ports are free
        return int(plug.getsockname()[1])


@contextlib.contextmanager
def throwaway_user(shell: str, files: Mapping[str, str] | None = None) -> Iterator[str]:
    """A user with this login shell and these files in its home (such as .bashrc); gone afterwards. Needs root."""
    if os.geteuid() != 0 or not shutil.which("useradd"):
        pytest.skip("needs root and useradd: makes users with other login shells")
    if not Path(shell).exists():
        pytest.skip(f"needs {shell}")
    name = f"golf{os.getpid()}x{next(_numbers)}"
    # "*" is no password; "!" would lock the account, which sshd without PAM refuses
    subprocess.run(["useradd", "--create-home", "--shell", shell, "--password", "*", name], check=True)
    try:
        home = Path(pwd.getpwnam(name).pw_dir)
        for file, text in (files or {}).items():
            (home / file).write_text(text)
            os.chown(home / file, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
        yield name
    finally:
        uid = pwd.getpwnam(name).pw_uid
        _kill_all_of(uid)
        subprocess.run(["userdel", "--remove", "--force", name], check=True, stderr=subprocess.DEVNULL)


def _kill_all_of(uid: int) -> None:
    for _ in range(50):
        alive = False
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and entry.stat().st_uid == uid:
                    alive = alive or "State:\tZ" not in (entry / "status").read_text()
                    os.kill(int(entry.name), signal.SIGKILL)
        if not alive:
            return
        time.sleep(0.05)


def remote(connection: Connection, command: str) -> bytes:
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
        with contextlib.suppress(OSError):
            count += str(entry.readlink()).startswith("socket")
    return count


@pytest.fixture
def ssh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """HOME is a new folder with a key; no agent."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(home.folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def sshd(ssh_home: Home) -> Iterator[Sshd]:
    """A running server on loopback, known as pod1 with address and user in ~/.ssh/config."""
    with Sshd() as server:
        ssh_home.add("pod1", server)
        yield server


@pytest.fixture
def net(ssh_home: Home) -> Iterator[Net]:
    """Hosts in network namespaces of their own; `net.host("pod1")` is known as pod1 in ~/.ssh/config."""
    with Net(ssh_home) as made:
        yield made


from tests.golfctl.netlab import Net, NetHost  # noqa: E402  (it builds on Sshd and Home above)
