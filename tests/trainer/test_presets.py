"""Named configurations: accepted as they are, and trained a few steps in a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.trainer.tiny import dataset
from trainer import contract, score, train
from trainer.config import PRESETS, from_values, load, preset_names, read_settings
from trainer.dist import Group
from trainer.metrics import Metrics
from trainer.options.patch import DECODERS, SIZES

ALONE = Group(0, 1, 0, 1, torch.device("cpu"))
SMALL = {
    "TOKENIZER": "bytes",
    "MODEL_DIM": 32,
    "NUM_HEADS": 4,
    "NUM_KV_HEADS": 2,
    "GRAD_ACCUM_STEPS": 1,
    "ITERATIONS": 3,
    "MAX_WALLCLOCK_SECONDS": 0,
    "COMPILE": 0,
    "CPU_THREADS": 1,
    "DEVICE": "cpu",
    "REFERENCE_SCORES": 0,
    "TRAIN_LOG_EVERY": 1,
    "EVAL_BATCH_SEQS": 8,
}


@pytest.mark.parametrize("name", preset_names())
def test_preset_is_accepted_and_says_what_it_is(name: str) -> None:
    """Every setting is known and allowed, together with the others; one sentence says what it is and whose."""
    config = load(["--config", name], {})
    values = read_settings(PRESETS / f"{name}.json")
    assert config == from_values(values)
    assert len(json.loads((PRESETS / f"{name}.json").read_text())["_about"]) > 40
    assert len(values) > 5


def test_config_is_weaker_than_every_other_source(tmp_path: Path) -> None:
    """Default < --config < --settings < environment < command line."""
    file = tmp_path / "s.json"
    file.write_text(json.dumps({"_about": "mine", "NUM_LAYERS": 3, "MLP_MULT": 4}))
    words = ["--config", "cpu-best", "--settings", str(file), "SEED=5"]
    config = load(words, {"MLP_MULT": "2.5", "SEED": "4"})
    assert (config.logit_softcap, config.num_layers, config.mlp_mult, config.seed) == (15.0, 3, 2.5, 5)


@pytest.mark.parametrize("name", ["naive-loop", "tied-layers"])
def test_preset_that_is_merged_stack_otherwise_says_what_else_differs(name: str) -> None:
    """Whoever compares the two is told that one of them has no test-time training, and other value embeddings."""
    mine, stack = (load(["--config", each], {}).as_settings() for each in (name, "merged-stack"))
    about = json.loads((PRESETS / f"{name}.json").read_text())["_about"]
    assert "merged-stack" in about
    said = {"TTT_ENABLED": "without its test-time training", "VE_LAYERS": "value embeddings in blocks 7 and 8"}
    for setting, words in said.items():
        assert (words in about) == (mine[setting] != stack[setting]), setting
    shape = {
        "NUM_LAYERS",
        "TIE_LAYERS",
        "NUM_LOOPS",
        "LOOP_START",
        "LOOP_END",
        "PARALLEL_RESIDUAL",
        "PARALLEL_START_LAYER",
    }
    assert {setting for setting in mine if mine[setting] != stack[setting]} <= shape | said.keys()


@pytest.mark.parametrize("name", preset_names())
def test_preset_of_the_contest_trains_hashed_bigrams_like_the_embedding(name: str) -> None:
    """As the lineage's code does; and a batch in 8 parts says that parts count per process."""
    values = read_settings(PRESETS / f"{name}.json")
    if values.get("BIGRAM_VOCAB_SIZE"):
        assert values["TABLE_LR"] == values["EMBED_LR"]
    about = json.loads((PRESETS / f"{name}.json").read_text())["_about"]
    assert ("GRAD_ACCUM_STEPS=1" in about) == (values.get("GRAD_ACCUM_STEPS") == 8)


@pytest.mark.parametrize("name", preset_names())
def test_preset_trains_and_scores_in_a_small_size(name: str, tmp_path: Path) -> None:
    """Width, context and steps made small, every switch as it is: loss finite, artifact written, each byte scored once."""
    values = read_settings(PRESETS / f"{name}.json")
    length = 2 * values.get("PATCH_SIZE", 8)
    small = SMALL | {"TRAIN_SEQ_LEN": length, "TRAIN_BATCH_TOKENS": 4 * length, "EVAL_STRIDE": length // 2}
    small |= {"TTT_CHUNK_BYTES": 240} if values.get("TTT_ENABLED") else {}
    config, data = from_values(values | small), dataset()
    found = train.run(config, data, ALONE, Metrics(tmp_path, 0))
    assert found["steps"] == 3
    scored = score.run(tmp_path / contract.ARTIFACT, data, config, ALONE, lambda line: None)
    for entry in scored["scores"].values():
        assert (entry["tokens"], entry["bytes"]) == (500, 500)
        assert 0 < entry["val_bpb"] < 20


def test_presets_show_every_patch_size_and_decoder() -> None:
    """Sizes 2 to 16 and all five decoders have a configuration."""
    configs = [load(["--config", name], {}) for name in preset_names()]
    assert {config.patch_size for config in configs} == set(SIZES)
    assert {config.patch_decoder for config in configs if config.patch_size > 1} == set(DECODERS)
