"""The newest lines of a log that say anything, in one form for all families: from the end of the file, and as it grows."""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from golfctl.hostside.files import scrub
from golfctl.logs import progress, read_bytes, scan
from golfctl.logs.endings import sign
from golfctl.logs.headline import choose

HEAD = 1 << 18
"""Bytes at the start of a file that hold what the run was set to do."""
FIRST_LOOK, LAST_LOOK = 1 << 18, 1 << 24
"""Bytes before the end of a file that are searched first, and at most."""
CHUNK = 1 << 20
TELLING = (b"loss", b"bpb", b"_time", b"t:", b"avg:", b"stopping", b"rror", b"xception", b"Interrupt", b"Traceback")
ENDING = (b"illed", b"SIG", b"exit", b"fault", b"memory", b"ALLOC")
"""One of these, or of TELLING, stands in every line that is progress, an evaluation or an end."""


@dataclass(frozen=True)
class Target:
    """What a run was set to do, as far as its log says. steps; milliseconds of training."""

    steps: int | None = None
    ms: float | None = None


@dataclass(frozen=True)
class Row:
    """One line. kind: `train`, `val`, `eval` (a named evaluation), `stop` (the training ended early), `end` (a crash).

    Loss in nats per token, times in milliseconds; left_s: seconds left by the step average; final: it is a packed model's score.
    """

    kind: str
    step: int | None = None
    steps: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    val_bpb: float | None = None
    train_time_ms: float | None = None
    step_avg_ms: float | None = None
    left_s: float | None = None
    label: str | None = None
    text: str | None = None
    final: bool = False


def target_of(path: Path) -> Target:
    """From the beginning of a log. Raises OSError."""
    with path.open("rb") as file:
        run = read_bytes(file.read(HEAD)).last
    return Target(run.iterations_planned, run.max_wallclock_s * 1000 if run.max_wallclock_s else None)


def row_of(line: str, target: Target, label: str | None = None) -> Row | None:
    """What a line says; None if nothing. label: the rules' score label, so that only this evaluation is the final one."""
    seen = progress(line)
    if seen is not None:
        steps = seen.steps or target.steps
        average = seen.step_avg_ms
        if average is None and seen.train_time_ms and seen.step:
            average = seen.train_time_ms / seen.step
        return Row(
            "train" if seen.train_loss is not None or (seen.val_loss is None and seen.val_bpb is None) else "val",
            seen.step,
            steps,
            seen.train_loss,
            seen.val_loss,
            seen.val_bpb,
            seen.train_time_ms,
            average,
            _left(seen.step, steps, average, seen.train_time_ms, target.ms),
        )
    run = read_bytes(line.encode("utf-8", "replace") + b"\n").last
    if run.evals:
        found = run.evals[-1]
        final = choose([found], label)[0] is not None
        return Row("eval", val_loss=_said(found.val_loss), val_bpb=found.val_bpb, label=found.label, final=final)
    if run.stopped_early:
        return Row("stop", run.steps_done, target.steps, train_time_ms=run.train_time_ms, text=scrub(line.strip(), 200))
    return Row("end", text=scrub(line.strip(), 200)) if sign(line) else None


def _left(step: int, steps: int | None, average: float | None, ms: float | None, limit: float | None) -> float | None:
    """Seconds until the planned steps or the planned time are done, whichever is first."""
    if steps is None or average is None:
        return None
    left = (steps - step) * average
    if limit and ms is not None:
        left = min(left, limit - ms)
    return max(left, 0.0) / 1000 if math.isfinite(left) else None


def _said(value: float) -> float | None:
    return None if math.isnan(value) else value


def show(row: Row) -> str:
    """One line of at most 80 columns where its numbers are of usual size."""
    if row.kind in {"stop", "end"}:
        return f"{row.kind:>15}  {row.text}"
    if row.kind == "eval":
        loss = f"val {row.val_loss:.4f}  " if row.val_loss is not None else ""
        return f"{'final' if row.final else 'eval':>15}  {loss}bpb {row.val_bpb}  {scrub(row.label or '', 120)}"
    parts = [
        f"{row.step}/{row.steps if row.steps is not None else '?'}".rjust(15),
        _cell("train", row.train_loss)
        if row.val_loss is None or row.train_loss is not None
        else _cell("val", row.val_loss),
        _cell("bpb", row.val_bpb),
        "" if row.train_time_ms is None else _clock(row.train_time_ms / 1000),
        "" if row.step_avg_ms is None else f"{row.step_avg_ms:.2f} ms",
        "" if row.left_s is None else f"left {_clock(row.left_s)}",
    ]
    if row.train_loss is not None and row.val_loss is not None:
        parts.insert(2, _cell("val", row.val_loss))
    widths = [15, 12, *([10] if len(parts) == 7 else []), 10, 8, 10, 0]
    return "  ".join(part.rjust(width) for part, width in zip(parts, widths, strict=True)).rstrip()


