"""What every test finds: a processor in its usual state."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the suite in the background has its children ignore Ctrl-C; the tests send it to theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def subnormal_numbers() -> Iterator[None]:
    """A run of the trainer in this process flushes subnormal numbers to zero; the tests after it get them back."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
