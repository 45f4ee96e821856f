"""Calibration: every matrix is listened to, on training text alone, within the clock, the same on every rank."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainer.switches import SWITCHES, products
from tests.trainer.test_train import ALONE, records, trained
from tests.trainer.tiny import dataset, settings, two_processes
from trainer import artifact, calibrate, contract, train
from trainer.config import Config
from trainer.data.loader import Loader
from trainer.dist import Group
from trainer.metrics import Metrics
from trainer.model.gpt import GPT
from trainer.model.roles import TABLE, VECTOR, role
from trainer.quant.stored import restore

CALIBRATED = {"GPTQ": 1, "AWQ_ALPHA": 0.5, "LQER_RANK": 2, "LQER_TENSORS": 2, "GPTQ_BATCHES": 2, "MATRIX_BITS": 4}
WITH_TABLES = {"NGRAM_MAX_ORDER": 3, "NGRAM_LOGITS": 1, "TRAIN_LOG_EVERY": 1}


def seen(config: Config, model: GPT | None = None, **more: object) -> calibrate.Calibration:
    """Calibrate a model on the tests' training text."""
    data = dataset()
    loader = Loader(data.train, config.train_seq_len, config.train_batch_tokens, config.seed, data.bos)
    return calibrate.calibrate(model or built_on_bytes(config), loader, config, ALONE, 0, **more)


def built_on_bytes(config: Config) -> GPT:
    """A model of bytes in which every path carries signal."""
    model = GPT(config, 256)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.1)
    return model


@pytest.mark.parametrize("name", SWITCHES)
def test_calibration_reaches_every_matrix_and_no_table(name: str) -> None:
    """Whatever is switched on: all that is quantised and multiplied has a Hessian of its width, tables and look-ups none."""
    config = settings(**{"NUM_LAYERS": 3, "GPTQ_BATCHES": 1} | SWITCHES[name])
    model = built_on_bytes(config)
    found = seen(config, model).inputs
    wanted = {name for name in products(model) if role(name) != VECTOR}
    assert found.keys() == wanted
    assert not any(role(name) == TABLE for name in found)
    for matrix, item in found.items():
        assert item.hessian.shape == (model.get_parameter(matrix).shape[1],) * 2
        assert item.magnitude.shape == item.hessian.shape[:1]
        assert bool((item.hessian.diagonal() >= 0).all())
        assert float(item.hessian.abs().max()) > 0


