"""The branches of a block as one differentiable step each, for eager mode on a CPU: worked through in pieces of rows.

A whole batch's activations do not stay in a core's cache between one formula and the next, so every pass over them waits for
memory; those of a few hundred rows do. Forward results are those of `Block` with the formulas of `kernels` to the last bit;
gradients agree to rounding (a weight's gradient is summed piece by piece). Elsewhere, and with an adapter, those formulas run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model.kernels import (
    by_hand,
    by_heads,
    inverse_rms,
    norm_backward,
    normed_rotated_backward,
    paired,
    turned_back,
    turned_normed,
    turns,
)

ROWS = 1024
"""Rows (tokens) of a piece: 512 KB of a stream 128 wide."""


def in_pieces(x: Tensor, *others: Tensor) -> bool:
    """Whether the steps of this module are the faster ones for a stream x and what meets it."""
    return by_hand(x) and all(x.dtype == other.dtype for other in others)


def think(x: Tensor, up: Tensor, down: Tensor, scale: Tensor, slope: float) -> Tensor:
    """x + scale * (squared(rms(x) up^T, slope) down^T). x: (B, T, d), up: (h, d), down: (d, h), scale: (d,)."""
    return _Think.apply(x, up, down, scale, slope)


def read(
    x: Tensor,
    x0: Tensor,
    mix: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    gain: Tensor,
    tables: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The stream s = mix[0] x + mix[1] x0, (B, T, d), and of rms(s): queries (B, T, H, D), keys and values (B, T, G, D).

    weights: of queries (H D, d), keys and values (G D, d). Queries and keys are those of `normed_rotated`.
    """
    return _Read.apply(x, x0, mix, *weights, gain, *tables)


