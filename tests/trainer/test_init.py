"""How weights are born when a switch says so."""

from __future__ import annotations

import math

import pytest
import torch

from tests.trainer.switches import VOCAB
from tests.trainer.tiny import settings
from trainer.model.gpt import GPT
from trainer.model.init import overtone
from trainer.model.roles import MATRIX, role

EVERYTHING = {"ORTHO_INIT": 1, "MLP_KIND": "swiglu", "NGRAM_MAX_ORDER": 3, "BIGRAM_VOCAB_SIZE": 32, "VE_ENABLED": 1}


def test_ortho_init_gives_orthonormal_rows_or_columns() -> None:
    """W W^T = 1 for wide matrices, W^T W = 1 for tall ones, all different; matrices born zero stay zero."""
    matrices = {n: p for n, p in GPT(settings(**EVERYTHING), VOCAB).named_parameters() if role(n) == MATRIX}
    zero = [name for name, weight in matrices.items() if not weight.abs().max()]
    assert {name.rpartition(".")[2] for name in zero} == {"output", "down", "project"}
    assert "value_embedding.project" in zero
    rest = {name: weight for name, weight in matrices.items() if name not in zero}
    assert {"ngrams.project", "bigram.project", "blocks.1.mlp.gate", "blocks.0.attention.key"} <= rest.keys()
    for name, weight in rest.items():
        wide = weight.mT if weight.shape[0] > weight.shape[1] else weight
        torch.testing.assert_close(wide @ wide.mT, torch.eye(len(wide)), rtol=0, atol=1e-5, msg=name)
    assert not torch.equal(rest["blocks.0.attention.query"], rest["blocks.1.attention.query"])


def test_overtone_spectrum_falls_like_one_over_root_k() -> None:
    """Singular values s_1 k^-1/2 in the directions of the matrix it came from."""
    plain = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    shaped = overtone(plain)
    values = torch.linalg.svdvals(shaped.double())
    first = torch.linalg.svdvals(plain.double())[0]
    torch.testing.assert_close(values, first * torch.arange(1, 17).double() ** -0.5, rtol=1e-5, atol=1e-6)
    left, _, right = torch.linalg.svd(plain.double(), full_matrices=False)
    inner = left.mT @ shaped.double() @ right.mT
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-5


@pytest.mark.parametrize("layers", [1, 4])
def test_overtone_init_shapes_embedding_and_mix(layers: int) -> None:
    """The model's embedding has that spectrum; block l keeps sigmoid(3 (l/(L-1) - 1/2)) of the stream, the rest is x0."""
    model = GPT(settings(NUM_LAYERS=layers, OVERTONE_INIT=1), VOCAB)
    values = torch.linalg.svdvals(model.embed.double())
    torch.testing.assert_close(values / values[0], torch.arange(1, 17).double() ** -0.5, rtol=1e-4, atol=1e-6)
    for number, block in enumerate(model.blocks):
        kept = 1 / (1 + math.exp(-3 * (number / max(layers - 1, 1) - 0.5)))
        torch.testing.assert_close(block.resid_mix, torch.tensor([[kept], [1 - kept]]).expand(2, 16))
