"""Formulas of the model as one differentiable step each, for eager mode on a CPU, where every pass over memory is paid for.

Each has its plain formula beside it. The plain one runs everywhere else: under torch.compile, which fuses it by itself, and on
other devices. Forward results are those of the plain formula to the last bit; gradients agree to rounding.
"""

from __future__ import annotations

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

    No pair rotates where dims is 0.
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

    Under torch.compile Inductor makes cap, tanh and softmax two passes over z, which is what a kernel of our own would do.
    """
    z, targets = z.flatten(0, -2), targets.flatten()
    if by_hand(z):
        return _SoftcappedLoss.apply(z, targets, cap)
    return F.cross_entropy(cap * torch.tanh(z / cap), targets)


def _inverse_rms(x: Tensor) -> Tensor:
    return x.pow(2).mean(-1, keepdim=True).add_(torch.finfo(x.dtype).eps).rsqrt_()


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` into one fresh tensor; the backward of a rotation is the rotation by the negative angle."""
    half = cos.shape[-1]
    found = torch.empty_like(x)
    first, second = x[..., :half], x[..., half : 2 * half]
    torch.mul(first, cos, out=found[..., :half])
    found[..., :half] -= second * sin
    torch.mul(first, sin, out=found[..., half : 2 * half])
    found[..., half : 2 * half] += second * cos
    if 2 * half < x.shape[-1]:
        found[..., 2 * half :] = x[..., 2 * half :]
    return found


class _Rms(torch.autograd.Function):
    """y = r x with r = 1 / sqrt(mean x^2 + eps);  dx = r (dy - y mean(dy y))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        inverse = _inverse_rms(x)
        y = x * inverse
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        y, inverse = ctx.saved_tensors
        along = (grad * y).mean(-1, keepdim=True)
        return (y * along).neg_().add_(grad).mul_(inverse)


class _NormedRotated(torch.autograd.Function):
    """As `_Rms`, then turned: mean(dy y) is the same before and after a rotation, so the norm needs no second copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        inverse = _inverse_rms(x)
        y = _turned(x * inverse, cos, sin)
        ctx.save_for_backward(x, y, inverse, gain, cos, sin)
        heads = len(gain)
        return y[:, :, :heads] * gain.unsqueeze(-1), y[:, :, heads:].contiguous()

    @staticmethod
    def backward(ctx: Any, d_query: Tensor, d_key: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, y, inverse, gain, cos, sin = ctx.saved_tensors
        heads, grad = len(gain), torch.empty_like(y)
        grad[:, :, :heads] = d_query
        grad[:, :, heads:] = d_key
        along = (grad * y).sum(-1, keepdim=True)  # (B, T, H + G, 1)
        d_gain = along[:, :, :heads].sum((0, 1, 3))
        stretch = torch.cat([gain, gain.new_ones(y.shape[2] - heads)]).unsqueeze(-1)
        along = along * stretch * inverse.square() / x.shape[-1]
        return _turned(grad, cos, -sin).mul_(inverse * stretch).sub_(x * along), d_gain, None, None


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
        slope = torch.addcmul(grad / len(targets), bent * (grad / len(targets)), bent, value=-1.0)
        return found.mul_(slope), None, None
