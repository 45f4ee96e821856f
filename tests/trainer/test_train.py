"""Training runs on tiny models: repeatable, bounded in time, honest about failure, the same with two processes."""

from __future__ import annotations

import itertools
import json
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.tiny import call, dataset, environment, settings, text_folder
from trainer import __main__ as entry
from trainer import contract, train
from trainer.config import Config, SettingsError
from trainer.dist import Group
from trainer.metrics import Metrics, write_result

ALONE = Group(0, 1, 0, 1, torch.device("cpu"))
TINY = [
    "NUM_LAYERS=2",
    "MODEL_DIM=16",
    "NUM_HEADS=2",
    "NUM_KV_HEADS=1",
    "TRAIN_SEQ_LEN=16",
    "TRAIN_BATCH_TOKENS=128",
    "EVAL_STRIDE=8",
    "CPU_THREADS=1",
    "DEVICE=cpu",
    "NGRAM_MAX_ORDER=3",
    "NGRAM_BUCKETS=64",
    "REFERENCE_SCORES=0",
]


def trained(config: Config, folder: Path) -> tuple[dict[str, Any], bytes]:
    """Train in this process; the result and the artifact's bytes."""
    found = train.run(config, dataset(), ALONE, Metrics(folder, 0))
    return found, (folder / contract.ARTIFACT).read_bytes()


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / contract.METRICS).read_text().splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path]:
    """An environment with a private cache, and a folder of text."""
    home = tmp_path_factory.mktemp("home")
    return environment(home / "cache"), text_folder(home / "text")


def test_train_one_seed_twice_is_bit_identical_and_two_seeds_differ(tmp_path: Path) -> None:
    """In step mode on CPU equal settings give equal artifacts, to the last byte."""
    config = {"NGRAM_MAX_ORDER": 3, "NGRAM_LOGITS": 1, "MUON_WD": 0.1, "GRAD_CLIP_NORM": 1, "GRAD_ACCUM_STEPS": 2}
    first, one = trained(settings(SEED=1, **config), tmp_path / "a")
    again, two = trained(settings(SEED=1, **config), tmp_path / "b")
    other, three = trained(settings(SEED=2, **config), tmp_path / "c")
    assert one == two
    assert one != three
    assert first["artifact_sha256"] == again["artifact_sha256"] != other["artifact_sha256"]
    assert first["prequant"] == again["prequant"]


def test_train_is_bit_identical_with_two_threads_and_large_tables(tmp_path: Path) -> None:
    """Tables large enough for torch to share the work among threads still sum their gradients in one order."""
    config = settings(NGRAM_MAX_ORDER=6, NGRAM_BUCKETS=32768, TRAIN_SEQ_LEN=64, TRAIN_BATCH_TOKENS=2048, ITERATIONS=3)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        files = [trained(config, tmp_path / name)[1] for name in "ab"]
    finally:
        torch.set_num_threads(before)
    assert files[0] == files[1]


def test_train_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    """Four micro-batches give the losses of one whole batch, to float32 tolerance."""
    for micros in (1, 4):
        trained(settings(GRAD_ACCUM_STEPS=micros, TRAIN_LOG_EVERY=1), tmp_path / str(micros))
    one, four = ([line["train_loss"] for line in records(tmp_path / name)] for name in "14")
    assert one == pytest.approx(four, rel=1e-5)


def test_train_learns(tmp_path: Path) -> None:
    """A hundred and twenty steps on a text of fifteen words bring the loss from that of chance to far below it."""
    found, _ = trained(settings(ITERATIONS=120, TRAIN_LOG_EVERY=120), tmp_path)
    lines = records(tmp_path)
    assert [line["step"] for line in lines] == [1, 120]
    assert lines[0]["train_loss"] == pytest.approx(math.log(256), abs=0.4)
    assert lines[-1]["train_loss"] < 2.3
    assert found["prequant"]["val_loss"] < 2.3


