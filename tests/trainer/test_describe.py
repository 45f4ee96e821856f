"""What --describe counts is what is built, written and computed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.trainer.tiny import settings
from trainer import __main__ as program
from trainer import artifact
from trainer.config import Config, SettingsError, from_values, load, preset_names, read_settings
from trainer.describe import describe, flops_per_token, lines
from trainer.model.gpt import GPT

PRESETS = Path(__file__).parents[2] / "trainer" / "presets"
BODIES = [
    {},
    {"NUM_LAYERS": 3, "NUM_KV_HEADS": 2, "MLP_MULT": 3, "MATRIX_BITS": 6},
    {"NGRAM_MAX_ORDER": 4, "NGRAM_LOGITS": 1},
    {"PATCH_SIZE": 4, "PATCH_DECODER": "autoregressive", "PATCH_DIM": 8},
    {"ATTN_BITS": 5, "MLP_BITS": 2, "EMBED_BITS": 16, "INT8_STEP": 4, "NGRAM_MAX_ORDER": 2, "TABLE_BITS": 4},
    {"MATRIX_BITS": 6, "QUANT_CLIP": "sigma"},
]


def preset(name: str, **more: object) -> Config:
    return from_values(read_settings(PRESETS / f"{name}.json") | more)


@pytest.mark.parametrize("values", BODIES, ids=str)
def test_describe_counts_what_the_artifact_holds(values: dict[str, object], tmp_path: Path) -> None:
    """Tensors, shapes, schemes and stored bytes are those of a written file, one by one; sums are their sums."""
    config = settings(**values)
    model, path = GPT(config, 256), tmp_path / "model.golf"
    artifact.write(path, model, config, 256, {})
    written = artifact.read_parts(path).stored
    found = describe(config)
    for told, (name, stored) in zip(found["tensors"], written.items(), strict=True):
        assert (told["name"], told["shape"], told["scheme"]) == (name, list(stored.shape), stored.scheme)
        assert told["stored_bytes"] == sum(array.nbytes for array in stored.streams.values())
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    for key in ("values", "stored_bytes", "projected_bytes"):
        assert sum(entry[key] for entry in found["roles"].values()) == sum(t[key] for t in found["tensors"])
    assert found["artifact"]["stored_bytes"] == sum(t["stored_bytes"] for t in found["tensors"])


@pytest.mark.parametrize("values", BODIES[:2], ids=str)
def test_flops_of_the_baseline_follow_the_fields_formula(values: dict[str, object]) -> None:
    """6 (L (2 d^2 + 2 d d_kv + 2 m d^2) + V d) + 12 L (T / 2) d."""
    c = settings(**values)
    d, kv = c.model_dim, c.model_dim // c.num_heads * c.num_kv_heads
    products = c.num_layers * (2 * d * d + 2 * d * kv + 2 * c.mlp_mult * d * d) + 256 * d
    expected = 6 * products + 12 * c.num_layers * c.train_seq_len / 2 * d
    assert describe(c)["flops_per_token"]["total"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "values", [*BODIES, {"NUM_LAYERS": 4, "NUM_LOOPS": 2, "LOOP_START": 1, "LOOP_END": 2}], ids=str
)
def test_flops_of_matrices_are_what_torch_counts(values: dict[str, object]) -> None:
    """Two FLOPs a weight forward, by torch's own counter, attention aside; six with the backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    config = settings(**values)
    model, length = GPT(config, 256), config.train_seq_len
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.int64))
    counts = counter.get_flop_counts()["Global"]
    products = sum(count for name, count in counts.items() if name.__name__.split(".")[0] in ("mm", "addmm", "bmm"))
    assert flops_per_token(config, GPT(config, 256))["matrices"] == pytest.approx(3 * products / length)


def test_baseline_and_stack_weigh_what_their_records_say() -> None:
    """17,059,912 parameters and 130.5 MFLOP a token (contest baseline); 26,928,220 parameters, to one (#549)."""
    baseline, stack = describe(preset("contest-baseline")), describe(preset("merged-stack"))
    assert baseline["parameters"] == 17_059_912
    assert baseline["flops_per_token"]["total"] / 1e6 == pytest.approx(130.5, abs=0.05)
    assert baseline["flops_per_step"] / 1e12 == pytest.approx(68.4, abs=0.05)
    assert baseline["artifact"]["projected_bytes"] == pytest.approx(15_815_847, rel=0.01)
    assert stack["parameters"] == pytest.approx(26_928_220, abs=1)
    assert stack["artifact"]["projected_bytes"] == pytest.approx(15_900_548, rel=0.01)


def test_byte_model_weighs_what_its_source_says() -> None:
    """27.6 million parameters (#705)."""
    assert round(describe(preset("byte-13"))["parameters"] / 1e6, 1) == 27.6


def test_loops_cost_time_and_no_bytes() -> None:
    """Two extra passes: the same tensors, more FLOPs."""
    plain = settings(NUM_LAYERS=4, SKIP_CONNECTIONS=0)
    looped = settings(NUM_LAYERS=4, SKIP_CONNECTIONS=0, NUM_LOOPS=2, LOOP_START=1, LOOP_END=2)
    once, thrice = describe(plain), describe(looped)
    assert once["tensors"] == thrice["tensors"]
    head = 6 * 256 * 16
    one, three = (found["flops_per_token"]["total"] - head for found in (once, thrice))
    assert three / one == pytest.approx(8 / 4)


def test_patches_divide_the_trunk() -> None:
    """Four bytes a patch: a quarter of the blocks' cost per byte, and a sixteenth of the attention's."""
    plain, patched = (settings(**more) for more in ({}, {"PATCH_SIZE": 4, "PATCH_DIM": 16}))
    one, four = (describe(config)["flops_per_token"] for config in (plain, patched))
    assert four["attention"] == pytest.approx(one["attention"] / 16)
    maps = 6 * 2 * 16 * 64 / 4
    head = 6 * 256 * 16
    assert four["matrices"] - head - maps == pytest.approx((one["matrices"] - head) / 4)


def test_describe_is_printed_and_nothing_is_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text with what the configuration is about, or one JSON object; no run folder appears."""
    monkeypatch.chdir(tmp_path)
    assert program.main(["--config", "cpu-best", "--describe", "MODEL_DIM=64"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("The best of our small CPU runs")
    assert "blocks.0.attention.query" in printed
    assert "assumed ratios: int8" in printed
    assert program.main(["--describe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["vocab_size"] == 256
    assert math.isfinite(found["flops_per_token"]["total"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--json"], ["--config"], ["--config", "nope", "--describe"], ["--describe", "X"]])
def test_describe_refuses_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line."""
    assert program.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_lines_name_the_side_of_the_cap() -> None:
    """OVER the cap is said in capitals."""
    found = describe(settings())
    assert "under the cap" in lines(found)[-1]
    found["artifact"]["projected_total_bytes"] = found["artifact"]["cap_bytes"] + 1
    assert "1 OVER the cap" in lines(found)[-1]


def test_config_of_a_packed_trainer_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Configurations are files beside the package; a trainer in one file has none, and says so."""
    monkeypatch.setattr("trainer.config.PRESETS", tmp_path)
    with pytest.raises(SettingsError, match="--config cpu-best: no such configuration; there are none here"):
        load(["--config", "cpu-best"], {})


def test_every_preset_can_be_named() -> None:
    """--config knows the files of the folder."""
    assert preset_names() == sorted(path.stem for path in PRESETS.glob("*.json"))
