"""Ten thousand spoilt artifacts: refused in one line, or read as what they were."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.trainer import artifactlab
from tests.trainer.test_artifact import META, VOCAB, trained
from tests.trainer.tiny import settings
from trainer import artifact

Samples = tuple[list[bytes], list[dict[str, torch.Tensor]]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Small valid files of every codec, and their weights."""
    folder = tmp_path_factory.mktemp("samples")
    contents, states = [], []
    for number, codec in enumerate(("rans", "rans", "auto", "zstd", "zlib", "lzma")):
        bits = {"MATRIX_BITS": 6} if number % 2 else {"MATRIX_BITS": 2, "EMBED_BITS": 16}
        config = settings(NGRAM_MAX_ORDER=2, MODEL_DIM=8, NUM_LAYERS=1, CODEC=codec, **bits)
        artifact.write(folder / "a.golf", trained(config), config, VOCAB, META)
        contents.append((folder / "a.golf").read_bytes())
        states.append(artifact.read(folder / "a.golf").state)
    return contents, states


def tried(folder: Path, samples: Samples, seeds: range) -> Counter[str]:
    before = artifactlab.resident()
    outcomes = Counter(artifactlab.trial(folder, seed, *samples) for seed in seeds)
    assert artifactlab.resident() - before < artifactlab.MEMORY
    return outcomes


def test_spoilt_artifacts_are_refused_or_read_as_they_were(tmp_path: Path, samples: Samples) -> None:
    """Flips, cuts, splices, forged headers, lying lengths and spoilt tables; most are refused, some change nothing."""
    outcomes = tried(tmp_path, samples, range(300))
    assert outcomes["refused"] > 250
    assert outcomes["equal"] > 3


@pytest.mark.service
@pytest.mark.parametrize("part", range(4))
def test_spoilt_artifacts_ten_thousand(tmp_path: Path, samples: Samples, part: int) -> None:
    """The same with 10,000 other seeds, a quarter at a time."""
    outcomes = tried(tmp_path, samples, range(2500 * part + 1000, 2500 * part + 3500))
    print(dict(outcomes))
    assert outcomes["refused"] > 2000
