"""What text, in what pieces. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import BASELINE, FIELD, setting

if TYPE_CHECKING:
    from trainer.config import Config


TOKENIZERS = ("bytes", "caseops", "sp1024", "sp1024caseops")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Part of trainer.config.Config."""

    tokenizer: str = setting(
        "TOKENIZER",
        "bytes",
        "alphabet of the text; caseops: lower case, with operators where the capitals were",
        source="this trainer; contest records (caseops)",
        choices=TOKENIZERS,
    )
    train_batch_tokens: int = setting(
        "TRAIN_BATCH_TOKENS", 2048, "tokens per optimizer step, all ranks", source=BASELINE, low=1
    )
    train_seq_len: int = setting("TRAIN_SEQ_LEN", 128, "context length", source=BASELINE, low=2)
    loader: str = setting(
        "LOADER",
        "windows",
        "how training text is cut: windows anywhere in it, or windows that begin with their document",
        source="this trainer; contest records (coprime stride)",
        choices=("windows", "documents"),
    )
    preread: bool = setting("PREREAD", False, "a thread reads the next batches meanwhile", source=FIELD)
    grad_accum_steps: int = setting("GRAD_ACCUM_STEPS", 1, "micro-batches per rank and step", source=BASELINE, low=1)


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    if config.train_batch_tokens % (config.train_seq_len * config.grad_accum_steps):
        yield (
            f"TRAIN_BATCH_TOKENS={config.train_batch_tokens} is not a multiple of TRAIN_SEQ_LEN*GRAD_ACCUM_STEPS"
            f"={config.train_seq_len * config.grad_accum_steps}"
        )
