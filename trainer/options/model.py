"""The transformer: sizes, attention, MLP, residual stream. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import BASELINE, FIELD, setting

if TYPE_CHECKING:
    from trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Part of trainer.config.Config."""

    num_layers: int = setting("NUM_LAYERS", 2, "transformer blocks", source=BASELINE, low=1)
    model_dim: int = setting("MODEL_DIM", 128, "width of the residual stream", source=BASELINE, low=8)
    num_heads: int = setting("NUM_HEADS", 4, "query heads", source=BASELINE, low=1)
    num_kv_heads: int = setting(
        "NUM_KV_HEADS", 2, "key and value heads, shared by consecutive query heads", source=BASELINE, low=1
    )
    mlp_mult: float = setting("MLP_MULT", 2.0, "MLP width in model widths", source=BASELINE, low=0.25)
    rope_base: float = setting("ROPE_BASE", 10000.0, "base of the rotary frequencies", source=BASELINE, low=1)
    rope_fraction: float = setting(
        "ROPE_FRACTION", 1.0, "share of head dimensions that rotate", source=FIELD, low=0, high=1
    )
    qk_gain_init: float = setting("QK_GAIN_INIT", 1.5, "initial gain of normed queries", source=BASELINE)
    logit_softcap: float = setting("LOGIT_SOFTCAP", 30.0, "logits = cap * tanh(z / cap)", source=BASELINE, low=0.1)
    tied_embed_init_std: float = setting(
        "TIED_EMBED_INIT_STD", 0.005, "std of the tied embedding at init", source=BASELINE, low=0
    )
    skip_connections: bool = setting(
        "SKIP_CONNECTIONS", True, "U-Net skips from the first half to the second", source=BASELINE
    )


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    if config.model_dim % config.num_heads:
        yield f"MODEL_DIM={config.model_dim} is not divisible by NUM_HEADS={config.num_heads}"
    elif (config.model_dim // config.num_heads) % 2:
        yield f"MODEL_DIM/NUM_HEADS={config.model_dim // config.num_heads} must be even for rotary embeddings"
    if config.num_heads % config.num_kv_heads:
        yield f"NUM_HEADS={config.num_heads} is not divisible by NUM_KV_HEADS={config.num_kv_heads}"
