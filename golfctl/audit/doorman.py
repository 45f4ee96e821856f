"""What every Python of a clean room loads first, as `sitecustomize.py`: it refuses what a score does not need. Standard library.

Refused, and noted in the file `refused` beside it, one JSON line each: sockets, names of training data, pickles, other processes.
A script that catches the error has been seen all the same. It holds what goes through Python; native code is held by the
kernel's namespaces, where the room has them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

SOCKETS = {
    "socket.__new__",
    "socket.connect",
    "socket.bind",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
}
PROCESSES = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
}
PATHS = {"open", "os.listdir", "os.scandir", "os.chdir", "os.link", "os.symlink", "os.rename"}
ABSENT = ("trainer", "golfctl")
"""Packages that an environment may hold and a script that stands alone must not need."""


def attend(folder: str) -> None:
    """Hold everything this process does from here on to the rules in `folder`."""
    with open(os.path.join(folder, "rules.json")) as file:
        rules = json.load(file)
    noted = os.open(os.path.join(folder, "refused"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    hidden = tuple(path.rstrip("/") + "/" for path in rules["hidden"])

    def refuse(kind: str, what: str) -> NoReturn:
        os.write(noted, (json.dumps({"kind": kind, "what": what[:200]}) + "\n").encode())
        raise PermissionError(f"the clean room refuses {what[:200]}")

    def hook(event: str, words: tuple[Any, ...]) -> None:
        if event in PATHS:
            path = _path(words[0]) if words else ""
            if path and (f"{path}/".startswith(hidden) or _of_training(path)):
                refuse("training data", f"{event} of {path}")
        elif event in SOCKETS:
            refuse("network", event)
        elif event == "pickle.find_class":
            refuse("pickle", f"a pickle of {words[0]}.{words[1]}")
        elif event in PROCESSES:
            refuse("process", f"{event} {words[0] if words else ''}")

    _refuse_pickles(refuse)
    if rules["alone"]:
        sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]  # None there: an import fails
    sys.addaudithook(hook)


def _path(word: Any) -> str:
    """An absolute path without links, "" for what is none (a descriptor)."""
    if not isinstance(word, str | bytes | os.PathLike):
        return ""
    try:
        return os.path.realpath(os.fsdecode(word))
    except (OSError, ValueError):
        return ""


def _of_training(path: str) -> bool:
    """A name that training data has in the field."""
    name = os.path.basename(path)
    return name in {"train.txt", "train.bin"} or ("_train_" in name and name.endswith(".bin"))


def _refuse_pickles(refuse: Callable[[str, str], NoReturn]) -> None:
    import _pickle
    import pickle

    def load(*_: Any, **__: Any) -> NoReturn:
        refuse("pickle", "a pickle")

    class Unpickler(pickle.Unpickler):
        def __init__(self, *_: Any, **__: Any) -> None:
            load()

    for module in (pickle, _pickle):
        for name, replaced in (("load", load), ("loads", load), ("Unpickler", Unpickler)):
            setattr(module, name, replaced)


if __name__ == "sitecustomize":
    attend(os.path.dirname(os.path.abspath(__file__)))
