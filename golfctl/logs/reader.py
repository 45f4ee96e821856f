"""Reads a log of any family, as a stream: bytes in, runs out."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from golfctl.logs import prefix, scan, shared, source
from golfctl.logs.builder import Builder, merge_copies
from golfctl.logs.damage import Forms
from golfctl.logs.endings import sign
from golfctl.logs.families import ALL
from golfctl.logs.grammar import Reading, shape_of
from golfctl.logs.headline import choose
from golfctl.logs.record import LogFile, Progress, RunLog

MAX_SHAPES, MOST_TOLD, MOST_NAMES = 6, 100, 1000
LONGEST_READ = 8192
"""Letters in a line; lists of settings have some thousand. Longer lines are data."""
FEW = 3
BATCH = 20_000
_TORN = re.compile(r"\d[\d.]*(?:ms|s|m| bytes)?(?: \w+:\S+)*$")
_UNREAD = re.compile(
    r"\b(?:train_loss|val_loss|train_time):\s?[\dn]|\bval_\S{3,8}:\s?\S+ val_bpb:\s?\d"
    r"|loss:\s?\S+ val_bpb:\s?\d|[^ -~].*\bval_bpb:\s?\d"
)


def read_file(path: Path, label: str | None = None) -> LogFile:
    """The runs of a log file. label: the rules' score label, if there is one. Raises OSError."""
    with path.open("rb") as file:
        return read(file, label)


def read_bytes(content: bytes, label: str | None = None) -> LogFile:
    """The same for a log in memory."""
    return read(io.BytesIO(content), label)


def read(file: BinaryIO, label: str | None = None, size: int = scan.CHUNK) -> LogFile:
    """The runs of an open file, read once to its end, `size` bytes at a time, in constant memory but for the points."""
    reader = _Reader(label)
    encoding, cut = "utf-8", False
    for block, encoding, cut in scan.blocks(file, size):  # noqa: B007 (the last values are wanted)
        reader.block(block, cut)
    return LogFile(reader.finish(cut and not reader.end_known), reader.number, encoding)


def progress(line: str) -> Progress | None:
    """The progress in one line of any family, None if it is none."""
    text = line.strip()
    for _ in range(3):
        for grammar in ALL:
            found = grammar.read(text)
            if found and found.values:
                values = found.values
                return Progress(
                    step=found.step,
                    steps=found.steps,
                    train_loss=values.get("train_loss"),
                    val_loss=values.get("val_loss"),
                    val_bpb=values.get("val_bpb"),
                    train_time_ms=values.get("ms"),
                    step_avg_ms=values.get("avg_ms"),
                )
        shorter = prefix.strip(text)
        text = shorter if shorter != text else prefix.named(text)[1]
    return None


@dataclass(frozen=True)
class _Shape:
    """A form of progress line that was seen, ready to match its like."""

    pattern: re.Pattern[str]
    reading: Reading
    meanings: tuple[str, ...]
    units: tuple[float, ...]


