"""Quantities as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`3 min 40 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(minutes) + [f"{rest} s"]
    return " ".join(parts[:2])
