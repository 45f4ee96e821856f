"""The score of an artifact, read back from disk."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import torch

from tests.trainer.tiny import call, environment, text_folder
from tests.trainer.tiny import settings as small
from trainer import artifact, contract, dist, score
from trainer.config import SettingsError
from trainer.data.dataset import open_dataset
from trainer.data.errors import DataError
from trainer.evaluate import sliding
from trainer.evaluate.bpb import ScoreError
from trainer.model.gpt import GPT


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A small byte data set with its own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return open_dataset(str(text_folder(tmp_path / "data")), "bytes")


def written(path, data, **values):
    """An untrained artifact on disk, with its settings."""
    config = small(NGRAM_MAX_ORDER=2, **values)
    artifact.write(path, GPT(config, 256), config, 256, {"tokenizer_sha256": data.tokenizer_sha256})
    return config


def alone() -> dist.Group:
    return dist.Group(0, 1, 0, 1, torch.device("cpu"))


def test_score_is_that_of_the_file_and_says_the_final_lines(tmp_path, data):
    """Quantised weights, every byte, both labels, the references, and the hash of what was scored."""
    path, said = tmp_path / "a.golf", []
    config = written(path, data, TTT_ENABLED=1, TTT_CHUNK_BYTES=512)
    found = score.run(path, data, config, alone(), said.append)
    model, _ = artifact.load_model(path)
    expected = sliding.score(
        model, data.val, data.val_bytes, seq_len=16, stride=8, batch=config.eval_batch_seqs, bos=0, device="cpu"
    )
    static = found["scores"][contract.FINAL_SLIDING]
    assert static["nats"] == expected.nats
    assert static["bytes"] == static["tokens"] == len(data.val)
    assert found["scores"][contract.FINAL_TTT]["nats"] < static["nats"]
    assert found["artifact_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["artifact_file_bytes"] == path.stat().st_size
    assert 0 < found["references"]["lzma9e_primed"] < found["references"]["zlib9"]
    number = r"\d+\.\d{8}"
    patterns = (
        rf"{contract.FINAL_SLIDING} val_loss:{number} val_bpb:{number} stride:8 eval_time:\d+ms",
        rf"{contract.FINAL_TTT} val_loss:{number} val_bpb:{number} chunk:512 eval_time:\d+ms",
        r"total_eval_time:\d+\.\d{3}s",
        r"references on the same 3000 bytes: .*",
    )
    assert len(said) == 4
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(patterns, said, strict=True)), said


def test_score_without_extras_is_one_line_and_the_clock(tmp_path, data):
    """Test-time training and references are switches; the clock is always told."""
    said = []
    config = written(tmp_path / "a.golf", data, REFERENCE_SCORES=0)
    found = score.run(tmp_path / "a.golf", data, config, alone(), said.append)
    assert list(found["scores"]) == [contract.FINAL_SLIDING]
    assert found["references"] == {}
    assert len(said) == 2


def test_score_refuses_another_tokenizer(tmp_path, data):
    """The same ids would mean other text."""
    config = small()
    artifact.write(tmp_path / "a.golf", GPT(config, 300), config, 300, {})
    with pytest.raises(DataError, match="300 tokens.*the data has bytes"):
        score.run(tmp_path / "a.golf", data, config, alone(), print)
    artifact.write(tmp_path / "b.golf", GPT(config, 256), config, 256, {"tokenizer_sha256": "f" * 64})
    with pytest.raises(DataError, match="ffffffffffffffff"):
        score.run(tmp_path / "b.golf", data, config, alone(), print)


def test_score_that_is_not_finite_raises(tmp_path, data):
    """Test-time training at absurd rates: no number, an error."""
    config = written(
        tmp_path / "a.golf", data, TTT_ENABLED=1, TTT_MATRIX_LR=1e30, TTT_TABLE_LR=1e30, TTT_CHUNK_BYTES=64
    )
    with pytest.raises(ScoreError, match="no valid score"):
        score.run(tmp_path / "a.golf", data, config, alone(), print)


def test_score_past_its_time_is_no_score(tmp_path, data):
    """One line of refusal, and not one number."""
    said = []
    config = written(tmp_path / "a.golf", data, REFERENCE_SCORES=0, EVAL_MAX_SECONDS=1e-9)
    with pytest.raises(
        ScoreError, match=rf"{contract.FINAL_SLIDING}: the evaluation passed EVAL_MAX_SECONDS=1e-09 .* no score"
    ):
        score.run(tmp_path / "a.golf", data, config, alone(), said.append)
    assert said == []


def test_settings_come_from_artifact_file_environment_and_command_line(tmp_path):
    """Later ones win; the environment speaks only about the evaluation."""
    own = small(EVAL_STRIDE=4, TTT_EPOCHS=2)
    file = tmp_path / "s.json"
    file.write_text(json.dumps({"EVAL_STRIDE": 5, "EVAL_BATCH_SEQS": 3, "NUM_LAYERS": own.num_layers, "OUT_DIR": "x"}))
    environment = {"EVAL_BATCH_SEQS": "9", "TTT_CHUNK_BYTES": "77", "NUM_LAYERS": "9", "SEED": "1"}
    config = score.settings_for(own, ["--settings", str(file), "TTT_CHUNK_BYTES=88"], environment)
    assert (config.eval_stride, config.eval_batch_seqs, config.ttt_chunk_bytes, config.ttt_epochs) == (5, 9, 88, 2)
    assert (config.num_layers, config.seed) == (own.num_layers, own.seed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NUM_LAYERS=3"], "NUM_LAYERS=3: fixed by the artifact at 2; allowed here are EVAL_MAX_SECONDS, EVAL_STRIDE"),
        (["EVAL_STRID=3"], "EVAL_STRID: unknown setting; did you mean EVAL_STRIDE"),
        (["EVAL_STRIDE=17"], "EVAL_STRIDE=17 exceeds TRAIN_SEQ_LEN=16"),
        (["--fast"], "--fast: not understood"),
        (["--settings", "/none.json"], "can't be read as JSON"),
    ],
)
def test_settings_that_contradict_the_artifact_are_refused(arguments, message):
    """What the weights were trained for can't be chosen anew."""
    with pytest.raises(SettingsError, match=message):
        score.settings_for(small(), arguments, {})


