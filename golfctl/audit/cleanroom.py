"""R5, the clean room: a score computed again in a fresh process without network or training data, and compared with the log's.

The room is a temporary folder that holds copies of what is scored. What was enforced is part of the result: namespaces of the
kernel where it allows them (`room.py`), refusals by Python's audit hooks always (`doorman.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from golfctl.audit.result import Check, Evidence, fail, ok, several, unknown
from golfctl.errors import HostError, InputError
from golfctl.hostside.files import log_tail, one_line
from golfctl.logs import read_file

HERE = Path(__file__).parent
SYSTEM = (
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/lib32",
    "/usr",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/sys/devices/system",
)
GPUS = "/dev/nvidia*"
TINY = 1e-6
"""bpb by which another CPU, or another number of processes, may round: sums are taken in another order."""
LOOSE = 1e-4
"""bpb by which another device, or other versions of torch, may differ."""
_VAL = re.compile(rb"\bval_text_sha256:([0-9a-f]{64})\b")
_FACTS = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path]))"


@dataclass(frozen=True)
class Limits:
    """Seconds of wall clock, bytes of address space, and bytes of the largest file written."""

    seconds: float = 1200.0
    memory_bytes: int = 24 << 30
    file_bytes: int = 1 << 30


@dataclass(frozen=True)
class Visit:
    """What happened in a room. code: exit code, None if time ran out. refused: kind to what was asked for and refused.

    scores: label to bits per byte as printed. val_sha256: of the text it says it scored. enforced: in words.
    """

    code: int | None
    seconds: float
    enforced: tuple[str, ...]
    refused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    val_sha256: str = ""
    tail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """The score to be met again, and what its run ran on. environment: as result.json has it, {} where nobody says."""

    label: str
    bpb: float
    processes: int = 1
    environment: Mapping[str, Any] = field(default_factory=dict)
    val_sha256: str = ""


def visit(
    files: Mapping[str, Path],
    words: Sequence[str],
    *,
    python: str = sys.executable,
    hidden: Sequence[Path] = (),
    alone: bool = True,
    namespaces: bool = True,
    limits: Limits = Limits(),
) -> Visit:
    """Run `python WORDS...` in a room that holds copies of these files and folders under their names, and nothing else.

    hidden: folders of training data. alone: packages called trainer or golfctl can't be imported.
    namespaces: try those of the kernel. Raises InputError if a file
    can't be copied or `python` is none, HostError if the room can't be built.
    """
    with tempfile.TemporaryDirectory(prefix="golfctl-room-", ignore_cleanup_errors=True) as made:
        outside = Path(made).resolve()
        room, guard = outside / "room", outside / "room" / "guard"
        for folder in (outside / "root", room, guard, room / "home", room / "work"):
            folder.mkdir()
        for name, source in files.items():
            _copy(source, room / "work" / name)
        shutil.copy(HERE / "doorman.py", guard / "sitecustomize.py")
        away = sorted({str(path.resolve()) for path in hidden})
        (guard / "rules.json").write_text(json.dumps({"hidden": away, "alone": alone}))
        spec = _spec(outside, room, [python, *words], away, limits) | {"isolate": namespaces}
        (outside / "spec.json").write_text(json.dumps(spec))
        began = time.monotonic()
        code = _run(outside, limits.seconds)
        return _told(outside, guard, code, time.monotonic() - began, limits, bool(spec["memory_bytes"]))


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    except (OSError, shutil.Error) as error:
        raise InputError(f"{source}: can't be brought into the clean room ({error})") from None


def _spec(outside: Path, room: Path, argv: Sequence[str], hidden: Sequence[str], limits: Limits) -> dict[str, Any]:
    gpus = [str(path) for path in Path("/").glob(GPUS.lstrip("/"))]
    return {
        "root": str(outside / "root"),
        "room": str(room),
        "cwd": str(room / "work"),
        "report": str(outside / "report.json"),
        "shown": [path for path in (*SYSTEM, *_python_folders(argv[0])) if Path(path).exists()],
        "devices": gpus,
        "hidden": hidden,
        "argv": [str(Path(argv[0]).absolute()), "-B", "-s", *argv[1:]],
        "env": _environment(room),
        "memory_bytes": 0 if gpus else limits.memory_bytes,  # a GPU's driver reserves address space as it likes
        "file_bytes": limits.file_bytes,
    }


def _environment(room: Path) -> dict[str, str]:
    """All a process in the room finds: nothing of the caller's."""
    home = str(room / "home")
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "XDG_CACHE_HOME": f"{home}/cache",
        "TMPDIR": home,
        "USER": "nobody",
        "LOGNAME": "nobody",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(room / "guard"),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
    }


