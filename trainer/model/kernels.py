"""Formulas of the model as one differentiable step each, for eager mode on a CPU, where every pass over memory is paid for.

Each has its plain formula beside it. The plain one runs everywhere else: under torch.compile, which fuses it by itself, and on
other devices. Forward results are those of the plain formula, norms and rotations to rounding, all else to the last bit;
gradients agree to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model.rotary import rotate


def by_hand(x: Tensor) -> bool:
    """Whether the hand-written gradient of these formulas is the faster one here."""
    return x.device.type == "cpu" and x.is_floating_point() and not torch.compiler.is_compiling()


def rms(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, without a learned gain; eps is the dtype's own."""
    return _Rms.apply(x) if by_hand(x) else F.rms_norm(x, (x.shape[-1],))


def squared(z: Tensor, slope: float = 0.0) -> Tensor:
    """max(z, slope z)^2 with 0 <= slope <= 1: relu(z)^2 where `slope` is 0."""
    if by_hand(z):
        return _Squared.apply(z, slope)
    return F.relu(z).square() if slope == 0 else torch.maximum(z, slope * z).square()


def normed_rotated(x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys from x (B, T, H + G, D): rotate(rms(x)), and the first H heads times gain (H,). cos, sin: (T, 1, dims/2).

    No pair rotates where dims is 0. By hand both come with their dimensions in the order of `paired`, which their products do
    not see.
    """
    if by_hand(x) and x.dtype == gain.dtype == cos.dtype:
        return _NormedRotated.apply(x, gain, cos, sin)
    query, key = rotate(rms(x), cos, sin).split([len(gain), x.shape[2] - len(gain)], dim=2)
    return query * gain.to(query.dtype).unsqueeze(-1), key


def scaled_sum(x: Tensor, scale: Tensor, y: Tensor) -> Tensor:
    """x + scale * y; x, y: (B, T, d), scale: (d,)."""
    plain = not by_hand(x) or x.dtype != y.dtype or x.dtype != scale.dtype
    return x + scale * y if plain else _ScaledSum.apply(x, scale, y)


def blend(scales: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """scales[0] * x + scales[1] * y; x, y: (B, T, d), scales: (2, d)."""
    plain = not by_hand(x) or x.dtype != y.dtype or x.dtype != scales.dtype
    return scales[0] * x + scales[1] * y if plain else _Blend.apply(scales, x, y)


def softcapped_loss(z: Tensor, targets: Tensor, cap: float) -> Tensor:
    """Mean nats of targets (...,) int64 under logits cap * tanh(z / cap); z: (..., V) float32 or float64.

    Under torch.compile Inductor makes cap, tanh and softmax two passes over z, which is what a kernel of our own would do. On a
    CPU, where its gradient pays for tanh and exp a second time, the gradient is found with the loss.
    """
    z, targets = z.flatten(0, -2), targets.flatten()
    if by_hand(z):
        return _SoftcappedLoss.apply(z, targets, cap)
    if z.device.type == "cpu":
        return LossWithGradient.apply(z, targets, cap)
    return F.cross_entropy(cap * torch.tanh(z / cap), targets)


def inverse_rms(x: Tensor) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last dimension, which stays with length 1."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # one pass, no tensor of squares
    return length.square_().div_(x.shape[-1]).add_(torch.finfo(x.dtype).eps).rsqrt_()


def norm_backward(grad: Tensor, x: Tensor, inverse: Tensor, stretch: Tensor) -> tuple[Tensor, Tensor]:
    """For y = stretch inverse x with inverse = 1 / sqrt(mean x^2 + eps): dx, and each row's sum of dy inverse x, (N, 1).

    grad, x: (N, d), inverse, stretch: (N, 1). It is the backward pass of a weight norm to this length, for which torch has a
    single pass over memory.
    """
    root = math.sqrt(x.shape[1])
    found, along = torch.ops.aten._weight_norm_interface_backward(
        grad.contiguous(), x.contiguous(), stretch * root, root / inverse, 0
    )
    return found, along.mul_(root)


def paired(size: int, dims: int) -> Tensor:
    """Order of a head's dimensions in which the two of each pair that rotates are neighbours: they make one complex number."""
    order = torch.arange(size)
    order[:dims] = order[:dims].view(2, -1).T.reshape(-1)
    return order


def turns(cos: Tensor, sin: Tensor, heads: int, size: int) -> Tensor:
    """Rotary tables (T, 1, dims/2) as complex factors (T, heads, size/2): laid out as the heads are, rows of them run on."""
    still = cos.new_zeros(len(cos), 1, size // 2 - cos.shape[-1])
    table = torch.complex(torch.cat([cos, still + 1], dim=-1), torch.cat([sin, still], dim=-1))
    return table.expand(len(cos), heads, size // 2).contiguous()


def by_heads(like: Tensor, batch: int, length: int, heads: int, size: int) -> Tensor:
    """An empty (B, T, heads, D) that lies in memory as attention takes it, head by head."""
    return like.new_empty(batch, heads, length, size).transpose(1, 2)


def turned(x: Tensor, factors: Tensor, out: Tensor) -> Tensor:
    """Pairs of neighbours in x (B, T, heads, D) times complex factors (T, heads, D/2), into `out`, shaped like x."""
    return torch.view_as_real(torch.mul(_pairs(x), factors, out=_pairs(out))).flatten(-2)


def _pairs(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def turned_normed(
    x: Tensor, inverse: Tensor, factors: Tensor, gain: Tensor, out: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Queries and keys as `normed_rotated` gives them, from x whose dimensions are `paired`, into `out`."""
    first = len(gain)
    turned(x[:, :, :first], factors[:, :first] * gain.unsqueeze(-1), out[0]).mul_(inverse[:, :, :first])
    turned(x[:, :, first:], factors[:, first:], out[1]).mul_(inverse[:, :, first:])
    return out


def turned_back(grads: tuple[Tensor, Tensor], factors: Tensor) -> Tensor:
    """Gradients of queries and keys, (B, T, H, D) and (B, T, G, D), side by side and turned back, (B, T, H + G, D)."""
    (batch, length, heads, size), back = grads[0].shape, factors.conj().resolve_conj()
    found = grads[0].new_empty(batch, length, back.shape[1], size)
    query, key = (grad if grad.stride(-1) == 1 else grad.contiguous() for grad in grads)
    turned(query, back[:, :heads], found[:, :, :heads])
    turned(key, back[:, heads:], found[:, :, heads:])
    return found


def normed_rotated_backward(back: Tensor, x: Tensor, inverse: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """dx (B, T, H + G, D) and dgain (H,) from gradients that are turned back: a rotation leaves lengths and angles alone."""
    shape, width = x.shape, x.shape[-1]
    stretch = torch.cat([gain, gain.new_ones(shape[2] - len(gain))]).expand(shape[:3]).reshape(-1, 1)
    found, along = norm_backward(back.view(-1, width), x.reshape(-1, width), inverse.reshape(-1, 1), stretch)
    return found.view(shape), along.view(-1, shape[2])[:, : len(gain)].sum(0)


class _Rms(torch.autograd.Function):
    """y = r x with r = 1 / sqrt(mean x^2 + eps);  dx = r (dy - y mean(dy y))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        inverse = inverse_rms(x)
        ctx.save_for_backward(x, inverse)
        return x * inverse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, inverse = ctx.saved_tensors
        rows, width = inverse.reshape(-1, 1), x.shape[-1]
        return norm_backward(grad.reshape(-1, width), x.reshape(-1, width), rows, torch.ones_like(rows))[0].view(
            x.shape
        )


class _NormedRotated(torch.autograd.Function):
    """A rotation is a product of complex numbers, of which every pair of dimensions makes one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        order, factors = paired(x.shape[-1], 2 * cos.shape[-1]), turns(cos, sin, *x.shape[2:])
        x = x.index_select(-1, order)
        inverse = inverse_rms(x)
        ctx.save_for_backward(x, inverse, gain, factors, order)
        heads = (len(gain), x.shape[2] - len(gain))
        query, key = (by_heads(x, *x.shape[:2], count, x.shape[-1]) for count in heads)
        return turned_normed(x, inverse, factors, gain, (query, key))

    @staticmethod
    def backward(ctx: Any, d_query: Tensor, d_key: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, inverse, gain, factors, order = ctx.saved_tensors
        d_x, d_gain = normed_rotated_backward(turned_back((d_query, d_key), factors), x, inverse, gain)
        return d_x.index_select(-1, order.argsort()), d_gain, None, None


class _Squared(torch.autograd.Function):
    """y = m^2 with m = max(z, slope z);  dz = 2 m dy above zero, slope 2 m dy below."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, slope: float) -> Tensor:
        bent = F.relu(z) if slope == 0 else F.leaky_relu(z, slope)
        ctx.save_for_backward(bent)
        ctx.slope = slope
        return bent * bent

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (bent,) = ctx.saved_tensors
        found = torch.addcmul(grad.new_zeros(()), grad, bent, value=2.0)  # already 0 where relu was
        return (found if ctx.slope == 0 else torch.ops.aten.leaky_relu_backward(found, bent, ctx.slope, True)), None


class _ScaledSum(torch.autograd.Function):
    """dx = g;  dscale = sum of g y;  dy = scale g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(scale, y)
        return (scale * y).add_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale, y = ctx.saved_tensors
        return grad, _over_rows(grad, y), scale * grad


class _Blend(torch.autograd.Function):
    """Two of the products of `_ScaledSum`."""

    @staticmethod
    def forward(ctx: Any, scales: Tensor, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(scales, x, y)
        return (scales[0] * x).add_(scales[1] * y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scales, x, y = ctx.saved_tensors
        return torch.stack([_over_rows(grad, x), _over_rows(grad, y)]), scales[0] * grad, scales[1] * grad


def _over_rows(x: Tensor, y: Tensor) -> Tensor:
    """Sum of x * y over all but the last dimension."""
    return (x * y).flatten(0, -2).sum(0)


class _SoftcappedLoss(torch.autograd.Function):
    """t = tanh(z / cap), p = softmax(cap t);  dz = (p - onehot) (1 - t^2) / N."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, targets: Tensor, cap: float) -> Tensor:
        bent = (z / cap).tanh_()
        logs = F.log_softmax(cap * bent, dim=-1)
        ctx.save_for_backward(bent, logs, targets)
        return F.nll_loss(logs, targets)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        bent, logs, targets = ctx.saved_tensors
        found = logs.exp()
        found.scatter_add_(1, targets.unsqueeze(1), found.new_full((len(targets), 1), -1.0))
        return torch.ops.aten.tanh_backward(found, bent).mul_(grad / len(targets)), None, None


class LossWithGradient(torch.autograd.Function):
    """The same, for Inductor: dz, (N, V), is found on the way and is all that is kept."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, targets: Tensor, cap: float) -> Tensor:
        bent, places = torch.tanh(z / cap), targets.unsqueeze(1)
        top = cap * bent.amax(-1, keepdim=True)
        weights = (cap * bent - top).exp()
        total, wanted = weights.sum(-1, keepdim=True), bent.gather(1, places)
        found = weights / total * (1 - bent * bent)
        ctx.save_for_backward(found.scatter_add(1, places, wanted * wanted - 1))
        return (top + total.log() - cap * wanted).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (found,) = ctx.saved_tensors
        return found * (grad / len(found)), None, None
