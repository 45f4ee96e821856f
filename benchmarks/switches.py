"""What each switch is worth: the table of the campaign in studies/switches, from its ledger alone.

    python benchmarks/switches.py

The runs were made by `golfctl gate run PLAN --through 1`; the figures are those of the verdicts. Writes results/switches.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "studies" / "switches"
OUT = ROOT / "benchmarks" / "results" / "switches.md"
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
    base, found = flops({}), []
    for plan in report["plans"]:
        verdict = next((gate["verdict"] for gate in plan["gates"] if gate.get("verdict")), None)
        if verdict is None:
            continue
        test = verdict["numbers"]["versus"]
        word = {"PASS": "helps", "FAIL": "hurts", "INCONCLUSIVE": "not resolved"}[verdict["answer"]]
        span = f"[{test['low']:+.4f}, {test['high']:+.4f}]"
        more = size(runs, plan["id"]) - size(runs, report["base"])
        cost = flops(settings(plan["id"])) / base
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


def settings(plan: str) -> dict[str, Any]:
    """What a plan sets."""
    return dict(yaml.safe_load((STUDY / "plans" / f"{plan}.yaml").read_text())["diffs"][0]["set"])


def flops(values: dict[str, Any]) -> float:
    """Training FLOPs a token of the default model with these settings, by the trainer's own count."""
    words = [f"{name}={value}" for name, value in values.items()]
    command = [sys.executable, "-m", "trainer", *words, "--describe", "--json"]
    return float(json.loads(subprocess.check_output(command, cwd=ROOT))["flops_per_token"]["total"])


def main() -> None:
    """Read the campaign's report and write the table."""
    command = [sys.executable, "-m", "golfctl"]
    report = json.loads(subprocess.check_output([*command, "report", "--json"], cwd=STUDY))
    lines = subprocess.check_output([*command, "ledger", "export", "runs", "--format", "jsonl"], cwd=STUDY, text=True)
    table = rows(report, [json.loads(line) for line in lines.splitlines()])
    OUT.write_text(HEAD + "\n".join(row for _, row in table) + TAIL.format(len(table)))
    print(f"{OUT.relative_to(ROOT)}: {len(table)} plans")


if __name__ == "__main__":
    main()
