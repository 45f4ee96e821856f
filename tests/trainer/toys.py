"""Small models that depend on all of their window, and one that cheats."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainer.dist import Group
from trainer.evaluate.bpb import Score
from trainer.evaluate.text import Text
from trainer.evaluate.ttt import Ttt
from trainer.evaluate.walk import run

VOCAB = 7


class Toy(nn.Module):
    """Causal: a decaying mean of embeddings, plus a table of the last two ids. float64, so sums can be compared closely."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=random, dtype=torch.float64))

        self.embed, self.out, self.table = draw(VOCAB, 5), draw(5, VOCAB), draw(VOCAB * VOCAB, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        at = torch.arange(ids.shape[1])
        distance = at[:, None] - at[None, :]
        weight = torch.where(distance >= 0, 0.9 ** distance.clamp(min=0).double(), 0.0)
        before = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
        return torch.tanh(weight @ self.embed[ids]) @ self.out + self.table[before * VOCAB + ids]

    def table_parameters(self) -> Iterator[nn.Parameter]:
        yield self.table


class Peeking(Toy):
    """Row t sees the id after its target: what the flip test exists to find."""

    def forward(self, ids: Tensor) -> Tensor:
        ahead = torch.cat([ids[:, 2:], ids[:, -1:], ids[:, -1:]], dim=1)[:, : ids.shape[1]]
        return super().forward(ids) + 3 * torch.nn.functional.one_hot(ahead, VOCAB)


class Broken(Toy):
    """Answers nan."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * float("nan")


def adapted_score(
    model, tokens, lengths, *, bos, device, group: Group | None = None, order=None, nlls=None, **how
) -> Score:
    """A flat stream scored by `Ttt`; how: its keywords."""
    return run(Ttt(model, **how), Text(tokens, lengths, bos, device), group=group, order=order, nlls=nlls)
