"""How weights are rounded: bits, clipping, and training on the rounded ones. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import BASELINE, FIELD, OURS, setting

if TYPE_CHECKING:
    from trainer.config import Config


# Literal choices, again and again: golfctl reads them from the source, without running it.
@dataclass(frozen=True, kw_only=True)
class QuantOptions:
    """Part of trainer.config.Config."""

    matrix_bits: int = setting(
        "MATRIX_BITS",
        8,
        "bits of 2-D matrices in the artifact; 2: ternary, 16: float16",
        source=FIELD,
        choices=(2, 4, 5, 6, 8, 16),
    )
    attn_bits: int = setting(
        "ATTN_BITS",
        0,
        "the same for matrices of attention alone; 0: MATRIX_BITS",
        source=FIELD,
        choices=(0, 2, 4, 5, 6, 8, 16),
    )
    mlp_bits: int = setting(
        "MLP_BITS",
        0,
        "the same for matrices of the MLP alone; 0: MATRIX_BITS",
        source=FIELD,
        choices=(0, 2, 4, 5, 6, 8, 16),
    )
    embed_bits: int = setting(
        "EMBED_BITS", 8, "bits of what EMBED_LR trains and of an untied head", source=FIELD, choices=(2, 4, 5, 6, 8, 16)
    )
    table_bits: int = setting(
        "TABLE_BITS",
        6,
        "bits of n-gram and BigramHash tables in the artifact",
        source=OURS,
        choices=(2, 4, 5, 6, 8, 16),
    )
    int8_step: int = setting(
        "INT8_STEP",
        1,
        "8-bit matrices hold multiples of this: 4 takes two bits out for the entropy coder to find",
        source="contest record 10L_MixedPrecision",
        choices=(1, 4),
    )
    quant_clip: str = setting(
        "QUANT_CLIP",
        "max",
        "where the grid of a row ends: its largest weight, a quantile, the least squared error, or k times its spread",
        source="contest baseline (quantile), #414 (mse), #1394 (sigma)",
        choices=("max", "quantile", "mse", "sigma"),
    )
    clip_quantile: float = setting(
        "CLIP_QUANTILE",
        0.9999984,
        "quantile: share of the row at or below the end of its grid",
        source=BASELINE,
        low=0.5,
        high=1,
    )
    matrix_clip_sigmas: float = setting(
        "MATRIX_CLIP_SIGMAS", 12.85, "sigma: k of 2-D matrices", source="#1394", low=0.5, high=1000
    )
    attn_clip_sigmas: float = setting(
        "ATTN_CLIP_SIGMAS",
        0.0,
        "sigma: k of matrices of attention; 0: MATRIX_CLIP_SIGMAS",
        source="#1769",
        low=0,
        high=1000,
    )
    mlp_clip_sigmas: float = setting(
        "MLP_CLIP_SIGMAS",
        0.0,
        "sigma: k of matrices of the MLP; 0: MATRIX_CLIP_SIGMAS",
        source="#1769",
        low=0,
        high=1000,
    )
    embed_clip_sigmas: float = setting(
        "EMBED_CLIP_SIGMAS", 20.0, "sigma: k of what EMBED_BITS is for", source="#1394", low=0.5, high=1000
    )
    table_clip_sigmas: float = setting(
        "TABLE_CLIP_SIGMAS", 12.85, "sigma: k of what TABLE_BITS is for", source=OURS, low=0.5, high=1000
    )
    qat_start: float = setting(
        "QAT_START",
        1.0,
        "share of the budget after which the forward pass sees the weights as the artifact rounds them; 1: never",
        source="contest records (straight-through int6), Bengio et al. 2013",
        low=0,
        high=1,
    )


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    widths = {config.attn_bits or config.matrix_bits, config.mlp_bits or config.matrix_bits, config.matrix_bits}
    if config.int8_step > 1 and 8 not in widths:
        yield f"INT8_STEP={config.int8_step} needs matrices of 8 bits (MATRIX_BITS, ATTN_BITS or MLP_BITS)"
    if config.qat_start < 1.0:
        yield from _other_grids(config)
    for name in ("attn_clip_sigmas", "mlp_clip_sigmas"):
        if 0 < getattr(config, name) < 0.5:
            yield f"{name.upper()}={getattr(config, name):g}: must be at least 0.5, or 0 for MATRIX_CLIP_SIGMAS"


def _other_grids(config: Config) -> Iterator[str]:
    """What rounds at the export in another way than QAT_START trained for."""
    said = f"QAT_START={config.qat_start:g} trains on the grid of the export"
    if config.model_bytes_target:
        yield f"{said}, and MODEL_BYTES_TARGET={config.model_bytes_target} chooses that grid afterwards"
    if config.awq_alpha:
        yield f"{said}, and AWQ_ALPHA={config.awq_alpha:g} scales columns afterwards"
    if config.lqer_rank:
        yield f"{said}, and LQER_RANK={config.lqer_rank} adds what rounding loses"
