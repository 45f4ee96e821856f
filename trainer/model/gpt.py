"""The model: the contest's baseline GPT, with every technique settled in `__init__`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.contract import document_id
from trainer.model import depth
from trainer.model.backends import Backend
from trainer.model.bigram import BigramHash
from trainer.model.documents import document_mask, document_starts, look_back_stops
from trainer.model.init import initialise
from trainer.model.kernels import softcapped_loss
from trainer.model.lanes import block, joined
from trainer.model.ngram import NgramEmbedding
from trainer.model.parts import Adapter, Pass, empty, product, rms
from trainer.model.patch import Patches
from trainer.model.roles import TABLE, role
from trainer.model.rotary import rotary_tables, rotated_dims
from trainer.model.skips import join
from trainer.model.smear import FORMS
from trainer.model.values import ValueEmbedding


class GPT(nn.Module):
    """Byte or token model. Weights are float32 and drawn on the CPU from `config.seed`, whatever device they go to later.

    Built under `torch.device("meta")` it holds shapes without values. There is one forward path for training, evaluation
    and test-time training: what adapts at test time comes in as `adapter`.
    """

    def __init__(self, config: Config, vocab_size: int) -> None:
        super().__init__()
        self.softcap, self.rope_base = config.logit_softcap, config.rope_base
        self.rotated = rotated_dims(config.model_dim // config.num_heads, config.rope_fraction)
        self.patches = Patches(config) if config.patch_size > 1 else None
        self.embed = empty(vocab_size, config.model_dim if self.patches is None else config.patch_dim)
        self.head = None if config.tie_embeddings else empty(*self.embed.shape)
        kept = depth.stored(config)
        self.blocks = nn.ModuleList(block(kept, index) for index in range(kept.num_layers))
        self.depths = [depth.depth(config, loops) for loops in range(config.num_loops + 1)]
        self.depth = self.depths[-1]
        skips = len(self.depth.blocks) // 2 if config.skip_connections else 0
        self.skip_scale = empty(skips, config.model_dim) if skips else None
        self.skip_gate = empty(skips, config.model_dim) if skips and config.skip_gates else None
        self.loop_embedding = empty(config.num_loops + 1, config.model_dim) if config.loop_embedding else None
        self.bos = document_id(config.tokenizer)
        self.look_back_stops, self.document_attention = look_back_stops(config), config.document_attention
        self.bigram = BigramHash(config) if config.bigram_rows else None
        self.smear = FORMS[config.smear_gate](config) if config.smear_gate != "off" else None
        self.value_embedding = ValueEmbedding(config, vocab_size) if config.value_embedding else None
        self.mlp_lane = config.parallel_final_lane == "mlp"
        self.ngrams = NgramEmbedding(config, vocab_size) if config.ngram_max_order else None
        self._rotary: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        if not self.embed.is_meta:
            initialise(self, config)

    def set_loops(self, loops: int) -> None:
        """Use so many extra passes through the looped range; a model is born with all of NUM_LOOPS."""
        self.depth = self.depths[loops]

    def forward(
        self,
        ids: Tensor,
        adapter: Adapter | None = None,
        *,
        with_hidden: bool = False,
        targets: Tensor | None = None,
        backend: Backend | None = None,
        bounds: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """ids (B, T) int64 -> logits (B, T, V) float32 (float64 for a float64 model), in [-softcap, softcap].

        Row t holds the prediction of the id after ids[t]. On CUDA the products run in bfloat16. `with_hidden`: the normed stream
        behind the last block, (B, T, d), comes second. With `targets` (B, T) int64 the answer is their mean nats alone.
        backend: another way to attend, from `backends.choose`; bounds: what `backends.bounds_of` found for it.
        """
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            x = self.embed.index_select(0, ids.flatten()).view(*ids.shape, -1)  # (B, T, d)
            starts = document_starts(ids, self.bos) if self.look_back_stops else None  # (B, T)
            rows = None
            if self.ngrams is not None:
                rows = self.ngrams(ids, starts)
                x = x + product(adapter, "ngrams.project", rows, self.ngrams.project)
            if self.bigram is not None:
                x = x + self.bigram(ids, starts, adapter)
            if self.smear is not None:
                x = self.smear(x, starts)
            given = x
            if self.patches is not None:
                x = self.patches.gather(given, adapter)  # (B, J, d)
            x = rms(x)
            attend = mask = None
            if backend is not None:
                attend = backend.over(x, starts if self.document_attention else None, bounds)
            elif self.document_attention:
                mask = document_mask(starts)
            shared = Pass(x, *self._positions(x.shape[1], x), adapter, starts, mask, attend)
            if self.value_embedding is not None:
                shared.value_embedding = self.value_embedding(ids, shared)
            x = self._run_blocks(x, shared)
            hidden = x = rms(x)
            if self.patches is not None:
                x = self.patches.scatter(x, given, shared)
            tied = self.head is None
            z = shared.product("embed", x, self.embed) if tied else shared.product("head", x, self.head)
            if rows is not None and self.ngrams.to_logits is not None:
                z = z + shared.product("ngrams.to_logits", rows, self.ngrams.to_logits)
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        if targets is not None:
            return softcapped_loss(z, targets, self.softcap)
        logits = self.softcap * torch.tanh(z / self.softcap)
        return (logits, hidden) if with_hidden else logits

    def _run_blocks(self, x: Tensor, shared: Pass) -> Tensor:
        """First half of the virtual stack pushes its results, second half pops them: last in, first out."""
        pushed: list[Tensor] = []
        half = len(self.depth.blocks) // 2
        for place, (number, start) in enumerate(zip(self.depth.blocks, self.depth.passes, strict=True)):
            if self.skip_scale is not None and half <= place < 2 * half:
                gate = self.skip_gate[place - half] if self.skip_gate is not None else None
                x = join(x, pushed.pop(), self.skip_scale[place - half], gate)
            if self.loop_embedding is not None and start is not None:
                x = x + self.loop_embedding[start]
            x = self.blocks[number](x, shared)
            if self.skip_scale is not None and place < half:
                pushed.append(x)
        return joined(x, shared, self.mlp_lane)

    def _positions(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary tables for this length, kept from call to call: training asks for the same ones every step."""
        key = (length, like.device, like.dtype)
        if key not in self._rotary:
            with torch.inference_mode(False):  # a table made while scoring must also serve training
                tables = rotary_tables(length, self.rotated, self.rope_base, device=like.device, dtype=like.dtype)
            self._rotary[key] = tables
        return self._rotary[key]

    def parameters_of(self, wanted: str) -> list[nn.Parameter]:
        """Parameters with a role (MATRIX, EMBED, TABLE or VECTOR), in the order of `named_parameters`."""
        return [parameter for name, parameter in self.named_parameters() if role(name) == wanted]

    def table_parameters(self) -> Iterator[nn.Parameter]:
        """The n-gram tables; nothing when they are off."""
        yield from self.parameters_of(TABLE)
