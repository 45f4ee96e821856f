"""What a machine has for us: processors, memory and disk, container limits honoured. Standard library, Python >= 3.9."""

from __future__ import annotations

import os
import re
from typing import Any

NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "glusterfs", "beegfs", "gpfs", "wekafs", "afs", "pvfs2")
)
"""File systems on the network, as the kernel calls them."""
LOCAL_FUSE = frozenset(("fuseblk", "fuse.fuse-overlayfs", "fuse.lxcfs"))
"""FUSE file systems that lie on local disks; others (sshfs, MooseFS, JuiceFS, s3fs, ...) are taken for network ones."""

_UNLIMITED = 1 << 60  # cgroup v1 says "no limit" with a number near 2^63


def disk(path: str) -> dict[str, Any]:
    """path, total_bytes, free_bytes (for us, not for root), filesystem, network. `path` need not exist yet. Raises OSError."""
    place = existing(path)
    facts = os.statvfs(place)
    kind = filesystem(place)
    return {
        "path": path,
        "total_bytes": facts.f_blocks * facts.f_frsize,
        "free_bytes": facts.f_bavail * facts.f_frsize,
        "filesystem": kind,
        "network": is_network(kind),
    }


def existing(path: str) -> str:
    """The path, or its nearest ancestor that exists."""
    place = os.path.realpath(path)
    while not os.path.exists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    return place


def filesystem(path: str, mounts: str = "/proc/self/mountinfo") -> str:
    """Type of the file system a path lies on, "" where the kernel does not say."""
    place, best, kind = os.path.realpath(path), "", ""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return ""
    for line in lines:
        head, separator, tail = line.partition(" - ")
        fields = head.split()
        if not separator or len(fields) < 5:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two mounts on one point the later counts
            best, kind = point, tail.split()[0]
    return kind


def is_network(kind: str) -> bool:
    """Whether this file system type lies on the network: compile caches race and stall there."""
    return kind in NETWORK or (kind.startswith("fuse") and kind not in LOCAL_FUSE)


def memory(proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> dict[str, Any]:
    """total_bytes and available_bytes that a process here may use, limit_bytes of the cgroup (None: no limit)."""
    table = {}
    for line in (_text(f"{proc}/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            table[name] = int(words[0]) * 1024
    total = table.get("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = table.get("MemAvailable", table.get("MemFree", total))
    smallest = None
    for folder in _cgroup_folders(proc, cgroups, "memory"):
        limit = _number(f"{folder}/memory.max", f"{folder}/memory.limit_in_bytes")
        if limit is None or limit >= min(_UNLIMITED, total):
            continue
        used = _number(f"{folder}/memory.current", f"{folder}/memory.usage_in_bytes") or 0
        cached = _stat(f"{folder}/memory.stat", ("total_inactive_file", "inactive_file"))
        smallest = min(limit, smallest or limit)
        free = min(free, max(0, limit - used + cached))
    return {"total_bytes": min(total, smallest or total), "available_bytes": free, "limit_bytes": smallest}


def cpus(proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> dict[str, Any]:
    """count: cores of the machine; usable: cores' worth of time a process here gets (affinity, cgroup quota)."""
    count = os.cpu_count() or 1
    usable = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(count)
    for folder in _cgroup_folders(proc, cgroups, "cpu"):
        words = (_text(f"{folder}/cpu.max") or "").split()
        if len(words) != 2:
            words = [_text(f"{folder}/cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        if all(word.strip().isdigit() for word in words) and int(words[1]) > 0:
            usable = min(usable, int(words[0]) / int(words[1]))
    return {"count": count, "usable": round(usable, 2)}


def _cgroup_folders(proc: str, cgroups: str, controller: str) -> list[str]:
    """Folders of our cgroup and of all above it: v2's one hierarchy and v1's of this controller, as far as they are there."""
    found = []
    for line in (_text(f"{proc}/self/cgroup") or "").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and controller not in names.split(","):
            continue
        top = os.path.join(cgroups, names) if names else cgroups
        if names and not os.path.isdir(top):
            top = os.path.join(cgroups, controller)
        place = os.path.normpath(top + "/" + path)
        while place.startswith(top):
            found.append(place)
            place = os.path.dirname(place)
    return found


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _number(*paths: str) -> int | None:
    """The number in the first of these files that is there; None also for "max"."""
    for path in paths:
        text = (_text(path) or "").strip()
        if text:
            return int(text) if text.isdigit() else None
    return None


def _stat(path: str, names: tuple[str, ...]) -> int:
    table = dict(line.split()[:2] for line in (_text(path) or "").splitlines() if len(line.split()) >= 2)
    return next((int(table[name]) for name in names if table.get(name, "").isdigit()), 0)
