"""Tool `speed`: a few seconds that tell how fast this machine is just now. Standard library, Python >= 3.9.

Request (all optional): root (folder whose disk is read; default the working folder), python (interpreter that has torch; default
this one), seconds (60: the probe gives up then), disk_bytes (256 MiB), cuda (None: GPUs if torch sees any; False: the CPU).
Answer: device ("cuda" or "cpu"), gpus (number), torch (its version, "" if missing), wall_s, notes [line, ...], figures {name:
{"unit", "method", "value", "worst", "spread", "repeats", "each": [value of each GPU or process], "slowest": line or ""}}.

Names: matmul_tflops, memory_gb_s (read + written), host_to_device_gb_s, all_reduce_gb_s (bus bandwidth), disk_read_mb_s. Each
GPU's figure is a median of repeats after a warm-up; `value` is the median over GPUs, `worst` the smallest, `spread` the largest
interquartile range over median of a GPU's repeats. All GPUs work at once, as they do in a run. Units are decimal.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from golfctl.hostside import ranks
from golfctl.hostside.children import Child, entry, find_json
from golfctl.hostside.probe import gpu_facts

Say = Callable[[str], None]

UNITS = {
    "matmul_tflops": "TFLOP/s",
    "memory_gb_s": "GB/s",
    "host_to_device_gb_s": "GB/s",
    "all_reduce_gb_s": "GB/s",
    "disk_read_mb_s": "MB/s",
}
SLOWEST = 0.95
"""A GPU below this part of the others' median is named."""
DISK_READ_S = 0.5
"""Seconds one of three reads of the disk may take."""
BLOCK = 4 << 20


