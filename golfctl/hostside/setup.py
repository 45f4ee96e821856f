"""Tool `setup`: makes a bare rented machine ready, again and again with the same end, never with sudo. Python >= 3.9.

Request: root (needed);
    requirements   lines as pip reads them, pinned; no options     constraints  more such lines that only limit
    torch          "torch==2.9.1" or {"requirement", "index_url"}: installed first and by itself
    index_url, extra_index_url, find_links (folder of wheels), no_index
    system_site_packages  packages of the machine's own Python are used, its torch is kept
    imports        modules that must import in the end (["torch"] where torch is asked for)
    venv           false: no environment is made
    data, files    folder, and what it must hold: [{"path", "bytes", "sha256", "url" or "source"}] (see fetch.py)
    connections (4), retry_s (1.0)   downloads at once, pause before the second try
    cache          folder for compile caches (default ROOT/cache); on a network file system another one is taken
    wait_s         how long another prepare of this root is waited for (600)
Answer: {"python", "changed", "versions", "files": {present, fetched, bytes}, "cache", "env", "notes", "wall_s"}; `env` is what
runs get so that compile caches lie on a local disk.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable
from typing import Any

from golfctl.hostside import environment, fetch
from golfctl.hostside.machine import filesystem, is_network

Say = Callable[[str], None]

LOCK = ".setup.lock"
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}


def run(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Prepare; see the top of this file. Interrupted anywhere, the next call finishes. Raises OSError, ValueError."""
    began = time.monotonic()
    root = str(request.get("root") or "")
    if not os.path.isabs(root):
        raise ValueError(f"setup: root is {root!r}; it must be an absolute path")
    files = request.get("files") or []
    if files and not request.get("data"):
        raise ValueError("setup: files need a data folder to go to")
    os.makedirs(root, exist_ok=True)
    lock = _lock(os.path.join(root, LOCK), float(request.get("wait_s", 600.0)), say)
    try:
        answer: dict[str, Any] = {"python": None, "changed": False, "versions": {}, "notes": []}
        cache, note = local_cache(str(request.get("cache") or os.path.join(root, "cache")))
        if request.get("venv", True):
            # Installers inherit the lock: should we be killed, none starts beside one that still runs.
            answer.update(environment.prepare(root, request, say, keep=(lock,)))
        answer["notes"] = [*answer["notes"], *([note] if note else [])]
        answer["cache"] = cache
        answer["env"] = {name: os.path.join(cache, part) for name, part in CACHES.items()}
        connections, pause_s = int(request.get("connections", 4)), float(request.get("retry_s", 1.0))
        answer["files"] = fetch.fetch_all(str(request["data"]), files, say, connections, pause_s) if files else {}
        answer["wall_s"] = time.monotonic() - began
        return answer
    finally:
        os.close(lock)


def _lock(path: str, wait_s: float, say: Say) -> int:
    """An exclusive lock on the root; it ends with the processes that hold it. Raises TimeoutError."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline, told = time.monotonic() + wait_s, False
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(number)
                raise TimeoutError(f"{path}: another prepare has been going on for {wait_s:g} s; try later") from None
            if not told:
                say("waiting for another prepare of this host")
                told = True
            time.sleep(0.1)


def local_cache(wish: str) -> tuple[str, str]:
    """A folder for compile caches on a disk of this machine: (path, note or ""). Raises OSError.

    Where the wish lies on a network file system, a folder of ours under the system's place for temporary files is
    taken: compilers of several processes race there, and every lookup waits for the network.
    """
    kind, note, place = filesystem(wish), "", wish
    if is_network(kind):
        place = os.path.join(tempfile.gettempdir(), f"golfctl-cache-{os.getuid()}")
        note = f"{wish} is on a network file system ({kind}); compile caches go to {place}"
    for part in CACHES.values():
        os.makedirs(os.path.join(place, part), mode=0o700, exist_ok=True)
    if place != wish:
        facts = os.lstat(place)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            raise OSError(f"{place}: belongs to someone else; name another cache folder")
    return place, note
