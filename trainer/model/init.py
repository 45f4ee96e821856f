"""How weights are born: on the CPU, from the seed alone, whatever device they go to later."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import nn

from trainer.config import Config

_ZERO = {"output", "down", "to_logits", "tables"}


@torch.no_grad()
def initialise(model: nn.Module, config: Config) -> None:
    """Baseline init: E ~ N(0, std); matrices U(+-1/sqrt(fan_in)); outputs of branches zero; scales one.

    What a switch adds draws from a stream of its own (`stream`), so switching it on or off leaves all other weights as they are.
    """
    constants = {"gain": config.qk_gain_init, "attention_scale": 1.0, "mlp_scale": 1.0, "skip_scale": 1.0}
    shared = torch.Generator().manual_seed(config.seed)
    own = stream(config.seed, "ngram")
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf in _ZERO:
            parameter.zero_()
        elif leaf in constants:
            parameter.fill_(constants[leaf])
        elif leaf == "resid_mix":
            parameter.copy_(torch.tensor([[1.0], [0.0]]).expand_as(parameter))
        elif leaf == "embed":
            parameter.normal_(0.0, config.tied_embed_init_std, generator=shared)
        else:
            bound = 1.0 / math.sqrt(parameter.shape[1])
            parameter.uniform_(-bound, bound, generator=own if name.startswith("ngrams.") else shared)


def stream(seed: int, name: str) -> torch.Generator:
    """A named random stream, independent of the shared one."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big"))
