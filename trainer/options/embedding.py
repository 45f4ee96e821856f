"""What enters the residual stream beside the token embedding, and where documents end. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import FIELD, OURS, setting

if TYPE_CHECKING:
    from trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """Part of trainer.config.Config."""

    ngram_max_order: int = setting(
        "NGRAM_MAX_ORDER",
        0,
        "hashed n-gram embeddings of orders 2 to this; 0: off",
        source=OURS,
        choices=(0, 2, 3, 4, 5, 6),
    )
    ngram_buckets: int = setting("NGRAM_BUCKETS", 32768, "rows per order", source=OURS, low=16)
    ngram_dim: int = setting("NGRAM_DIM", 16, "width of a row", source=OURS, low=1)
    ngram_logits: bool = setting(
        "NGRAM_LOGITS", False, "a linear map from the n-gram rows straight to the logits", source=OURS
    )
    document_attention: bool = setting("DOCUMENT_ATTENTION", False, "attention stays inside a document", source=FIELD)
    document_ngrams: bool = setting(
        "DOCUMENT_NGRAMS", False, "n-grams of the tables stay inside a document", source=OURS
    )
    smear_gate: str = setting(
        "SMEAR_GATE",
        "off",
        "mix in the embedding before: by a learned share per channel, or per token by a gate",
        source=FIELD,
        choices=("off", "channel", "token"),
    )
    bigram_rows: int = setting("BIGRAM_VOCAB_SIZE", 0, "rows of the BigramHash table; 0: off", source=FIELD, low=0)
    bigram_dim: int = setting("BIGRAM_DIM", 128, "width of a BigramHash row", source=FIELD, low=1)


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    if config.ngram_logits and not config.ngram_max_order:
        yield "NGRAM_LOGITS=1 needs NGRAM_MAX_ORDER >= 2"
    if config.document_ngrams and not config.ngram_max_order:
        yield "DOCUMENT_NGRAMS=1 needs NGRAM_MAX_ORDER >= 2"
    if config.smear_gate == "token" and config.model_dim < 12:
        yield f"SMEAR_GATE=token reads 12 channels, MODEL_DIM={config.model_dim} has fewer"
    if config.bigram_rows == 1:
        yield "BIGRAM_VOCAB_SIZE=1: one row is for document starts, so at least 2 are needed; 0 turns it off"
