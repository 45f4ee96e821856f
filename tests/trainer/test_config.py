"""Settings: where they come from, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.config import Config, SettingsError, fields_by_name, from_values, load


def test_config_later_sources_win(tmp_path: Path) -> None:
    """Default < file < environment < command line."""
    file = tmp_path / "s.json"
    file.write_text(json.dumps({"SEED": 1, "ITERATIONS": 1, "MODEL_DIM": 64}))
    config = load(["--settings", str(file), "SEED=3"], {"SEED": "2", "ITERATIONS": "2", "HOME": "/x"})
    assert (config.seed, config.iterations, config.model_dim, config.num_layers) == (3, 2, 64, 2)


def test_config_round_trips_through_its_settings() -> None:
    """Settings written out and read back are the same, also through JSON."""
    config = from_values({"SEED": 5, "NGRAM_MAX_ORDER": 6, "NGRAM_LOGITS": "on", "MUON_WD": "0.02"})
    assert from_values(json.loads(json.dumps(config.as_settings()))) == config
    assert len(config.as_settings()) == len(fields_by_name())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ITERATION": 5}, "ITERATION: unknown setting; did you mean ITERATIONS?"),
        ({"ITERATIONS": "five"}, "ITERATIONS='five': not a whole number"),
        ({"ITERATIONS": 1.5}, "not a whole number"),
        ({"ITERATIONS": -1}, "must be at least 0"),
        ({"ITERATIONS": 10**400}, "not a whole number"),
        ({"ITERATIONS": True}, "not a whole number"),
        ({"MATRIX_LR": "nan"}, "not a number"),
        ({"MATRIX_BITS": 7}, "allowed are 2, 4, 5, 6, 8, 16"),
        ({"TTT_ENABLED": "maybe"}, "not a switch"),
        ({"TOKENIZER": 3}, "not text"),
        ({"MODEL_DIM": 130}, "not divisible by NUM_HEADS"),
        ({"NUM_KV_HEADS": 3}, "not divisible by NUM_KV_HEADS"),
        ({"TRAIN_BATCH_TOKENS": 100}, "not a multiple of TRAIN_SEQ_LEN"),
        ({"NGRAM_LOGITS": 1}, "needs NGRAM_MAX_ORDER"),
        ({"TIED_EMBED_INIT_STD": 0}, "must be at least 1e-06"),
        ({"MUON_WD": 50}, "MATRIX_LR=0.02 and MUON_WD=50: a step would decay matrices to zero or past it"),
        ({"MUON_WD": 400, "OPTIMIZER": "soap"}, "SOAP_LR=0.003 and MUON_WD=400"),
    ],
)
def test_config_refuses_wrong_values(values: dict[str, object], message: str) -> None:
    """One line names the setting and what was allowed."""
    with pytest.raises(SettingsError) as caught:
        from_values(values)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_config_reports_all_problems_at_once() -> None:
    """Three mistakes give three lines."""
    with pytest.raises(SettingsError) as caught:
        from_values({"SEDE": 1, "ITERATIONS": "x", "NUM_LAYERS": 0})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("words", [["--seed=1"], ["SEED"], ["--settings"], ["--settings", "/no/such/file.json"]])
def test_config_refuses_wrong_arguments(words: list[str]) -> None:
    """Anything but --settings FILE and NAME=VALUE is an error."""
    with pytest.raises(SettingsError):
        load(words, {})


def test_config_refuses_near_misses_in_the_environment_only() -> None:
    """A typo of ours in the environment is an error; a foreign name is not ours to judge."""
    load([], {"TERM": "x", "ITERATIVE_SOLVER": "y"})
    with pytest.raises(SettingsError, match="did you mean ITERATIONS"):
        load([], {"ITERATION": "5"})


def test_config_fields_say_what_they_mean() -> None:
    """Every setting has a meaning, a source and a default within its own limits."""
    for name, field in fields_by_name().items():
        assert field.metadata["meaning"], name
        assert field.metadata["source"], name
    assert from_values(Config().as_settings()) == Config()
