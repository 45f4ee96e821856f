"""Logging in with keys: from the ssh agent and from files, never with a password. Imports paramiko: import it late."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentKey, AgentSSH

from golfctl.errors import HostError, HostUnreachable
from golfctl.hosts.handshake import Transport, place
from golfctl.hosts.hostkeys import HostKey
from golfctl.hosts.sshconfig import Target
from golfctl.hostside.files import one_line

MAGIC = b"openssh-key-v1\0"
CERTIFICATE = "-cert-v01@openssh.com"


@dataclass
class Keys:
    """What can be offered: (key, how to name it) in order; `notes` tell what can't, and the remedy."""

    offers: list[tuple[Any, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    agent: Any = None

    def close(self) -> None:
        """Let go of the agent."""
        if self.agent is not None:
            self.agent._close()


def log_in(transport: Transport, target: Target, deadline: float) -> None:
    """Authenticate. Raises HostError naming the keys that were refused, HostUnreachable if time or line ran out."""
    keys = find(target, deadline)
    tried = []
    try:
        for key, name in keys.offers:
            left = deadline - time.monotonic()
            if left <= 0 or not transport.is_active():
                break
            transport.auth_timeout = left
            tried.append(name)
            try:
                more = transport.auth_publickey(target.user, key)
            except paramiko.BadAuthenticationType as error:
                ways = one_line(", ".join(map(str, error.allowed_types)))
                raise HostError(
                    f"{target.label}: {place(target)} takes no keys for {target.user}, only: {ways}; golfctl needs a key"
                ) from None
            except (paramiko.SSHException, EOFError, OSError):
                continue
            if more:
                raise HostError(
                    f"{target.label}: {place(target)} wants more than a key of {target.user}: {one_line(', '.join(more))}; "
                    "golfctl can give a key only"
                )
            return
    finally:
        keys.close()
    raise _refusal(transport, target, deadline, tried, keys.notes)


def _refusal(transport: Transport, target: Target, deadline: float, tried: list[str], notes: list[str]) -> HostError:
    if time.monotonic() >= deadline and transport.is_active():
        return HostUnreachable(f"{target.label}: no answer of {place(target)} to the login in time")
    if tried and not transport.is_active() and not transport.goodbye:
        return HostUnreachable(f"{target.label}: {place(target)} hung up during the login")
    remedy = "; ".join(notes)
    if not tried:
        looked = ", ".join(map(str, target.identity_files)) or "no file"
        return HostError(
            f"{target.label}: no key to log in with (agent: {'none' if not target.agent else 'no key for it'}; files: {looked})"
            + (f"; {remedy}" if remedy else "; make one with ssh-keygen, or set identity in hosts.yaml")
        )
    said = f" ({transport.goodbye})" if transport.goodbye else ""
    if not remedy:
        many = "too many" in transport.goodbye.lower()
        remedy = (
            "set identity in hosts.yaml, so that only that key is offered"
            if many
            else "put the public key into its authorized_keys"
        )
    return HostError(
        f"{target.label}: {place(target)} refuses {target.user}{said}; keys tried: {', '.join(tried)}; {remedy}"
    )


def find(target: Target, deadline: float) -> Keys:
    """In OpenSSH's order: the agent's keys for the identity files, its other keys unless IdentitiesOnly, then the files."""
    keys = Keys()
    held = _from_agent(target, keys, deadline)
    files: list[tuple[Any, str]] = []
    wanted: list[Any] = []
    for path in target.identity_files:
        public = _public(path)
        inside = [key for key in held if _plain(key) == public] if public else []
        if inside:
            wanted += inside
        else:
            files += _from_file(path, keys)
    others = [key for key in held if key not in wanted] if not target.identities_only else []
    keys.offers = [(key, f"{_label(key)} of the agent") for key in [*wanted, *others]] + files
    return keys


def _from_agent(target: Target, keys: Keys, deadline: float) -> list[Any]:
    if not target.agent:
        return []
    plug = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    agent: Any = AgentSSH()
    keys.agent = agent
    try:
        plug.settimeout(max(0.1, deadline - time.monotonic()))
        plug.connect(target.agent)
        agent._connect(plug)
    except (OSError, paramiko.SSHException, IndexError, ValueError) as error:
        plug.close()
        keys.agent = None
        keys.notes.append(f"the ssh agent at {target.agent} does not answer ({one_line(str(error))})")
        return []
    return [_AgentKey(agent, key.blob, key.comment) for key in agent.get_keys()]


class _AgentKey(AgentKey):
    """A key the agent refuses to use (it asks a person, perhaps) is one the server refuses; the next one gets its turn."""

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> Any:
        with contextlib.suppress(paramiko.SSHException, OSError, IndexError):
            return super().sign_ssh_data(data, algorithm)
        message = paramiko.Message()
        message.add_string(algorithm or self.get_name())
        message.add_string(b"")
        return message.asbytes()


def _from_file(path: Path, keys: Keys) -> list[tuple[Any, str]]:
    """The key of a file, before it its certificate if there is one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        keys.notes.append(f"{path}: {error.strerror}")
        return []
    if b"PRIVATE KEY-----" not in content:
        return []  # a public key, which names a key of the agent
    try:
        key = paramiko.PKey.from_path(path)
    except (paramiko.PasswordRequiredException, TypeError):
        keys.notes.append(f"{path} is encrypted and not in the agent: ssh-add {path}")
        return []
    except Exception as error:  # the parsers below raise whatever they like on a damaged file
        keys.notes.append(f"{path} can't be used as a key ({type(error).__name__}: {one_line(str(error))[:100]})")
        return []
    offers = []
    if key.public_blob is not None:
        offers.append((key, f"{path} with its certificate"))
        key = type(key).from_private_key_file(str(path))
    return [*offers, (key, f"{path} {_label(key)}")]


def _public(path: Path) -> bytes | None:
    """The public key that belongs to an identity file, even if that is encrypted or only FILE.pub is there."""
    for file in (path, path.with_name(path.name + ".pub")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            content = file.read_bytes()
            if content.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----"):
                return _public_part(content)
            if b"PRIVATE KEY" not in content:
                return paramiko.pkey.PublicBlob.from_string(content.decode()).key_blob
            return bytes(paramiko.PKey.from_path(file).asbytes())
    return None


def _public_part(content: bytes) -> bytes:
    """Out of OpenSSH's own format (PROTOCOL.key), where the public key is never encrypted."""
    import base64

    body = base64.b64decode(b"".join(content.split(b"-----")[2].split()))
    if not body.startswith(MAGIC):
        raise ValueError("not an OpenSSH private key")
    message = paramiko.Message(body[len(MAGIC) :])
    for _ in range(3):
        message.get_string()  # cipher, key derivation and its options
    message.get_int()
    return bytes(message.get_string())


def _plain(key: Any) -> bytes:
    """The public key's blob, a certificate's without what was certified."""
    return bytes(key.inner_key.asbytes() if key.inner_key is not None else key.blob)


def _label(key: Any) -> str:
    kind = key.get_name()
    return HostKey(kind.removesuffix(CERTIFICATE), bytes(key.asbytes())).label
