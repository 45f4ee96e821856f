"""How the artifact is packed. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import setting

if TYPE_CHECKING:
    from trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class ArtifactOptions:
    """Part of trainer.config.Config."""

    codec: str = setting(
        "CODEC",
        "auto",
        "entropy coder of the artifact; auto: for each section the one that measures smallest (brotli only where named)",
        source="contest records (zlib, zstd, lzma, brotli); rans: this trainer",
        choices=("auto", "zlib", "zstd", "lzma", "brotli", "rans"),
    )
    model_bytes_target: int = setting(
        "MODEL_BYTES_TARGET",
        0,
        "bytes of the artifact file, code not counted, to land just below by moving the k of QUANT_CLIP=sigma; 0: no target",
        source="contest records (SDClip, #1394)",
        low=0,
    )


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    if config.model_bytes_target and config.quant_clip != "sigma":
        yield (
            f"MODEL_BYTES_TARGET={config.model_bytes_target} moves the k of QUANT_CLIP=sigma; "
            f"QUANT_CLIP={config.quant_clip} has none"
        )