class _Reader:
    def __init__(self, label: str | None) -> None:
        self.number = 0
        self.end_known = False
        self._label = label
        self._builders: dict[str, Builder] = {"": Builder(label)}
        self._shapes: list[_Shape] = []
        self._forms = Forms()
        self._batch: list[tuple[str, ...]] = []
        self._batch_lines: list[int] = []
        self._first, self._in_source, self._quiet = True, False, 0
        # Bytes to be read line by line: the first ones show what the log is like.
        self._whole, self._marked = scan.FIRST_CHUNK, False
        self._pending: list[tuple[int, str]] = []

    # -- blocks

    def block(self, block: bytes, cut: bool) -> None:
        """Whole lines. cut: the last one has no end."""
        start = 0
        while start < len(block):
            if self._in_source or self._whole or cut or scan.dense(block, start):
                after = self._all(block, start, cut)
                self._whole, start = max(0, self._whole - (after - start)), after
            else:
                start = self._some(block, start)

    def _all(self, block: bytes, start: int, cut: bool) -> int:
        """Read every line from `start`; stops after source code has ended, to look again how to go on."""
        lines = block[start:].decode("utf-8", "replace").split("\n")
        lines.pop()
        was_source = self._in_source
        first = self.number + 1
        shape = self._shapes[0] if self._shapes else None
        match = shape.pattern.fullmatch if shape else None
        rows, numbered = self._batch, self._batch_lines
        for number, line in enumerate(lines, start=first):
            if match is not None and not self._in_source and (found := match(line)):
                rows.append(found.groups())
                numbered.append(number)
                continue
            following = lines[number - first + 1] if number - first + 1 < len(lines) else ""
            self._line(number, line, following, cut and number - first == len(lines) - 1)
            rows, numbered = self._batch, self._batch_lines
            match = self._shapes[0].pattern.fullmatch if self._shapes else None
            if len(rows) > BATCH:
                self._flush()
                rows, numbered = self._batch, self._batch_lines
            if was_source and not self._in_source:
                self.number = number
                return _after(block, start, number - first + 1)
        self.number = first + len(lines) - 1
        if len(rows) > BATCH:
            self._flush()
        return len(block)

    def _some(self, block: bytes, start: int) -> int:
        """Read the lines that may matter; stops where source code begins."""
        counted = start
        last = -1
        for begin in scan.worth(block, start, self._marked):
            if begin <= last:
                continue
            end = block.index(b"\n", begin)
            self.number += block.count(b"\n", counted, begin)
            counted, last = begin, end
            text = block[begin:end].decode("utf-8", "replace")
            # What follows matters only to a number at the very end of a line.
            tail = block[end + 1 : end + 41].partition(b"\n")[0] if text[-1:].isdigit() else b""
            self._line(self.number + 1, text, tail.decode("utf-8", "replace"), False)
            if scan.starts(text):
                self._whole = scan.FIRST_CHUNK
            if self._in_source or self._whole:
                self.number += 1
                return end + 1
        self.number += block.count(b"\n", counted)
        return len(block)

    # -- lines

    def _line(self, number: int, line: str, following: str, cut: bool) -> None:
        """One line by its number. following: the next line, or its beginning."""
        for index, shape in enumerate(self._shapes):
            if not self._in_source and (found := shape.pattern.fullmatch(line)):
                if index:
                    self._flush()
                    self._shapes.insert(0, self._shapes.pop(index))
                self._batch.append(found.groups())
                self._batch_lines.append(number)
                return
        if "\r" in line:
            for part in line.split("\r"):
                self._line(number, part, following, cut)
            return
        if not line or line.isspace() or len(line) > LONGEST_READ:
            return
        self._flush()
        if self._in_source:
            self._source(number, line)
            return
        if source.opens(line, self._first):
            self._first, self._in_source, self._quiet = False, True, 0
            return
        self._first = False
        open_end = cut or (line[-1:].isdigit() and _torn(following))
        self._read(number, line.replace("\t", " ").strip(" "), open_end)

    def _source(self, number: int, line: str) -> None:
        if source.ends(line):
            self._pending.clear()
            self._in_source = False
        elif source.is_code(line):
            self._pending.clear()
            self._quiet = 0
        else:
            self._pending.append((number, line))
            self._quiet += 1
            if self._quiet >= source.PATIENCE or self._many_pending():
                self._believe()

    def _many_pending(self) -> bool:
        return len(self._pending) % source.MANY == 0 and (
            sum(progress(text) is not None for _, text in self._pending) >= source.MANY
        )

    def _believe(self) -> None:
        """What stood after the last line of code is log."""
        pending, self._pending, self._in_source = self._pending, [], False
        for index, (number, line) in enumerate(pending):
            self._line(number, line, pending[index + 1][1] if index + 1 < len(pending) else "", False)

    def _read(self, number: int, text: str, open_end: bool) -> None:
        self.end_known = False
        name, rest = "", text
        if len(self._builders) > 1 and (of := prefix.named(text))[0] in self._builders:
            name, rest = of  # all lines of a run that is known by its name
        for _ in range(3):
            if self._known(name, number, rest, open_end):
                self._marked = self._marked or rest is not text
                self.end_known = True
                return
            shorter = prefix.strip(rest)
            if shorter == rest and not name:
                name, shorter = prefix.named(rest)
            if shorter == rest:
                break
            rest = shorter
        builder = self._builders[""]
        if kind := sign(text):
            for each in list(self._builders.values())[:MOST_TOLD]:
                each.sign(kind, number)
        elif _UNREAD.search(text):
            self._forms.odd(number, prefix.strip(text), read=False)
            builder.damaged(number, text)
        else:
            for line, other in self._forms.odd(number, prefix.strip(text), read=False):
                builder.damaged(line, other)

    def _known(self, name: str, number: int, text: str, open_end: bool) -> bool:
        """Whether a family or a rule knows the line."""
        for grammar in ALL:
            found = grammar.read(text)
            if found:
                builder = self._builders[name] if name in self._builders else self._named(name)
                builder.open_end = open_end
                builder.progress(number, found)
                odd = self._forms.odd(number, text, read=True)
                for line, other in odd:
                    builder.odd(line, other)
                if not any(line == number for line, _ in odd) and not name and not found.damaged and found.values:
                    self._learn(text, found)
                return True
        builder = self._builders.get(name) or Builder(self._label)
        builder.open_end = open_end
        if shared.read(builder, number, text):
            self._named(name, builder)
            return True
        return False

    def _named(self, name: str, builder: Builder | None = None) -> Builder:
        """The builder of the lines with a name; beyond MOST_NAMES they are nobody's."""
        found = self._builders.get(name) or builder or Builder(self._label)
        if len(self._builders) < MOST_NAMES:
            self._builders[name] = found
        return found

    # -- many lines of one form

    def _learn(self, text: str, reading: Reading) -> None:
        meanings = tuple(meaning for _, _, meaning in reading.spans[1:])
        units = tuple(reading.units[meaning] for meaning in meanings)
        self._shapes.insert(0, _Shape(shape_of(text, reading), reading, meanings, units))
        del self._shapes[MAX_SHAPES:]

    def _flush(self) -> None:
        """Hand over the lines of the newest shape."""
        if not self._batch:
            return
        rows, lines = self._batch, self._batch_lines
        self._batch, self._batch_lines = [], []
        shape, builder = self._shapes[0], self._builders[""]
        texts = list(zip(*rows, strict=True))
        steps = list(map(int, texts[0]))
        columns = {
            meaning: [value * unit for value in map(float, column)] if unit != 1.0 else list(map(float, column))
            for meaning, unit, column in zip(shape.meanings, shape.units, texts[1:], strict=True)
        }
        if all(one < two for one, two in pairwise(steps)):
            builder.many(shape.reading, lines, columns, steps)
            return
        for index, step in enumerate(steps):
            builder.many(
                shape.reading, [lines[index]], {key: [column[index]] for key, column in columns.items()}, [step]
            )

    def finish(self, cut: bool) -> list[RunLog]:
        """The runs in the order in which they end."""
        self._flush()
        if self._in_source:
            self._believe()
            self._flush()
        found = self._builders[""].finish(cut)
        for name in self._builders.keys() - {""}:
            # A name before a line or two is a remark (`swa_started: step:3295 ...`), not a run's.
            named = self._builders[name].finish(cut)
            found += [item for item in named if len(item[1].train) + len(item[1].val) >= FEW]
        runs = merge_copies([run for _, run in sorted(found, key=lambda item: item[0])])
        if runs and runs[-1].headline:
            for run in runs[:-1]:  # the file is about its last run, and one file has one score
                run.headline, run.headline_reason = choose(run.evals, runs[-1].headline.label)
        return runs


def _torn(following: str) -> bool:
    """Whether a line looks like the rest of the number before it, and not like one marked with a time."""
    return bool(_TORN.match(following)) and prefix.strip(following) == following


def _after(block: bytes, start: int, count: int) -> int:
    """The position after `count` lines from `start`."""
    for _ in range(count):
        start = block.index(b"\n", start) + 1
    return start
