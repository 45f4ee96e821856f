"""The transformer: sizes, attention, MLP, residual stream. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import BASELINE, FIELD, setting
from trainer.options.depth import tied_range

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
    mlp_kind: str = setting(
        "MLP_KIND",
        "relu2",
        "relu(z)^2, max(z, slope z)^2, or SwiGLU with hidden width 2/3 (as many weights)",
        source=FIELD,
        choices=("relu2", "leaky_relu2", "swiglu"),
    )
    negative_slope: float = setting(
        "NEGATIVE_SLOPE", 0.5, "slope of leaky_relu2 below zero, before the square", source=FIELD, low=0, high=1
    )
    rope_base: float = setting("ROPE_BASE", 10000.0, "base of the rotary frequencies", source=BASELINE, low=1)
    rope_fraction: float = setting(
        "ROPE_FRACTION", 1.0, "share of head dimensions that rotate", source=FIELD, low=0, high=1
    )
    qk_gain_init: float = setting("QK_GAIN_INIT", 1.5, "initial gain of normed queries", source=BASELINE)
    logit_softcap: float = setting("LOGIT_SOFTCAP", 30.0, "logits = cap * tanh(z / cap)", source=BASELINE, low=0.1)
    tied_embed_init_std: float = setting(
        "TIED_EMBED_INIT_STD", 0.005, "std of the tied embedding at init", source=BASELINE, low=1e-6
    )
    skip_connections: bool = setting(
        "SKIP_CONNECTIONS", True, "U-Net skips from the first half to the second", source=BASELINE
    )
    tie_embeddings: bool = setting(
        "TIE_EMBEDDINGS", True, "the embedding is the head; else a head of its own, zero at init", source=BASELINE
    )
    ln_scale: bool = setting("LN_SCALE", False, "normed inputs of block l (from 0) over sqrt(l + 1)", source=FIELD)
    xsa_last_n: int = setting(
        "XSA_LAST_N", 0, "last blocks whose attention leaves out the own value's direction", source=FIELD, low=0
    )
    value_residual: bool = setting(
        "VALUE_RESIDUAL", False, "values of later blocks mix with the first block's, a learned pair", source=FIELD
    )
    value_embedding: bool = setting(
        "VE_ENABLED", False, "a second embedding added to the values of VE_LAYERS", source=FIELD
    )
    ve_dim: int = setting("VE_DIM", 128, "width of a value embedding before its projection", source=FIELD, low=1)
    ve_layers: str = setting("VE_LAYERS", "", "blocks that get it, such as 9,10; empty: the last two", source=FIELD)
    attn_gate: str = setting(
        "ATTN_GATE",
        "off",
        "factor per head: output 2s(w x[:k]), dense s(W x), sparse s(c W x[:k]); s: sigmoid, k: GATE_WINDOW",
        source=FIELD,
        choices=("off", "output", "dense", "sparse"),
    )
    gate_window: int = setting("GATE_WINDOW", 12, "channels that output and sparse gates read", source=FIELD, low=1)
    dense_gate_std: float = setting("GATED_ATTN_INIT_STD", 0.005, "std of a dense gate at init", source=FIELD, low=0)
    sparse_gate_scale: float = setting("SPARSE_ATTN_GATE_SCALE", 1.0, "c of the sparse gate", source=FIELD, low=0.01)
    partial_key_offset: bool = setting(
        "PARTIAL_KEY_OFFSET", False, "the unrotated half of a key comes from the position before", source=FIELD
    )
    parallel_residual: str = setting(
        "PARALLEL_RESIDUAL",
        "off",
        "attention and MLP side by side: on one stream (gptj) or on two lanes",
        source=FIELD,
        choices=("off", "gptj", "lanes"),
    )
    parallel_start: int = setting("PARALLEL_START_LAYER", 0, "first block with parallel branches", source=FIELD, low=0)
    parallel_final_lane: str = setting(
        "PARALLEL_FINAL_LANE", "mean", "what the head reads of two lanes", source=FIELD, choices=("mean", "mlp")
    )
    ortho_init: bool = setting("ORTHO_INIT", False, "matrices not born zero are born orthogonal, gain 1", source=FIELD)
    overtone_init: bool = setting(
        "OVERTONE_INIT", False, "spectrum of the embedding k^-1/2, resid_mix from x0 to x with depth", source=FIELD
    )


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    if config.model_dim % config.num_heads:
        yield f"MODEL_DIM={config.model_dim} is not divisible by NUM_HEADS={config.num_heads}"
    elif (config.model_dim // config.num_heads) % 2:
        yield f"MODEL_DIM/NUM_HEADS={config.model_dim // config.num_heads} must be even for rotary embeddings"
    if config.num_heads % config.num_kv_heads:
        yield f"NUM_HEADS={config.num_heads} is not divisible by NUM_KV_HEADS={config.num_kv_heads}"
    yield from _block_problems(config, stored_layers(config))


def _block_problems(config: Config, layers: int) -> Iterator[str]:
    if config.xsa_last_n > layers:
        yield f"XSA_LAST_N={config.xsa_last_n} exceeds the number of blocks, {layers}"
    if config.value_residual and layers == 1:
        yield "VALUE_RESIDUAL=1 mixes later blocks with the first: there is no later one"
    try:
        if config.value_embedding and any(layer >= layers for layer in value_layers(config)):
            yield f"VE_LAYERS={config.ve_layers}: the last block is {layers - 1}"
    except ValueError:
        yield f"VE_LAYERS={config.ve_layers!r}: must be numbers of blocks such as 9,10, each once"
    if config.attn_gate in ("output", "sparse") and config.gate_window > config.model_dim:
        yield f"GATE_WINDOW={config.gate_window} exceeds MODEL_DIM={config.model_dim}"
    if config.partial_key_offset and config.rope_fraction > 0.5:
        yield f"PARTIAL_KEY_OFFSET=1 moves a half that must not rotate: ROPE_FRACTION={config.rope_fraction} is over 0.5"
    yield from _parallel_problems(config, layers)


def _parallel_problems(config: Config, layers: int) -> Iterator[str]:
    first = config.parallel_start
    if config.parallel_residual != "off" and first >= layers:
        yield f"PARALLEL_START_LAYER={first}: the last block is {layers - 1}"
    if config.parallel_residual == "lanes" and config.num_loops and config.loop_start < first <= config.loop_end:
        yield f"PARALLEL_RESIDUAL=lanes: the loop {config.loop_start}-{config.loop_end} would lead back out of the lanes"


def stored_layers(config: Config) -> int:
    """Blocks with weights of their own: tied layers count once. Techniques of single blocks count these."""
    try:
        first, last = tied_range(config.tie_layers)
    except ValueError:  # none tied; a malformed range is told elsewhere
        return config.num_layers
    return config.num_layers - (last - first) if last < config.num_layers else config.num_layers


def value_layers(config: Config) -> tuple[int, ...]:
    """The blocks that get value embeddings. Raises ValueError if VE_LAYERS is not a list of numbers, each once."""
    if not config.value_embedding:
        return ()
    if not config.ve_layers:
        layers = stored_layers(config)
        return tuple(range(max(layers - 2, 0), layers))
    if not re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4})*", config.ve_layers):
        raise ValueError(config.ve_layers)
    found = tuple(int(part) for part in config.ve_layers.split(","))
    if len(set(found)) != len(found):
        raise ValueError(config.ve_layers)
    return found
