"""Which evaluation of a log is its score."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from golfctl.logs.record import Eval

_ASIDE = re.compile(r"diagnostic|pre[-_]?quant|post[-_]?(?:ema|swa)|before|fp32|bf16|unquant", re.IGNORECASE)
_LEGACY = re.compile(r"final_int8_zlib")


def choose(evals: Sequence[Eval], label: str | None) -> tuple[Eval | None, str]:
    """(evaluation, why). label: the score label of the rules; the last line with it is the score, and nothing else is.

    Without a label the best-scoring evaluation of the packed model is proposed: what its author reports. Of lines that print the
    same score the one with most digits counts, and one under its own name before one under the baseline's old name.
    """
    if label:
        exact = [item for item in evals if item.label == label]
        found = exact or [item for item in evals if item.label.startswith(f"{label} ")]
        return (found[-1], f"the rules score {label!r}") if found else (None, f"the log has no {label!r}")
    packed = [item for item in evals if not _ASIDE.search(item.label)]
    finite = [item for item in packed if math.isfinite(item.val_bpb)]
    if packed and not finite:
        return max(packed, key=lambda item: item.digits), "every evaluation of the packed model is nan"
    if not packed:
        return None, "no evaluation of a packed model" if evals else "no named evaluation"
    best = min(finite, key=lambda item: item.val_bpb)
    same = [
        item for item in finite if abs(item.val_bpb - best.val_bpb) <= 0.50001 * 10 ** -min(item.digits, best.digits)
    ]
    chosen = max(same, key=lambda item: (item.digits, not _LEGACY.match(item.label)))
    others = len({item.label for item in finite}) - 1
    return (
        chosen,
        f"proposed: the best of {others + 1} evaluations of the packed model" if others else "the only evaluation",
    )
