"""Work in a thread that never keeps the process: a host that hangs holds up neither the others nor Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """A call under way. `over` is set when it has ended."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.over = threading.Event()
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:
            self._error = error
        self.over.set()

    def result(self) -> T:
        """What the call returned; raises what it raised. Only once it is over."""
        if self._error:
            raise self._error
        return self._result[0]


def wait_for(calls: Iterable[Background[T]], seconds: float) -> None:
    """Wait until all are over, so many seconds at most."""
    deadline = time.monotonic() + seconds
    for call in calls:
        call.over.wait(max(0.0, deadline - time.monotonic()))
