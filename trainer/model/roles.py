"""What a parameter is, by its name: decides its optimiser, its bits and how it is born."""

from __future__ import annotations

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


def role(name: str) -> str:
    """Role of the parameter with this dotted name. Raises KeyError for a foreign name."""
    return _ROLES[name.rpartition(".")[2]]
