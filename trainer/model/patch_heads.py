"""Decoders of byte patches. Each maps the trunk's row for a patch, and the patch's own earlier bytes, to one state a byte.

    decoder(h, seen, shared): h (B, J, d) normed; seen (B, J, P - 1, w), the patch's bytes but the last, embedded
    -> (B, J P, w); state i of a patch depends on its row of h and seen[.. i - 1].

flat and position_mlp do not look at `seen`: they take a patch's bytes as independent given the past. Their score is honest, and
a loose bound of what the trunk knows. The others condition on the bytes that were already predicted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.parts import Pass, empty, rms

_HEAD = 32
"""Width of a head of the local attention, where the width of a byte is a multiple of it; else there is one head."""


class Flat(nn.Module):
    """One linear map a position: state_i = W_i h."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.width = config.patch_dim
        self.expand = empty(config.patch_size * self.width, config.model_dim)

    def forward(self, h: Tensor, seen: Tensor, shared: Pass) -> Tensor:
        """See the module's text."""
        return shared.product("patches.decoder.expand", h, self.expand).view(h.shape[0], -1, self.width)


class LocalMLP(nn.Module):
    """relu(x)^2 between two projections, of its own widths."""

    def __init__(self, config: Config, name: str, inner: int) -> None:
        super().__init__()
        self.name, hidden = name, int(config.mlp_mult * config.patch_dim)
        self.up = empty(hidden, inner)
        self.down = empty(config.patch_dim, hidden)

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """(B, N, inner) -> (B, N, w)."""
        hidden = F.relu(shared.product(f"{self.name}.up", x, self.up)).square()
        return shared.product(f"{self.name}.down", hidden, self.down)


class PositionMLP(Flat):
    """An MLP a position beside the linear map: state_i = W_i h + MLP_i(h)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        names = (f"patches.decoder.heads.{i}" for i in range(config.patch_size))
        self.heads = nn.ModuleList(LocalMLP(config, name, config.model_dim) for name in names)

    def forward(self, h: Tensor, seen: Tensor, shared: Pass) -> Tensor:
        """See the module's text."""
        more = torch.stack([head(h, shared) for head in self.heads], dim=2)  # (B, J, P, w)
        return super().forward(h, seen, shared) + more.flatten(1, 2)


class Conditioned(Flat):
    """c_i = W_i h + sum over k = 1..i of R_k byte_{i-k}: a convolution over all earlier bytes of the patch."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.reach = config.patch_size - 1
        self.kernel = empty(self.width, self.reach * self.width)

    def forward(self, h: Tensor, seen: Tensor, shared: Pass) -> Tensor:
        """See the module's text."""
        padded = F.pad(rms(seen), (0, 0, self.reach, 0))
        before = padded.unfold(2, self.reach, 1).transpose(-1, -2)  # (B, J, P, P - 1, w): bytes i - P + 1 .. i - 1
        before = before.reshape(h.shape[0], -1, self.reach * self.width)
        return super().forward(h, seen, shared) + shared.product("patches.decoder.kernel", before, self.kernel)


class CausalConv(Conditioned):
    """The convolution, then MLPs with residuals: c <- c + MLP(rms c)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        names = (f"patches.decoder.layers.{i}" for i in range(config.patch_layers))
        self.layers = nn.ModuleList(LocalMLP(config, name, self.width) for name in names)

    def forward(self, h: Tensor, seen: Tensor, shared: Pass) -> Tensor:
        """See the module's text."""
        x = super().forward(h, seen, shared)
        for layer in self.layers:
            x = x + layer(rms(x), shared)
        return rms(x)


class Experts(Conditioned):
    """The convolution, then experts in soft shares: c + sum over e of softmax(route rms c)_e MLP_e(rms c). All of them run."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        names = (f"patches.decoder.experts.{i}" for i in range(config.patch_experts))
        self.experts = nn.ModuleList(LocalMLP(config, name, self.width) for name in names)
        self.route = empty(config.patch_experts, self.width)

    def forward(self, h: Tensor, seen: Tensor, shared: Pass) -> Tensor:
        """See the module's text."""
        x = super().forward(h, seen, shared)
        normed = rms(x)
        share = F.linear(normed, self.route.to(normed.dtype)).softmax(dim=-1)  # (B, J P, E)
        answers = torch.stack([expert(normed, shared) for expert in self.experts], dim=-1)
        return rms(x + (answers * share.unsqueeze(2)).sum(-1))


class LocalBlock(nn.Module):
    """Causal attention over the P bytes of one patch, then an MLP, both with residuals; queries and keys normed, no rotation."""

    def __init__(self, config: Config, name: str) -> None:
        super().__init__()
        self.name, self.size, width = name, config.patch_size, config.patch_dim
        self.head_dim = width if width % _HEAD else _HEAD
        self.query, self.key, self.value, self.output = (empty(width, width) for _ in range(4))
        self.mlp = LocalMLP(config, f"{name}.mlp", width)

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """(B, J P, w) -> (B, J P, w)."""
        normed = rms(x)
        query, key, value = (
            self._heads(shared.product(f"{self.name}.{part}", normed, weight))
            for part, weight in (("query", self.query), ("key", self.key), ("value", self.value))
        )
        query, key = rms(query), rms(key)
        mixed = F.scaled_dot_product_attention(query, key, value.to(query.dtype), is_causal=True)
        x = x + shared.product(f"{self.name}.output", mixed.transpose(1, 2).reshape(x.shape), self.output)
        return x + self.mlp(rms(x), shared)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, J P, w) -> (B J, heads, P, w / heads): every patch is a sequence of its own."""
        return x.view(-1, self.size, x.shape[-1] // self.head_dim, self.head_dim).transpose(1, 2)


class Autoregressive(Flat):
    """A small transformer over the bytes of a patch: state_i starts as W_i h + byte_{i-1} and attends to the states before it."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        names = (f"patches.decoder.blocks.{i}" for i in range(config.patch_layers))
        self.blocks = nn.ModuleList(LocalBlock(config, name) for name in names)

    def forward(self, h: Tensor, seen: Tensor, shared: Pass) -> Tensor:
        """See the module's text."""
        before = F.pad(rms(seen), (0, 0, 1, 0))  # (B, J, P, w); nothing stands before a patch's first byte
        x = super().forward(h, seen, shared) + before.flatten(1, 2)
        for block in self.blocks:
            x = block(x, shared)
        return rms(x)


KINDS: dict[str, type[Flat]] = {
    "flat": Flat,
    "position_mlp": PositionMLP,
    "causal_conv": CausalConv,
    "autoregressive": Autoregressive,
    "moe": Experts,
}