def _cell(name: str, value: float | None) -> str:
    return "" if value is None else f"{name} {value:.4f}"


def _clock(seconds: float) -> str:
    """`9:58`, `2:03:10`."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Tail:
    """A log open at its end. `newest` first, then `more` again and again; `close` at last.

    A line counts once its end is written; so does one before a lone carriage return. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._start_over()

    def _start_over(self) -> None:
        self._codec = _codec(self._file.read(400))
        self._decoder = codecs.getincrementaldecoder(self._codec)("replace")
        self._rest = ""
        self._file.seek(0)

    def newest(self, count: int, target: Target, label: str | None = None) -> tuple[list[Row], str]:
        """(the last `count` rows in order, the last line if it has no end yet). Reads back no further than needed."""
        size = os.fstat(self._file.fileno()).st_size
        look, rows = FIRST_LOOK, list[Row]()
        while True:
            start = max(0, size - look)
            self._file.seek(start)
            self._decoder.reset()
            text = self._decoder.decode(self._file.read(size - start))
            body, self._rest = _whole(text, start > 0)
            rows = _last(body, count, target, label)
            if len(rows) >= count or start == 0 or look >= LAST_LOOK:
                return rows, self._rest
            look *= 4

    def more(self) -> Iterator[str]:
        """Lines that were finished since; the whole file anew where it was replaced or cut."""
        yield from self._grown()
        try:
            now = self._path.stat()
        except FileNotFoundError:  # between the two halves of a rotation
            return
        mine = os.fstat(self._file.fileno())
        if (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino):
            yield from self._grown()  # what was written to the old file before it was moved away
            fresh = self._path.open("rb")
            self._file.close()
            self._file = fresh
        elif now.st_size >= self._file.tell():
            return
        self._start_over()
        yield from self._grown()

    def _grown(self) -> Iterator[str]:
        if self._file.tell() == 0:  # only now may there be enough to tell the encoding by
            self._start_over()
        while data := self._file.read(CHUNK):
            body, self._rest = _whole(self._rest + self._decoder.decode(data), False)
            self._rest = self._rest[-scan.LONGEST :]
            yield from _worth(body)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _codec(start: bytes) -> str:
    """As scan.encoding_of, with the byte order said, because a file is entered anywhere but at its mark."""
    name = scan.encoding_of(start)
    if name == "utf-16":
        return "utf-16-le" if start.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
    return "utf-8" if name == "utf-8-sig" else name


def _whole(text: str, torn: bool) -> tuple[str, str]:
    """(whole lines, the rest after the last line end). torn: the text begins in the middle of a line."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if torn:
        text = text.partition("\n")[2]
    end = text.rfind("\n") + 1
    return text[:end], text[end:]


def _worth(body: str) -> list[str]:
    """The lines that may say something, in order. What a program printed between them costs no more than a search."""
    block = scan.clean(body.encode("utf-8", "replace"))
    begins = set()
    for word in (*TELLING, *ENDING):
        place = block.find(word)
        while place >= 0:
            begins.add(block.rfind(b"\n", 0, place) + 1)
            place = block.find(word, block.index(b"\n", place))
    return [block[begin : block.index(b"\n", begin)].decode("utf-8", "replace") for begin in sorted(begins)]


def _last(body: str, count: int, target: Target, label: str | None) -> list[Row]:
    rows: list[Row] = []
    for line in reversed(_worth(body)):
        if len(rows) == count:
            break
        if row := row_of(line, target, label):
            rows.append(row)
    return rows[::-1]


def rows_of(lines: Iterable[str], target: Target, label: str | None = None) -> Iterator[Row]:
    """The rows among lines."""
    return (row for line in lines if (row := row_of(line, target, label)))
