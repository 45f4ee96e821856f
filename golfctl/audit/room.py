"""Starts one command in a clean room; run by its path as `python -I -S -B room.py SPEC.json`. Standard library only.

With user, mount, network and process namespaces the command sees a root of its own: the folders named in the spec, read-only, its
room, and nothing else; no network, no privileges. Where the kernel refuses them it starts without; which of the two it was is
written to the spec's `report`, outside of the room. Exit code: the command's, 128 + signal if one ended it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import sys
from typing import Any, NoReturn

NEWUSER, NEWNS, NEWNET, NEWPID, NEWIPC = 0x10000000, 0x00020000, 0x40000000, 0x20000000, 0x08000000
RDONLY, REMOUNT, BIND, REC, PRIVATE = 1, 32, 4096, 16384, 1 << 18
KEPT = 2 | 4 | 8 | 1024 | 2048
"""Flags of a mount that must stay when it is mounted again: nosuid, nodev, noexec, noatime, nodiratime."""
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
DETACH, PDEATHSIG, NO_NEW_PRIVS = 2, 1, 38
NOBODY = 65534
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
FAILED = 97


def main(spec: dict[str, Any]) -> int:
    """Start the command, isolated as far as this kernel allows; its exit code."""
    why = ""
    for isolated in (True, False) if spec["isolate"] else (False,):
        code, refused = _attempt(spec, isolated, why)
        if refused is None:
            break
        why = refused
    else:
        print(f"room: {why}", file=sys.stderr)
    return code


def _attempt(spec: dict[str, Any], isolated: bool, why: str) -> tuple[int, str | None]:
    """(exit code, None), or (_, why it could not even start)."""
    hears, says = os.pipe()  # closed by exec: what comes through it was said before the command began
    child = os.fork()
    if child == 0:
        try:
            os.close(hears)
            if isolated:
                _isolate(spec)
            _start(spec)
        except BaseException as error:  # whatever it was: the parent must hear of it, and nothing may run on
            os.write(says, f"{type(error).__name__}: {error}"[:500].encode())
            os._exit(FAILED)
    os.close(says)
    said = b""
    while part := os.read(hears, 4096):
        said += part
    os.close(hears)
    if not said:
        with open(spec["report"], "w") as file:  # outside of the room: nothing in there can change it
            json.dump({"isolated": isolated, "why_not": why}, file)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return (code if code >= 0 else 128 - code), (said.decode("utf-8", "replace") if said else None)


def _start(spec: dict[str, Any]) -> NoReturn:
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, spec["file_bytes"])]
    if spec["memory_bytes"]:
        limits.append((resource.RLIMIT_AS, spec["memory_bytes"]))
    for what, most in limits:
        resource.setrlimit(what, (most, most))
    os.chdir(spec["cwd"])
    os.execve(spec["argv"][0], spec["argv"], spec["env"])


# --- namespaces ----------------------------------------------------------------------------------------------------------
def _isolate(spec: dict[str, Any]) -> None:
    """Return in a process that has a root, a network and process numbers of its own. Raises OSError where that is refused."""
    if platform.machine() not in PIVOT_ROOT or not hasattr(_libc, "unshare"):
        raise OSError(errno.ENOSYS, "no namespaces here")
    user, group = os.geteuid(), os.getegid()
    _call("unshare", NEWUSER | NEWNS | NEWNET | NEWPID | NEWIPC)
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    inner = os.fork()  # the first process of the new numbers; when it ends, all that it started ends
    if inner:
        _relay(inner)
    _call("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _new_root(spec)
    _call("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)


def _relay(child: int) -> NoReturn:
    """Wait, holding no end of the pipe that tells whether the command began, and end as the child does."""
    os.closerange(3, 256)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _new_root(spec: dict[str, Any]) -> None:
    root, room = spec["root"], spec["room"]
    _mount("none", "/", None, REC | PRIVATE)
    _mount("tmpfs", root, "tmpfs", 0)
    shown: list[str] = []
    for path in sorted(spec["shown"], key=lambda item: item.count("/")):
        if os.path.islink(path):
            _link(root, path)
        elif os.path.exists(path) and not _below(path, shown):
            _show(root, path, read_only=True)
            shown.append(path)
    for path in DEVICES:
        _show(root, path, read_only=False)
    for path in spec["devices"]:
        _show(root, path, read_only=False)
    os.makedirs(f"{root}/proc", exist_ok=True)
    _mount("proc", f"{root}/proc", "proc", 0)
    for path in ("/tmp", "/dev/shm"):
        os.makedirs(root + path, exist_ok=True)
        _mount("tmpfs", root + path, "tmpfs", 0)
    for path in spec["hidden"]:  # what lies inside a folder that is shown
        if _below(path, shown) and os.path.isdir(root + path):
            _mount("tmpfs", root + path, "tmpfs", RDONLY)
    _show(root, room, read_only=False)
    os.chdir(root)
    result = _libc.syscall(PIVOT_ROOT[platform.machine()], b".", b".")
    if result:
        raise OSError(ctypes.get_errno(), "pivot_root")
    _call("umount2", b".", DETACH)
    os.chdir("/")


def _below(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _link(root: str, path: str) -> None:
    os.makedirs(os.path.dirname(root + path), exist_ok=True)
    if not os.path.lexists(root + path):
        os.symlink(os.readlink(path), root + path)


def _show(root: str, path: str, read_only: bool) -> None:
    """The same file or folder at the same place below the new root."""
    place = root + path
    if os.path.isdir(path):
        os.makedirs(place, exist_ok=True)
    elif not os.path.exists(place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        open(place, "w").close()
    _mount(path, place, None, BIND | REC)
    if read_only:
        _mount("none", place, None, REMOUNT | BIND | RDONLY | (os.statvfs(path).f_flag & KEPT))


_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    _call("mount", source.encode(), target.encode(), kind.encode() if kind else None, flags, None)


def _call(name: str, *words: Any) -> None:
    if getattr(_libc, name)(*[ctypes.c_ulong(word) if isinstance(word, int) else word for word in words]):
        number = ctypes.get_errno()
        what = words[1].decode() if name == "mount" else name
        raise OSError(number, f"{name} {what}: {os.strerror(number)}")


if __name__ == "__main__":
    with open(sys.argv[1]) as opened:
        given = json.load(opened)
    sys.exit(main(given))
