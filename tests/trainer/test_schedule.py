"""Schedules as functions of the budget used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.tiny import dataset, settings, two_processes
from trainer import train
from trainer.config import SettingsError
from trainer.dist import Group
from trainer.metrics import Metrics
from trainer.options.schedule import context_phases
from trainer.schedule import SHAPES, context, lr_scale, momentum, progress, taper, warmdown_left, warmup


def test_progress_follows_steps_without_a_time_limit() -> None:
    """Only steps count when there is no budget in seconds."""
    assert [progress(step, 4, elapsed_s=1e9) for step in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert progress(0, 0) == 1.0


def test_progress_takes_whichever_is_further() -> None:
    """With both limits the one nearer its end decides."""
    assert progress(1, 10, elapsed_s=3.0, budget_s=4.0) == 0.75
    assert progress(9, 10, elapsed_s=1.0, budget_s=4.0) == 0.9
    assert progress(1, 10, elapsed_s=5.0, budget_s=4.0) == 1.0


def test_lr_scale_holds_then_falls_in_a_line() -> None:
    """One until the warmdown begins, half in its middle, the floor at its end."""
    assert [lr_scale(done, 0.5, 0.0) for done in (0.0, 0.49, 0.5, 0.75, 1.0)] == [1.0, 1.0, 1.0, 0.5, 0.0]
    assert lr_scale(0.99, 0.5, 0.1) == 0.1
    assert lr_scale(1.0, 0.0, 0.0) == 1.0
    assert lr_scale(0.25, 1.0, 0.0) == 0.75


shares = st.floats(0, 1, allow_subnormal=False)


@pytest.mark.parametrize("shape", SHAPES)
@given(first=shares, second=shares, fraction=shares, floor=shares)
def test_lr_scale_never_rises(shape: str, first: float, second: float, fraction: float, floor: float) -> None:
    """Later is never faster in any shape, and the scale stays in [floor, 1]."""
    early, late = sorted((first, second))
    before, after = (lr_scale(done, fraction, floor, SHAPES[shape]) for done in (early, late))
    assert floor <= after <= before + 1e-12
    assert before <= 1.0


def test_lr_scale_shapes_have_their_closed_forms() -> None:
    """All go from 1 to 0; half way through the warmdown they stand at 1/2, 1/2 and 1 - sqrt(1/2)."""
    for shape in SHAPES.values():
        assert [lr_scale(done, 0.5, 0.0, shape) for done in (0.5, 1.0)] == pytest.approx([1.0, 0.0])
    middle = {name: lr_scale(0.75, 0.5, 0.0, shape) for name, shape in SHAPES.items()}
    assert middle == pytest.approx({"linear": 0.5, "cosine": 0.5, "sqrt": 1 - 0.5**0.5})
    assert lr_scale(0.625, 0.5, 0.0, SHAPES["cosine"]) == pytest.approx(0.5 + 0.5 * 0.5**0.5)


def test_warmdown_left_counts_down() -> None:
    """One until the warmdown begins, zero at the end; without a warmdown always one."""
    assert [warmdown_left(done, 0.5) for done in (0.0, 0.5, 0.75, 1.0)] == [1.0, 1.0, 0.5, 0.0]
    assert warmdown_left(1.0, 0.0) == 1.0


def test_warmup_rises_in_a_line_and_never_stops_a_step() -> None:
    """The first step is a real one, the last of the warm-up is full; no steps means no warm-up."""
    assert [warmup(step, 4) for step in (0, 1, 3, 4, 100)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert warmup(0, 0) == warmup(0, 1) == 1.0


def test_taper_holds_then_falls_in_a_line() -> None:
    """One until the start, its end value at the end; an end of one is no taper, nor is a start at the end."""
    assert [taper(done, 0.5, 0.5) for done in (0.0, 0.5, 0.75, 1.0)] == [1.0, 1.0, 0.75, 0.5]
    assert [taper(done, 0.7, 1.0) for done in (0.0, 0.8, 1.0)] == [1.0, 1.0, 1.0]
    assert taper(1.0, 1.0, 0.0) == 1.0


def test_context_follows_its_phases() -> None:
    """A length holds from its share on until the next one's."""
    phases = context_phases(settings(CONTEXT_SCHEDULE="4@0,8@0.25,16@0.5"))
    assert phases == ((4, 0.0), (8, 0.25), (16, 0.5))
    assert [context(done, phases) for done in (0.0, 0.24, 0.25, 0.49, 0.5, 0.99)] == [4, 4, 8, 8, 16, 16]
    assert context_phases(settings()) == ((16, 0.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "must be LENGTH@SHARE"),
        ("8@0;16@0.5", "must be LENGTH@SHARE"),
        ("8@0.1,16@0.5", "must begin at 0"),
        ("4@0,8@0.5,16@0.5", "must begin at 0 and rise"),
        ("8@0,16@1", "stay below 1"),
        ("8@0,16@nan", "must begin at 0"),
        ("8@0", "to TRAIN_SEQ_LEN=16"),
        ("8@0,32@0.5", "to TRAIN_SEQ_LEN=16"),
        ("16@0,8@0.2,16@0.5", "lengths must rise"),
        ("1@0,16@0.5", "lengths must rise from 2"),
        ("0@0,16@0.5", "lengths must rise from 2"),
        ("12@0,16@0.5", "not a multiple of 12"),
    ],
)
def test_context_schedule_is_refused_with_a_reason(text: str, message: str) -> None:
    """What can't be read, does not begin at 0, does not grow to the final length or does not split the batch."""
    with pytest.raises(SettingsError, match=message):
        settings(CONTEXT_SCHEDULE=text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"MUON_WD_TAPER": 0.5}, "needs MUON_WD"),
        ({"MUON_WD": 0.1, "MUON_WD_TAPER": 0.5, "MUON_WD_TAPER_AT": 1}, "begin when the run is over"),
        ({"OPTIMIZER": "soap", "MATRIX_LR": 0.03}, "MATRIX_LR=0.03 is a number of Muon's"),
        ({"OPTIMIZER": "soap", "MUON_MOMENTUM": 0.9}, "MUON_MOMENTUM=0.9 is a number"),
        ({"OPTIMIZER": "soap", "MUON_MOMENTUM_WARMUP_START": 0.9}, "MUON_MOMENTUM_WARMUP_START=0.9 is"),
        ({"OPTIMIZER": "soap", "MUON_MOMENTUM_WARMUP_STEPS": 9}, "MUON_MOMENTUM_WARMUP_STEPS=9 is"),
        ({"OPTIMIZER": "soap", "MUON_BACKEND_STEPS": 3}, "MUON_BACKEND_STEPS=3 is"),
        ({"MUON_COEFFICIENTS": "halley", "MUON_BACKEND_STEPS": 3}, "MUON_BACKEND_STEPS=3 is"),
        ({"OPTIMIZER": "soap", "MUON_ROW_NORM": 1}, "MUON_ROW_NORM is about Newton-Schulz"),
        ({"OPTIMIZER": "soap", "MUON_PARALLEL": 1}, "MUON_PARALLEL is about"),
        ({"OPTIMIZER": "soap", "MUON_COEFFICIENTS": "polar_express"}, "MUON_COEFFICIENTS is about"),
    ],
)
def test_settings_without_effect_are_refused(values: dict[str, object], message: str) -> None:
    """A switch that would do nothing is an error, not a silent no."""
    with pytest.raises(SettingsError, match=message):
        settings(**values)


