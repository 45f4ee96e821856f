"""Averages of weights against their closed forms, and an artifact written from one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainer.tiny import dataset, settings
from trainer import artifact, contract, train
from trainer.config import SettingsError
from trainer.dist import Group
from trainer.metrics import Metrics
from trainer.model.gpt import GPT
from trainer.optim.average import EMA, LAWA, SWA, Average, average_of

ALONE = Group(0, 1, 0, 1, torch.device("cpu"))


def followed(average: Average, weight: Tensor, values: list[float], lefts: list[float] | None = None) -> Tensor:
    """What the average puts into the model after the weight has taken these values, one a step."""
    for step, value in enumerate(values, start=1):
        weight.fill_(value)
        average.follow(step, lefts[step - 1] if lefts else 0.5)
    average.keep()
    return weight


def zero() -> Tensor:
    return torch.zeros(2, 3, dtype=torch.float64)


def test_ema_equals_its_closed_form() -> None:
    """After n steps: w0 and each w_i, times 1 - d_i, times all later d_j, where d_t = min(d, (1 + t) / (10 + t))."""
    values = [7.0, 3.0, -1.0, 4.0, 1.5]
    for decay in (0.15, 0.23, 0.9):  # d at all steps, after the first, at none
        kept = [0.0, *(min(decay, (1 + t) / (10 + t)) for t in range(1, 5))]
        shares = [(1 - kept[i]) * math.prod(kept[i + 1 :]) for i in range(5)]
        assert sum(shares) == pytest.approx(1.0)
        expected = sum(share * value for share, value in zip(shares, values, strict=True))
        weight = torch.full((2, 3), values[0], dtype=torch.float64)
        found = followed(EMA([weight], decay), weight, values[1:])
        torch.testing.assert_close(found, torch.full_like(found, expected))


def test_ema_of_a_short_run_forgets_the_initial_weights() -> None:
    """200 steps of a memory of 333 ship next to nothing of what the model was born with; many steps leave d alone."""
    weight = torch.ones(1, dtype=torch.float64)
    average = EMA([weight], 0.997)
    assert followed(average, weight, [0.0] * 200).item() < 1e-6
    weight.fill_(1.0)
    average.follow(5000, 0.5)
    assert average.weights()[0].item() == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"AVERAGE": "swa", "ITERATIONS": 200}, r"48 steps hold fewer than two checkpoints SWA_EVERY=50"),
        ({"AVERAGE": "lawa", "ITERATIONS": 199, "WARMDOWN_FRACTION": 0}, "fewer than two checkpoints LAWA_EVERY=100"),
    ],
)
def test_average_of_one_checkpoint_is_refused_where_steps_end_the_run(values: dict[str, object], message: str) -> None:
    """It would be the last weights; by the clock nobody knows, and longer runs or closer checkpoints are fine."""
    with pytest.raises(SettingsError, match=message):
        settings(**values)
    settings(**values | {"MAX_WALLCLOCK_SECONDS": 600})
    settings(**values | {"ITERATIONS": 420})
    settings(**values | {"ITERATIONS": 3})  # a trial
    settings(**values | {"SWA_EVERY": 24, "LAWA_EVERY": 20})


def test_average_of_one_checkpoint_is_said(tmp_path: Path) -> None:
    """A run that the clock may end says how many weights are in the mean."""
    values = {"AVERAGE": "swa", "MAX_WALLCLOCK_SECONDS": 600, "SWA_START": 0.9, "ITERATIONS": 5}
    for every, taken in ((50, 1), (2, 2)):
        folder = tmp_path / str(every)
        found = train.run(settings(**values | {"SWA_EVERY": every}), dataset(), ALONE, Metrics(folder, 0))
        assert found["average_checkpoints"] == taken
    folder = tmp_path / "lawa"
    lawa = {"AVERAGE": "lawa", "LAWA_EVERY": 2, "WARMDOWN_FRACTION": 0, "ITERATIONS": 5}
    assert train.run(settings(**lawa), dataset(), ALONE, Metrics(folder, 0))["average_checkpoints"] == 3
    assert "average_checkpoints" not in train.run(settings(), dataset(), ALONE, Metrics(tmp_path / "off", 0))


def test_ema_without_memory_is_the_last_weight() -> None:
    """A decay of 0 forgets everything at once."""
    weight = zero()
    assert (followed(EMA([weight], 0.0), weight, [1.0, 2.0, 0.1]) == 0.1).all()


def test_swa_is_the_mean_of_its_checkpoints_and_the_last() -> None:
    """Every second step once 0.6 or less is left of the warmdown, and the last step whether it is one or not."""
    lefts = [1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    for steps, taken in ((7, [4, 6, 7]), (6, [4, 6]), (5, [4, 5]), (3, [3])):
        weight = zero()
        found = followed(SWA([weight], 0.6, 2), weight, [float(n) for n in range(1, steps + 1)], lefts)
        torch.testing.assert_close(found, torch.full_like(found, sum(taken) / len(taken)))


def test_swa_never_begins_before_the_warmdown() -> None:
    """Steps with the whole warmdown still ahead are not taken, even with SWA_START=1."""
    weight = zero()
    found = followed(SWA([weight], 1.0, 1), weight, [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.9, 0.1])
    torch.testing.assert_close(found, torch.full_like(found, 3.5))


@pytest.mark.parametrize(("steps", "taken"), [(9, [4, 6, 8, 9]), (8, [2, 4, 6, 8]), (3, [2, 3]), (1, [1])])
def test_lawa_is_the_mean_of_the_latest(steps: int, taken: list[int]) -> None:
    """The latest four of every second step and the last one, which is counted once."""
    weight = zero()
    found = followed(LAWA([weight], 4, 2), weight, [float(n) for n in range(1, steps + 1)])
    torch.testing.assert_close(found, torch.full_like(found, sum(taken) / len(taken)))


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_lawa_of_one_is_the_last_weight(steps: int) -> None:
    """k = 1 is no average, at a checkpoint and between two."""
    weight = zero()
    values = [0.1 * n for n in range(1, steps + 1)]
    assert (followed(LAWA([weight], 1, 2), weight, values) == values[-1]).all()


@pytest.mark.parametrize("make", [lambda w: EMA(w, 0.9), lambda w: SWA(w, 0.6, 2), lambda w: LAWA(w, 3, 2), Average])
def test_average_of_constant_weights_is_that_weight(make: object) -> None:
    """Weights that do not move are their own average, to the last bit."""
    weight = torch.full((2, 3), 0.1)
    average = make([weight])
    before = weight.clone()
    for step in range(1, 12):
        average.follow(step, 0.5)
        with average.applied():
            assert torch.equal(weight, before)
    average.keep()
    assert torch.equal(weight, before)


@pytest.mark.parametrize("make", [lambda w: EMA(w, 0.5), lambda w: SWA(w, 0.6, 1), lambda w: LAWA(w, 3, 1)])
def test_average_is_lent_and_taken_back(make: object) -> None:
    """Within `applied` the model holds the average, afterwards its own weights, also when scoring fails."""
    weight = torch.zeros(3)
    average = make([weight])
    for step, value in enumerate((1.0, 0.3), start=1):
        weight.fill_(value)
        average.follow(step, 0.5)
    own = weight.clone()
    with pytest.raises(RuntimeError, match="score"), average.applied():
        assert not torch.equal(weight, own)
        raise RuntimeError("score")
    assert torch.equal(weight, own)


THROUGH = {"AVERAGE": "lawa", "LAWA_K": 2, "LAWA_EVERY": 2, "LAWA_THROUGH_WARMDOWN": 1}


@pytest.mark.parametrize(
    "values",
    [
        {"AVERAGE": "ema", "EMA_DECAY": 0.5},
        {"AVERAGE": "swa", "SWA_EVERY": 1, "SWA_START": 0.9},
        {"AVERAGE": "lawa", "LAWA_EVERY": 2, "WARMDOWN_FRACTION": 0},
        THROUGH,
    ],
)
def test_average_is_what_the_artifact_holds(tmp_path: Path, values: dict[str, object]) -> None:
    """The artifact holds the average of the weights of the same run without one, and training is not touched by it."""
    common = {"ITERATIONS": 5, "TRAIN_LOG_EVERY": 1, "WARMDOWN_FRACTION": values.get("WARMDOWN_FRACTION", 0.6)}
    config = settings(**common | values | {"VAL_LOSS_EVERY": 2})
    going = train.Run(config, dataset(), ALONE, Metrics(tmp_path / "run", 0))
    plain = train.Run(settings(**common), dataset(), ALONE, Metrics(tmp_path / "plain", 0))
    assert going.loop() == plain.loop() == 5
    for mine, theirs in zip(going.parameters, plain.parameters, strict=True):
        assert torch.equal(mine, theirs)
    going.average.keep()
    assert any(not torch.equal(mine, theirs) for mine, theirs in zip(going.parameters, plain.parameters, strict=True))
    train.run(config, dataset(), ALONE, Metrics(tmp_path / "whole", 0))
    artifact.write(tmp_path / "mine.golf", going.model, config, 256, {})
    held = artifact.read(tmp_path / "whole" / contract.ARTIFACT).state
    again = artifact.read(tmp_path / "mine.golf").state
    assert all(torch.equal(held[name], again[name]) for name in held)


def test_average_off_holds_no_copy() -> None:
    """AVERAGE=off keeps nothing beside the weights and changes nothing."""
    model = GPT(settings(), 256)
    average = average_of(model.parameters(), settings())
    assert type(average) is Average
    held = {parameter.data_ptr() for parameter in model.parameters()}
    assert {parameter.data_ptr() for parameter in average.parameters} == held


def test_lawa_through_the_warmdown_is_refused_unless_asked_for() -> None:
    """The refusal says why and what to do; without a warmdown, with one checkpoint, or by name it is allowed."""
    lawa = {"AVERAGE": "lawa"}
    with pytest.raises(SettingsError, match=r"before the rate has decayed.*regression.*LAWA_THROUGH_WARMDOWN=1"):
        settings(**lawa)
    for values in ({"WARMDOWN_FRACTION": 0}, {"MIN_LR": 1}, {"LAWA_K": 1}, {"LAWA_THROUGH_WARMDOWN": 1}):
        settings(**lawa | values)
    for values in ({}, {"AVERAGE": "ema"}, lawa | {"LAWA_K": 1}, lawa | {"WARMDOWN_FRACTION": 0}):
        with pytest.raises(SettingsError, match="nothing to allow"):
            settings(**values | {"LAWA_THROUGH_WARMDOWN": 1})
    with pytest.raises(SettingsError, match="there is none"):
        settings(AVERAGE="swa", WARMDOWN_FRACTION=0)
