"""The model: the contest's baseline GPT, with every technique settled in `__init__`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.block import Block
from trainer.model.init import initialise
from trainer.model.ngram import NgramEmbedding
from trainer.model.parts import Adapter, Pass, empty, rms
from trainer.model.roles import TABLE, role
from trainer.model.rotary import rotary_tables, rotated_dims


class GPT(nn.Module):
    """Byte or token model. Weights are float32 and drawn on the CPU from `config.seed`, whatever device they go to later.

    Built under `torch.device("meta")` it holds shapes without values. There is one forward path for training, evaluation
    and test-time training: what adapts at test time comes in as `adapter`.
    """

    def __init__(self, config: Config, vocab_size: int) -> None:
        super().__init__()
        self.softcap, self.rope_base = config.logit_softcap, config.rope_base
        self.rotated = rotated_dims(config.model_dim // config.num_heads, config.rope_fraction)
        self.embed = empty(vocab_size, config.model_dim)
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.num_layers))
        self.skips = config.num_layers // 2 if config.skip_connections else 0
        self.skip_scale = empty(self.skips, config.model_dim) if self.skips else None
        self.ngrams = NgramEmbedding(config, vocab_size) if config.ngram_max_order else None
        self._rotary: tuple[tuple[object, ...], tuple[Tensor, Tensor]] | None = None
        if not self.embed.is_meta:
            initialise(self, config)

    def forward(self, ids: Tensor, adapter: Adapter | None = None) -> Tensor:
        """ids (B, T) int64 -> logits (B, T, V) float32 (float64 for a float64 model), in [-softcap, softcap].

        Row t holds the prediction of the id after ids[t]. On CUDA the products run in bfloat16.
        """
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            x = self.embed.index_select(0, ids.flatten()).view(*ids.shape, -1)  # (B, T, d)
            rows = None
            if self.ngrams is not None:
                rows = self.ngrams(ids)
                x = x + F.linear(rows, self.ngrams.project)
            x = rms(x)
            shared = Pass(x, *self._positions(ids.shape[1], x), adapter)
            x = self._run_blocks(x, shared)
            z = shared.product("embed", rms(x), self.embed)
            if rows is not None and self.ngrams.to_logits is not None:
                z = z + F.linear(rows, self.ngrams.to_logits)
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        return self.softcap * torch.tanh(z / self.softcap)

    def _run_blocks(self, x: Tensor, shared: Pass) -> Tensor:
        """First half of the blocks pushes its results, second half pops them: last in, first out."""
        pushed: list[Tensor] = []
        first_half = len(self.blocks) // 2
        for index, block in enumerate(self.blocks):
            back = index - first_half
            if 0 <= back < self.skips:
                x = x + self.skip_scale[back] * pushed.pop()
            x = block(x, shared)
            if index < self.skips:
                pushed.append(x)
        return x

    def _positions(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary tables for this length, kept from call to call: training asks for the same ones every step."""
        key = (length, like.device, like.dtype)
        if self._rotary is None or self._rotary[0] != key:
            with torch.inference_mode(False):  # a table made while scoring must also serve training
                tables = rotary_tables(length, self.rotated, self.rope_base, device=like.device, dtype=like.dtype)
            self._rotary = (key, tables)
        return self._rotary[1]

    def parameters_of(self, wanted: str) -> list[nn.Parameter]:
        """Parameters with a role (MATRIX, EMBED, TABLE or VECTOR), in the order of `named_parameters`."""
        return [parameter for name, parameter in self.named_parameters() if role(name) == wanted]

    def table_parameters(self) -> Iterator[nn.Parameter]:
        """The n-gram tables; nothing when they are off."""
        yield from self.parameters_of(TABLE)
