"""Causal attention as one differentiable step, for eager mode on a CPU and windows that are not long.

torch's own keeps no probabilities and finds them again in the backward pass. Up to some hundred positions they are few enough
to be kept; in pieces that stay in a core's cache, a quarter to a third of the time is spared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trainer.model.kernels import by_hand

SHORTEST, LONGEST = 65, 512
"""Positions of a window: one block of queries is not worth it; the longer it is, the more probabilities are kept for each."""
BLOCK = 64
"""Queries of a piece; keys beyond its last one are left out."""
FIT = 1 << 17
"""Scores of a piece, about: 512 KB of float32."""


def attends(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `attend` is the faster one for these."""
    fits = SHORTEST <= query.shape[1] <= LONGEST and query.dtype == key.dtype == value.dtype
    return fits and by_hand(query)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over each position's past and itself; query, result: (B, T, H, D), key, value: (B, T, G, D).

    Query head h reads key and value head h // (H / G).
    """
    return _Attend.apply(query, key, value)


class _Attend(torch.autograd.Function):
    """With p = softmax(q k^T / c), o = p v:  dv = p^T g,  ds = p (g v^T - rowsum(p g v^T)),  dq = ds k / c,  dk = ds^T q / c."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, length, heads, size = query.shape
        q = query.new_empty(batch, heads, length, size)
        q = torch.mul(query.transpose(1, 2), size**-0.5, out=q).view(-1, length, size)
        k, v = (_by_head(x, heads // key.shape[2]) for x in (key, value))
        found, future = torch.empty_like(q), query.new_full((BLOCK, BLOCK), -math.inf).triu_(1)
        wanted = any(ctx.needs_input_grad)
        kept = [q.new_empty(len(q) if wanted else 0, stop - start, stop) for start, stop in _blocks(length)]
        for some in _heads(len(q), length):
            for (start, stop), probabilities in zip(_blocks(length), kept, strict=True):
                scores = torch.bmm(q[some, start:stop], k[some, :stop].mT)
                scores[..., start:].add_(future[: stop - start, : stop - start])
                p = torch.softmax(scores, -1, out=probabilities[some] if wanted else None)
                torch.bmm(p, v[some, :stop], out=found[some, start:stop])
        ctx.save_for_backward(q, k, v, *kept)
        ctx.groups = key.shape[2]
        return found.view(batch, heads, length, size).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        q, k, v, *kept = ctx.saved_tensors
        (batch, length, heads, size), g = grad.shape, _by_head(grad, 1)
        d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        blocks = list(zip(_blocks(length), kept, strict=True))
        for some in _heads(len(q), length):
            for (start, stop), probabilities in reversed(blocks):
                # The last block sees all keys: it is written, the others are added.
                p, part, beta = probabilities[some], g[some, start:stop], float(stop < length)
                d_scores = torch.bmm(part, v[some, :stop].mT)
                d_scores = torch._softmax_backward_data(d_scores, p, -1, p.dtype)
                torch.bmm(d_scores, k[some, :stop], out=d_q[some, start:stop])
                d_k[some, :stop].baddbmm_(d_scores.mT, q[some, start:stop], beta=beta)
                d_v[some, :stop].baddbmm_(p.mT, part, beta=beta)
        shape = (batch, ctx.groups, heads // ctx.groups, length, size)
        found = (d_q.mul_(size**-0.5).view(batch, heads, length, size), d_k.view(shape).sum(2), d_v.view(shape).sum(2))
        return tuple(d.transpose(1, 2) for d in found)


def _by_head(x: Tensor, times: int) -> Tensor:
    """(B, T, G, D) -> (B G times, T, D), each head so many times."""
    batch, length, heads, size = x.shape
    return x.transpose(1, 2).unsqueeze(2).expand(batch, heads, times, length, size).reshape(-1, length, size)


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


def _heads(count: int, length: int) -> Iterator[slice]:
    step = max(FIT // (min(BLOCK, length) * length), 1)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
