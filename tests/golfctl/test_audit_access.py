"""Which data files a run opened while it trained and while it was scored: heard by the trainer, checked by the audit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golfctl.audit import provenance
from golfctl.audit.target import RUN, Target
from golfctl.domain.run import RunRecord, RunResult, RunSpec
from golfctl.store.claims import Claim
from tests.trainer.tiny import text_folder
from trainer import __main__ as trainer
from trainer import opened, train
from trainer.data.dataset import OnDisk

TINY = "NUM_LAYERS=1 MODEL_DIM=16 NUM_HEADS=1 NUM_KV_HEADS=1 TRAIN_SEQ_LEN=16 TRAIN_BATCH_TOKENS=64 ITERATIONS=3"
SETTINGS = f"{TINY} EVAL_STRIDE=16 CPU_THREADS=1 NGRAM_MAX_ORDER=0 DEVICE=cpu MAX_WALLCLOCK_SECONDS=0 EVAL_MAX_SECONDS=0".split()
SHARDS = {"training": ["fineweb_train_000000.bin"], "evaluation": ["fineweb_val_000000.bin", "val_bytes.bin"]}
PREPARED = {"training": ["train.bin", "tune.bin", "tune_bytes.bin"], "evaluation": ["val.bin", "val_bytes.bin"]}


def a8(folder: Path, phases: Any) -> tuple[str, str]:
    """Answer and last word of A8 for a run that says so."""
    folder.mkdir(exist_ok=True)
    said = {"data": {"train_sha256": "a" * 64, "val_sha256": "b" * 64}}
    said |= {} if phases is None else {"files_opened": phases}
    (folder / "result.json").write_text(json.dumps(said))
    spec = RunSpec(folder.name, "p", "0" * 64, 1, 1, 1, "local", "s", 1)
    held = {f"{folder.name}/train.log": RunRecord(spec, "m", result=RunResult(score=1.0, self_reported=False))}
    check = provenance.check(Target("r", RUN, folder.parent, [], Claim(), runs=held), None)
    return str(check.answer), check.evidence[-1].text


@pytest.mark.parametrize(
    ("phases", "wanted"),
    [
        (PREPARED, "PASS"),
        (SHARDS, "PASS"),
        (PREPARED | {"opening": ["train.bin", "val.bin"], "after": ["train.txt", "val.bin"]}, "PASS"),
        (PREPARED | {"training": ["train.bin", "val.bin"]}, "FAIL"),
        (SHARDS | {"training": ["fineweb_train_000000.bin", "fineweb_val_000000.bin"]}, "FAIL"),
        (PREPARED | {"evaluation": ["val.bin", "val_bytes.bin", "train.bin"]}, "FAIL"),
        (SHARDS | {"evaluation": ["fineweb_train_000079.bin", "fineweb_val_000000.bin"]}, "FAIL"),
        (PREPARED | {"evaluation": ["val.bin", "tune.bin"]}, "FAIL"),
        (None, "NOT CHECKABLE"),
        ({"training": [], "evaluation": []}, "NOT CHECKABLE"),
        ([1], "NOT CHECKABLE"),
    ],
)
def test_audit_reads_which_files_a_run_opened(tmp_path: Path, phases: Any, wanted: str) -> None:
    """Three clean and five faulty runs, by name and phase; what says nothing is not checkable."""
    answer, text = a8(tmp_path / "r", phases)
    assert answer == wanted, text


def test_audit_names_the_file_and_the_phase(tmp_path: Path) -> None:
    """So that a reader knows where to look."""
    _, text = a8(tmp_path / "r", {"training": ["train.bin", "val.bin"], "evaluation": ["val.bin", "tune.bin"]})
    assert text == "opened val.bin while it trained and tune.bin while it was scored"


def run_here(folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> dict[str, list[str]]:
    """A whole run in this process; the files it opened."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    data = text_folder(folder / "data")
    out = folder / "out"
    assert trainer.main([*SETTINGS, f"DATA_PATH={data}", f"OUT_DIR={out}", *settings]) == 0
    found: dict[str, list[str]] = json.loads((out / "result.json").read_text())["files_opened"]
    return found


def test_trainer_says_which_files_it_opened_in_which_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training reads training files, evaluation validation files, also where it validates halfway and learns while scored."""
    found = run_here(tmp_path, monkeypatch, "VAL_LOSS_EVERY=2", "TTT_ENABLED=1", "PREREAD=1", "REFERENCE_SCORES=0")
    assert found["training"] == PREPARED["training"]
    assert found["evaluation"] == PREPARED["evaluation"]
    assert {"train.bin", "val.bin", "manifest.json"} <= set(found["opening"])
    assert a8(tmp_path / "r", found)[0] == "PASS"


class Peeks(train.Run):
    """Trains on what it will be scored on."""

    def loop(self) -> int:
        assert len(self.dataset.val) > 0
        return super().loop()


@pytest.mark.parametrize("how", ["opens", "holds"])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is mapped")
def test_training_on_validation_files_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Opened while it trains, or mapped before and kept: A8 fails either way."""
    if how == "opens":
        monkeypatch.setattr(train, "Run", Peeks)
    else:
        kept: list[Any] = []
        opening = trainer._open

        def take(*given: Any) -> Any:
            kept.append(opening(*given).val)
            return opening(*given)

        monkeypatch.setattr(trainer, "_open", take)
    found = run_here(tmp_path, monkeypatch, "REFERENCE_SCORES=0")
    assert "val.bin" in found["training"]
    assert a8(tmp_path / "r", found)[0] == "FAIL"


def test_streams_are_opened_apart(tmp_path: Path) -> None:
    """Asking for one part of a dataset opens no file of another; what is still mapped when a phase begins counts."""
    files = {"train": tmp_path / "train.bin", "val": tmp_path / "val.bin"}
    for path in files.values():
        np.arange(9, dtype=np.uint16).tofile(path)
    streams = {name: (lambda path=path: np.memmap(path, np.uint16, "r")) for name, path in files.items()}
    data = OnDisk(streams, bos=0)
    opened.start([tmp_path])
    with opened.phase("training", whole=True):
        held = data.train
        with opened.phase("evaluation"):
            assert data.val.sum() == 36
    assert opened.found()["training"] == ["train.bin"]
    assert opened.found()["evaluation"] == ["val.bin"]
    with opened.phase("after", whole=True):
        assert held is not None
    assert opened.found()["after"] == ["train.bin"]
    assert data.bos == 0
    files["val"].read_bytes()  # outside of all phases
    assert opened.found()["opening"] == []
