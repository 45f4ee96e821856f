"""What goes wrong with data."""

from __future__ import annotations


class DataError(Exception):
    """Training or validation data is missing, damaged or not allowed. One line: what, where, what was allowed."""
