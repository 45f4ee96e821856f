"""Data folders against a manifest: missing, empty, cut off, overwritten or too few files. Standard library, Python >= 3.9.

Manifest: {"name": "sp1024",                                          what people call the data (optional)
           "files": {"fineweb_val_000000.bin": {"bytes": n, "sha256": hex}},   paths relative to the folder
           "header": {"magic": 20240520, "version": 1, "files": "*.bin"},      these files are token shards (optional)
           "count": {"fineweb_train_*.bin": 80}}                      at least so many files of that pattern (optional)

A token shard is 256 little-endian int32 words (magic, version, number of tokens, zeros), then uint16 tokens (the contest's
format). A `manifest.json` with "files" alone, as prepared data folders have, serves as well.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 256 * 4
BLOCK = 4 << 20
"""Bytes hashed at once: large enough that hashlib frees the interpreter lock most of the time."""
SHOW = 20
"""Problems told of at most; more are counted."""
SAY_EVERY_S = 1.0

Say = Callable[[str], None]


def check(folder: str, manifest: Mapping[str, Any], say: Say, hashes: bool = False) -> dict[str, Any]:
    """What is wrong with a folder: {"problems": [line, ...], "files": n, "bytes": n, "hashed": bool, "summary": line}.

    Every fault is a problem, none an exception, but a manifest that is none: ValueError. `hashes` reads every byte.
    """
    files, header, count = _read(manifest)
    problems: list[str] = []
    good: dict[str, int] = {}
    if not os.path.isdir(folder):
        problems.append(f"{folder}: no such folder")
    else:
        for name in sorted(files):
            problem = _check_one(os.path.join(folder, name), files[name].get("bytes"), _shard_header(name, header))
            if problem:
                problems.append(f"{name}: {problem}")
            else:
                good[name] = os.path.getsize(os.path.join(folder, name))
        if hashes:
            wrong = _check_hashes(folder, {name: str(files[name].get("sha256") or "") for name in good}, say)
            problems += [f"{name}: {wrong[name]}" for name in sorted(wrong)]
            good = {name: size for name, size in good.items() if name not in wrong}
        problems += _check_counts(folder, count, header, set(files) - set(good))
    left = len(problems) - SHOW
    shown = problems[:SHOW] + ([f"and {left} more problems"] if left > 0 else [])
    return {
        "problems": shown,
        "files": len(good),
        "bytes": sum(good.values()),
        "hashed": hashes,
        "summary": _summary(manifest, folder, files, problems),
    }


def make_manifest(folder: str, say: Say, patterns: Iterable[str] = ("*",)) -> dict[str, Any]:
    """The manifest of a folder as it is now, every file hashed. Raises OSError, ValueError for a damaged shard."""
    sizes: dict[str, int] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(place, name)
            relative = os.path.relpath(path, folder)
            wanted = any(fnmatch.fnmatchcase(relative, pattern) for pattern in patterns)
            if wanted and not name.startswith(".") and relative != "manifest.json" and os.path.isfile(path):
                sizes[relative] = os.path.getsize(path)
    if not sizes:
        raise ValueError(f"{folder}: no files to list")
    shards = [name for name in sizes if _words(os.path.join(folder, name))[:2] == (MAGIC, VERSION)]
    for name in shards:
        problem = _check_one(os.path.join(folder, name), None, (MAGIC, VERSION))
        if problem:
            raise ValueError(f"{os.path.join(folder, name)}: {problem}; a manifest of it would bless the damage")
    digests = _hash_all(folder, sizes, say)
    files = {name: {"bytes": size, "sha256": digests[name]} for name, size in sizes.items()}
    manifest: dict[str, Any] = {"name": os.path.basename(os.path.realpath(folder)), "files": files}
    plain_bins = [name for name in sizes if name.endswith(".bin") and name not in shards]
    if shards and not plain_bins and all(name.endswith(".bin") for name in shards):
        manifest["header"] = {"magic": MAGIC, "version": VERSION, "files": "*.bin"}
    return manifest


def safe_name(name: Any) -> bool:
    """Whether this is a relative path that stays inside its folder."""
    return (
        isinstance(name, str)
        and bool(name)
        and "\0" not in name
        and not os.path.isabs(name)
        and os.path.normpath(name) == name
        and name.split("/")[0] not in ("..", ".")
    )


def sha256_of(path: str, progress: Callable[[int], None] = lambda _: None) -> str:
    """Hash of a file, hex; `progress` is told the bytes of each block. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            block = file.read(BLOCK)
            if not block:
                return digest.hexdigest()
            digest.update(block)
            progress(len(block))


