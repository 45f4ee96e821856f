"""What a parameter is, by its name: decides its optimiser, its bits and how it is born."""

from __future__ import annotations

MATRIX, EMBED, TABLE, HEAD, VECTOR = "matrix", "embed", "table", "head", "vector"

_ROLES = {
    "query": MATRIX,
    "key": MATRIX,
    "value": MATRIX,
    "output": MATRIX,
    "up": MATRIX,
    "down": MATRIX,
    "gate": MATRIX,
    "project": MATRIX,
    "expand": MATRIX,
    "kernel": MATRIX,
    "embed": EMBED,
    "value_embed": EMBED,
    "to_logits": EMBED,
    "tables": TABLE,
    "head": HEAD,
    "gain": VECTOR,
    "resid_mix": VECTOR,
    "attention_scale": VECTOR,
    "mlp_scale": VECTOR,
    "head_gate": VECTOR,
    "value_scale": VECTOR,
    "value_mix": VECTOR,
    "lane_keep": VECTOR,
    "lane_attention": VECTOR,
    "lane_mlp": VECTOR,
    "skip_scale": VECTOR,
    "skip_gate": VECTOR,
    "loop_embedding": VECTOR,
    "smear_mix": VECTOR,
    "smear_gate": VECTOR,
    "smear_scale": VECTOR,
    "bigram_scale": VECTOR,
    "bos_patch": VECTOR,
    "route": VECTOR,
}

ATTENTION, MLP = frozenset({"query", "key", "value", "output"}), frozenset({"up", "down", "gate"})
"""Matrices of the two branches of a block, and of what is built like them, by the last part of their names."""


def role(name: str) -> str:
    """Role of the parameter with this dotted name. Raises KeyError for a foreign name."""
    return _ROLES[name.rpartition(".")[2]]
