"""What each switch is worth: the table of the campaign in studies/switches, from its ledger alone.

    python benchmarks/switches.py

The runs were made by `golfctl gate run PLAN --through 1`; the figures are those of the verdicts. Writes results/switches.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import studies

STUDY = studies.ROOT / "studies" / "switches"
OUT = studies.ROOT / "benchmarks" / "results" / "switches.md"
HEAD = """\
# What the switches are worth in a short run

Made by `benchmarks/switches.py` from the ledger of `studies/switches`: the bundled trainer's default model (2 blocks of width
128, bytes), 120 steps of 1,024 bytes of the embedded text, one thread, eight seeds paired with the base's. Difference of val_bpb
(minus is better) with its 95 % interval, one-sided p for any gain; a verdict at 0.05. Cost: bytes of the packed model and
training FLOPs a token, both against the base.

| plan | what | difference | 95 % | p | verdict | bytes | FLOPs |
|---|---|---|---|---|---|---|---|
"""
TAIL = """

{} plans were tried, so of those that change nothing about one in twenty looks like a gain. What helps here helps early learning
of a small model; it says little about ten minutes of eight GPUs. What is supposed of the losers stands in `failures.md` there.
"""


def rows(report: dict[str, Any], runs: list[dict[str, Any]]) -> list[tuple[float, str]]:
    """(effect, table row) of each judged plan."""
    base, found = studies.flops({}), []
    for plan in report["plans"]:
        verdict = studies.verdict(plan)
        if verdict is None:
            continue
        test = verdict["numbers"]["versus"]
        word = {"PASS": "helps", "FAIL": "hurts", "INCONCLUSIVE": "not resolved"}[verdict["answer"]]
        span = f"[{test['low']:+.4f}, {test['high']:+.4f}]"
        more = size(runs, plan["id"]) - size(runs, report["base"])
        cost = studies.flops(studies.settings(STUDY, plan["id"])) / base
        cells = (
            f"`{plan['id']}`",
            plan["title"],
            f"{test['effect']:+.4f}",
            span,
            f"{test['p']:.2g}",
            word,
            f"{more:+,.0f}",
            f"{cost:.2f}",
        )
        found.append((test["effect"], f"| {' | '.join(cells)} |"))
    return sorted(found)


def size(runs: list[dict[str, Any]], owner: str) -> float:
    """Mean bytes of the packed model over an owner's completed runs."""
    return mean(float(run["model_bytes"]) for run in runs if run["owner"] == owner and run["outcome"] == "completed")


def main() -> None:
    """Read the campaign's report and write the table."""
    table = rows(studies.report(STUDY), studies.runs(STUDY))
    OUT.write_text(HEAD + "\n".join(row for _, row in table) + TAIL.format(len(table)))
    print(f"{OUT.relative_to(studies.ROOT)}: {len(table)} plans")


if __name__ == "__main__":
    main()
