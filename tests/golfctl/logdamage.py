"""Damage to logs, and what of it a reader notices: shared by the tests and `benchmarks/log_damage.py`.

What only changes the form of a log must change nothing that is read. Of a cut log each field must be what the log says up to the
line before the cut or up to the end of the line that was cut; of a log with foreign bytes each field must be unchanged.
Otherwise it must be None, or the reader must have warned: a wrong number without a warning is the failure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from golfctl.logs import read_bytes
from golfctl.logs.asjson import describe

ROOT = Path(__file__).resolve().parents[2]
QUIET = ("warnings", "other_runs", "outcome", "copies")
NOT_DIGITS = bytes(byte for byte in range(256) if not 48 <= byte <= 57)


def reading(content: bytes) -> dict[str, Any]:
    return describe(read_bytes(content))


def source_code() -> bytes:
    """80 KB of this project's own training code."""
    text = b"".join(path.read_bytes() for path in sorted((ROOT / "trainer").rglob("*.py")))
    main = b'\n\nif __name__ == "__main__":\n    main()\n'
    return text[: text.rindex(b"\n", 0, 80_000) + 1] + main


def coloured(content: bytes) -> bytes:
    """As grep --color or a rich console leaves it."""
    marks = [(b"val_loss", b"\x1b[01;31m\x1b[Kval_loss\x1b[m\x1b[K"), (b"step:", b"\x1b[32mstep:\x1b[0m")]
    for plain, colour in marks:
        content = content.replace(plain, colour)
    return content


FORMS = {
    "source in front": lambda content: source_code() + content,
    "CRLF": lambda content: content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    "ANSI colours": coloured,
    "UTF-16": lambda content: content.decode("utf-8", "replace").encode("utf-16"),
    "UTF-16-LE without a mark": lambda content: content.decode("utf-8", "replace").encode("utf-16-le"),
}


def wrong(found: dict[str, Any], *allowed: dict[str, Any]) -> Iterator[str]:
    """Fields that say something none of `allowed` says."""
    for name, value in found.items():
        if name in QUIET or value is None or any(value == other[name] for other in allowed):
            continue
        timed = {"train_time_ms", "steps_done"}
        timeless = any(all(found[key] == other[key] for key in timed) for other in allowed)
        if found["step_avg_source"] == "derived" and name in {"step_avg_ms", "step_avg_source"} and timeless:
            continue  # said less, and said so
        if name == "evals":
            known = [item for other in allowed for item in other["evals"]]
            if all(any(_less(item, whole) for whole in known) for item in value):
                continue
        yield name


def _less(part: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Whether it says the same, or less."""
    return all(value is None or value == whole[name] for name, value in part.items())


def cut(content: bytes, offset: int) -> list[str]:
    """Fields that are silently wrong after a cut. A value derived from others (the score proposed) may fall back with them."""
    begin, end = content.rfind(b"\n", 0, offset) + 1, content.find(b"\n", offset)
    before, after = reading(content[:begin]), reading(content[: end + 1] if end >= 0 else content)
    found = reading(content[:offset])
    if set(found["warnings"]) - {*before["warnings"], *after["warnings"]}:
        return []
    return list(wrong(found, before, after))


def spliced(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The log with one to three bytes that are no digits written into one place, and where that is."""
    offset = rng.randrange(len(content))
    junk = bytes(rng.choice(NOT_DIGITS) for _ in range(rng.randint(1, 3)))
    around = f"{content[max(0, offset - 60) : offset]!r} {junk!r} {content[offset : offset + 40]!r}"
    return content[:offset] + junk + content[offset:], around
