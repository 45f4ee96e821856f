"""Every benchmark, one after the other (never side by side: they would disturb each other)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    for name in ("startup.py", "cpu_best.py", "dispatch.py", "many_runs.py", "abort_latency.py", "ledger.py"):
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).parent / name)], check=True)
