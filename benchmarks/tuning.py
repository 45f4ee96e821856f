"""What scripts that tune share: a score of a configuration on text of their choice, made as a run makes its own."""

from __future__ import annotations

import torch

from trainer import score
from trainer.config import Config
from trainer.data.dataset import Dataset
from trainer.evaluate import modes, walk
from trainer.evaluate.bpb import Score
from trainer.evaluate.text import Text


def tune_text(data: Dataset, tokens: int | None = None) -> Text:
    """The held-out training text, or its first `tokens`."""
    return Text(data.tune[:tokens], data.tune_bytes[:tokens], data.bos)


def score_of(label: str, model: torch.nn.Module, config: Config, data: Dataset, text: Text) -> Score:
    """The score behind the label of a final line. Raises ScoreError where it is no number."""
    mode, _ = modes.build(label, model, config, score.chunk_tokens(config.ttt_chunk_bytes, data))
    return walk.run(mode, text, label=label)
