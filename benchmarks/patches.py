"""What byte patches cost, scored honestly: the table of the campaign in studies/patches, from its ledger alone.

    python benchmarks/patches.py

The runs were made by `golfctl gate run PLAN ... --through 1`; the figures are those of the verdicts. Writes results/patches.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import studies

STUDY = studies.ROOT / "studies" / "patches"
OUT = studies.ROOT / "benchmarks" / "results" / "patches.md"
DECODERS = ("flat", "position-mlp", "causal-conv", "autoregressive")
BASE = {"NUM_LAYERS": 4, "TRAIN_SEQ_LEN": 480, "EVAL_STRIDE": 240, "TRAIN_BATCH_TOKENS": 3840}
HEAD = """\
# Byte patches, scored honestly

Made by `benchmarks/patches.py` from the ledger of `studies/patches`: 4 blocks of width 128, 480 bytes of context, 500 steps of
3,840 bytes of the embedded text, one thread, three seeds each. val_bpb over every byte of the validation text, mean (sd); in
brackets training FLOPs a byte against the byte model's.

The byte model (patches of 1): **{base:.3f}** ({sd:.3f}) at {flops:.1f} MFLOP a byte.

| bytes a patch | {decoders} |
|---|{dashes}|
"""
TAIL = """
flat and position-mlp take the bytes of a patch as independent of each other given what came before: a distribution over all
patches, honestly scored and loose. causal-conv and autoregressive see the patch's earlier bytes.

The same with one place wrong (`plans/patches/unshifted.patch`: the convolution reads the byte it predicts), which passes the
gate:

| bytes a patch | val_bpb | an honest causal-conv |
|---|---|---|
"""


def cell(found: dict[str, dict[str, Any]], plan: str, base: float) -> str:
    """Mean, sd and cost of a plan."""
    own = found[plan]["numbers"]["own"]
    cost = studies.flops(BASE | studies.settings(STUDY, plan)) / base
    return f"{own['mean']:.3f} ({own['sd']:.3f}) [{cost:.2f}]"


def main() -> None:
    """Read the campaign's report and write the table."""
    report = studies.report(STUDY)
    found = {plan["id"]: verdict for plan in report["plans"] if (verdict := studies.verdict(plan)) is not None}
    parent = next(iter(found.values()))["numbers"]["parent"]
    flops = studies.flops(BASE)
    head = HEAD.format(
        base=parent["mean"],
        sd=parent["sd"],
        flops=flops / 1e6,
        decoders=" | ".join(DECODERS),
        dashes="|".join("---" for _ in DECODERS),
    )
    rows = [
        f"| {size} | " + " | ".join(cell(found, f"patch-{size}-{name}", flops) for name in DECODERS) + " |"
        for size in (2, 4, 8, 12)
    ]
    wrong = [
        f"| {size} | {found[f'unshifted-{size}']['numbers']['own']['mean']:.3f} | "
        f"{found[f'patch-{size}-causal-conv']['numbers']['own']['mean']:.3f} |"
        for size in (4, 8, 12)
    ]
    OUT.write_text(head + "\n".join(rows) + "\n" + TAIL + "\n".join(wrong) + "\n")
    print(f"{OUT.relative_to(studies.ROOT)}: {len(found)} plans")


if __name__ == "__main__":
    main()
