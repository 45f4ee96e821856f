"""Muon shared by two processes equals Muon alone, and clipping sees the reduced gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainer.tiny import settings, two_processes
from trainer.config import Config
from trainer.dist import Group, Pending
from trainer.model.gpt import GPT
from trainer.optim.groups import Optimizers
from trainer.optim.muon import Muon
from trainer.optim.parallel import ParallelMuon

ALONE = Group(0, 1, 0, 1, torch.device("cpu"))

# Three blocks: banks of 6, 6 and 6 matrices, and of 1 for the n-gram projection, which two ranks must pad.
SETTINGS = {"NUM_LAYERS": 3, "NGRAM_MAX_ORDER": 3, "MUON_WD": 0.1, "GRAD_CLIP_NORM": 0.5, "DEVICE": "cpu"}
FORMS = {
    "plain": {"MUON_PARALLEL": 0},
    "parallel": {"MUON_PARALLEL": 1},
    "row": {"MUON_PARALLEL": 1, "MUON_ROW_NORM": 1, "MUON_COEFFICIENTS": "polar_express"},
}
STEPS = 3

PEER = """
import sys, torch
from pathlib import Path
from tests.trainer.tiny import settings
from tests.trainer.test_parallel_muon import FORMS, SETTINGS, trained
from trainer import dist

group = dist.start(settings(**SETTINGS))
found = {name: trained(settings(**SETTINGS | form), group) for name, form in FORMS.items()}
torch.save(found, Path(sys.argv[1]) / str(group.rank))
group.stop()
"""


def gradient(shape: torch.Size, step: int, index: int, rank: int) -> Tensor:
    """What a rank finds: another gradient on each, of another size."""
    random = torch.Generator().manual_seed(10_000 * rank + 100 * step + index)
    return torch.randn(shape, generator=random) * (1 + 4 * rank)


def trained(config: Config, group: Group, ranks: list[int] | None = None) -> list[Tensor]:
    """Weights after a few steps; `ranks`: whose mean gradient to use, instead of this rank's own."""
    model = GPT(config, 256)
    optimizers = Optimizers(model, config, group)
    for step in range(STEPS):
        for index, parameter in enumerate(model.parameters()):
            seen = [gradient(parameter.shape, step, index, rank) for rank in ranks or [group.rank]]
            parameter.grad = torch.stack(seen).mean(dim=0)
        optimizers.reduce()
        optimizers.step(scale=1.0, momentum=0.9)
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.service
def test_parallel_muon_on_two_processes_equals_one(tmp_path: Path) -> None:
    """Each form, clipped, gives the weights that one process reaches with the mean gradients; replicas agree to the bit.

    One rank's gradients are five times as large as the other's: clipping before the reduction would give another mean.
    """
    two_processes(PEER, tmp_path, home=tmp_path)
    first, second = (torch.load(tmp_path / str(rank)) for rank in range(2))
    for name, form in FORMS.items():
        alone = trained(settings(**SETTINGS | form), ALONE, ranks=[0, 1])
        for mine, theirs, expected in zip(first[name], second[name], alone, strict=True):
            assert torch.equal(mine, theirs), name
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5, msg=name)


def test_clipping_before_the_reduction_would_be_seen() -> None:
    """The comparison above can fail: ranks that clip their own gradients first reach other weights."""
    config = settings(**SETTINGS)
    right = trained(config, ALONE, ranks=[0, 1])
    model = GPT(config, 256)
    optimizers = Optimizers(model, config, ALONE)
    for step in range(STEPS):
        mean = [torch.zeros_like(parameter) for parameter in model.parameters()]
        for rank in (0, 1):
            for index, parameter in enumerate(model.parameters()):
                parameter.grad = gradient(parameter.shape, step, index, rank)
            optimizers.reduce()
            mean = [held + parameter.grad / 2 for held, parameter in zip(mean, model.parameters(), strict=True)]
        for parameter, clipped in zip(model.parameters(), mean, strict=True):
            parameter.grad = clipped
        optimizers.step(scale=1.0, momentum=0.9)
    off = max((a - b.detach()).abs().max().item() for a, b in zip(right, model.parameters(), strict=True))
    assert off > 1e-3


@pytest.mark.parametrize("row_norm", [False, True])
def test_parallel_muon_alone_equals_muon(row_norm: bool) -> None:
    """A group of one shares with nobody: tall, wide and square matrices go where Muon takes them."""
    shapes = [(6, 12), (12, 6), (8, 8), (12, 6)]
    ours, theirs = ([torch.zeros(shape) for shape in shapes] for _ in range(2))
    options = {"lr": 0.1, "weight_decay": 0.05, "row_norm": row_norm}
    shared, plain = ParallelMuon(ours, group=ALONE, **options), Muon(theirs, **options)
    for step in range(3):
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            mine.grad = gradient(mine.shape, step, index, 0)
            other.grad = mine.grad.clone()
        shared.begin_reduce()
        shared.end_reduce()
        shared.step(momentum=0.9)
        plain.step(momentum=0.9)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_parallel_muon_pads_with_zeros_that_stay_zero() -> None:
    """A rank whose share is all padding orthogonalises zeros and gets zeros, with row norms and Polar Express, too."""

    class Last(Group):
        """The second of two ranks, whose messages bring what it sent: of a bank of one, it holds the padding."""

        def reduce_scatter(self, rows: Tensor) -> Pending:
            return lambda: rows[1:]

        def all_gather(self, rows: Tensor) -> Pending:
            return lambda: seen.append(rows) or torch.cat([rows, rows])

    seen: list[Tensor] = []
    weight = torch.ones(4, 6)
    weight.grad = gradient(weight.shape, 0, 0, 0)
    muon = ParallelMuon([weight], group=Last(1, 2, 1, 2, torch.device("cpu")), lr=0.1, row_norm=True)
    muon.begin_reduce()
    muon.end_reduce()
    muon.step()
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.zeros(1, 4, 6))
    assert torch.equal(weight, torch.ones(4, 6))


def test_parallel_muon_on_one_process_is_plain_muon() -> None:
    """MUON_PARALLEL=1 without peers changes no bit."""
    plain, shared = (trained(settings(**SETTINGS | FORMS[name]), ALONE) for name in ("plain", "parallel"))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(plain, shared, strict=True))