def _read(manifest: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    files, header, count = manifest.get("files"), manifest.get("header") or {}, manifest.get("count") or {}
    if not isinstance(files, dict) or not isinstance(header, dict) or not isinstance(count, dict):
        raise ValueError("manifest: needs files {name: {bytes, sha256}}; header and count are objects, too")
    if not files and not count:
        raise ValueError("manifest: lists no files")
    for name, fact in files.items():
        size = fact.get("bytes") if isinstance(fact, dict) else fact
        if not safe_name(name) or not isinstance(fact, dict):
            raise ValueError(f"manifest: files[{name!r}] must be a path inside the folder with {{bytes, sha256}}")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            raise ValueError(f"manifest: files[{name!r}].bytes is {size!r}; allowed are whole numbers")
    for key, usual in (("magic", MAGIC), ("version", VERSION)):
        if not isinstance(header.get(key, usual), int):
            raise ValueError(f"manifest: header.{key} is {header[key]!r}; allowed are whole numbers")
    for pattern, least in count.items():
        if not safe_name(pattern) or not isinstance(least, int) or isinstance(least, bool):
            raise ValueError(f"manifest: count[{pattern!r}] must be a pattern inside the folder and a whole number")
    return files, header, count


def _shard_header(name: str, header: Mapping[str, Any]) -> tuple[int, int] | None:
    """Magic and version this file must begin with, None for a plain file."""
    if not header or not fnmatch.fnmatchcase(name, str(header.get("files") or "*.bin")):
        return None
    return int(header.get("magic", MAGIC)), int(header.get("version", VERSION))


def _check_one(path: str, size: int | None, header: tuple[int, int] | None) -> str:
    """What is wrong with one file, "" if nothing is."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            return "not a file"
        if facts.st_size == 0 and size != 0:
            return "0 bytes" + (f" of {size}" if size else "") + ": the download failed; fetch it again"
        words = _words(path) if header else None
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    short = f"{facts.st_size} bytes" + (f" of {size}" if size is not None else "")
    if size is not None and facts.st_size < size:
        return f"{short}: cut off; fetch it again"
    if words is not None:
        if len(words) < 3:
            return f"{short}, but a shard begins with a header of {HEADER_BYTES} bytes"
        if header and words[:2] != header:
            return f"header has magic {words[0]} version {words[1]}, allowed {header[0]} version {header[1]}"
        need = HEADER_BYTES + 2 * words[2]
        if words[2] < 1 or facts.st_size != need:
            return f"{facts.st_size} bytes, but its header announces {words[2]} tokens, {need} bytes"
    if size is not None and facts.st_size != size:
        return f"{short}: too long; not the file the manifest lists"
    return ""


def _words(path: str) -> tuple[int, ...]:
    """The first three header words; () where the file is shorter than a header. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
    return struct.unpack("<3i", head[:12]) if len(head) == HEADER_BYTES else ()


def _check_hashes(folder: str, expected: Mapping[str, str], say: Say) -> dict[str, str]:
    named = {name: os.path.getsize(os.path.join(folder, name)) for name, digest in expected.items() if digest}
    wrong = {}
    for name, digest in _hash_all(folder, named, say).items():
        if digest != expected[name]:
            wrong[name] = f"sha256 {digest[:12]}, manifest says {expected[name][:12]}: damaged; fetch it again"
    return wrong


def _hash_all(folder: str, sizes: Mapping[str, int], say: Say) -> dict[str, str]:
    """Hashes of these files, several at once; what can't be read has its error for a hash."""
    total, done, lock = sum(sizes.values()), 0, threading.Lock()
    told = time.monotonic()

    def progress(count: int) -> None:
        nonlocal done, told
        with lock:
            done += count
            if time.monotonic() - told >= SAY_EVERY_S:
                told = time.monotonic()
                say(f"hashed {done / 1e9:.1f} of {total / 1e9:.1f} GB")

    def one(name: str) -> str:
        try:
            return sha256_of(os.path.join(folder, name), progress)
        except OSError as error:
            return f"unreadable ({error.strerror})"

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        work = {name: pool.submit(one, name) for name in sizes}
        return {name: future.result() for name, future in work.items()}


def _check_counts(folder: str, count: Mapping[str, int], header: Mapping[str, Any], bad: set[str]) -> list[str]:
    """Patterns with fewer sound files than asked for. Files the manifest does not name are looked at here only."""
    problems = []
    for pattern in sorted(count):
        place, shape = os.path.split(pattern)
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = [os.path.join(place, name) for name in os.listdir(os.path.join(folder, place))]
        names = [name for name in names if fnmatch.fnmatchcase(os.path.basename(name), shape) and name not in bad]
        sound = [
            name for name in names if not _check_one(os.path.join(folder, name), None, _shard_header(name, header))
        ]
        if len(sound) < count[pattern]:
            problems.append(f"{pattern}: {len(sound)} files, at least {count[pattern]} are needed")
    return problems


def _summary(manifest: Mapping[str, Any], folder: str, files: Mapping[str, Any], problems: list[str]) -> str:
    """`sp1024: 80 shards, val ok`: one line for people."""
    name = str(manifest.get("name") or os.path.basename(os.path.realpath(folder)))
    val = [file for file in files if "val" in os.path.basename(file)]
    kind = "shards" if manifest.get("header") else "files"
    if problems:
        return f"{name}: {len(problems)} problems, first {problems[0]}"
    counted = sum((manifest.get("count") or {}).values()) if not files else len(files) - len(val)
    return f"{name}: {counted} {kind}" + (", val ok" if val else ", ok")
