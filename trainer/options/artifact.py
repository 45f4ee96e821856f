"""How weights are stored. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.options.declare import FIELD, OURS, setting


@dataclass(frozen=True, kw_only=True)
class ArtifactOptions:
    """Part of trainer.config.Config."""

    matrix_bits: int = setting("MATRIX_BITS", 8, "bits of 2-D matrices in the artifact", source=FIELD, choices=(6, 8))
    embed_bits: int = setting(
        "EMBED_BITS", 8, "bits of what EMBED_LR trains and of an untied head", source=FIELD, choices=(6, 8)
    )
    table_bits: int = setting(
        "TABLE_BITS", 6, "bits of n-gram and BigramHash tables in the artifact", source=OURS, choices=(6, 8)
    )
