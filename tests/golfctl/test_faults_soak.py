"""The fault table: every fault ten times at random moments. `make soak` runs it; benchmarks/faults.py writes it down.

FAULT_SEED and FAULT_TRIALS choose the moments and how many; the seed of each trial is printed.
"""

from __future__ import annotations

import os
import random
import secrets
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.golfctl import faulttrials as trials
from tests.golfctl.faultlab import Account, undisturbed

Trial = Callable[[random.Random], Account]
FAULTS: dict[str, Trial] = {
    "controller killed at random moments": trials.controller_killed,
    "controller gone for good, wall-clock rule": lambda draw: trials.controller_gone(draw, "over_time"),
    "controller gone for good, nan": lambda draw: trials.controller_gone(draw, "aborted"),
    "link down 30 s": lambda draw: trials.line_down(draw, 30.0),
    "link down for good, orphan still runs": lambda draw: trials.line_gone(draw, stop=True),
    "link down for good, orphan has ended": lambda draw: trials.line_gone(draw, stop=False),
    "sshd restarted, sessions dropped": trials.daemon_trouble,
    "supervisor killed": trials.supervisor_killed,
    "training process killed": trials.child_killed,
    "serving process killed": trials.serve_killed,
    "disk full there, log": lambda draw: trials.disk_full_there(draw, "log"),
    "disk full there, artifact": lambda draw: trials.disk_full_there(draw, "artifact"),
    "disk full here": trials.disk_full_here,
    "clock an hour off": trials.clock_wrong,
    "transfer cut": trials.transfer_cut,
    "file short on the host": trials.file_short,
}


@dataclass
class Row:
    """All trials of one fault."""

    fault: str
    accounts: list[Account] = field(default_factory=list)

    def total(self, name: str) -> int:
        """Sum of a count over all trials."""
        return sum(int(getattr(account, name)) for account in self.accounts)

    @property
    def line(self) -> str:
        """A row of the table in docs and benchmarks."""
        seconds = sorted(account.seconds for account in self.accounts if account.seconds is not None)
        took = f"{statistics.median(seconds):.1f} ({seconds[-1]:.1f})" if seconds else "-"
        same = f"{self.total('logs') - self.total('logs_differ')} of {self.total('logs')}"
        counts = [
            len(self.accounts),
            *(self.total(name) for name in ("runs", "lost_events", "double_starts", "orphans")),
        ]
        return f"| {self.fault} | {' | '.join(map(str, counts))} | {same} | {took} |"


def measure(faults: Sequence[str], count: int, seed: int, workers: int) -> list[Row]:
    """Do these faults, `count` times each, `workers` at a time; whatever happens in a trial becomes a finding."""
    undisturbed()
    rows = {name: Row(name) for name in faults}
    # Slow and fast faults take turns, so that the last ones are not all slow.
    order = [(name, number) for number in range(count) for name in faults]

    def one(item: tuple[str, int]) -> None:
        name, number = item
        mark, began = f"{seed}/{name}/{number}", time.monotonic()
        try:
            account = FAULTS[name](random.Random(mark))
        except Exception as error:
            text = "".join(traceback.format_exception(error)[-2:])
            account = Account(findings=[f"{type(error).__name__}: {text[-1500:]}"])
        rows[name].accounts.append(account)
        print(f"{mark}: {time.monotonic() - began:.0f} s {'ok' if account.clean else account}", flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, order))
    return list(rows.values())


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_at_random_moments(fault: str) -> None:
    """Zero lost events, zero double starts, zero orphans, every log the host's, verdicts and scores as undisturbed."""
    seed = int(os.environ.get("FAULT_SEED", secrets.randbelow(1 << 31)))
    count = int(os.environ.get("FAULT_TRIALS", "10"))
    print(f"\nFAULT_SEED={seed}")
    (row,) = measure([fault], count, seed, workers=2)
    print(row.line)
    assert len(row.accounts) == count
    assert all(account.clean for account in row.accounts), [item for item in row.accounts if not item.clean]
