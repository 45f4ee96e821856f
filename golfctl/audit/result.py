"""What an audit says: checks, each with its answer and the evidence for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Answer(StrEnum):
    """Of one check, from best to worst as `worst` orders them."""

    PASS = "PASS"
    NOT_CHECKABLE = "NOT CHECKABLE"
    WARN = "WARN"
    FAIL = "FAIL"


_ORDER = list(Answer)


@dataclass(frozen=True)
class Evidence:
    """One finding. where: `file:line` or a file, below the target; text: the numbers, and what was expected instead."""

    answer: Answer
    text: str
    where: str = ""


@dataclass(frozen=True)
class Check:
    """One check with everything it found. case: where this went wrong in the field. answer: the worst of its evidence."""

    id: str
    title: str
    case: str
    evidence: tuple[Evidence, ...]

    @property
    def answer(self) -> Answer:
        """NOT CHECKABLE where nothing could be looked at, and where a part could not, unless another part is worse."""
        return worst(item.answer for item in self.evidence)


@dataclass(frozen=True)
class Audit:
    """All checks of one target. kind: record, run or plan."""

    target: str
    kind: str
    contest: str
    checks: tuple[Check, ...]

    @property
    def answer(self) -> Answer:
        """The worst answer, where what can't be checked is no fault."""
        return worst(check.answer for check in self.checks if check.answer is not Answer.NOT_CHECKABLE)

    def count(self, answer: Answer) -> int:
        """Checks with this answer."""
        return sum(check.answer is answer for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Plain data for programs."""
        rows = [{**asdict(check), "answer": str(check.answer)} for check in self.checks]
        return {
            "target": self.target,
            "kind": self.kind,
            "contest": self.contest,
            "answer": str(self.answer),
            "checks": rows,
        }


def worst(answers: Iterable[Answer]) -> Answer:
    """The worst of them; of none at all, NOT CHECKABLE."""
    return max(answers, key=_ORDER.index, default=Answer.NOT_CHECKABLE)


NOTHING = "nothing of the kind"
"""What a check on code says that found nothing."""


def ok(text: str, where: str = "") -> Evidence:
    """Looked at, and right."""
    return Evidence(Answer.PASS, text, where)


def warn(text: str, where: str = "") -> Evidence:
    """A person should look at it."""
    return Evidence(Answer.WARN, text, where)


def fail(text: str, where: str = "") -> Evidence:
    """A rule or a claim is broken."""
    return Evidence(Answer.FAIL, text, where)


def unknown(text: str, where: str = "") -> Evidence:
    """Nothing here tells: no blame, and no praise."""
    return Evidence(Answer.NOT_CHECKABLE, text, where)


def several(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def count(number: int, noun: str) -> str:
    """`1 log`, `2 logs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
