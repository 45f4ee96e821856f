"""How a host is reached: what hosts.yaml says, completed by ~/.ssh/config as OpenSSH itself reads it (`ssh -G`)."""

from __future__ import annotations

import getpass
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from golfctl.domain.host import HostSpec
from golfctl.errors import InputError

KEEPALIVE_S = 15.0
MOST_HOPS = 8
MOST_INCLUDES = 16
"""Depth at which OpenSSH stops following Include, too."""
ASK_S = 15.0
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
REFUSED = {
    "proxycommand": "is not supported; use ProxyJump",
    "revokedhostkeys": "is not supported; put @revoked lines into known_hosts",
}
_PLAIN = re.compile(r"[^\s\x00-\x20\x7f-\x9f'\"`\\;&<>|(){}$,]+\Z")
_TILDE = re.compile(r'(?<=[\s="])~(?=/)')
_INCLUDE = re.compile(r'(\s*include(?:\s*=\s*|\s+|(?=")))(.*)', re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """One machine to connect to, with all hops before it.

    alias: the host of hosts.yaml this is for. name: as it was asked for (an alias of ~/.ssh/config, perhaps). jumps: the
    hops to go through, first one first; theirs are empty. agent: socket of the ssh agent, "" for none. key_alias:
    HostKeyAlias or "". connect_timeout_s: None if not set. family: "any", "inet" or "inet6".
    """

    alias: str
    name: str
    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    identities_only: bool
    user_known_hosts: tuple[Path, ...]
    global_known_hosts: tuple[Path, ...]
    key_alias: str = ""
    hash_known_hosts: bool = False
    agent: str = ""
    connect_timeout_s: float | None = None
    keepalive_s: float = KEEPALIVE_S
    family: str = "any"
    jumps: tuple[Target, ...] = ()
    is_jump: bool = False

    @property
    def label(self) -> str:
        """For messages: the host's alias, and which hop if it is one."""
        return f"{self.alias}: jump host {self.name}" if self.is_jump else self.alias

    @property
    def key_name(self) -> str:
        """Its name in known_hosts."""
        if self.key_alias:
            return self.key_alias.lower()
        name = self.hostname.lower()
        return name if self.port == 22 else f"[{name}]:{self.port}"


def resolve(spec: HostSpec) -> Target:
    """Everything needed to connect; fields of the spec win over ~/.ssh/config. Connects to nothing.

    An `identity` of the spec is the only key offered. Where there is no ssh client, a host without a ~/.ssh/config
    gets OpenSSH's defaults. Raises InputError: an address that isn't one, a keyword that is not supported, jumps
    in a circle, a ~/.ssh/config that ssh refuses or that no ssh client is there to read.
    """
    _check(spec.alias, "address", spec.address)
    for word, text in (("user", spec.user), ("jump", spec.jump.replace(",", ""))):
        if text:
            _check(spec.alias, word, text)
    if spec.port is not None and not 0 < spec.port < 65536:
        raise InputError(f"{spec.alias}: port {spec.port} must be 1 to 65535")
    with _configuration(spec.alias) as file:
        target = _resolve(spec.alias, spec.address, spec.user, spec.port, spec.jump, file, ())
    if not spec.identity:
        return target
    identity = _expand(spec.alias, spec.identity, target.name, target.hostname, target.port, target.user, "")
    if not (identity.exists() or identity.with_name(identity.name + ".pub").exists()):
        raise InputError(f"{spec.alias}: identity {identity} is not there; correct it in hosts.yaml")
    return replace(target, identity_files=(identity,), identities_only=True)


def _check(alias: str, what: str, text: str) -> None:
    """What goes on ssh's command line: never an option, never anything odd."""
    if text.startswith("-") or text.endswith("@") or not _PLAIN.match(text):
        raise InputError(
            f"{alias}: {what} {text!r} must not be empty, begin with '-' or hold spaces or special characters"
        )


def _resolve(
    alias: str, name: str, user: str, port: int | None, jump: str, file: str | None, way: tuple[str, ...]
) -> Target:
    """One machine and, recursively, the hops to it; `way` holds the names this was asked for on behalf of."""
    if name in way:
        raise InputError(f"{alias}: ProxyJump goes in a circle: {' -> '.join((*way, name))}")
    if len(way) >= MOST_HOPS:
        raise InputError(f"{alias}: more than {MOST_HOPS} hops of ProxyJump: {' -> '.join(way)}")
    words = _ask(alias, name, user, port, jump, file)
    for keyword, advice in REFUSED.items():
        if words.get(keyword, ["none"])[0].lower() != "none":
            raise InputError(f"{alias}: {keyword} of {name} in ~/.ssh/config {advice}")

    def one(keyword: str, default: str = "") -> str:
        value = words.get(keyword, [default])[0]
        return default if value.lower() == "none" else value

    hostname, remote = one("hostname", name), user or one("user")
    where = port or int(one("port", "22"))
    key_alias = one("hostkeyalias")

    def expanded(text: str) -> Path:
        return _expand(alias, text, name, hostname, where, remote, key_alias)

    def files(keyword: str) -> tuple[Path, ...]:
        return tuple(_moved(expanded(word)) for word in one(keyword).split() if word.lower() != "none")

    interval = float(one("serveraliveinterval", "0"))
    return Target(
        alias=alias,
        name=name,
        hostname=hostname,
        port=where,
        user=remote,
        identity_files=tuple(expanded(text) for text in words.get("identityfile", []) if text.lower() != "none"),
        identities_only=one("identitiesonly") == "yes",
        user_known_hosts=files("userknownhostsfile"),
        global_known_hosts=files("globalknownhostsfile"),
        key_alias=key_alias,
        hash_known_hosts=one("hashknownhosts") == "yes",
        agent=_agent(words.get("identityagent", ["SSH_AUTH_SOCK"])[0], expanded),
        connect_timeout_s=float(one("connecttimeout") or "0") or None,
        keepalive_s=interval if interval > 0 else KEEPALIVE_S,
        family=one("addressfamily", "any"),
        jumps=_jumps(alias, jump or one("proxyjump"), file, (*way, name)),
        is_jump=bool(way),
    )


def _jumps(alias: str, text: str, file: str | None, way: tuple[str, ...]) -> tuple[Target, ...]:
    """ "[user@]host[:port],..." or ssh:// addresses, each with the hops its own entry asks for.

    As in OpenSSH only the first of a list is reached the way its own entry says; each other one through the one before.
    """
    if not text or text.lower() == "none":
        return ()
    chain: list[Target] = []
    for number, hop in enumerate(text.split(",")):
        user, name, port = _hop(alias, hop)
        target = _resolve(alias, name, user, port, "" if number == 0 else "none", file, way)
        chain += [*target.jumps, replace(target, jumps=())]
    if len(chain) > MOST_HOPS:
        raise InputError(f"{alias}: more than {MOST_HOPS} hops of ProxyJump: {text}")
    return tuple(chain)


def _hop(alias: str, text: str) -> tuple[str, str, int | None]:
    user, _, place = text.removeprefix("ssh://").rstrip("/").rpartition("@")
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?|([0-9A-Fa-f:.]+)", place)
    if not match:
        raise InputError(f"{alias}: jump {text!r} is not [user@]host[:port]")
    name, port = match[1] or match[3] or match[5], match[2] or match[4]
    _check(alias, "jump", name)
    if user:
        _check(alias, "user of the jump", user)
    return user, name, int(port) if port else None


def _ask(alias: str, name: str, user: str, port: int | None, jump: str, file: str | None) -> dict[str, list[str]]:
    """What `ssh -G` says: keyword in lower case -> its values in order."""
    if file is None:
        return _defaults(name)
    command = ["ssh", "-T", "-G"]
    for option, value in (("-F", file), ("-l", user), ("-p", str(port or "")), ("-J", jump)):
        command += [option, value] if value else []
    try:
        done = subprocess.run(
            [*command, "--", name], stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{alias}: `ssh -G {name}` took over {ASK_S:.0f} s; is there a Match exec in ~/.ssh/config?"
        ) from None
    said = done.stdout.decode("utf-8", "surrogateescape")
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").split("\n")
        why = "; ".join("".join(filter(str.isprintable, line)).strip() for line in lines if line.strip())
        raise InputError(f"{alias}: ssh refuses its configuration: {why[:300]}")
    words: dict[str, list[str]] = {}
    for line in said.splitlines():
        keyword, _, value = line.partition(" ")
        words.setdefault(keyword.lower(), []).append(value)
    return words


def _defaults(name: str) -> dict[str, list[str]]:
    user, _, host = name.rpartition("@")
    return {
        "hostname": [host],
        "user": [user or getpass.getuser()],
        "identityfile": [f"~/.ssh/{file}" for file in DEFAULT_KEYS],
        "userknownhostsfile": ["~/.ssh/known_hosts ~/.ssh/known_hosts2"],
        "globalknownhostsfile": ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"],
    }


def _agent(text: str, expanded: Callable[[str], Path]) -> str:
    if text.lower() == "none":
        return ""
    if text == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    if text.startswith("$") and not text.startswith("${"):
        return os.environ.get(text[1:], "")
    return str(expanded(text))


def _expand(alias: str, text: str, name: str, hostname: str, port: int, user: str, key_alias: str) -> Path:
    """A path with ~, ${VARIABLE} and the %-words of ssh_config(5) replaced."""
    local = socket.gethostname()
    percent = {
        "%": "%",
        "d": str(_home()),
        "h": hostname,
        "i": str(os.getuid()),
        "k": key_alias or name,
        "L": local.partition(".")[0],
        "l": local,
        "n": name,
        "p": str(port),
        "r": user,
        "u": pwd.getpwuid(os.getuid()).pw_name,
    }

    def word(match: re.Match[str]) -> str:
        if match[1] is not None and match[1] in percent:
            return percent[match[1]]
        if match[2] is not None and match[2] in os.environ:
            return os.environ[match[2]]
        raise InputError(f"{alias}: {match[0]} in {text!r} of ~/.ssh/config can't be replaced here")

    text = text.strip('"')
    base = _home() if text.startswith("~/") else Path()
    return base / Path(re.sub(r"%(.)|\$\{(\w+)\}", word, text.removeprefix("~/"))).expanduser()


def _home() -> Path:
    return Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)