def _python_folders(python: str) -> list[str]:
    """Folders a Python needs: where it lies, its libraries, and what links among its packages lead to."""
    try:
        done = subprocess.run(
            [python, "-s", "-c", _FACTS], capture_output=True, timeout=60, check=True, env={"LANG": "C"}
        )
        named = [path for path in json.loads(done.stdout) if path]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise InputError(f"{python}: not a Python that starts ({one_line(str(error))})") from None
    own, found = [Path(path) for path in named[:4]], set(named[:4])
    for path in (Path(path) for path in named[4:]):
        if not any(path.is_relative_to(prefix) for prefix in own) or not path.is_dir():
            continue
        if path.name == "site-packages":
            found |= {str(entry.resolve()) for entry in path.iterdir() if entry.is_symlink()}
    found.add(str(Path(python).resolve().parent))
    return sorted(found)


def _run(outside: Path, seconds: float) -> int | None:
    """The exit code of the command, None if its time ran out and everything was killed."""
    line = [sys.executable, "-I", "-S", "-B", str(HERE / "room.py"), str(outside / "spec.json")]
    with (outside / "stdout").open("wb") as out, (outside / "stderr").open("wb") as err:
        try:
            child = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        except OSError as error:
            raise HostError(f"the clean room can't be started: {error.strerror}") from None
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _told(outside: Path, guard: Path, code: int | None, seconds: float, limits: Limits, memory: bool) -> Visit:
    if not (outside / "report.json").exists() and code is not None:
        said = log_tail(str(outside / "stderr"), 3)
        raise HostError(f"the clean room can't be entered: {one_line(' '.join(said))}")
    told = (
        json.loads((outside / "report.json").read_bytes())
        if (outside / "report.json").exists()
        else {"isolated": False}
    )
    found = read_file(outside / "stdout").last
    text = _VAL.search((outside / "stdout").read_bytes())
    return Visit(
        code=code,
        seconds=seconds,
        enforced=tuple(_enforced(told, limits, memory)),
        refused=_refusals(guard / "refused"),
        scores={item.label: item.val_bpb for item in found.evals},
        val_sha256=text[1].decode() if text else "",
        tail=tuple(log_tail(str(outside / "stderr"), 5)),
    )


def _enforced(told: Mapping[str, Any], limits: Limits, memory: bool) -> list[str]:
    if told["isolated"]:
        found = ["no network and no files but its own (kernel namespaces)"]
    else:
        why = f": {one_line(str(told['why_not']))}" if told.get("why_not") else ""
        found = [f"network and training data refused in Python only (no namespaces here{why})"]
    most = f"{limits.memory_bytes / 2**30:.3g} GiB of memory" if memory else "memory not limited (a GPU is here)"
    return [*found, "no pickle", "no other process", f"{limits.seconds:g} s", most]


def _refusals(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            noted = json.loads(line)
            found.setdefault(one_line(str(noted["kind"])), []).append(one_line(str(noted["what"])))
    return found


# --- the check -----------------------------------------------------------------------------------------------------------
def check(found: Mapping[str, tuple[Visit, Wanted] | str]) -> Check:
    """R5 over what was scored again, by log file; where nothing could be, a sentence says why."""
    evidence = [
        unknown(item, name) if isinstance(item, str) else judged(name, *item) for name, item in sorted(found.items())
    ]
    return Check(
        "R5",
        "the artifact alone scores the same",
        "reruns off by 0.0037 bpb",
        tuple(evidence) or (unknown("nothing was scored again"),),
    )


def judged(name: str, seen: Visit, wanted: Wanted) -> Evidence:
    """One score that was computed again."""
    room = f"clean room: {', '.join(seen.enforced)}"
    asked = [
        f"{kind} ({several(list(dict.fromkeys(what)))})" for kind, what in seen.refused.items() if kind != "process"
    ]
    if asked:
        return fail(f"asked for {'; '.join(asked)}; {room}", name)
    if seen.code is None:
        return fail(f"no score within {seen.seconds:.0f} s; {room}", name)
    if seen.code != 0:
        said = f": {one_line(seen.tail[-1])}" if seen.tail else ""
        return fail(f"ended with exit code {seen.code}{said}; {room}", name)
    if wanted.val_sha256 and seen.val_sha256 and seen.val_sha256 != wanted.val_sha256:
        return unknown(
            f"another validation text (sha256 {seen.val_sha256[:12]}, its run had {wanted.val_sha256[:12]})", name
        )
    if wanted.label not in seen.scores:
        return fail(f"prints no {wanted.label}; {room}", name)
    return _compared(name, seen.scores[wanted.label], wanted, f"{seen.seconds:.0f} s; {room}")


def _compared(name: str, bpb: float, wanted: Wanted, room: str) -> Evidence:
    said = f"{wanted.label} {bpb:.8f}, logged {wanted.bpb:.8f}"
    off = abs(bpb - wanted.bpb)
    if off < 0.6e-8:  # both are printed with eight digits
        return ok(f"{said}: the same to the last digit, {room}", name)
    if off <= TINY:
        return ok(
            f"{said}: {off:.1e} apart, within {TINY:g} as another CPU or number of processes rounds; {room}", name
        )
    device = wanted.environment.get("device")
    if off <= LOOSE and (device not in {None, "cpu"} or wanted.processes > 1):
        return ok(f"{said}: {off:.1e} apart, within {LOOSE:g} for another device; {room}", name)
    return fail(f"{said}: {off:.2e} apart; {room}", name)
