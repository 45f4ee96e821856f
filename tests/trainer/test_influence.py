"""Block influence: its formula, the run it proposes, and the command that prints both."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.trainer import tiny
from tests.trainer.switches import built, text
from tests.trainer.tiny import settings
from trainer import artifact
from trainer.influence import block_influence, low_run, main
from trainer.model.gpt import GPT


def test_influence_of_an_identity_block_is_zero() -> None:
    """A block that adds nothing has influence 0, whatever skips join before it; the others have more."""
    model = built(settings(NUM_LAYERS=4))
    with torch.no_grad():
        model.blocks[2].resid_mix.copy_(torch.tensor([[1.0], [0.0]]).expand(2, 16))
        model.blocks[2].attention_scale.zero_()
        model.blocks[2].mlp_scale.zero_()
    found = block_influence(model, text(3))
    assert abs(found[2]) < 1e-12
    assert all(value > 1e-4 for value in found[:2] + found[3:])


def test_influence_equals_its_formula() -> None:
    """1 - mean cosine of what goes in and what comes out, for a block that turns the stream around."""
    model = built(settings(NUM_LAYERS=2, SKIP_CONNECTIONS=0))
    with torch.no_grad():
        model.blocks[1].resid_mix.copy_(torch.tensor([[-1.0], [0.0]]).expand(2, 16))
        model.blocks[1].attention_scale.zero_()
        model.blocks[1].mlp_scale.zero_()
    assert block_influence(model, text(3))[1] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("influence", "expected"),
    [
        ([9, 1, 2, 1, 9, 9, 8], (1, 3)),
        ([9, 1, 1, 9, 0, 0, 9], (4, 5)),
        ([1, 9, 1, 9], None),
        ([3, 3, 3], None),
    ],
)
def test_low_run_is_the_longest_below_the_median(influence: list[float], expected: tuple[int, int] | None) -> None:
    """Contiguous, at least two, lowest of equally long ones."""
    assert low_run(influence) == expected


def test_command_prints_every_layer_and_a_range_that_settings_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line a layer of the virtual stack, measured as the function does, and a TIE_LAYERS to paste."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = settings(NUM_LAYERS=6)
    model = built(config, torch.float32)
    with torch.no_grad():
        for number in (2, 3):
            for name in ("attention_scale", "mlp_scale"):
                getattr(model.blocks[number], name).mul_(1e-3)
    artifact.write(tmp_path / "a.golf", model, config, 24, {})
    folder = tiny.text_folder(tmp_path / "text")
    (folder / "train.txt").write_bytes(bytes(byte % 24 for byte in (folder / "train.txt").read_bytes()))
    assert main([str(tmp_path / "a.golf"), "--data-path", str(folder), "--windows", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [[f"layer:{n}", f"block:{n}"] for n in range(6)]
    values = [float(line.split("influence:")[1]) for line in lines[:-1]]
    assert sorted(range(6), key=values.__getitem__)[:2] in ([2, 3], [3, 2])
    found = re.fullmatch(r"TIE_LAYERS=(\d+-\d+)", lines[-1])
    assert found
    assert settings(NUM_LAYERS=6, TIE_LAYERS=found[1]).tie_layers == found[1]


def test_command_proposes_nothing_for_a_looped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every place of the virtual stack has its line; TIE_LAYERS would be refused beside loops, so none is named."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = settings(NUM_LAYERS=3, NUM_LOOPS=2, LOOP_START=1, LOOP_END=1)
    artifact.write(tmp_path / "a.golf", GPT(config, 256), config, 256, {})
    folder = tiny.text_folder(tmp_path / "text")
    assert main([str(tmp_path / "a.golf"), "--data-path", str(folder), "--windows", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == [f"block:{n}" for n in (0, 1, 1, 1, 2)]
    assert "TIE_LAYERS=" not in lines[-1]


def test_command_refuses_what_is_not_an_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr, exit code 2."""
    (tmp_path / "x").write_bytes(b"nothing")
    assert main([str(tmp_path / "x")]) == 2
    assert main([str(tmp_path / "missing")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
