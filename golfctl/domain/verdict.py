"""Verdicts: a gate's word with the numbers and the reason behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from golfctl.domain.gate import Answer


@dataclass(frozen=True)
class Check:
    """One requirement on one run or on the score. ok None: not checkable, said in `text`."""

    name: str
    text: str
    ok: bool | None


@dataclass(frozen=True)
class Verdict:
    """What a gate said about one revision of a plan.

    cause: failure class when the answer is not PASS, e.g. "crash", "too-slow", "worse-than-parent"; else "".
    overriding: the failed requirement can't be waived. numbers: every figure the sentence rests on.
    runs, reference_runs: names of all runs that were started for it, those without a score included.
    """

    plan: str
    revision: int
    gate: int
    answer: Answer
    reason: str
    cause: str = ""
    overriding: bool = False
    numbers: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    runs: tuple[str, ...] = ()
    reference_runs: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """For the ledger."""
        data = asdict(self)
        data["answer"] = str(self.answer)
        return data


def from_data(data: Mapping[str, Any]) -> Verdict:
    """The verdict in a ledger event's data."""
    values = dict(data)
    values["answer"] = Answer(values["answer"])
    values["checks"] = tuple(Check(**check) for check in values.get("checks", ()))
    for key in ("runs", "reference_runs"):
        values[key] = tuple(values.get(key, ()))
    return Verdict(**values)
