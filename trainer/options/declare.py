"""How a setting is declared. Standard library only."""

from __future__ import annotations

import dataclasses
from typing import Any

BASELINE = "contest baseline"
FIELD = "contest records"
OURS = "this trainer"
FEW_STEPS = 10
"""Runs of fewer steps try a machine or a configuration, nobody compares their scores: not refused for being too short."""


def setting(
    name: str,
    default: Any,
    meaning: str,
    *,
    source: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field for the setting `name`. Its type is the default's; `low` and `high` are inclusive."""
    metadata = {
        "name": name,
        "meaning": meaning,
        "source": source,
        "low": low,
        "high": high,
        "choices": choices,
    }
    return dataclasses.field(default=default, metadata=metadata)
