"""Kill `golfctl gate run` of a demo campaign with SIGKILL again and again, with the real trainer, and compare the verdicts.

    python scripts/kill_demo.py FOLDER [KILLS]

Makes a fresh cpu-demo campaign in FOLDER, kills golfctl KILLS times (20) at random moments, lets it finish, and compares every
verdict and score with those of this repository's own campaign, which was never killed. Takes about ten minutes on 2 cores.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOLFCTL = [sys.executable, "-m", "golfctl"]
RUN = [*GOLFCTL, "gate", "run", "--through", "4", "--yes"]


def events(root: Path) -> list[dict[str, Any]]:
    """The ledger; a defect ends the script."""
    done = subprocess.run([*GOLFCTL, "ledger", "show", "-n", "0", "--json"], cwd=root, check=True, capture_output=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def outcome(root: Path) -> tuple[dict[str, str], dict[str, float]]:
    """Verdicts by plan and gate, scores by run."""
    found = events(root)
    verdicts = {
        f"{event['data']['plan']} {event['data']['gate']}": f"{event['data']['answer']} {event['data']['numbers']['seeds']}"
        for event in found
        if event["type"] == "verdict"
    }
    # A name ends with the bundle's hash, which differs when the trainer moved on; owner, gate, seed and attempt are compared.
    scores = {
        event["data"]["run"].rsplit(".", 1)[0]: event["data"]["result"]["score"]
        for event in found
        if event["type"] == "run_finished"
    }
    return verdicts, scores


def main() -> None:
    """Kill, finish, compare, and say what was found. Exit 1 on any difference."""
    folder, kills = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    draw, hits, known = random.Random(20), 0, 0
    subprocess.run([*GOLFCTL, "init", str(folder), "--plans", str(ROOT / "plans")], check=True)
    for _ in range(kills):
        process = subprocess.Popen(RUN, cwd=folder, stdout=subprocess.DEVNULL)
        time.sleep(draw.uniform(1, 18))
        hits += process.poll() is None
        process.kill()
        process.wait()
        now = len(events(folder)) if (folder / "experiments" / "ledger").exists() else 0
        assert now >= known, f"{known - now} events were lost"
        known = now
    subprocess.run(RUN, cwd=folder, check=False)
    subprocess.run([*GOLFCTL, "ledger", "verify"], cwd=folder, check=True)
    ours, reference = outcome(folder), outcome(ROOT)
    same = ours == reference
    print(
        f"{hits} of {kills} kills hit; verdicts and scores {'equal' if same else 'DIFFER from'} those of the unkilled campaign"
    )
    if not same:
        print(json.dumps({"killed": ours, "unkilled": reference}, indent=2))
    sys.exit(not same)


if __name__ == "__main__":
    main()
