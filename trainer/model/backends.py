"""Ways to compute causal attention other than torch's own choice, each tried on the device before a run relies on it.

A way turns a batch into `Attend`, one function for all layers of the pass, so that what depends on documents alone is made once:

    cudnn   scaled_dot_product_attention, cuDNN's kernel preferred; documents by a dense mask
    varlen  the batch as one row [B * T] of segments, a document each or a row each: FlashAttention 3 where its package is,
            torch.nn.attention.varlen on other GPUs, and on a CPU a loop over the segments, which is also the tests' reference
    flex    FlexAttention with a block mask of documents

Signatures and defaults differ between versions (attention over segments was bidirectional unless asked not to be in torch 2.12),
so `choose` lets nothing through that leaks or that disagrees with softmax written out.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import Config, SettingsError
from trainer.dist import Group
from trainer.model.documents import document_mask, document_starts, segment_bounds

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""query (B, T, H, D), key and value (B, T, G, D) -> (B, T, H, D); each position sees itself and what its document has before."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""query (N, H, D), key and value (N, G, D), bounds of segments (int32), the longest one's most -> (N, H, D), causal in each."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02}
"""Largest difference from the written-out formula, results and gradients, as a share of the largest value there."""


class Backend(Protocol):
    """One way. `bounded`: it wants the bounds of documents, `documents.segment_bounds`, found outside of a compiled graph."""

    name: str
    bounded: bool

    def over(self, like: Tensor, starts: Tensor | None, bounds: Tensor | None) -> Attend:
        """Attention over the rows of `like` (B, T, d); starts (B, T) bool: first ids of documents, None: rows are whole."""


class Unusable(RuntimeError):
    """This way is not for this machine or run. One line."""


def expanded(x: Tensor, heads: int) -> Tensor:
    """(..., G, D) -> (..., heads, D): each key and value head as often as query heads read it."""
    return x.repeat_interleave(heads // x.shape[-2], dim=-2)


def narrow(x: Tensor) -> Tensor:
    """In bfloat16 on a GPU, where the kernels take nothing wider; autocast knows scaled_dot_product_attention only."""
    return x.to(torch.bfloat16) if x.is_cuda else x


class Cudnn:
    """cuDNN's kernel is of FlashAttention 3's class on Hopper; key and value heads are written out for it."""

    name, bounded = "cudnn", False

    def over(self, like: Tensor, starts: Tensor | None, bounds: Tensor | None) -> Attend:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        mask = None if starts is None else document_mask(starts)
        order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]
        order += [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            heads = query.shape[2]
            three = (query, expanded(key, heads), expanded(value, heads))
            with sdpa_kernel(order, set_priority=True):
                q, k, v = (narrow(x).transpose(1, 2) for x in three)
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)

        return attend


class Varlen:
    """Attention over one flat row of segments: nothing is computed between documents, and nothing is masked."""

    bounded = True

    def __init__(self, name: str, kernel: Kernel) -> None:
        self.name, self.kernel = name, kernel

    def over(self, like: Tensor, starts: Tensor | None, bounds: Tensor | None) -> Attend:
        rows, length = like.shape[:2]
        if starts is None:
            bounds = torch.arange(0, (rows + 1) * length, length, dtype=torch.int32, device=like.device)
        elif bounds is None:  # reads lengths from the device: fine where nothing is compiled
            bounds = segment_bounds(starts)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            flat = [narrow(x).flatten(0, 1) for x in (query, key, value)]
            return self.kernel(*flat, bounds, length).view(query.shape)

        return attend


class Flex:
    """FlexAttention: blocks that no document reaches are left out. torch has no backward pass of it on a CPU."""

    name, bounded = "flex", False

    def __init__(self, device: torch.device) -> None:
        from torch.nn.attention.flex_attention import flex_attention

        # Uncompiled it writes all scores out, which is what a test on a CPU is for.
        self.mix = torch.compile(flex_attention, dynamic=False) if device.type == "cuda" else flex_attention

    def over(self, like: Tensor, starts: Tensor | None, bounds: Tensor | None) -> Attend:
        from torch.nn.attention.flex_attention import create_block_mask

        rows, length = like.shape[:2]
        number = None if starts is None else starts.cumsum(dim=1)

        def visible(row: Tensor, head: Tensor, here: Tensor, there: Tensor) -> Tensor:
            before = here >= there
            return before if number is None else before & (number[row, here] == number[row, there])

        blocks = create_block_mask(visible, None if number is None else rows, None, length, length, like.device)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            q, k, v = (narrow(x).transpose(1, 2) for x in (query, key, value))
            return self.mix(q, k, v, block_mask=blocks, enable_gqa=q.shape[1] != k.shape[1]).transpose(1, 2)

        return attend


def adapted(function: Callable[..., Any]) -> Kernel:
    """A package's attention over segments as a `Kernel`, by the names of its parameters. Raises Unusable if they are strange."""
    known = inspect.signature(function).parameters
    torchs = ("cu_seq_q", "cu_seq_k", "max_q", "max_k")
    flashs = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")
    names = next((names for names in (torchs, flashs) if known.keys() >= set(names)), None)
    ways: dict[str, object] = {"is_causal": True, "causal": True, "window_size": (-1, 0)}
    causal = next((word for word in ways if word in known), None)
    if names is None or causal is None:
        raise Unusable(f"unknown parameters ({', '.join(known)})")
    grouped = names is flashs or "enable_gqa" in known

    def kernel(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> Tensor:
        heads, more = query.shape[1], {causal: ways[causal]}
        if key.shape[1] != heads and not grouped:
            key, value = expanded(key, heads), expanded(value, heads)
        elif key.shape[1] != heads and "enable_gqa" in known:
            more["enable_gqa"] = True
        more |= dict(zip(names, (bounds, bounds, longest, longest), strict=True))
        found = function(query, key, value, **more)
        return found[0] if isinstance(found, tuple) else found

    return kernel


def _heads_first(x: Tensor, part: slice, heads: int) -> Tensor:
    """A segment of (N, G, D) as (heads, n, D)."""
    return expanded(x[part], heads).transpose(0, 1)


def _parts(bounds: Tensor) -> list[slice]:
    return [slice(*pair) for pair in pairwise(bounds.unique().tolist())]  # sorted; the end repeats itself


def _each_segment(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor) -> Tensor:
    """Causal attention of each segment by itself; (N, H, D) from (N, H, D) and twice (N, G, D)."""
    found = torch.empty_like(query, memory_format=torch.contiguous_format)
    for part in _parts(bounds):
        q, k, v = (_heads_first(x, part, query.shape[1])[None] for x in (query, key, value))
        found[part] = F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)
    return found


