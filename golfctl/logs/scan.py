"""From the bytes of a file to its lines: encodings, colours, carriage returns, and which lines are worth reading.

A log may be gigabytes of which one line in a hundred matters. Lines are found by what they must contain, by searches that run at
memory speed; only those are read.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

CHUNK, FIRST_CHUNK, SAMPLE = 1 << 20, 1 << 18, 1 << 16
LONGEST = 1 << 20
"""A line longer than this is cut, between two carriage returns where it has any."""
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_()]")
_BEGINS = (
    rb"(?:s(?:eed|tep|topping|erialized_|lurmstepd)|model|p(?:arams|eak)|total_(?:params|eval)|world_size|grad_accum|iter"
    rb"|max_wallclock|train(?:_batch|ing_seconds)|Serialized|Code size|T(?:otal sub|raceback)|artifact|budget|val_|num_steps"
    rb"|Running P|={20}|--- |Killed|Segmentation|torch\.|RuntimeError|exitcode|import |from |def |class |@|if __name|Step "
    rb"|\"\"\"|''')"
)
_HEADS = re.compile(rb"\n[ \t]*" + _BEGINS)
_MARKS = (
    rb"\d{9,10}(?:\.\d+)? +|\d{4}-\d\d-\d\d[^ \n]* [^ \n]* +|\d\d:\d\d:\d\d[^ \n]* +"
    rb"|\[[^\]\n]{1,60}\]:? *|[\w./@-]{1,150}: +"
)
_MARKED = re.compile(rb"\n(?:" + _MARKS + rb")?[ \t]*" + _BEGINS)
_STARTS = re.compile(r"Running P|={20}|--- |.*(?:Traceback|stopping_early|peak memory)")
_METRIC, _STEP = b"loss", b"step:"


def encoding_of(start: bytes) -> str:
    """By its first bytes: `utf-16-le`, `utf-16-be`, `utf-8-sig` or `utf-8`."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if start.startswith(mark):
            return name
    for name, zeros in (("utf-16-le", start[1:400:2]), ("utf-16-be", start[0:400:2])):
        if len(zeros) > 8 and zeros.count(0) > 0.7 * len(zeros):
            return name
    return "utf-8"


def blocks(file: BinaryIO, size: int = CHUNK) -> Iterator[tuple[bytes, str, bool]]:
    """(whole lines as UTF-8 with \\n ends, encoding, cut) until the file ends. cut: the last line of this block has no end."""
    start = file.read(min(size, FIRST_CHUNK))
    encoding = encoding_of(start)
    decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)("replace")
    rest, data = b"", start
    while data:
        text = data if decoder is None else decoder.decode(data).encode("utf-8", "replace")
        text = rest + text
        end = text.rfind(b"\n") + 1
        if not end and len(text) > LONGEST:
            place = text.rfind(b"\r", 0, LONGEST) + 1 or LONGEST
            text, end = text[:place] + b"\n" + text[place:], place + 1
        rest = text[end:]
        if end:
            yield clean(text[:end]), encoding, False
        data = file.read(size)
    if rest:
        yield clean(rest) + b"\n", encoding, True


def lines_of(path: Path) -> Iterator[str]:
    """Lines of a log as text, whatever encoding it was saved in. Raises OSError."""
    with path.open("rb") as file:
        for block, _, _ in blocks(file):
            yield from block.decode("utf-8", "replace").splitlines()


def clean(block: bytes) -> bytes:
    """Without colours, with \\n for \\r\\n; a lone \\r stays."""
    if b"\x1b" in block:
        block = _ANSI.sub(b"", block)
    return block.replace(b"\r\n", b"\n") if b"\r" in block else block


def dense(block: bytes, start: int) -> bool:
    """Whether so many lines matter, by the beginning of a block, that picking them out costs more than reading all."""
    end = start + SAMPLE
    return 8 * max(block.count(_METRIC, start, end), block.count(_STEP, start, end)) > block.count(b"\n", start, end)


def starts(text: str) -> bool:
    """Whether lines follow that may have any form: settings at a start, sizes and tracebacks at an end."""
    return bool(_STARTS.match(text))


def worth(block: bytes, start: int, marked: bool) -> list[int]:
    """Positions in order where lines begin that may matter, from `start` on.

    marked: lines of this log carry times or names in front.
    """
    found = {match.start() + 1 for match in (_MARKED if marked else _HEADS).finditer(block, max(0, start - 1))}
    position = block.find(_METRIC, start)
    while position >= 0:
        found.add(max(start, block.rfind(b"\n", start, position) + 1))
        position = block.find(_METRIC, block.find(b"\n", position))
    if start == 0:
        found.add(0)
    return sorted(found)