def run(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Measure; see the top of this file. What fails is a note, and the other figures stand. Raises ValueError."""
    began = time.monotonic()
    root, python = str(request.get("root") or os.getcwd()), str(request.get("python") or sys.executable)
    deadline = began + float(request.get("seconds") or 60.0)
    notes: list[str] = []
    figures: dict[str, dict[str, Any]] = {}
    say("measuring the disk")
    try:
        figures["disk_read_mb_s"], note = disk_read(root, int(request.get("disk_bytes") or 256 << 20))
        notes += [note] if note else []
    except OSError as error:
        notes.append(f"disk not measured: {error.strerror or error}")
    answer: dict[str, Any] = {"device": "cpu", "gpus": 0, "torch": "", "figures": figures, "notes": notes}
    gpus = 0 if request.get("cuda") is False else len(gpu_facts()[0])
    try:
        if not gpus or not Ranks(python, gpus, "cuda", deadline, answer, say).measure():
            Ranks(python, 2, "cpu", deadline, answer, say).measure()
    except OSError as error:
        notes.append(f"torch: {error}")
    if answer["device"] == "cpu" and "memory_gb_s" not in figures:
        figures["memory_gb_s"] = memory_copy()
    answer["wall_s"] = time.monotonic() - began
    return answer


class Ranks:
    """One process for each GPU, or two on the CPU; what they measure goes into `answer`."""

    def __init__(self, python: str, world: int, kind: str, deadline: float, answer: dict[str, Any], say: Say) -> None:
        self.python, self.world, self.kind, self.deadline, self.answer, self.say = (
            python,
            world,
            kind,
            deadline,
            answer,
            say,
        )
        self.children: list[Child] = []
        self.found: dict[str, dict[int, dict[str, Any]]] = {}
        self.failed: dict[int, str] = {}

    def measure(self) -> bool:
        """Measure and fill in; False if torch sees none of the GPUs. Raises OSError where there is no torch."""
        with contextlib.ExitStack() as stack:
            for rank in range(self.world):
                child = Child(
                    entry(self.python, "golfctl.hostside.ranks", "main", str(rank), str(self.world), self.kind)
                )
                self.children.append(stack.enter_context(child))
            return self._measure()

    def _measure(self) -> bool:
        self.say("importing torch")
        greetings = [self._greeting(rank) for rank in range(self.world)]
        first = greetings[0]
        if first is None:
            raise OSError(self.failed[0])
        self.answer["torch"] = str(first.get("torch"))
        if self.kind == "cuda":
            if not first.get("gpus"):
                self.answer["notes"].append(f"torch {self.answer['torch']} sees no GPU; the figures are the CPU's")
                return False
            self.answer["gpus"], self.answer["device"] = self.world, "cuda"
        self.say("measuring matmul and memory")
        self._order("local", range(self.world) if self.kind == "cuda" else range(1))
        if self.world > 1 and not self.failed:
            self.say("measuring the all-reduce")
            with tempfile.TemporaryDirectory(prefix="golfctl-") as folder:
                self._order(f"together {os.path.join(folder, 'meet')}", range(self.world))
        for rank, why in sorted(self.failed.items()):
            self.answer["notes"].append(f"{self._who(rank)}: {why}")
        for name, each in self.found.items():
            self.answer["figures"][name] = self._figure(name, each)
        return True

    def _greeting(self, rank: int) -> dict[str, Any] | None:
        content = self._next(rank)
        return content if content and content.get("ready") else None

    def _order(self, word: str, who: range) -> None:
        """Have these ranks do one thing, all at once, and take down what they tell until they are done."""
        for rank in who:
            self.children[rank].send(f"{word}\n".encode())
        for rank in who:
            while rank not in self.failed:
                content = self._next(rank)
                if content is None or "done" in content:
                    break
                name = content.pop("figure", None)
                if name in UNITS:
                    self.found.setdefault(name, {})[rank] = content

    def _next(self, rank: int) -> dict[str, Any] | None:
        """What a rank tells next; None once it has failed, with the reason kept."""
        child = self.children[rank]
        while rank not in self.failed:
            try:
                line = child.line(self.deadline - time.monotonic())
            except TimeoutError:
                self.failed[rank] = "no answer in time"
                break
            if line is None:
                self.failed[rank] = child.complaint or f"ended with code {child.process.wait()}"
                break
            if line.startswith(ranks.MARK):
                content = find_json([line], ranks.MARK)
                if "error" not in content:
                    return content
                self.failed[rank] = str(content["error"])
        return None

    def _who(self, rank: int) -> str:
        return f"gpu {rank}" if self.kind == "cuda" else f"process {rank}"

    def _figure(self, name: str, each: dict[int, dict[str, Any]]) -> dict[str, Any]:
        values = [float(each[rank]["value"]) for rank in sorted(each)]
        figure = {
            "unit": UNITS[name],
            "method": str(next(iter(each.values()))["method"]),
            "value": statistics.median(values),
            "worst": min(values),
            "spread": max(float(entry["spread"]) for entry in each.values()),
            "repeats": min(int(entry["repeats"]) for entry in each.values()),
            "each": values,
        }
        return {**figure, "slowest": slowest(values, sorted(each), UNITS[name]) if self.kind == "cuda" else ""}


def slowest(values: list[float], ranks_of: list[int], unit: str) -> str:
    """`gpu 3: 512 TFLOP/s, others 690` where one GPU lags behind the others' median; "" where none does."""
    if len(values) < 2:
        return ""
    at = values.index(min(values))
    others = statistics.median(values[:at] + values[at + 1 :])
    return f"gpu {ranks_of[at]}: {values[at]:.0f} {unit}, others {others:.0f}" if values[at] < SLOWEST * others else ""


def memory_copy(size: int = 64 << 20) -> dict[str, Any]:
    """Memory bandwidth without torch: one thread copies a block (memcpy); bytes read and written over seconds."""
    source, target = memoryview(bytearray(os.urandom(1 << 20) * (size >> 20))), memoryview(bytearray(size))

    def once() -> float:
        begin = time.perf_counter()
        target[:] = source
        return time.perf_counter() - begin

    return _single("memory_gb_s", f"memcpy of {size >> 20} MiB, 1 thread", ranks.repeat(once, 2 * size / 1e9))


def disk_read(folder: str, size: int = 256 << 20) -> tuple[dict[str, Any], str]:
    """Sequential read of a fresh file, out of the page cache as far as the system lets us: (figure, note or "").

    The file has no name while it is there, so nothing is left behind. Raises OSError.
    """
    os.makedirs(folder, exist_ok=True)
    space = os.statvfs(folder)
    size = max(BLOCK, min(size, space.f_bavail * space.f_frsize // 20) // BLOCK * BLOCK)
    number, path = tempfile.mkstemp(prefix=".golfctl-speed-", dir=folder)
    with open(number, "r+b", buffering=0) as file:
        os.unlink(path)
        block = os.urandom(BLOCK)  # not zeros: a compressing disk would read nothing
        for _ in range(size // BLOCK):
            file.write(block)
        os.fsync(number)
        values, cached = [], False
        for _ in range(3):
            cached = not _drop_cache(number, size) or cached
            values.append(_read_once(number))
    note = "disk read: the page cache could not be dropped; the figure is memory's" if cached else ""
    method = f"read of {size >> 20} MiB" + (", cached" if cached else "")
    return _single("disk_read_mb_s", method, ranks.summary(values)), note


def _read_once(number: int) -> float:
    """MB/s of reading from the start until the end or DISK_READ_S."""
    os.lseek(number, 0, os.SEEK_SET)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < DISK_READ_S:
        part = len(os.read(number, BLOCK))
        count += part
        if not part:
            break
    return count / 1e6 / (time.perf_counter() - begin)


def _drop_cache(number: int, size: int) -> bool:
    """Ask the kernel to forget the file's pages; False if it still has some, or would not say."""
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    page = bytearray(4096)
    for offset in range(BLOCK // 2, size, size // 4):
        try:
            if os.preadv(number, [page], offset, os.RWF_NOWAIT) > 0:
                return False  # it was there without waiting for the disk
        except BlockingIOError:
            continue
        except OSError:
            return False
    return True


def _single(name: str, method: str, figure: dict[str, Any]) -> dict[str, Any]:
    """A figure measured once for the whole machine."""
    value = figure["value"]
    return {"unit": UNITS[name], "method": method, **figure, "worst": value, "each": [value], "slowest": ""}
