"""Unpacking a bundle's archive: nothing in it can reach outside its own folder. Standard library, Python >= 3.9."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO


def unpack(archive: BinaryIO, folder: Path, what: str) -> None:
    """Unpack a tar.gz into an existing empty folder; files become read-only (0444, or 0555 if executable).

    `what` names the archive in messages. Raises ValueError naming the first member that is not a plain file or folder
    inside the archive's tree, that comes twice, or at which the archive is damaged. OSError if the disk fails.
    """
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            count = 0
            for member in tar:
                _unpack_member(tar, member, folder, what)
                count += 1
            while stream.read(1 << 20):  # tarfile stops at its end mark; gzip's checksum comes after it
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{what}: not a whole tar.gz ({error})") from None
    if not count:
        raise ValueError(f"{what}: holds nothing; a bundle has at least one file")


def relative(name: str) -> PurePosixPath | None:
    """`name` as a path that stays below the folder it is joined to; None if it does not."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        return None
    return path


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, what: str) -> None:
    if member.isdir() and PurePosixPath(member.name) == PurePosixPath("."):
        return
    path = relative(member.name)
    if path is None:
        raise ValueError(f"{what}: member {member.name!r} leads outside the bundle")
    target = folder / path
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    source = tar.extractfile(member) if member.isreg() else None
    if source is None:
        raise ValueError(f"{what}: member {member.name!r} is not a plain file or folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ValueError(f"{what}: member {member.name!r} comes twice") from None
    with os.fdopen(descriptor, "wb") as file:
        while True:
            block = source.read(1 << 20)
            if not block:
                break
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    target.chmod(0o555 if member.mode & 0o100 else 0o444)
