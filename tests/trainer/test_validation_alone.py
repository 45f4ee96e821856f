"""The validation part alone: the same score without any training data at hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.tiny import settings as small
from tests.trainer.tiny import text_folder
from trainer import artifact, score
from trainer.data import __main__ as command
from trainer.data.convert import convert
from trainer.data.dataset import Dataset, open_dataset, open_validation
from trainer.data.errors import DataError
from trainer.data.prepare import holds_training
from trainer.model.gpt import GPT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Text with its own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return text_folder(tmp_path / "data")


def alone(folder, target, tokenizer: str) -> Dataset:
    """The validation part as the command copies it, opened where no training data lies."""
    assert command.main(["validation", str(target), "--data-path", str(folder), "--tokenizer", tokenizer]) == 0
    assert not [path for path in target.iterdir() if "train" in path.name]
    assert holds_training(str(folder))
    assert not holds_training(str(target))
    return open_validation(str(target), tokenizer)


def assert_same(found: Dataset, whole: Dataset) -> None:
    assert np.array_equal(found.val, whole.val)
    assert np.array_equal(found.val_bytes, whole.val_bytes)
    for name in ("bos", "vocab_size", "tokenizer_sha256", "val_sha256", "val_text_sha256"):
        assert getattr(found, name) == getattr(whole, name), name
    assert len(found.train) == len(found.tune) == 0


@pytest.mark.parametrize("tokenizer", ["bytes", "caseops"])
@pytest.mark.parametrize("kind", ["text", "shards"])
def test_validation_alone_is_the_whole_data_sets(tmp_path, folder, tokenizer, kind):
    """Tokens, bytes of each, hashes, context: from text and from shards."""
    if kind == "shards":
        convert(folder, tmp_path / "shards", "bytes", tokenizer, None, lambda line: None)
        folder = tmp_path / "shards"
    assert_same(alone(folder, tmp_path / "val", tokenizer), open_dataset(str(folder), tokenizer))


def test_validation_alone_of_pieces_needs_their_model(tmp_path, folder):
    """Pieces learned from the training text travel as their model; without it they can't be told."""
    pytest.importorskip("sentencepiece")
    made = tmp_path / "shards"
    convert(folder, made, "bytes", "caseops", None, lambda line: None)
    with pytest.raises(DataError, match=r"0 \*\.model files"):
        open_validation(str(made), "sp1024")


def test_validation_alone_says_what_is_missing(tmp_path, folder):
    """A folder with neither text nor shards; a target that is there."""
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"needs val\.txt or fineweb_val"):
        open_validation(str(tmp_path / "none"), "bytes")
    assert command.main(["validation", str(folder), "--data-path", str(folder)]) == 2


def test_score_is_the_same_without_training_data(tmp_path, folder, capsys):
    """Also where test-time training cuts chunks by the bytes per token of a text that is not here."""
    data = open_dataset(str(folder), "bytes")
    config = small(TTT_ENABLED=1, TTT_CHUNK_BYTES=512, REFERENCE_SCORES=0)
    meta = {"tokenizer_sha256": data.tokenizer_sha256, "tune_tokens": 200, "tune_bytes": 300}
    artifact.write(tmp_path / "new.golf", GPT(config, 256), config, 256, meta)
    alone(folder, tmp_path / "val", "bytes")
    capsys.readouterr()
    said = []
    for place in (folder, tmp_path / "val"):
        assert score.main([str(tmp_path / "new.golf"), f"DATA_PATH={place}", "CPU_THREADS=1", "DEVICE=cpu"]) == 0
        lines = [line.partition(" eval_time")[0] for line in capsys.readouterr().out.splitlines()]
        said.append([line for line in lines if "val_bpb" in line])
    assert said[0] == said[1]
    assert len(said[0]) == 2
    assert score.chunk_tokens(512, data, meta) == 341  # 512 x 200 / 300


def test_score_of_an_older_artifact_asks_for_its_training_data(tmp_path, folder, capsys):
    """It states no bytes per token: with the data as before, without them one line says so."""
    config = small(TTT_ENABLED=1, TTT_CHUNK_BYTES=512, REFERENCE_SCORES=0)
    artifact.write(tmp_path / "old.golf", GPT(config, 256), config, 256, {})
    alone(folder, tmp_path / "val", "bytes")
    words = [str(tmp_path / "old.golf"), "CPU_THREADS=1", "DEVICE=cpu"]
    assert score.main([*words, f"DATA_PATH={folder}"]) == 0
    assert "chunk:512" in capsys.readouterr().out
    assert score.main([*words, f"DATA_PATH={tmp_path / 'val'}"]) == 2
    assert "needs its training data" in capsys.readouterr().err


@pytest.mark.parametrize("counts", [{"tune_tokens": 0, "tune_bytes": 5}, {"tune_tokens": True, "tune_bytes": 5}, {}])
def test_chunks_of_an_artifact_without_usable_counts_follow_the_data(folder, counts):
    """Only two positive whole numbers are taken."""
    data = open_dataset(str(folder), "bytes")
    assert score.chunk_tokens(2048, data, counts) == 2048
