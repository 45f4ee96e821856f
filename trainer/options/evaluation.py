"""How the artifact is scored. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import FIELD, OURS, setting

if TYPE_CHECKING:
    from trainer.config import Config

LORA = "contest record #1530"
PHASED = "contest records #1610, #1626"


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Part of trainer.config.Config. The static sliding score is always there; each switch adds a score beside it."""

    eval_max_seconds: float = setting(
        "EVAL_MAX_SECONDS",
        600.0,
        "all scores together, from loading on; the run fails past it; 0: any",
        source=FIELD,
        low=0,
    )
    eval_stride: int = setting("EVAL_STRIDE", 64, "new tokens per sliding window", source=FIELD, low=1)
    eval_batch_seqs: int = setting("EVAL_BATCH_SEQS", 64, "windows scored at once", source=FIELD, low=1)
    eval_temperature: float = setting(
        "EVAL_TEMPERATURE", 1.0, "divides the logits of every score", source="contest ternary record", low=0.01
    )
    eval_flat: bool = setting("EVAL_FLAT", False, "also score windows side by side (stride = context)", source=FIELD)
    eval_documents: bool = setting(
        "EVAL_DOCUMENTS", False, "also score each document as if it stood alone, strided within itself", source=FIELD
    )
    ttt: bool = setting("TTT_ENABLED", False, "score-first test-time training after the static score", source=FIELD)
    ttt_chunk_bytes: int = setting("TTT_CHUNK_BYTES", 2048, "bytes scored before each update", source=FIELD, low=1)
    ttt_epochs: int = setting("TTT_EPOCHS", 1, "updates per chunk", source=FIELD, low=1)
    ttt_optimizer: str = setting(
        "TTT_OPTIMIZER",
        "adam",
        "what learns from chunks; sgd: with TTT_MOMENTUM",
        source="this trainer (adam), contest records #549, #1413 (sgd)",
        choices=("adam", "sgd"),
    )
    ttt_matrix_lr: float = setting("TTT_MATRIX_LR", 0.001, "rate of everything but tables", source=OURS, low=0)
    ttt_table_lr: float = setting("TTT_TABLE_LR", 0.01, "rate of n-gram and BigramHash tables", source=OURS, low=0)
    ttt_momentum: float = setting("TTT_MOMENTUM", 0.9, "of SGD, at chunks and at phases", source=FIELD, low=0, high=1)
    ttt_clip: float = setting(
        "TTT_CLIP", 0.0, "largest norm of a gradient, at chunks and at phases; 0: any", source=FIELD, low=0
    )
    ttt_schedule: str = setting(
        "TTT_SCHEDULE",
        "constant",
        "rates over the chunks; cosine: to zero at the last",
        source=FIELD,
        choices=("constant", "cosine"),
    )
    lora: bool = setting(
        "LORA_ENABLED", False, "also score with low-rank adapters that learn per document", source=LORA
    )
    lora_rank: int = setting("LORA_RANK", 8, "rank of the adapters", source=LORA, low=1)
    lora_alpha: float = setting("LORA_ALPHA", 16.0, "adapters count alpha / rank times", source=LORA, low=0)
    lora_lr: float = setting("LORA_LR", 0.001, "AdamW rate of the adapters", source=LORA, low=0)
    lora_decay: float = setting("LORA_WD", 0.0, "AdamW decay of the adapters", source=LORA, low=0)
    lora_chunk: int = setting(
        "LORA_CHUNK_TOKENS", 32, "tokens of a document scored before each update", source=LORA, low=1
    )
    lora_docs: int = setting("LORA_DOCS", 32, "documents adapted side by side", source=LORA, low=1)
    lora_warm: bool = setting(
        "LORA_WARM", False, "a new document keeps A of the one LORA_DOCS before it; B is always zero", source=LORA
    )
    phases: int = setting(
        "PHASES", 0, "pauses in which SGD moves the base weights on scored documents; 0: none", source=PHASED, low=0
    )
    phase_docs: int = setting("PHASE_DOCS", 100, "documents scored before each pause", source=PHASED, low=1)
    phase_lr: float = setting("PHASE_LR", 0.001, "SGD rate of the base weights", source=PHASED, low=0)
    mix_ngrams: bool = setting(
        "MIX_NGRAMS", False, "also score mixed with n-gram counts of the text so far", source=OURS
    )
    mix_low: int = setting("MIX_LOW_ORDER", 4, "ids of the shortest context that corrects the net", source=OURS, low=1)
    mix_high: int = setting("MIX_HIGH_ORDER", 12, "ids of the longest context", source=OURS, low=1, high=64)
    mix_most: int = setting("MIX_MOST", 16, "latest occurrences of a context that are counted", source=OURS, low=1)
    mix_strength: float = setting(
        "MIX_STRENGTH",
        4.0,
        "weight of the shorter context, and below it of the net; 1: Witten-Bell",
        source=OURS,
        low=0.01,
    )
    mix_tilt: float = setting(
        "MIX_TILT",
        0.0,
        "beta of the tilt towards the latest follower of MIX_HIGH_ORDER ids; 0: none",
        source=FIELD,
        low=0,
        high=20,
    )
    mix_over: str = setting(
        "MIX_OVER",
        "static",
        "what mixtures correct: the static model or the one that TTT adapts",
        source=OURS,
        choices=("static", "ttt"),
    )
    hedge: bool = setting(
        "HEDGE_ENABLED", False, "also score net, n-gram mixture and n-grams alone, weighted by their past", source=FIELD
    )
    hedge_eta: float = setting("HEDGE_ETA", 1.0, "weights follow p^eta; 1: the Bayes mixture", source=FIELD, low=0)
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
    if config.lora and config.lora_chunk > config.train_seq_len:
        yield f"LORA_CHUNK_TOKENS={config.lora_chunk} exceeds TRAIN_SEQ_LEN={config.train_seq_len}"
    if config.lora and config.lora_chunk % config.patch_size:
        yield f"LORA_CHUNK_TOKENS={config.lora_chunk} is not a multiple of PATCH_SIZE={config.patch_size}"
    if config.phases and not config.lora:
        yield f"PHASES={config.phases} needs LORA_ENABLED=1: a phase pauses the scoring of documents"
    if config.mix_low > config.mix_high and (config.mix_ngrams or config.hedge):
        yield f"MIX_LOW_ORDER={config.mix_low} exceeds MIX_HIGH_ORDER={config.mix_high}"