def test_train_says_what_the_contract_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Facts before step 0, step lines, a val line, and sizes that add up to what lies on disk."""
    found, content = trained(settings(ITERATIONS=3, TRAIN_LOG_EVERY=2, VAL_LOSS_EVERY=2), tmp_path)
    out = capsys.readouterr().out
    head, _, tail = out.partition("step:1/3 ")
    assert all(word in head for word in ("seed:1337", "world_size:1", "params:", "train_sha256:", "val_sha256:"))
    steps = re.findall(r"^step:(\d+)/3 train_loss:\d+\.\d{4} train_time:\d+ms step_avg:\d+\.\d\dms$", out, re.M)
    assert steps == ["1", "2", "3"]
    values = re.findall(r"^step:(\d+)/3 val_loss:[\d.]+ val_bpb:[\d.]+ train_time:\d+ms step_avg:[\d.]+ms$", tail, re.M)
    assert values == ["2", "3"]
    assert f"Code size: {found['code_bytes']} bytes\n" in out
    assert f"Serialized model int8+auto: {len(content)} bytes\n" in out
    assert f"Total submission size int8+auto: {found['total_bytes']} bytes\n" in out
    assert f"total_bytes:{found['total_bytes']} cap_bytes:16000000 " in out
    assert out.rstrip().endswith("cap:under")
    assert found["total_bytes"] == len(content) + contract.code_bytes(Path(train.__file__).parent)
    assert {"step", "train_loss", "train_time_ms", "step_avg_ms", "lr_scale"} == records(tmp_path)[0].keys()


def test_train_validation_leaves_the_training_alone(tmp_path: Path) -> None:
    """Scoring in between changes neither weights nor batches."""
    _, plain = trained(settings(), tmp_path / "a")
    _, watched = trained(settings(VAL_LOSS_EVERY=1), tmp_path / "b")
    assert plain == watched


def test_train_by_wallclock_ends_within_its_budget(tmp_path: Path) -> None:
    """With a time limit the run stops near it, having gone through the whole warmdown."""
    config = settings(MAX_WALLCLOCK_SECONDS=1.5, ITERATIONS=10**6, TRAIN_LOG_EVERY=1)
    found, _ = trained(config, tmp_path)
    scales = [line["lr_scale"] for line in records(tmp_path)]
    times = [0.0, *(line["train_time_ms"] for line in records(tmp_path))]
    slowest = max(after - before for before, after in itertools.pairwise(times))
    assert 0 < found["steps"] < 10**6
    assert found["train_time_ms"] <= 1500 + 2 * slowest  # slowest: others use the cores, too
    assert scales[0] == 1.0
    assert scales[-1] < 0.5 or slowest > 300
    assert scales == sorted(scales, reverse=True)


def test_train_begins_no_step_that_the_last_one_shows_too_dear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine steps of 0.1 s, one of 2 s as by a loop that begins: the mean promises room in 4 s for one more, the last does not."""
    going = train.Run(settings(ITERATIONS=1000, MAX_WALLCLOCK_SECONDS=4.0), dataset(), ALONE, Metrics(tmp_path, 0))
    seconds = iter([0.0, *(0.1 * step for step in range(1, 10)), 2.9])
    monkeypatch.setattr(going.clock, "read", lambda: next(seconds))
    found = [going._progress(step) for step in range(11)]
    assert found[9] == pytest.approx(0.225)
    assert found[10] == 1.0


def test_train_without_steps_writes_the_initial_model(tmp_path: Path) -> None:
    """ITERATIONS=0 is a run of its own right: no train line, a val line, an artifact."""
    found, content = trained(settings(ITERATIONS=0), tmp_path)
    assert (found["steps"], found["train_loss"]) == (0, None)
    assert records(tmp_path) == []
    assert content


def test_train_stops_when_the_loss_is_not_finite(tmp_path: Path) -> None:
    """An absurd rate ends in one line that names the step, not in an artifact."""
    with pytest.raises(train.Diverged, match=r"train_loss is nan at step \d+"):
        trained(settings(EMBED_LR=1e38, ITERATIONS=50), tmp_path)
    assert not (tmp_path / contract.ARTIFACT).exists()


def test_train_refuses_a_batch_that_does_not_split() -> None:
    """Every rank and micro-batch must get the same number of sequences; the message says what would do."""
    train.check(settings(TRAIN_BATCH_TOKENS=128, GRAD_ACCUM_STEPS=2), 4)
    with pytest.raises(SettingsError, match="multiple of 48"):
        train.check(settings(TRAIN_BATCH_TOKENS=128), 3)


def test_result_refuses_numbers_that_are_not_finite(tmp_path: Path) -> None:
    """result.json holds no nan and no inf, and nothing half-written is left behind."""
    with pytest.raises(ValueError, match="JSON compliant"):
        write_result(tmp_path, {"x": math.inf})
    assert list(tmp_path.iterdir()) == []
    write_result(tmp_path, {"x": 1})
    assert json.loads((tmp_path / contract.RESULT).read_text()) == {"x": 1}


