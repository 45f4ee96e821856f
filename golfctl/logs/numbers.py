"""Numbers as logs print them, read strictly: what is not wholly a number of the expected kind is None, never its beginning."""

from __future__ import annotations

import re

# Bounded on purpose: a log may hold a megabyte of digits. An exponent carries its sign, as every printf writes it.
_REAL = re.compile(r"\d{1,15}(?:\.\d{1,20})?(?:e[-+]\d{1,3})?|nan|inf", re.IGNORECASE)
_WHOLE = re.compile(r"\d{1,18}")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3}){1,5}")


def real(text: str) -> float | None:
    """A number that can't be negative: a loss, a score, a time. None if the text is anything else."""
    return float(text) if _REAL.fullmatch(text) else None


def signed(text: str) -> float | None:
    """The same for what may be negative, as some training losses are."""
    value = real(text.removeprefix("-"))
    return -value if value is not None and text.startswith("-") else value


def whole(text: str) -> int | None:
    """A count, perhaps with thousands separators (`36,915,884`)."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return int(text.replace(",", "")) if _GROUPED.fullmatch(text) else None


def places(text: str) -> int:
    """Digits printed after the point."""
    mantissa = text.lower().partition("e")[0]
    return len(mantissa) - mantissa.index(".") - 1 if "." in mantissa else 0
