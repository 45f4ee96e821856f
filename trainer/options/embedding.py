"""What enters the residual stream beside the token embedding. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import OURS, setting

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


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    if config.ngram_logits and not config.ngram_max_order:
        yield "NGRAM_LOGITS=1 needs NGRAM_MAX_ORDER >= 2"
