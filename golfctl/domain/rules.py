"""The limits and the score of a campaign."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """What a result must respect, and what decides.

    artifact_cap_bytes: counted code + model, decimal bytes (the contest's cap is 16,000,000).
    score: the deciding metric; score_label: the name of the final log line that carries it.
    record_margin_nats: what a record must beat the standing one by; its unit is read three ways in the field,
        see docs/statistics.md.
    alpha: one-sided error rate of the final gate.
    """

    artifact_cap_bytes: int = 16_000_000
    score: str = "val_bpb"
    score_label: str = "final_sliding_window_exact"
    lower_is_better: bool = True
    record_margin_nats: float = 0.005
    alpha: float = 0.01
