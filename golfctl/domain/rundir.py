"""Names of the files in a run folder: the only place that spells them for golfctl (the trainer's: trainer.contract)."""

from __future__ import annotations

from trainer.contract import ARTIFACT, LOG, METRICS, RESULT

__all__ = [
    "ARTIFACT",
    "EXIT",
    "HEARTBEAT",
    "LOG",
    "METRICS",
    "PULLED",
    "RESULT",
    "SPEC",
    "STOP",
    "SUPERVISOR_LOG",
]

SPEC = "run.json"
"""What was asked for: written before the supervisor starts (see hostside/supervise.py for its fields)."""
HEARTBEAT = "heartbeat.json"
"""Rewritten every second by the supervisor: its pid and start time, the child's pid, last step seen."""
EXIT = "exit.json"
"""Appears last, by rename: outcome, reason, exit code, wall seconds, sha256 of every file the run left."""
STOP = "stop"
"""Its presence asks the supervisor to abort; its text is the reason."""
SUPERVISOR_LOG = "supervise.log"
"""Standard output and error of the supervisor itself; empty unless something is wrong with it."""
PULLED = "pulled.json"
"""Written here, not on the host, once every file was verified against exit.json."""
