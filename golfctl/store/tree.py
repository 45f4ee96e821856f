"""Folder trees as values: their hash, and archives that are the same bytes for the same tree.

A tree's hash is the sha256 over its files sorted by path, each as `path NUL mode NUL sha256-of-content LF`, mode `x` for an
executable file and `-` for any other. Archives are gzipped tars with sorted names, time 0, owner 0 and two fixed modes. The
hash, not the archive's bytes, is the identity: another zlib may compress the same tree differently.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from golfctl.errors import InputError

MAX_BYTES = 256_000_000
MAX_FILES = 10_000


@dataclass(frozen=True)
class Entry:
    """One file: its content, and whether it may be executed."""

    content: bytes
    executable: bool = False

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, hex."""
        return hashlib.sha256(self.content).hexdigest()


class Tree:
    """Files by relative path ('/' between parts). Equal and hashed by content; never changed after it was made."""

    def __init__(self, files: Mapping[str, Entry]) -> None:
        self.files: dict[str, Entry] = dict(sorted(files.items()))

    @cached_property
    def sha256(self) -> str:
        """The tree's hash, hex."""
        digest = hashlib.sha256()
        for path, entry in self.files.items():
            digest.update(f"{path}\0{'x' if entry.executable else '-'}\0{entry.sha256}\n".encode())
        return digest.hexdigest()

    def with_file(self, path: str, content: bytes) -> Tree:
        """The same tree with one file added or replaced."""
        return Tree({**self.files, path: Entry(content)})

    def changed(self, other: Tree) -> list[str]:
        """Paths that differ in content, mode or presence."""
        paths = self.files.keys() | other.files.keys()
        return sorted(path for path in paths if self.files.get(path) != other.files.get(path))

    def matching(self, globs: Iterable[str]) -> list[str]:
        """Paths that match one of the globs (`*` also spans '/', as in fnmatch)."""
        from fnmatch import fnmatchcase

        patterns = list(globs)
        return [path for path in self.files if any(fnmatchcase(path, pattern) for pattern in patterns)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)


def safe_path(path: str) -> bool:
    """Whether a name stays inside the folder it is unpacked into and means the same on every machine."""
    parts = path.split("/")
    return bool(path) and path.isprintable() and "\\" not in path and all(part not in {"", ".", ".."} for part in parts)


def pack(tree: Tree) -> bytes:
    """The tree as a deterministic .tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in tree.files.items():
            member = tarfile.TarInfo(path)
            member.size = len(entry.content)
            member.mode = 0o755 if entry.executable else 0o644
            archive.addfile(member, io.BytesIO(entry.content))
    return gzip.compress(buffer.getvalue(), compresslevel=9, mtime=0)


def unpack(content: bytes, name: str) -> Tree:
    """The tree in an archive made by `pack`. Raises InputError, naming `name`, for anything else: links, odd paths, damage."""
    files: dict[str, Entry] = {}
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for member in archive:
                total += member.size
                if not member.isreg() or not safe_path(member.name) or member.name in files:
                    raise InputError(f"{name}: member {member.name!r} is not a plain file inside the archive")
                if total > MAX_BYTES or len(files) >= MAX_FILES:
                    raise InputError(f"{name}: holds more than {MAX_BYTES} bytes or {MAX_FILES} files")
                stream = archive.extractfile(member)
                data = stream.read() if stream else b""
                if len(data) != member.size:
                    raise InputError(f"{name}: is damaged: {member.name} is cut off")
                files[member.name] = Entry(data, bool(member.mode & 0o100))
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{name}: is damaged: {error}") from None
    return Tree(files)


def read_folder(folder: Path, patterns: Iterable[str] = ("*",)) -> Tree:
    """The plain files below `folder` whose names match a pattern; caches are left out. Raises InputError for a link."""
    wanted = list(patterns)
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if "__pycache__" in relative.parts or not any(relative.match(pattern) for pattern in wanted):
            continue
        if path.is_symlink():
            raise InputError(f"{path}: is a link; frozen code holds plain files only")
        if path.is_file():
            files[relative.as_posix()] = Entry(path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return Tree(files)


def write_folder(tree: Tree, folder: Path) -> None:
    """Write the files below an existing folder. Raises OSError."""
    for path, entry in tree.files.items():
        target = folder / PurePosixPath(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(entry.content)
        target.chmod(0o755 if entry.executable else 0o644)
