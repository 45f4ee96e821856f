"""Bytecode for the travelling file: without it every start of a process compiles it anew. Standard library, Python >= 3.9."""

from __future__ import annotations

import contextlib
import importlib.util
import marshal
import os
import zipfile

# PEP 552: flags say "by hash, not compared with the source"; the hash that follows is never looked at.
_HEAD = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)


def install(archive: str, path: str) -> None:
    """Add this interpreter's bytecode to `archive`, a file of ours alone, and make it appear at `path`. Raises OSError.

    Other interpreters ignore bytecode that is not theirs. Where `path` exists it stays as it is: processes that run from it
    read their later imports at the offsets they found when they started.
    """
    with zipfile.ZipFile(archive, "a") as file:
        for name in file.namelist():
            if name.endswith(".py"):
                code = compile(file.read(name), os.path.join(path, name), "exec", dont_inherit=True)
                file.writestr(zipfile.ZipInfo(name + "c", (1980, 1, 1, 0, 0, 0)), _HEAD + marshal.dumps(code))
    descriptor = os.open(archive, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(archive, path)
    except FileExistsError:
        pass
    except OSError:  # a disk without links
        os.replace(archive, path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(archive)
