"""The fault table of remote hosts, measured. Writes results/faults.md. What a row means: tests/golfctl/faulttrials.py.

python benchmarks/faults.py [--trials 10] [--seed N] [--workers 3] [FAULT ...]
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import describe

from tests.golfctl.test_faults_soak import FAULTS, measure

RESULT = Path(__file__).parent / "results" / "faults.md"
HEAD = """\
# Faults

Campaigns of one plan and two gates on hosts behind real OpenSSH servers (in network namespaces where the line is cut);
each fault at a random moment, then everything goes on to the last verdict. Made by `benchmarks/faults.py`, seed {seed},
{workers} campaigns at a time. {machine}; shared virtual machine: the seconds are upper bounds.

| fault | repetitions | runs | lost events | double starts | orphans | logs identical | seconds to go on: median (worst) |
|---|---|---|---|---|---|---|---|
"""
TAIL = """
*Lost events*: lines of the ledger once seen and gone, runs it does not know or whose end it lacks. *Double starts*: by the
script's own book outside every run folder, and by attempts beyond those a fault accounts for. *Orphans*: processes of runs,
supervisors and serving processes left after the end. *Logs*: the pulled train.log against a second copy the script wrote
elsewhere, and against the sha256 the host kept; of runs that were lost for good, one is the beginning of the other. Each
trial also compares verdicts and scores with those of an undisturbed campaign, and looks for held slots, for tails left in
.golfctl, and for files left on the host. What *to go on* is for each fault: docstrings in tests/golfctl/faulttrials.py.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faults", nargs="*", help="beginnings of names in the table; all without any")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    words = parser.parse_args()
    faults = [name for name in FAULTS if not words.faults or name.startswith(tuple(words.faults))]
    rows = measure(faults, words.trials, words.seed, words.workers)
    spec = describe()
    machine = f"{spec['processor']}, {spec['cores']} cores, Python {spec['python']}"
    bad = [f"- {row.fault}: {text}" for row in rows for account in row.accounts for text in account.findings]
    head = HEAD.format(seed=words.seed, workers=words.workers, machine=machine)
    found = "\nFindings:\n\n" + "\n".join(bad) + "\n" if bad else ""
    words.out.write_text(head + "\n".join(row.line for row in rows) + "\n" + TAIL + found)
    print(words.out.read_text())
    return 1 if any(not account.clean for row in rows for account in row.accounts) else 0


if __name__ == "__main__":
    sys.exit(main())