def test_calibration_sums_what_the_matrices_are_multiplied_with() -> None:
    """Queries, keys and values see the same input; the head's is the model's own last state; means are over all tokens."""
    config = settings(GPTQ_BATCHES=3)
    model = built_on_bytes(config)
    found = seen(config, model)
    data = dataset()
    loader = Loader(data.train, config.train_seq_len, config.train_batch_tokens, config.seed, data.bos)
    ids = np.concatenate([loader.batch(step, 0, 1, 0, 1)[0] for step in range(3)])
    with torch.no_grad():
        hidden = model(torch.from_numpy(ids), with_hidden=True)[1].flatten(0, 1).double()
    assert found.tokens == len(hidden) == 3 * config.train_batch_tokens
    torch.testing.assert_close(found.inputs["embed"].hessian.double(), hidden.T @ hidden, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(found.inputs["embed"].magnitude.double(), hidden.abs().mean(0), rtol=1e-4, atol=1e-5)
    three = [found.inputs[f"blocks.1.attention.{part}"].hessian for part in ("query", "key", "value")]
    assert torch.equal(three[0], three[1])
    assert torch.equal(three[0], three[2])
    assert not torch.equal(three[0], found.inputs["blocks.0.attention.query"].hessian)


def test_calibration_does_not_depend_on_how_a_batch_is_cut() -> None:
    """Micro-batches add up to the batch."""
    whole, cut = (seen(settings(GRAD_ACCUM_STEPS=n, GPTQ_BATCHES=2)) for n in (1, 4))
    for name, item in whole.inputs.items():
        torch.testing.assert_close(item.hessian, cut.inputs[name].hessian, rtol=1e-4, atol=1e-3)


def test_calibration_uses_the_depth_the_artifact_has() -> None:
    """A loop that the training has not reached yet is in the artifact, so it is in the calibration."""
    config = settings(GPTQ_BATCHES=1, **SWITCHES["loops"])
    model = built_on_bytes(config)
    model.set_loops(0)
    name = "blocks.1.mlp.up"
    found = seen(config, model).inputs[name].hessian
    assert model.depth is model.depths[-1]
    assert float(found.trace()) > 2.5 * float(seen(settings(GPTQ_BATCHES=1, NUM_LAYERS=4)).inputs[name].hessian.trace())


def test_calibration_ends_when_its_time_is_over() -> None:
    """Without time there is none at all; with little, fewer batches than planned, at least one; the seconds are told."""
    none = seen(settings(GPTQ_BATCHES=4), left=0.0)
    assert (none.batches, none.planned, none.inputs) == (0, 4, {})
    some = seen(settings(GPTQ_BATCHES=100_000), left=0.2)
    assert 1 <= some.batches < 100_000
    assert some.tokens == some.batches * 128
    assert f"batches:{some.batches}/100000 tokens:{some.tokens} matrices:" in some.line()
    assert some.line().startswith(f"calibration: took {some.seconds:.3f} seconds ")
    assert seen(settings(GPTQ_BATCHES=4), left=0.2, pace=0.3).batches == 0  # not even the first would end in time


class Follower(Group):
    """A rank that is told what rank 0 measured: seconds left, and seconds of the slowest batch."""

    def broadcast_floats(self, values: list[float]) -> list[float]:
        """The first batch is in time, the second is not."""
        return [5.0, 0.0] if values[1] == 0.0 else [1.0, 1.5]


def test_calibration_ends_where_rank_0_says_so() -> None:
    """What a rank measures itself decides nothing: ranks that disagreed would wait for each other for ever."""
    config, data = settings(GPTQ_BATCHES=4), dataset()
    loader = Loader(data.train, config.train_seq_len, config.train_batch_tokens, config.seed, data.bos)
    follower = Follower(0, 1, 0, 1, torch.device("cpu"))
    assert calibrate.calibrate(GPT(config, 256), loader, config, follower, 0).batches == 1
    assert calibrate.calibrate(GPT(config, 256), loader, config, follower, 0, left=-1.0).batches == 1


def test_reserve_is_what_was_asked_for_or_measured(tmp_path: Path) -> None:
    """A stated reserve is taken as it is, a measured one is some batches' worth and never more than half the limit."""
    data, config = dataset(), settings(GPTQ=1)
    loader = Loader(data.train, config.train_seq_len, config.train_batch_tokens, config.seed, data.bos)
    pace = calibrate.pace(GPT(config, 256), loader, config, ALONE)
    assert pace > 0

    def kept(**values: object) -> float:
        return calibrate.reserve(settings(GPTQ=1, **values), pace)

    assert kept(MAX_WALLCLOCK_SECONDS=60, GPTQ_RESERVE_SECONDS=7) == 7
    assert kept() == 0
    assert 0 < kept(MAX_WALLCLOCK_SECONDS=6000, GPTQ_BATCHES=2) < 3000
    assert kept(MAX_WALLCLOCK_SECONDS=0.001) == 0.0005


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object], str]:
    """A short calibrated run: its folder, its result and what it said."""
    folder, said = tmp_path_factory.mktemp("calibrated"), io.StringIO()
    with contextlib.redirect_stdout(said):
        found, _ = trained(settings(**CALIBRATED, **WITH_TABLES), folder)
    return folder, found, said.getvalue()


def test_calibrated_run_says_so(run: tuple[Path, dict[str, object], str]) -> None:
    """A line of the log and an entry of the result hold seconds, batches, tokens; training time stays its own."""
    folder, found, log = run
    assert found["calibration"].keys() == {"seconds", "batches", "planned", "tokens", "matrices"}
    assert found["calibration"]["tokens"] == 2 * 128
    assert log.count("\ncalibration:") == 1
    assert f"calibration: took {found['calibration']['seconds']:.3f} seconds batches:2/2 tokens:256 matrices:" in log
    line = re.search(r"^rounding:15 matrices gptq:(\d+) awq:(\d+) nearest:(\d+) lqer:2$", log, re.MULTILINE)
    assert line
    assert int(line[1]) + int(line[3]) == 15  # every one that AWQ scaled is GPTQ's, too
    assert int(line[2]) <= int(line[1]) > 10
    assert records(folder)[-1]["train_time_ms"] <= found["train_time_ms"] + 1