def test_momentum_warms_up_in_a_line() -> None:
    """From start to end over the given steps, then constant; no steps means no warm-up."""
    found = [momentum(step, 0.85, 0.95, 10) for step in (0, 5, 10, 1000)]
    assert found == pytest.approx([0.85, 0.90, 0.95, 0.95])
    assert momentum(0, 0.85, 0.95, 0) == 0.95
    assert found[-1] == 0.95


GROWING = {"CONTEXT_SCHEDULE": "4@0,8@0.25,16@0.5", "ITERATIONS": 8, "TRAIN_LOG_EVERY": 1}


class Watched(train.Run):
    """A run that notes what shapes its batches have, and the rate of every step."""

    def __init__(self, values: dict[str, object], group: Group, folder: Path) -> None:
        super().__init__(settings(**GROWING | values), dataset(), group, Metrics(folder, group.rank))
        self.seen: list[list[float]] = []

    def gradients(self, step: int, length: int) -> torch.Tensor:
        rows, columns = self.loaders[length].batch(step, self.group.rank, self.group.world, 0, 1)[0].shape
        self.seen.append([rows * self.group.world, columns, self.scale])
        return super().gradients(step, length)


def test_context_grows_with_the_tokens_per_step_constant(tmp_path: Path) -> None:
    """A quarter of the steps at 4, a quarter at 8, half at 16, always 128 tokens; the score uses the final length."""
    going = Watched({}, Group(0, 1, 0, 1, torch.device("cpu")), tmp_path)
    assert going.loop() == 8
    assert [rows * columns for rows, columns, _ in going.seen] == [128] * 8
    assert [columns for _, columns, _ in going.seen] == [4, 4, 8, 8, 16, 16, 16, 16]
    assert going.validate(8).tokens == 500
    ahead = Watched({"PREREAD": 1}, Group(0, 1, 0, 1, torch.device("cpu")), tmp_path)
    ahead.loop()
    assert (ahead.seen, ahead.loss) == (going.seen, going.loss)
    for loader in ahead.loaders.values():
        loader.close()


