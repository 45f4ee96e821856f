"""What a run leaves for others to read: log lines, metrics.jsonl, result.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.contract import METRICS, RESULT, write_file


class Metrics:
    """Says and records on rank 0; silent on all others, so callers need not ask who they are."""

    def __init__(self, out_dir: Path, rank: int) -> None:
        """Makes the folder and starts an empty metrics file on rank 0. Raises OSError if it can't."""
        self.out_dir, self._speaks = out_dir, rank == 0
        if self._speaks:
            out_dir.mkdir(parents=True, exist_ok=True)
            (out_dir / METRICS).write_bytes(b"")

    def say(self, line: str) -> None:
        """Print one log line at once: a reader follows the log while the run goes on."""
        if self._speaks:
            print(line, flush=True)

    def record(self, values: dict[str, Any]) -> None:
        """Append one JSON object as a line of metrics.jsonl."""
        if self._speaks:
            with (self.out_dir / METRICS).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(values, allow_nan=False) + "\n")


def write_result(out_dir: Path, result: dict[str, Any]) -> None:
    """Write result.json, complete or not at all. Raises ValueError if it holds a number that is not finite."""
    text = json.dumps(result, indent=1, sort_keys=True, allow_nan=False)
    write_file(out_dir / RESULT, (text + "\n").encode())