def test_chunk_in_tokens_follows_the_held_out_training_text(data):
    """One byte a token: the same number; it never falls to zero."""
    assert score.chunk_tokens(2048, data) == 2048
    assert score.chunk_tokens(1, data) == 1


@pytest.mark.service
def test_score_alone_repeats_the_score_of_the_run(tmp_path):
    """A fresh process with nothing but the artifact and the data reaches the run's numbers to the last digit."""
    env = environment(tmp_path / "cache", DATA_PATH=str(text_folder(tmp_path / "data")))
    run = tmp_path / "run"
    sizes = [f"{name}={value}" for name, value in small(TTT_ENABLED=1).as_settings().items() if name != "DATA_PATH"]
    trained = call("-m", "trainer", *sizes, f"OUT_DIR={run}", "DEVICE=cpu", env=env, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    scored = call("-m", "trainer.score", run / "artifact.golf", "CPU_THREADS=1", "DEVICE=cpu", env=env, cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr

    def finals(text: str) -> list[str]:
        return [
            line.rsplit(" ", 1)[0] for line in text.splitlines() if line.startswith(("final_", "legal_", "references"))
        ]

    assert len(finals(scored.stdout)) == 3
    assert finals(scored.stdout) == finals(trained.stdout)


@pytest.mark.service
def test_score_command_says_in_one_line_what_is_wrong(tmp_path):
    """Missing file, no artifact, contradiction, no arguments: exit codes and no traceback."""
    env = environment(tmp_path / "cache")
    (tmp_path / "junk.golf").write_bytes(b"junk")
    config = small()
    artifact.write(tmp_path / "a.golf", GPT(config, 256), config, 256, {})
    text = f"DATA_PATH={text_folder(tmp_path / 'data')}"
    for arguments, code, message in (
        (["none.golf"], 2, "trainer.score: none.golf: No such file or directory\n"),
        (["junk.golf"], 1, "trainer.score: junk.golf: 4 bytes are too few"),
        (["a.golf", "MODEL_DIM=32"], 2, "trainer.score: MODEL_DIM=32: fixed by the artifact at 16"),
        (["a.golf", "DATA_PATH=nowhere"], 2, "trainer.score: DATA_PATH=nowhere: not a folder\n"),
        (
            ["a.golf", "EVAL_MAX_SECONDS=1e-9", text],
            1,
            "trainer.score: final_sliding_window_exact: the evaluation passed",
        ),
    ):
        done = call("-m", "trainer.score", *arguments, env=env, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
        assert done.stderr.startswith(message)
    assert call("-m", "trainer.score", env=env, cwd=tmp_path).returncode == 2