def test_context_batch_must_split_at_every_length() -> None:
    """The shortest context makes more sequences, the longest the fewest: each is checked against the processes."""
    config = settings(**GROWING)
    train.check(config, 8)
    with pytest.raises(SettingsError, match="8 sequences of 16; with 16 processes"):
        train.check(config, 16)


PEER = """
import json, sys
from pathlib import Path
from tests.trainer.test_schedule import Watched
from tests.trainer.tiny import settings
from trainer import dist

group = dist.start(settings(DEVICE="cpu"))
steps = Watched({}, group, Path(sys.argv[1]))
steps.loop()
seconds = Watched({"MAX_WALLCLOCK_SECONDS": 1.0, "ITERATIONS": 10**6, "TRAIN_LOG_EVERY": 0}, group, Path(sys.argv[1]))
seconds.loop()
print(json.dumps([steps.seen, steps.loss, seconds.seen, seconds.loss]))
group.stop()
"""


@pytest.mark.service
def test_context_and_rates_are_the_same_on_both_ranks(tmp_path: Path) -> None:
    """By steps two ranks reach one process's loss; by seconds both follow rank 0's clock through all lengths and rates."""
    first, second = (json.loads(out.splitlines()[-1]) for out in two_processes(PEER, tmp_path, home=tmp_path))
    assert first == second
    alone = Watched({}, Group(0, 1, 0, 1, torch.device("cpu")), tmp_path)
    alone.loop()
    assert first[0] == alone.seen
    assert first[1] == pytest.approx(alone.loss, rel=1e-5)
    assert {columns for _, columns, _ in first[2]} == {4, 8, 16}


@pytest.mark.service  # tracing takes seconds
def test_context_graphs_are_compiled_before_the_clock_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the warm-up passes a run through all lengths, scored in between, traces nothing anew."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **how: compiled(model, backend="eager", **how))
    values = {"VAL_LOSS_EVERY": 3, "NUM_LAYERS": 1, "CONTEXT_SCHEDULE": "8@0,16@0.5"}
    going = Watched(values, Group(0, 1, 0, 1, torch.device("cpu")), tmp_path)
    try:
        going.compile()
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
        torch._dynamo.utils.counters.clear()
        going.loop()
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0
    finally:
        torch._dynamo.reset()
