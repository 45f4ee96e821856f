"""Requirements as text, and a plan's differences laid over a campaign's gates."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from golfctl.domain.gate import METRICS, Gate, Requirement

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_RULE = re.compile(
    rf"\s*(<=|<|>=|>)\s*(?:(?P<side>base|parent)(?:\s*(?P<sign>[-+])\s*(?P<offset>{_NUMBER}))?|(?P<value>[-+]?{_NUMBER}))\s*"
)
HOW = "write '<= 1.1174', '<= base - 0.07' or '<= parent - 0.01'"


def parse_requirement(metric: str, text: str) -> Requirement:
    """`<= 1.1174`, `<= base - 0.07` or `<= parent - 0.01` for one of gate.METRICS. Raises ValueError saying what is allowed."""
    found = _RULE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no requirement; {HOW}")
    operator = found[1]
    if operator not in {"<=", "<"}:
        raise ValueError(f"{text!r}: smaller is better for {metric}, so it is bounded from above; write '<= ...'")
    if found["side"] is None:
        return Requirement(metric, operator, float(found["value"]))
    offset = float(found["offset"] or 0.0)
    return Requirement(metric, operator, -offset if found["sign"] == "-" else offset, found["side"])


def differences(raw: Mapping[str, Any]) -> dict[str, object]:
    """A validated gate entry of a file as differences: keys are those of domain.gate.Gate; `require` a tuple of Requirement."""
    found: dict[str, object] = {key: value for key, value in raw.items() if key != "require" and value is not None}
    if raw.get("require"):
        rules: dict[str, Any] = dict(raw["require"])
        if rules.get("at_gpus") is not None:
            found["at_gpus"] = rules["at_gpus"]
        require = tuple(parse_requirement(name, rules[name]) for name in METRICS if rules.get(name) is not None)
        if require:
            found["require"] = require
    for name in ("alpha", "min_gain", "wallclock_s", "stall_s", "estimate_s"):
        if name in found:
            found[name] = float(found[name])  # type: ignore[arg-type]  # validated as a number by the file's model
    return found


def apply(gate: Gate, changes: Mapping[str, object]) -> Gate:
    """The gate with a plan's differences: `env` and `require` are merged by name, everything else is replaced."""
    fields: dict[str, Any] = dict(changes)
    if "env" in fields:
        fields["env"] = {**gate.env, **fields["env"]}
    if "require" in fields:
        mine = {item.metric: item for item in gate.require} | {item.metric: item for item in fields["require"]}
        fields["require"] = tuple(mine[name] for name in METRICS if name in mine)
    return dataclasses.replace(gate, **fields)