def _account_home() -> Path:
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def _moved(path: Path) -> Path:
    """ssh takes ~ from the password database; where $HOME is another folder, ~ is that one, as everywhere else."""
    for name in ("known_hosts", "known_hosts2"):
        if path == _account_home() / ".ssh" / name:
            return _home() / ".ssh" / name
    return path


@contextmanager
def _configuration(alias: str) -> Iterator[str | None]:
    """What to hand to `ssh -F`; "": nothing, its own default is right. None: there is no ssh client and no need of one."""
    config = _home() / ".ssh" / "config"
    if not shutil.which("ssh"):
        if config.exists():
            raise InputError(
                f"{alias}: {config} is read through the ssh client, and there is none; install openssh-client"
            )
        yield None
    elif _home().resolve() == _account_home().resolve():
        yield ""
    else:
        with tempfile.TemporaryDirectory(prefix="golfctl-ssh-") as folder:
            yield str(_copied(config, Path(folder)))


def _copied(config: Path, folder: Path) -> Path:
    """The user's and the system's configuration as one file for `ssh -F`, in which ~ means $HOME."""
    made: dict[Path, Path] = {}

    def copy(path: Path, depth: int) -> Path:
        if path not in made:
            made[path] = folder / str(len(made))
            lines = path.read_text("utf-8", "surrogateescape").splitlines()
            text = "\n".join(_rewritten(line, lambda inner: copy(inner, depth + 1), depth) for line in lines)
            made[path].write_text(text + "\n", "utf-8", "surrogateescape")
        return made[path]

    whole = folder / "config"
    own = [f"Include {copy(config, 0)}"] if config.exists() else []
    whole.write_text("\n".join([*own, "Match all", "Include /etc/ssh/ssh_config", ""]))
    return whole


def _rewritten(line: str, copy: Callable[[Path], Path], depth: int) -> str:
    if line.lstrip().startswith("#"):
        return line
    line = _TILDE.sub(lambda _: str(_home()), line)
    include = _INCLUDE.match(line)
    if not include or depth >= MOST_INCLUDES:
        return line
    # A path without a leading / is meant from ~/.ssh.
    patterns = [_home() / ".ssh" / word for word in shlex.split(include[2], comments=True)]
    files = [file for pattern in patterns for file in sorted(Path("/").glob(str(pattern)[1:])) if file.is_file()]
    return include[1] + " ".join(str(copy(file)) for file in files) if files else ""
