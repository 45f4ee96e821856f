"""What is traced before the clock starts, and what is not traced after it. Tracing is real, code is not generated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.tiny import dataset, settings
from trainer import train
from trainer.config import SettingsError
from trainer.dist import Group
from trainer.metrics import Metrics


@pytest.mark.service  # tracing takes seconds
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("way", ["quintic", "halley"])
def test_compiled_run_traces_nothing_after_warm_up(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose context grows and whose Newton-Schulz is compiled has all its graphs before step 1."""
    compiler: Callable[..., Any] = torch.compile
    monkeypatch.setattr(torch, "compile", lambda what, **options: compiler(what, backend="eager", **options))
    growing = {"CONTEXT_SCHEDULE": "8@0,16@0.5", "MLP_MULT": 4, "ITERATIONS": 4}
    config = settings(COMPILE=1, COMPILE_OPTIMIZER=1, MUON_COEFFICIENTS=way, **growing)
    alone = Group(0, 1, 0, 1, torch.device("cpu"))
    found = train.run(config, dataset(), alone, Metrics(tmp_path, 0))
    assert found["recompiles_after_warmup"] == 0
    traced = train.graphs_traced()
    assert traced > 0
    torch.compile(lambda x: x + traced, fullgraph=True)(torch.ones(3))
    assert train.graphs_traced() == traced + 1, "the count does not see a graph traced late"


@pytest.mark.service
@pytest.mark.filterwarnings("default")
def test_compiled_run_on_flat_rows_traces_nothing_after_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents whose number differs from step to step need no further graph."""
    compiler: Callable[..., Any] = torch.compile
    monkeypatch.setattr(torch, "compile", lambda what, **options: compiler(what, backend="eager", **options))
    config = settings(
        COMPILE=1, ATTENTION_BACKEND="varlen", DOCUMENT_ATTENTION=1, TRAIN_BATCH_TOKENS=1024, ITERATIONS=6
    )
    data = dataset()
    data.train[:2000:3] = 0
    alone = Group(0, 1, 0, 1, torch.device("cpu"))
    assert train.run(config, data, alone, Metrics(tmp_path, 0))["recompiles_after_warmup"] == 0


def test_compiled_optimizer_needs_what_it_compiles() -> None:
    """COMPILE_OPTIMIZER alone, or without Muon, is refused with the reason."""
    for more in ({}, {"COMPILE": 1, "OPTIMIZER": "soap"}):
        with pytest.raises(SettingsError, match="COMPILE_OPTIMIZER=1 compiles Muon's Newton-Schulz"):
            settings(COMPILE_OPTIMIZER=1, **more)