def test_calibrated_artifact_is_the_same_twice_and_another_than_without(
    run: tuple[Path, dict[str, object], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal settings give equal bytes; the weights before rounding do not depend on it; a plain run says nothing of it."""
    folder, found, _ = run
    again, content = trained(settings(**CALIBRATED, **WITH_TABLES), tmp_path / "again")
    capsys.readouterr()
    plain, other = trained(settings(MATRIX_BITS=4, **WITH_TABLES), tmp_path / "plain")
    assert content == (folder / contract.ARTIFACT).read_bytes() != other
    assert again["prequant"] == plain["prequant"] == found["prequant"]
    assert "calibration" not in plain
    assert "calibration" not in capsys.readouterr().out


def test_calibrated_artifact_reads_back(tmp_path: Path) -> None:
    """What is read is bit for bit what was rounded, corrections included."""
    config = settings(**CALIBRATED, **SWITCHES["ngram_logits"])
    model = built_on_bytes(config)
    given = seen(config, model).inputs
    rounded = artifact.stored_weights(model, config, inputs=given)
    schemes = {item.scheme for item in rounded.values()}
    assert any("+lqer2" in scheme for scheme in schemes)
    artifact.write(tmp_path / "a.golf", model, config, 256, {}, given)
    state = artifact.read(tmp_path / "a.golf").state
    for name, item in rounded.items():
        assert torch.equal(state[name], restore(item)), name


def test_calibration_sees_training_text_alone(tmp_path: Path) -> None:
    """Other held-out texts leave every bit of it as it is."""
    config = settings(**CALIBRATED, ITERATIONS=1)
    data = dataset()
    other = dataclasses.replace(data, val=data.val[::-1].copy(), tune=data.tune[::-1].copy())
    found: list[dict[str, Tensor]] = []
    for text in (data, other):
        going = train.Run(config, text, ALONE, Metrics(tmp_path, 0))
        found.append({name: item.hessian for name, item in going.calibrate(0).inputs.items()})
    for name, hessian in found[0].items():
        assert torch.equal(hessian, found[1][name])


TICK = 0.025


class Ticks:
    """A clock that goes on by TICK seconds with each look at it: no load of the machine shows in it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += TICK
        return self.now


@pytest.mark.parametrize("reserve", [0.0, 0.002])  # as measured; less than a batch takes
def test_calibration_stays_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserve: float) -> None:
    """Training stops early enough: with the calibration it takes no longer than MAX_WALLCLOCK_SECONDS."""
    monkeypatch.setattr(train.time, "perf_counter", Ticks())
    values = {"MAX_WALLCLOCK_SECONDS": 1.5, "ITERATIONS": 10**6, "GPTQ_BATCHES": 8, "TRAIN_LOG_EVERY": 0}
    found, _ = trained(settings(GPTQ=1, GPTQ_RESERVE_SECONDS=reserve, **values), tmp_path)
    took = found["train_time_ms"] / 1e3
    assert found["steps"] > 1
    assert found["calibration"]["batches"] == (0 if reserve else 8)
    assert took + found["calibration"]["seconds"] <= 1.5 + 3 * TICK  # looking at the clock takes time here


PEER = """
import json, sys
from pathlib import Path
from tests.trainer.tiny import dataset, settings
from trainer import dist, train
from trainer.metrics import Metrics

group = dist.start(settings(DEVICE="cpu", CPU_THREADS=1))
config = settings(**json.loads(sys.argv[2]))
going = train.Run(config, dataset(), group, Metrics(Path(sys.argv[1]), group.rank))
found = going.calibrate(0)
print(json.dumps([found.tokens, {n: [i.hessian.tolist(), i.magnitude.tolist()] for n, i in found.inputs.items()}]))
group.stop()
"""


@pytest.mark.service
def test_two_ranks_calibrate_as_one(tmp_path: Path) -> None:
    """Both hold the same sums, to the last bit, and they are those of one process up to the order of summation."""
    values = {"GPTQ": 1, "GPTQ_BATCHES": 2, **SWITCHES["ngram_logits"]}
    heard = [out.splitlines()[-1] for out in two_processes(PEER, tmp_path / "run", json.dumps(values), home=tmp_path)]
    assert heard[0] == heard[1]
    tokens, two = json.loads(heard[0])
    one = train.Run(settings(**values), dataset(), ALONE, Metrics(tmp_path / "one", 0)).calibrate(0)
    assert tokens == one.tokens
    assert two.keys() == one.inputs.keys()
    for name, item in one.inputs.items():
        for mine, theirs in zip((item.hessian, item.magnitude), two[name], strict=True):
            torch.testing.assert_close(mine, torch.tensor(theirs), rtol=1e-4, atol=1e-3)


def test_calibrated_artifact_meets_a_target(tmp_path: Path) -> None:
    """Which matrices are corrected may change with the clip: every try of the bisection packs what it has."""
    how = {"NUM_LAYERS": 1, "AWQ_ALPHA": 1, "LQER_RANK": 2, "GPTQ_BATCHES": 1, "MATRIX_BITS": 6}
    config = settings(**how, QUANT_CLIP="sigma", MODEL_BYTES_TARGET=7_000)
    model = built_on_bytes(config)
    said: list[str] = []
    size = artifact.write(tmp_path / "a.golf", model, config, 256, {}, seen(config, model).inputs, said.append)
    assert 0.95 * 7_000 < size <= 7_000
    assert [line.partition(":")[0] for line in said] == ["model_bytes_target", "rounding"]
    assert artifact.read(tmp_path / "a.golf").config.model_bytes_target == 7_000
