"""How the artifact is scored. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import FIELD, OURS, setting

if TYPE_CHECKING:
    from trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Part of trainer.config.Config."""

    eval_stride: int = setting("EVAL_STRIDE", 64, "new tokens per sliding window", source=FIELD, low=1)
    eval_batch_seqs: int = setting("EVAL_BATCH_SEQS", 64, "windows scored at once", source=FIELD, low=1)
    ttt: bool = setting("TTT_ENABLED", False, "score-first test-time training after the static score", source=FIELD)
    ttt_chunk_bytes: int = setting("TTT_CHUNK_BYTES", 2048, "bytes scored before each update", source=FIELD, low=1)
    ttt_epochs: int = setting("TTT_EPOCHS", 1, "updates per chunk", source=FIELD, low=1)
    ttt_matrix_lr: float = setting("TTT_MATRIX_LR", 0.001, "Adam rate of everything but tables", source=OURS, low=0)
    ttt_table_lr: float = setting("TTT_TABLE_LR", 0.01, "Adam rate of n-gram and BigramHash tables", source=OURS, low=0)
    references: bool = setting(
        "REFERENCE_SCORES",
        True,
        "print what compressors and n-gram models reach on the same bytes",
        source=OURS,
    )


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    if config.eval_stride > config.train_seq_len:
        yield f"EVAL_STRIDE={config.eval_stride} exceeds TRAIN_SEQ_LEN={config.train_seq_len}"