def added(x: Tensor, scale: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """x + scale * (y weight^T). x, y: (B, T, d), weight: (d, d), scale: (d,)."""
    return _Added.apply(x, scale, y, weight)


def _rows(count: int) -> Iterator[slice]:
    return (slice(start, min(start + ROWS, count)) for start in range(0, count, ROWS))


class _Think(torch.autograd.Function):
    """With n = rms(x), m = max(n up^T, slope n up^T), y = m^2 down^T:  d(m^2) = (scale g) down; as in `_Squared` and `_Rms`.

    The products g^T m^2 give both ddown, times scale, and dscale, times down: y itself is not needed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor, scale: Tensor, slope: float) -> Tensor:
        stream = x.reshape(-1, x.shape[-1])
        bent = stream.new_empty(len(stream), len(up))
        inverse, found = stream.new_empty(len(stream), 1), torch.empty_like(stream)
        for rows in _rows(len(stream)):
            part = stream[rows]
            inverse[rows] = inverse_rms(part)
            hidden = torch.mm(part * inverse[rows], up.T, out=bent[rows])
            hidden = hidden.relu_() if slope == 0 else F.leaky_relu_(hidden, slope)
            torch.mul(torch.mm(hidden * hidden, down.T), scale, out=found[rows]).add_(part)
        ctx.save_for_backward(stream, up, down, scale, bent, inverse)
        ctx.slope = slope
        return found.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        stream, up, down, scale, bent, inverse = ctx.saved_tensors
        flat, one = grad.reshape(-1, grad.shape[-1]), stream.new_ones(1, 1)
        found, d_up, products = torch.empty_like(stream), torch.empty_like(up), torch.empty_like(down)
        twice = down * (2 * scale).unsqueeze(-1)
        for rows in _rows(len(stream)):
            g, hidden, part = flat[rows], bent[rows], stream[rows]
            products.addmm_(g.T, hidden * hidden, beta=float(rows.start > 0))  # the first piece is written
            d_hidden = torch.mm(g, twice).mul_(hidden)  # already 0 where relu was
            if ctx.slope:
                d_hidden = torch.ops.aten.leaky_relu_backward(d_hidden, hidden, ctx.slope, True)
            d_up.addmm_(d_hidden.T, part * inverse[rows], beta=float(rows.start > 0))
            normed = torch.mm(d_hidden, up)
            torch.add(norm_backward(normed, part, inverse[rows], one.expand(len(part), 1))[0], g, out=found[rows])
        d_scale = (products * down).sum(-1)
        return found.view_as(grad), d_up, products.mul_(scale.unsqueeze(-1)), d_scale, None


class _Read(torch.autograd.Function):
    """`blend`, `rms`, three products, `normed_rotated`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        x0: Tensor,
        mix: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        gain: Tensor,
        cos: Tensor,
        sin: Tensor,
    ) -> tuple[Tensor, ...]:
        batch, length = x.shape[:2]
        heads, size = len(gain), len(query) // len(gain)
        others = len(key) // size
        order = paired(size, 2 * cos.shape[-1])
        joint = torch.cat([query, key]).unflatten(0, (-1, size)).index_select(1, order).flatten(0, 1)
        stream, inverse = torch.empty_like(x), x.new_empty(batch, length, 1)
        raw, values = x.new_empty(batch, length, heads + others, size), x.new_empty(batch, length, others, size)
        turned = [by_heads(x, batch, length, count, size) for count in (heads, others)]
        spread, factors = x.new_empty(batch, length, heads + others, 1), turns(cos, sin, heads + others, size)
        for rows in _sequences(batch, length):
            part = torch.mul(x[rows], mix[0], out=stream[rows]).add_(mix[1] * x0[rows])
            inverse[rows] = inverse_rms(part)
            normed = (part * inverse[rows]).flatten(0, 1)
            torch.mm(normed, joint.T, out=raw[rows].view(len(normed), -1))
            torch.mm(normed, value.T, out=values[rows].view(len(normed), -1))
            spread[rows] = inverse_rms(raw[rows])
            turned_normed(raw[rows], spread[rows], factors, gain, (turned[0][rows], turned[1][rows]))
        ctx.save_for_backward(x, x0, mix, joint, value, gain, stream, inverse, raw, spread, factors, order)
        return stream, *turned, values

    @staticmethod
    def backward(
        ctx: Any, d_stream: Tensor, d_query: Tensor, d_key: Tensor, d_value: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, x0, mix, joint, value, gain, stream, inverse, raw, spread, factors, order = ctx.saved_tensors
        (batch, length, width), size = x.shape, raw.shape[-1]
        d_joint, d_weight = torch.empty_like(joint), torch.empty_like(value)
        d_gain, d_mix = torch.zeros_like(gain), torch.zeros_like(mix)
        d_x, d_x0, one = torch.empty_like(x), torch.empty_like(x), x.new_ones(1, 1)
        for rows in _sequences(batch, length):
            back = turned_back((d_query[rows], d_key[rows]), factors)
            d_raw, more = normed_rotated_backward(back, raw[rows], spread[rows], gain)
            d_gain += more
            part, each = stream[rows].view(-1, width), inverse[rows].view(-1, 1)
            normed, d_raw, d_values = part * each, d_raw.view(len(part), -1), d_value[rows].reshape(len(part), -1)
            d_joint.addmm_(d_raw.T, normed, beta=float(rows.start > 0))
            d_weight.addmm_(d_values.T, normed, beta=float(rows.start > 0))
            d_normed = torch.mm(d_raw, joint).addmm_(d_values, value)
            grad = norm_backward(d_normed, part, each, one.expand(len(part), 1))[0].view_as(x[rows])
            grad += d_stream[rows]
            for k, (given, found) in enumerate(((x, d_x), (x0, d_x0))):
                torch.mul(grad, mix[k], out=found[rows])
                d_mix[k] += (grad * given[rows]).flatten(0, 1).sum(0)
        d_joint = d_joint.unflatten(0, (-1, size)).index_select(1, order.argsort())
        d_weights = (part.flatten(0, 1) for part in d_joint.tensor_split([len(gain)]))
        return d_x, d_x0, d_mix, *d_weights, d_weight, d_gain, None, None


def _sequences(batch: int, length: int) -> Iterator[slice]:
    """Pieces of whole sequences, since positions are the same in each."""
    step = max(ROWS // length, 1)
    return (slice(start, min(start + step, batch)) for start in range(0, batch, step))


class _Added(torch.autograd.Function):
    """As the last product of `_Think`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(scale, y, weight)
        found, given, stream = torch.empty_like(x), y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for rows in _rows(len(given)):
            out = found.view(-1, x.shape[-1])[rows]
            torch.mul(torch.mm(given[rows], weight.T), scale, out=out).add_(stream[rows])
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        scale, y, weight = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        products = torch.mm(flat.T, y.view(len(flat), -1))
        d_y = torch.mm(flat, weight * scale.unsqueeze(-1)).view_as(y)
        d_scale = (products * weight).sum(-1)
        return grad, d_scale, d_y, products.mul_(scale.unsqueeze(-1))
