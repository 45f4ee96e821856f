"""How weights are born: on the CPU, from the seed alone, whatever device they go to later."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.roles import MATRIX, role
from trainer.options.model import stored_layers

_ZERO = {"output", "down", "to_logits", "tables", "bos_patch", "route", "head", "value_embedding.project"}
_ZERO |= {"skip_gate", "loop_embedding", "smear_gate", "smear_scale"}
_CONSTANT = {"attention_scale": 1.0, "mlp_scale": 1.0, "skip_scale": 1.0, "smear_mix": 3.0, "bigram_scale": 0.05}
_CONSTANT |= {"value_mix": 0.5, "value_scale": 0.1, "lane_keep": 1.0, "lane_attention": 1.0, "lane_mlp": 1.0}


@torch.no_grad()
def initialise(model: nn.Module, config: Config) -> None:
    """Baseline init: E ~ N(0, std); matrices U(+-1/sqrt(fan_in)); outputs of branches zero; scales one.

    What a switch adds draws from a stream of its own (`stream`), so switching it on or off leaves all other weights as they are.
    """
    constant = _CONSTANT | {"gain": config.qk_gain_init}
    std = {"value_embed": 0.01, "head_gate": config.dense_gate_std if config.attn_gate == "dense" else 0.0}
    shared = torch.Generator().manual_seed(config.seed)
    own = {"ngrams": stream(config.seed, "ngram"), "patches": stream(config.seed, "patch")}
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf in _ZERO or name in _ZERO:
            parameter.zero_()
        elif leaf in constant:
            parameter.fill_(constant[leaf])
        elif leaf in std:
            parameter.normal_(0.0, std[leaf], generator=stream(config.seed, name))
        elif leaf == "resid_mix":
            kept = overtone_mix(name, config) if config.overtone_init else 1.0
            parameter.copy_(torch.tensor([[kept], [1.0 - kept]]).expand_as(parameter))
        elif leaf == "embed":
            parameter.normal_(0.0, config.tied_embed_init_std, generator=shared)
            if config.overtone_init:
                parameter.copy_(overtone(parameter))
        elif name == "bigram.project" or (config.ortho_init and role(name) == MATRIX):
            nn.init.orthogonal_(parameter, generator=stream(config.seed, name))
        else:
            bound = 1.0 / math.sqrt(parameter.shape[1])
            added = stream(config.seed, name) if leaf == "gate" else own.get(name.partition(".")[0], shared)
            parameter.uniform_(-bound, bound, generator=added)


def overtone(weight: Tensor) -> Tensor:
    """U diag(s_1 k^-1/2) V^T for the SVD of `weight`: the k-th singular value falls like an overtone (contest record)."""
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    fall = torch.arange(1, len(values) + 1, dtype=torch.float64) ** -0.5
    return ((left * (values[0] * fall)) @ right).to(weight.dtype)


def overtone_mix(name: str, config: Config) -> float:
    """What a block keeps of the stream at init, sigmoid(3 (l / (L - 1) - 1/2)) for block l of L; the rest is embedding."""
    place = int(name.split(".")[1]) / max(stored_layers(config) - 1, 1)
    return 1 / (1 + math.exp(-3 * (place - 0.5)))


def stream(seed: int, name: str) -> torch.Generator:
    """A named random stream, independent of the shared one."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big"))