@pytest.mark.service
def test_trainer_runs_alone_and_as_two_processes_alike(tmp_path: Path, world: tuple[dict[str, str], Path]) -> None:
    """The command writes a full result; torchrun with two processes sees the same batches and reaches the same loss."""
    env, text = world
    line = ["-m", "trainer", *TINY, f"DATA_PATH={text}", "ITERATIONS=6", "TRAIN_LOG_EVERY=1"]
    one = call(*line, f"OUT_DIR={tmp_path / 'one'}", env=env, cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    two = call(*torchrun, *line, f"OUT_DIR={tmp_path / 'two'}", env=env, cwd=tmp_path)
    assert two.returncode == 0, two.stderr
    results = [json.loads((tmp_path / name / contract.RESULT).read_text()) for name in ("one", "two")]
    assert [result["world_size"] for result in results] == [1, 2]
    assert [result["environment"]["world_size"] for result in results] == [1, 2]
    losses = [[entry["train_loss"] for entry in records(tmp_path / name)] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    scores = [result["scores"][contract.FINAL_SLIDING] for result in results]
    assert scores[0]["val_bpb"] == pytest.approx(scores[1]["val_bpb"], rel=1e-3)
    assert scores[0]["bytes"] == scores[1]["bytes"] == 3000
    assert two.stdout.count("step:6/6 train_loss") == 1  # rank 1 is silent
    for name, result in zip(("one", "two"), results, strict=True):
        assert result["model_bytes"] == (tmp_path / name / contract.ARTIFACT).stat().st_size
        assert result["code_sha256"] == contract.code_sha256(Path(train.__file__).parent)
        assert result["settings"]["ITERATIONS"] == 6
        assert result["warnings"] == []


@pytest.mark.service
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["ITERATION=5", "SEED=x"], 2, "did you mean ITERATIONS"),
        (["DATA_PATH=/no/such/folder"], 2, "/no/such/folder"),
        (["TRAIN_BATCH_TOKENS=48", "GRAD_ACCUM_STEPS=2"], 2, "TRAIN_BATCH_TOKENS"),
        (["EMBED_LR=1e38", "ITERATIONS=50"], 1, "train_loss is nan"),
    ],
)
def test_trainer_errors_are_lines_and_exit_codes(
    tmp_path: Path, world: tuple[dict[str, str], Path], words: list[str], code: int, message: str
) -> None:
    """Wrong settings or data: exit 2; a failed run: exit 1. Lines on stderr, no traceback, no result."""
    env, text = world
    line = ["-m", "trainer", *TINY, f"DATA_PATH={text}", f"OUT_DIR={tmp_path / 'out'}", *words]
    done = call(*line, env=env, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert all(row.startswith("trainer: ") for row in done.stderr.splitlines())
    assert not (tmp_path / "out" / contract.RESULT).exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (contract.RESULT, "holds a finished run"),
        (contract.ARTIFACT, r"`python -m trainer\.score .*artifact\.golf` scores what it trained"),
        (contract.METRICS, r"holds metrics\.jsonl of a run that is under way or did not end well"),
    ],
)
def test_trainer_overwrites_no_run(tmp_path: Path, name: str, message: str) -> None:
    """Weights whose scoring failed are as dear as a finished run; the refusal says how to score them."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SettingsError, match=message):
        entry._train_and_score(settings(OUT_DIR=str(tmp_path), DATA_PATH=str(tmp_path / "none")), ALONE)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"x"]


@pytest.mark.service
def test_trainer_starts_without_the_compiler_stack(tmp_path: Path, world: tuple[dict[str, str], Path]) -> None:
    """A plain run loads none of the modules that would cost seconds at start."""
    env, text = world
    heavy = ("torch._dynamo", "torch._inductor", "sympy", "scipy", "torch.distributed.elastic")
    script = (
        f"import sys; from trainer.__main__ import main; code = main(sys.argv[1:]); "
        f"print('loaded', [name for name in {heavy!r} if name in sys.modules]); sys.exit(code)"
    )
    line = ["-c", script, *TINY, f"DATA_PATH={text}", f"OUT_DIR={tmp_path}", "ITERATIONS=1"]
    done = call(*line, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("loaded []")


@pytest.mark.service
def test_trainer_help_lists_every_setting(tmp_path: Path) -> None:
    """--help names the settings without loading torch."""
    done = call("-m", "trainer", "--help", env=environment(tmp_path), cwd=tmp_path)
    assert done.returncode == 0
    assert all(f"  {name}=" in done.stdout for name in settings().as_settings())


@pytest.mark.service
def test_trainer_ends_quickly_on_sigterm(tmp_path: Path, world: tuple[dict[str, str], Path]) -> None:
    """A supervisor that says stop is obeyed within seconds, and no result appears."""
    env, text = world
    line = [sys.executable, "-m", "trainer", *TINY, f"DATA_PATH={text}", f"OUT_DIR={tmp_path}", "ITERATIONS=1000000"]
    with subprocess.Popen(line, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step:10/"):
            assert process.poll() is None
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        assert time.monotonic() - asked < 5
    assert process.returncode != 0
    assert not (tmp_path / contract.RESULT).exists()
