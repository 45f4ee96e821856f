"""What a configuration weighs and costs, before anything is trained: `python -m trainer --config NAME --describe [--json]`.

Tensors, parameters and stored bytes are exact: those of the model the settings build, in the artifact's format. The size behind
the entropy coder is a projection, with the ratios below as its assumption. FLOPs per token follow the field's formula,

    6 * (weights of every matrix product, as often as it runs per token) + 12 * attentions * (context / 2) * width,

forward and backward, no recomputation; look-ups, vectors and gates are not counted, nor what only training adds to the loss.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from trainer import contract
from trainer.artifact import clip_of, scheme_of, stored_bytes
from trainer.config import Config
from trainer.model.gpt import GPT
from trainer.model.roles import TABLE, role
from trainer.quant.rowwise import GRIDS

RATIOS = {"int8": 0.92, "int8x4": 0.58, "int6": 0.58, "int5": 0.46, "int4": 0.33, "ternary": 0.21, "fp16": 0.85}
"""Bytes behind the entropy coder per byte before it, from logs: int8 0.923 in the contest's baseline; int6 0.58 in #549, 0.57 in
#414, whose weights decay, up to 0.72 where they do not. int5 and int4: a bit of eight less each; ternary: log2 3 bits of eight,
and scales. fp16: vectors, a percent of the file."""
TABLE_RATIO = 0.53
"""The same for tables, whatever their bits: rows that no text asked for stay zero. Measured after a million bytes of cpu-best; it
rises with the text."""


def vocabulary(tokenizer: str) -> int:
    """Size of an alphabet, as TOKENIZER names it."""
    from trainer.data import alphabets, tokens

    return tokens.VOCABULARY if alphabets.needs_model(tokenizer) else alphabets.of_model(tokenizer, None).vocab_size


def unborn(config: Config) -> GPT:
    """The model the settings build, with shapes and without values."""
    with torch.device("meta"):
        return GPT(config, vocabulary(config.tokenizer))


def describe(config: Config) -> dict[str, Any]:
    """Everything `--describe` says, as JSON: tensors, roles, flops_per_token, artifact. Sizes in bytes."""
    size, model = vocabulary(config.tokenizer), unborn(config)
    tensors = [_tensor(name, parameter, config) for name, parameter in model.named_parameters()]
    roles = {name: _role([t for t in tensors if t["role"] == name]) for name in sorted({t["role"] for t in tensors})}
    flops = flops_per_token(config, model)
    code, bulk = contract.code_bytes(contract.code_root()), sum(entry["projected_bytes"] for entry in roles.values())
    return {
        "vocab_size": size,
        "parameters": sum(t["values"] for t in tensors),
        "tensors": tensors,
        "roles": roles,
        "flops_per_token": flops,
        "flops_per_step": flops["total"] * config.train_batch_tokens,
        "artifact": {
            "stored_bytes": sum(t["stored_bytes"] for t in tensors),
            "projected_bytes": bulk,
            "code_bytes": code,
            "projected_total_bytes": bulk + code,
            "cap_bytes": contract.CAP_BYTES,
        },
        "assumed_ratios": RATIOS | {TABLE: TABLE_RATIO},
    }


def _tensor(name: str, parameter: Tensor, config: Config) -> dict[str, Any]:
    scheme, shape = scheme_of(name, config), tuple(parameter.shape)
    ratio = TABLE_RATIO if role(name) == TABLE else RATIOS[scheme]
    if config.quant_clip == "sigma" and scheme in GRIDS:  # the spread is levels / k steps wide, whatever the row
        spread = GRIDS[scheme].levels / GRIDS[scheme].step / clip_of(name, config).sigmas
        ratio = min(ratio, max(0.5, math.log2(spread) + 2.05) / 8)
    stored = stored_bytes(shape, scheme)
    return {
        "name": name,
        "shape": list(shape),
        "role": role(name),
        "scheme": scheme,
        "values": parameter.numel(),
        "float32_bytes": stored_bytes(shape, "fp32"),
        "stored_bytes": stored,
        "projected_bytes": round(stored * ratio),
    }


def _role(tensors: list[dict[str, Any]]) -> dict[str, Any]:
    sums = ("values", "float32_bytes", "stored_bytes", "projected_bytes")
    schemes = sorted({t["scheme"] for t in tensors})
    return {"tensors": len(tensors), "schemes": schemes} | {key: sum(t[key] for t in tensors) for key in sums}


def flops_per_token(config: Config, model: GPT) -> dict[str, float]:
    """Training FLOPs per token by the formula above: {"matrices", "attention", "total"}. `model` may be on the meta device.

    How often a matrix runs is asked of the forward pass itself, at the depth the model is trained to.
    """
    rows = Counter[str]()
    asked = Counter[str]()

    def listen(name: str, x: Tensor) -> None:
        rows[name] += x.shape[:-1].numel()
        asked[name] += 1

    length = 2 * config.patch_size  # two patches show how often each matrix runs per token
    with torch.inference_mode():
        model.to_empty(device="cpu")(torch.zeros(1, length, dtype=torch.int64), listen)
    weights = dict(model.named_parameters())
    products = sum(weights[name].numel() * count / length for name, count in rows.items())
    attentions = sum(count for name, count in asked.items() if name.endswith(".attention.output"))
    patches = config.train_seq_len / config.patch_size
    attention = 12 * attentions * (patches / 2) * config.model_dim / config.patch_size
    attention += sum(
        12 * count * (config.patch_size / 2) * config.patch_dim
        for name, count in asked.items()
        if re.fullmatch(r"patches\.decoder\..*\.output", name)
    )
    return {"matrices": 6 * products, "attention": attention, "total": 6 * products + attention}


def lines(found: dict[str, Any], about: str = "") -> list[str]:
    """What `describe` returned, for people."""
    out = [about] if about else []
    width = max(len(t["name"]) for t in found["tensors"])
    for t in found["tensors"]:
        shape = "x".join(map(str, t["shape"]))
        out.append(f"{t['name']:{width}}  {shape:>12}  {t['role']:7} {t['scheme']:5} {t['stored_bytes']:>12,}")
    out += ["", f"{'role':8}{'tensors':>8}{'parameters':>14}{'float32 bytes':>16}{'stored bytes':>14}{'projected':>12}"]
    for name, entry in found["roles"].items():
        counts = (
            f"{entry['tensors']:>8,}{entry['values']:>14,}{entry['float32_bytes']:>16,}{entry['stored_bytes']:>14,}"
        )
        out.append(f"{name:8}{counts}{entry['projected_bytes']:>12,}  {'+'.join(entry['schemes'])}")
    flops, artifact = found["flops_per_token"], found["artifact"]
    ratios = ", ".join(f"{name} {ratio:g}" for name, ratio in found["assumed_ratios"].items())
    room = artifact["cap_bytes"] - artifact["projected_total_bytes"]
    return [
        *out,
        "",
        f"vocabulary {found['vocab_size']}, {found['parameters']:,} parameters",
        f"training: {flops['total'] / 1e6:.1f} MFLOP a token ({flops['matrices'] / 1e6:.1f} in matrices, "
        f"{flops['attention'] / 1e6:.1f} in attention), {found['flops_per_step'] / 1e12:.3g} TFLOP a step",
        f"artifact: {artifact['stored_bytes']:,} bytes with scales, projected {artifact['projected_bytes']:,} "
        f"(assumed ratios: {ratios})",
        f"with {artifact['code_bytes']:,} bytes of code projected {artifact['projected_total_bytes']:,}: "
        f"{abs(room):,} {'under' if room >= 0 else 'OVER'} the cap of {artifact['cap_bytes']:,}",
    ]
