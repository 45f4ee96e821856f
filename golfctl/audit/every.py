"""All checks over one target, in the order of their numbers."""

from __future__ import annotations

from pathlib import Path

from golfctl.audit import claimed, clocks, code, metric, package, provenance, shipped, sizes
from golfctl.audit.contest import Contest
from golfctl.audit.result import Audit
from golfctl.audit.target import Target


def audit(target: Target, contest: Contest, *, standing: float | None = None, data: Path | None = None) -> Audit:
    """Look at a target with every deterministic check. Nothing of it is run, imported or unpickled.

    standing: the score a record must beat, in bpb; data: the shards it trained on, where they are at hand. Raises InputError if
    `data` holds no shards.
    """
    shipped.forget()
    checks = [
        *sizes.check(target, contest),
        *clocks.check(target, contest),
        *metric.check(target, contest),
        provenance.check(target, data),
        *claimed.check(target, contest, standing),
        package.check(target, contest.image),
        *code.check(target),
    ]
    return Audit(target.name, target.kind, contest.name, tuple(checks))
