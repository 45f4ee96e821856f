"""Host keys: what known_hosts says about a key, and adding to it. The file format is that of sshd(8), SSH_KNOWN_HOSTS."""

from __future__ import annotations

import base64
import binascii
import fcntl
import fnmatch
import hashlib
import hmac
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from golfctl.errors import HostError, InputError
from golfctl.hosts.sshconfig import Target

LABELS = {"ssh-ed25519": "ED25519", "ssh-rsa": "RSA", "ssh-dss": "DSA"}


@dataclass(frozen=True)
class HostKey:
    """A public host key: `kind` as in known_hosts ("ssh-ed25519"), `blob` in the wire format of RFC 4253 section 6.6."""

    kind: str
    blob: bytes

    @property
    def label(self) -> str:
        """ "ED25519 SHA256:...", as `ssh-keygen -l` and providers' pages print it."""
        return f"{LABELS.get(self.kind, 'ECDSA' if self.kind.startswith('ecdsa') else self.kind)} {self.fingerprint}"

    @property
    def fingerprint(self) -> str:
        """SHA256 of the blob in base64 without padding."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


@dataclass(frozen=True)
class Known:
    """One line of known_hosts about a host."""

    place: str
    marker: str
    key: HostKey


def known(target: Target) -> list[Known]:
    """All lines about a machine, the user's files first. Raises HostError if a file can't be read.

    A port other than 22 has its own name, [host]:port. Lines of @cert-authority are left out: certificates of hosts are
    not asked for.
    """
    return _lines_about(target, target.key_name)


def key_kinds(target: Target) -> list[str]:
    """Kinds of keys known for a machine, so that it can be asked for one of those."""
    return list(dict.fromkeys(line.key.kind for line in _trusted(target)))


def check(target: Target, key: HostKey) -> None:
    """Return if the key is the known one. Raises HostError: unknown, changed or revoked; the message says what to do."""
    _refuse_revoked(target, key)
    trusted = _trusted(target)
    if any(line.key == key for line in trusted):
        return
    _refuse_changed(target, key)
    other = f" (known is {trusted[0].key.label}, {trusted[0].place})" if trusted else ""
    raise HostError(
        f"{target.label}: key {key.label} is unknown{other}: compare it with your provider's page, "
        f"then golfctl host trust {target.alias}"
    )


def trust(target: Target, key: HostKey, replace: bool = False) -> str:
    """Write the key into the user's known_hosts. Returns "FILE:LINE" of where it now stands; twice is as good as once.

    replace: lines of this machine with other keys give way; all other lines stay as they are, byte for byte.
    Raises HostError: a different key of this kind is known and replace is off, the key is revoked, an old line is a
    pattern or in a file that is not the user's; InputError: there is no known_hosts file to write to; OSError.
    """
    if not target.user_known_hosts or target.user_known_hosts[0] == Path(os.devnull):
        raise InputError(f"{target.label}: UserKnownHostsFile names no file to write to; set one in ~/.ssh/config")
    file = target.user_known_hosts[0]
    _refuse_revoked(target, key)
    if replace:
        _remove_others(target, key)
    _refuse_changed(target, key)
    if place := _place(target, key):
        return place
    name = _hashed(target.key_name) if target.hash_known_hosts else target.key_name
    line = f"{name} {key.kind} {base64.b64encode(key.blob).decode()}\n".encode()
    with _locked(file):
        old = file.read_bytes() if file.exists() else b""
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # One write at the end: whoever reads or appends at the same time sees whole lines.
            os.write(descriptor, (b"" if old.endswith(b"\n") or not old else b"\n") + line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return _place(target, key)


def _place(target: Target, key: HostKey) -> str:
    return next((line.place for line in known(target) if line.key == key and not line.marker), "")


def _trusted(target: Target) -> list[Known]:
    """Lines that vouch for a machine. Where nothing is known by [host]:port the plain name counts, as in OpenSSH."""
    found = [line for line in known(target) if not line.marker]
    if not found and not target.key_alias and target.port != 22:
        found = [line for line in _lines_about(target, target.hostname.lower()) if not line.marker]
    return found


def _refuse_revoked(target: Target, key: HostKey) -> None:
    for line in [*known(target), *_lines_about(target, target.hostname.lower())]:
        if line.marker == "@revoked" and line.key == key:
            raise HostError(
                f"{target.label}: key {key.label} is revoked at {line.place}; ask your provider for a new one"
            )


def _refuse_changed(target: Target, key: HostKey) -> None:
    lines = [line for line in known(target) if not line.marker and line.key.kind == key.kind]
    if lines and all(line.key != key for line in lines):
        raise HostError(
            f"{target.label}: its key CHANGED: it was {lines[0].key.label} ({lines[0].place}) and is now {key.label}; "
            f"someone may be in between. If it was rebuilt on purpose: golfctl host trust {target.alias} --replace"
        )


def _lines_about(target: Target, name: str) -> list[Known]:
    found = []
    for file in dict.fromkeys((*target.user_known_hosts, *target.global_known_hosts)):
        for number, line in enumerate(_read(target, file), 1):
            parts = _parse(line)
            if parts and parts[0] != "@cert-authority" and _matches(parts[1], name):
                found.append(Known(f"{file}:{number}", parts[0], parts[2]))
    return found


def _read(target: Target, file: Path) -> list[bytes]:
    try:
        return file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"{target.label}: {file}: {error.strerror}; host keys can't be checked") from None


def _parse(line: bytes) -> tuple[str, str, HostKey] | None:
    """(marker or "", names, key), None for comments and what is damaged: OpenSSH skips such lines, too."""
    words = line.decode("utf-8", "replace").split()
    marker = words.pop(0).lower() if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#"):
        return None
    try:
        blob = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    length = int.from_bytes(blob[:4], "big")
    return (marker, words[0], HostKey(words[1], blob)) if blob[4 : 4 + length] == words[1].encode() else None


def _matches(names: str, name: str) -> bool:
    """One pattern list or hashed name of known_hosts against the name of a machine (lower case)."""
    if names.startswith("|"):
        return _is_hash_of(names, name)
    hit = False
    for pattern in names.lower().split(","):
        if _fits(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            hit = True
    return hit


def _fits(pattern: str, name: str) -> bool:
    # Only * and ? are special here; brackets belong to [host]:port.
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _hashed(name: str) -> str:
    salt = os.urandom(20)
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def _is_hash_of(text: str, name: str) -> bool:
    parts = text.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, digest = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)


def _remove_others(target: Target, key: HostKey) -> None:
    """Take this machine's name out of all lines with other keys; a line that names nothing else goes."""
    for line in known(target):
        if not line.marker and line.key != key and Path(line.place.rpartition(":")[0]) not in target.user_known_hosts:
            raise HostError(
                f"{target.label}: its old key is at {line.place}, which is not yours to change; remove it there"
            )
    for file in target.user_known_hosts:
        if not file.exists():
            continue
        with _locked(file):
            lines = file.read_bytes().splitlines(keepends=True)
            changed = [_without(target, f"{file}:{number}", line, key) for number, line in enumerate(lines, 1)]
            if changed != lines:
                _rewrite(file, b"".join(changed))


def _without(target: Target, place: str, line: bytes, key: HostKey) -> bytes:
    parts = _parse(line)
    if not parts or parts[0] or parts[2] == key or not _matches(parts[1], target.key_name):
        return line
    if parts[1].startswith("|"):
        return b""
    rest = ",".join(name for name in parts[1].split(",") if name.lower() != target.key_name)
    if _matches(rest, target.key_name):
        raise HostError(f"{target.label}: its old key is at {place} under a pattern, {rest}; change that line by hand")
    return line.replace(parts[1].encode(), rest.encode(), 1) if rest else b""


def _rewrite(file: Path, content: bytes) -> None:
    real = file.resolve()  # a symlink stays one
    mode = real.stat().st_mode & 0o777
    descriptor, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
            os.fchmod(new.fileno(), mode)
        Path(name).replace(real)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One golfctl at a time changes files in this folder; makes the folder as ssh would."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
