"""What a family of logs is: how its progress lines begin, and which keys hold what.

A family is data. Its module in `families/` names the head of a line and its keys; `read` does the rest, strictly: a value that is
not wholly a number with the expected unit is reported and left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from golfctl.logs import numbers

MEANINGS = ("train_loss", "val_loss", "val_bpb", "ms", "avg_ms")
TIME = ("ms", "s")
LONGEST_STEP = 18
_TAG = re.compile(r"\[[^\[\]]{0,200}\]|\([^()]{0,200}\)")
UNITS = {"": 1.0, "ms": 1.0, "s": 1e3, "m": 6e4, "min": 6e4, "h": 3.6e6}


@dataclass(frozen=True)
class Key:
    """What a key of a progress line holds: one of MEANINGS, and the units it may carry, of which it must carry one."""

    meaning: str
    units: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Family:
    """head: how a progress line begins, with groups `step` and (perhaps) `steps`. gap: what stands between key and value."""

    name: str
    head: str
    keys: Mapping[str, Key]
    gap: str = ":"
    between: str = r"\s+"


@dataclass(frozen=True)
class Reading:
    """A progress line as read: values by meaning, spans of the numbers that count, what was damaged.

    units: what a printed number is multiplied by to be in milliseconds; 1 for everything else. at_end: the meaning of a number
    that is the last thing on the line, or "".
    """

    family: str
    step: int
    steps: int | None
    values: Mapping[str, float]
    texts: Mapping[str, str]
    units: Mapping[str, float]
    spans: tuple[tuple[int, int, str], ...]
    damaged: tuple[str, ...] = ()
    at_end: str = ""


class Grammar:
    """A family, compiled."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._head = re.compile(family.head + r"(?=[\s,:|]|$)")
        # A key starts with a letter; its value runs to the next blank, so that half a number is never a number.
        self._field = re.compile(
            rf"({family.between})([A-Za-z_][\w/.]*(?: (?:loss|time|bpb))?){family.gap}([^\s|]*[^\s,|])"
        )

    def read(self, line: str) -> Reading | None:
        """The line as this family's progress, None if it is something else."""
        head = self._head.match(line)
        if head is None or max(len(number or "") for number in head.groupdict().values()) > LONGEST_STEP:
            return None
        values: dict[str, float] = {}
        texts: dict[str, str] = {}
        spans = [(*head.span("step"), "step")]
        damaged: list[str] = []
        position, seen = head.end(), 0
        units: dict[str, float] = {}
        for match in self._field.finditer(line, head.end()):
            stray = _TAG.sub("", line[position : match.start()])
            if any(letter.isdigit() for letter in stray):
                damaged.append(stray.strip())
            position, seen = match.end(), seen + 1
            key = self.family.keys.get(match[2])
            if key is None:
                continue
            text, unit = _measured(match[3], key.units)
            value = numbers.signed(text) if key.meaning == "train_loss" else numbers.real(text)
            if value is None or key.meaning in values:
                damaged.append(match[0].strip())
                continue
            units[key.meaning] = UNITS[unit]
            values[key.meaning] = value * UNITS[unit]
            texts[key.meaning] = text
            spans.append((match.start(3), match.start(3) + len(text), key.meaning))
        if not values and not (damaged and seen):
            return None
        stray = _TAG.sub("", line[position:])
        if any(letter.isdigit() for letter in stray):
            damaged.append(stray.strip())
        steps = head.groupdict().get("steps")
        return Reading(
            self.family.name,
            int(head["step"]),
            int(steps) if steps else None,
            values,
            texts,
            units,
            tuple(spans),
            tuple(damaged),
            spans[-1][2] if spans[-1][1] == len(line) else "",
        )


def _measured(text: str, units: tuple[str, ...]) -> tuple[str, str]:
    """(number, unit) of a value that must carry one of `units`; ("", "") if it does not."""
    for unit in units:
        if text.endswith(unit) and (
            not unit or text[-len(unit) - 1 : -len(unit)].isdigit() or text.startswith(("nan", "inf"))
        ):
            return text.removesuffix(unit), unit
    return "", ""


def shape_of(line: str, reading: Reading) -> re.Pattern[str]:
    """A pattern for lines of exactly this form: the same words, as many digits after each point.

    Groups are the numbers of reading.spans in their order. It is what makes long logs fast, and a number that lost a digit
    in its fraction does not match it.
    """
    parts, position = [], 0
    for start, end, _ in reading.spans:
        parts.append(_literal(line[position:start]))
        digits = numbers.places(line[start:end])
        parts.append(rf"(\d{{1,15}}\.\d{{{digits}}})" if digits else r"(\d{1,15})")
        position = end
    parts.append(_literal(line[position:]))
    return re.compile("".join(parts))


def _literal(text: str) -> str:
    """The text itself, any whole or broken number in its place (the planned steps, a rate that nobody keeps)."""
    return re.sub(r"\d+(?:\\\.\d+)?", lambda match: r"\d+\.\d+" if "." in match[0] else r"\d+", re.escape(text))