def _each_segment_back(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Its gradients: p = softmax(s q k^T);  dv = p^T g;  e = p (g v^T - sum of p g v^T);  dq = s e k;  dk = s e^T q."""
    heads, scale = query.shape[1], query.shape[-1] ** -0.5
    found = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)]
    for part in _parts(bounds):
        g, q, k, v = (_heads_first(x, part, heads) for x in (grad, query, key, value))
        hidden = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool, device=q.device).triu(1)
        p = (q @ k.transpose(1, 2) * scale).masked_fill(hidden, -torch.inf).softmax(-1)
        along = p * (g @ v.transpose(1, 2))
        e = (along - p * along.sum(-1, keepdim=True)) * scale
        for into, slope in zip(found, (e @ k, e.transpose(1, 2) @ q, p.transpose(1, 2) @ g), strict=True):
            # A key head's gradient is the sum over the query heads that read it.
            share = slope.unflatten(0, (into.shape[1], -1)).sum(1)
            into[part] = share.transpose(0, 1)
    return found[0], found[1], found[2]


# Operators, as the kernels are that they stand for: the compiler looks into neither.
_segments = torch.library.custom_op(
    "golf::segments",
    _each_segment,
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor bounds) -> Tensor",
)
_segments_back = torch.library.custom_op(
    "golf::segments_back",
    _each_segment_back,
    mutates_args=(),
    schema="(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor bounds) -> (Tensor, Tensor, Tensor)",
)
_segments.register_fake(
    lambda query, key, value, bounds: torch.empty_like(query, memory_format=torch.contiguous_format)
)
_segments_back.register_fake(
    lambda grad, *three: tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in three[:3])
)
_segments.register_autograd(
    lambda ctx, grad: (*_segments_back(grad, *ctx.saved_tensors), None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def reference(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """The `Kernel` of machines that have none: a loop over the segments."""
    return _segments(query, key, value, bounds)


def written_out(query: Tensor, key: Tensor, value: Tensor, starts: Tensor | None) -> Tensor:
    """`Attend` by its formula, in float32 at least: what the others are measured against."""
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k, v = (expanded(x, query.shape[2]).to(wide).transpose(1, 2) for x in (query, key, value))
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    if starts is None:
        starts = torch.zeros(query.shape[:2], dtype=torch.bool, device=query.device)
    return (scores.masked_fill(~document_mask(starts), -torch.inf).softmax(-1) @ v).transpose(1, 2)


def fault(backend: Backend, config: Config, device: torch.device) -> str:
    """What is wrong with a way at this run's heads on this device, in few words; empty: nothing.

    Three rows of noise, forward and backward, against the written-out formula; then everything behind a place is changed, which
    must leave what is before it. Raises what the kernel raises.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    noise = torch.Generator().manual_seed(0)
    rows, length, width = 3, min(config.train_seq_len, 160), config.model_dim // config.num_heads

    def some(heads: int) -> Tensor:
        drawn = torch.randn(rows, length, heads, width, generator=noise)
        return drawn.to(device, dtype).requires_grad_()

    three = [some(heads) for heads in (config.num_heads, config.num_kv_heads, config.num_kv_heads)]
    starts = None
    if config.document_attention:
        starts = torch.rand(rows, length, generator=noise) < 0.1
        starts[:, 0] = True
        starts = starts.to(device)
    bounds = segment_bounds(starts) if starts is not None and backend.bounded else None

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return backend.over(query[:, :, 0], starts, bounds)(query, key, value)

    run = torch.compile(attend, dynamic=False, fullgraph=True) if config.compile else attend
    found, exact = run(*three), written_out(*three, starts)
    weights = torch.randn(found.shape, generator=noise).to(found)
    pairs = [(found, exact)]
    slopes = (torch.autograd.grad(result, three, weights.to(result)) for result in (found, exact))
    pairs += zip(*slopes, strict=True)
    within = TOLERANCE[dtype]
    at = length // 2
    later = [
        torch.cat([x[:, :at], x[:, at:].flip(1) + more], dim=1) for x, more in zip(three, (0, 0, 1e3), strict=True)
    ]
    # A value a thousand times too large shows through the smallest weight; "not <=" lets no nan through.
    if not _apart(run(*later)[:, :at], found[:, :at]) <= within:
        return "it looks ahead"
    apart = [_apart(*pair) for pair in pairs]
    right = all(share <= within for share in apart)
    return "" if right else f"off by {max(apart):.1e} of the largest value, {within:g} is allowed"


def _apart(found: Tensor, exact: Tensor) -> float:
    """Largest difference over the largest exact value."""
    found, exact = found.detach().float(), exact.detach().float()
    return float((found - exact).abs().max() / exact.abs().max())


def _cudnn(device: torch.device) -> Backend:
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < 9:
        raise Unusable("needs a GPU of the Hopper generation or later")
    return Cudnn()


def _flash(device: torch.device) -> Backend:
    return Varlen("varlen:fa3", adapted(importlib.import_module("flash_attn_interface").flash_attn_varlen_func))


def _torchs(device: torch.device) -> Backend:
    if device.type != "cuda":
        raise Unusable("needs a GPU")
    return Varlen("varlen:torch", adapted(importlib.import_module("torch.nn.attention.varlen").varlen_attn))


def _loop(device: torch.device) -> Backend:
    if device.type == "cuda":
        raise Unusable("a loop over segments is for CPUs")
    return Varlen("varlen:loop", reference)


def _flex(device: torch.device) -> Backend:
    return Flex(device)


WAYS: dict[str, Callable[[torch.device], Backend]] = {
    "cudnn": _cudnn,
    "varlen:fa3": _flash,
    "varlen:torch": _torchs,
    "varlen:loop": _loop,
    "flex": _flex,
}
"""Name in the log to what makes it. Raises Unusable, or ImportError, where this machine has none."""


def tried(config: Config, device: torch.device) -> list[str]:
    """What the setting means here, the best first; none: scaled_dot_product_attention as torch chooses."""
    wanted = config.attention_backend
    if wanted == "auto":
        if device.type != "cuda":
            return []
        return ["varlen:fa3", "varlen:torch", "flex"] if config.document_attention else ["varlen:fa3", "cudnn"]
    return [name for name in WAYS if name.startswith(wanted)]


def bounds_of(backend: Backend | None, ids: np.ndarray, bos: int, config: Config, group: Group) -> Tensor | None:
    """On the device, where documents begin in a batch of ids (B, T) that is still here; None where nobody asks for it.

    A compiled pass can't find it: how many there are differs from batch to batch. That length is marked as one that changes,
    so one graph serves all.
    """
    if backend is None or not (backend.bounded and config.document_attention):
        return None
    bounds = group.bring(segment_bounds(document_starts(torch.from_numpy(ids), bos)).numpy())
    if config.compile:
        torch._dynamo.mark_dynamic(bounds, 0)
    return bounds


def choose(config: Config, group: Group) -> tuple[Backend | None, str]:
    """The first way that passes on every rank, None for torch's own, and the log's line about it.

    Raises SettingsError where a way was named and can't be had, with each reason.
    """
    refused: list[str] = []
    for name in tried(config, group.device):
        found = None
        try:
            found = WAYS[name](group.device)
            wrong = fault(found, config, group.device)
        except Exception as error:  # kernels and compilers raise whatever they like, and the next way may do
            wrong = (str(error).strip() or type(error).__name__).splitlines()[0]
        if group.unanimous(not wrong):
            return found, f"attention:{name} (causal, agrees with the formula){_but(refused)}"
        refused.append(f"{name}: {wrong or 'another rank refused it'}")
    if config.attention_backend not in ("auto", "sdpa"):
        raise SettingsError(f"ATTENTION_BACKEND={config.attention_backend}: {'; '.join(refused)}")
    return None, f"attention:sdpa{_but(refused)}"


def _but(refused: list[str]) -> str:
    return f"; not {'; '.join(refused)}" if refused else ""
