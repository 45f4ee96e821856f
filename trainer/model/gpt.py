"""The model: the contest's baseline GPT, with every technique settled in `__init__`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.block import Block, empty, rms
from trainer.model.ngram import NgramEmbedding
from trainer.model.rotary import rotary_tables, rotated_dims

MATRIX, EMBED, TABLE, VECTOR = "matrix", "embed", "table", "vector"

_ROLES = {
    "query": MATRIX,
    "key": MATRIX,
    "value": MATRIX,
    "output": MATRIX,
    "up": MATRIX,
    "down": MATRIX,
    "project": MATRIX,
    "embed": EMBED,
    "to_logits": EMBED,
    "tables": TABLE,
    "gain": VECTOR,
    "resid_mix": VECTOR,
    "attention_scale": VECTOR,
    "mlp_scale": VECTOR,
    "skip_scale": VECTOR,
}
_ZERO_INIT = {"output", "down", "to_logits", "tables"}


def role(name: str) -> str:
    """What a parameter is, by its dotted name: decides its optimiser and its bits. Raises KeyError for a foreign name."""
    return _ROLES[name.rpartition(".")[2]]


class GPT(nn.Module):
    """Byte or token model. Weights are float32 and drawn on the CPU from `config.seed`, whatever device they go to later.

    Built under `torch.device("meta")` it holds shapes without values.
    """

    def __init__(self, config: Config, vocab_size: int) -> None:
        super().__init__()
        self.softcap, self.rope_base = config.logit_softcap, config.rope_base
        self.rotated = rotated_dims(config.model_dim // config.num_heads, config.rope_fraction)
        self.embed = empty(vocab_size, config.model_dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.skips = config.num_layers // 2 if config.skip_connections else 0
        self.skip_scale = empty(self.skips, config.model_dim) if self.skips else None
        self.ngrams = NgramEmbedding(config, vocab_size) if config.ngram_max_order else None
        self._rotary: tuple[tuple[object, ...], tuple[Tensor, Tensor]] | None = None
        if not self.embed.is_meta:
            self._initialise(config)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) int64 -> logits (B, T, V) float32 (float64 for a float64 model), in [-softcap, softcap].

        Row t holds the prediction of the id after ids[t]. On CUDA the products run in bfloat16.
        """
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            x = self.embed.index_select(0, ids.flatten()).view(*ids.shape, -1)  # (B, T, d)
            rows = None
            if self.ngrams is not None:
                rows = self.ngrams(ids)
                x = x + F.linear(rows, self.ngrams.project)
            x0 = x = rms(x)
            cos, sin = self._positions(ids.shape[1], x)
            x = self._run_blocks(x, x0, cos, sin)
            z = F.linear(rms(x), self.embed)
            if rows is not None and self.ngrams.to_logits is not None:
                z = z + F.linear(rows, self.ngrams.to_logits)
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        return self.softcap * torch.tanh(z / self.softcap)

    def _run_blocks(self, x: Tensor, x0: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """First half of the blocks pushes its results, second half pops them: last in, first out."""
        pushed: list[Tensor] = []
        first_half = len(self.blocks) // 2
        for index, block in enumerate(self.blocks):
            back = index - first_half
            if 0 <= back < self.skips:
                x = x + self.skip_scale[back] * pushed.pop()
            x = block(x, x0, cos, sin)
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

    @torch.no_grad()
    def _initialise(self, config: Config) -> None:
        """Baseline init: E ~ N(0, std); matrices U(+-1/sqrt(fan_in)); outputs of branches zero; scales one.

        The n-gram part draws from a stream of its own, so switching it on or off leaves all other weights as they are.
        """
        constants = {"gain": config.qk_gain_init, "attention_scale": 1.0, "mlp_scale": 1.0, "skip_scale": 1.0}
        shared = torch.Generator().manual_seed(config.seed)
        own = torch.Generator().manual_seed(_stream_seed(config.seed, "ngram"))
        for name, parameter in self.named_parameters():
            leaf = name.rpartition(".")[2]
            if leaf in _ZERO_INIT:
                parameter.zero_()
            elif leaf in constants:
                parameter.fill_(constants[leaf])
            elif leaf == "resid_mix":
                parameter.copy_(torch.tensor([[1.0], [0.0]]).expand_as(parameter))
            elif leaf == "embed":
                parameter.normal_(0.0, config.tied_embed_init_std, generator=shared)
            else:
                bound = 1.0 / math.sqrt(parameter.shape[1])
                parameter.uniform_(-bound, bound, generator=own if name.startswith("ngrams.") else shared)


def _stream_seed(seed: int, name: str) -> int:
    """Seed of a named random stream, independent of the shared one."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")
