"""Byte patches: the trunk sees groups of bytes, a decoder writes the next group. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import FIELD, OURS, setting
from trainer.options.schedule import context_phases

if TYPE_CHECKING:
    from trainer.config import Config

SIZES = (1, 2, 3, 4, 8, 12, 16)
DECODERS = ("flat", "position_mlp", "causal_conv", "autoregressive", "moe")
_PER_BYTE = {
    "NGRAM_MAX_ORDER": 0,
    "BIGRAM_VOCAB_SIZE": 0,
    "SMEAR_GATE": "off",
    "DOCUMENT_ATTENTION": False,
    "PARTIAL_KEY_OFFSET": False,
    "VE_ENABLED": False,
}
"""Switches that add something at every byte, and their off: a trunk over patches has no place for it."""


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """Part of trainer.config.Config."""

    patch_size: int = setting("PATCH_SIZE", 1, "bytes per position of the trunk; 1: off", source=FIELD, choices=SIZES)
    patch_decoder: str = setting(
        "PATCH_DECODER",
        "flat",
        "how the bytes of the next patch are predicted; flat and position_mlp take them as independent of each other",
        source=FIELD,
        choices=DECODERS,
    )
    patch_dim: int = setting("PATCH_DIM", 64, "width of a byte in the patch and its decoder", source=OURS, low=8)
    patch_layers: int = setting(
        "PATCH_LAYERS", 1, "layers of the causal_conv and autoregressive decoders", source=OURS, low=1, high=4
    )
    patch_experts: int = setting("PATCH_EXPERTS", 4, "experts of the moe decoder", source=OURS, low=2, high=64)


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    size, values = config.patch_size, config.as_settings()
    if size == 1:
        return
    if config.tokenizer != "bytes":
        yield f"PATCH_SIZE={size} needs TOKENIZER=bytes: a patch is so many bytes of the text"
    for name in ("TRAIN_SEQ_LEN", "EVAL_STRIDE", *(["TTT_CHUNK_BYTES"] if config.ttt else [])):
        if values[name] % size:  # a window that starts inside a patch would predict in another phase
            yield f"{name}={values[name]} is not a multiple of PATCH_SIZE={size}"
    for length, _ in _phases(config):
        if length % size:
            yield f"CONTEXT_SCHEDULE={config.context_schedule}: {length} is not a multiple of PATCH_SIZE={size}"
    for name, off in _PER_BYTE.items():
        if values[name] != off:
            yield f"{name}={values[name]} can't go with PATCH_SIZE={size}: the trunk has one row a patch, none for a byte"


def _phases(config: Config) -> tuple[tuple[int, float], ...]:
    """The context schedule; nothing where there is none, or one that is refused anyway."""
    try:
        return context_phases(config) if config.context_schedule else ()
    except ValueError:
        return ()
