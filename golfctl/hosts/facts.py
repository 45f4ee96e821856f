"""Reading facts another machine sent: anything may be missing or of a wrong kind, and no text may harm a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from golfctl.hostside.files import one_line


def at(content: Any, *keys: str) -> Any:
    """The value below these keys, None where there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def text_at(content: Any, *keys: str) -> str:
    """It as one scrubbed line; "" where it is neither text nor a number."""
    value = at(content, *keys)
    return one_line(str(value)) if isinstance(value, (str, int, float)) else ""


def number_at(content: Any, *keys: str) -> float | None:
    """It as a finite number, None where it is none."""
    value = at(content, *keys)
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if right and abs(value) < 1e30 else None  # nan is not below anything


def list_at(content: Any, *keys: str) -> list[Any]:
    """It as a list, empty where it is none."""
    value = at(content, *keys)
    return value if isinstance(value, list) else []


def gpu_list(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The GPUs a probe found."""
    return [gpu for gpu in list_at(facts, "gpus") if isinstance(gpu, dict)]


def gpu_name(gpu: Mapping[str, Any]) -> str:
    """`gpu 3`."""
    return f"gpu {text_at(gpu, 'index')}"


def gigabytes(count: float) -> str:
    """Bytes as `812 GB`, decimal."""
    return f"{count / 1e9:,.0f} GB" if count >= 20e9 else f"{count / 1e9:.1f} GB"


def digits(value: float) -> str:
    """A figure with three digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
