"""The GPU benchmark proves itself without a GPU."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tests.trainer.tiny import call, environment

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_side_by_side.py"


LOG = """\
W0101 10:00:00.000000 4242 site-packages/torch/distributed/run.py:852] Setting OMP_NUM_THREADS environment variable to 1
[2026-01-01 10:00:02] box:17:81 [0] ibvwrap.c:94 NCCL WARN Call to ibv_open_device failed
            f"step:{step}/{args.iterations} train_loss:{train_loss.item():.4f} "
            "step:1/9 train_loss:0.0001 train_time:1ms"
val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=./tokens.model
model_params:17059912
world_size:1 grad_accum_steps:8
attention_mode:gqa num_heads:8 num_kv_heads:4
tie_embeddings:True embed_lr:0.05 head_lr:0.0 matrix_lr:0.04 scalar_lr:0.04
train_batch_tokens:524288 train_seq_len:1024 iterations:40 warmup_steps:20 max_wallclock_seconds:600.000
seed:1337
warmup_step:1/20
warmup_step:20/20
step:0/40 val_loss:6.9357 val_bpb:4.1077 train_time:0ms step_avg:0.01ms
step:1/40 train_loss:6.9370 train_time:300ms step_avg:300.00ms
step:2/40 train_loss:16.7414 train_time:600ms step_avg:300.00ms
step:10/40 train_loss:6.1020 train_time:3000ms step_avg:300.00ms
step:20/40 train_loss:5.4000 train_time:6500ms step_avg:325.00ms
step:20/40 val_loss:5.3000 val_bpb:3.1000 train_time:6520ms step_avg:326.00ms
step:30/40 train_loss:5.0000 train_time:9520ms step_avg:317.33ms
step:37/40 train_loss:4.9000 train_time:11620ms step_avg:314.05ms
step:37/40 val_loss:4.8765 val_bpb:2.8884 train_time:11690ms step_avg:315.95ms
stopping_early: wallclock_cap train_time:11690ms step:37/40
peak memory allocated: 10184 MiB reserved: 10200 MiB
Serialized model int8+zlib: 15815847 bytes (payload:17178912 raw_torch:17224025 payload_ratio:3.91x)
final_int8_zlib_roundtrip val_loss:4.9000 val_bpb:2.9000 eval_time:1401ms
final_int8_zlib_roundtrip_exact val_loss:4.90000000 val_bpb:2.90000000
"""
"""Made up, line for line in the form of the contest's script."""


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("gpu_side_by_side", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["gpu_side_by_side"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_listen_reads_the_contests_log(bench: ModuleType) -> None:
    """Steps, losses, size, memory, and the last score before quantisation; not torchrun's words, nor source in the log."""
    heard = bench.listen(LOG, skipped=10)
    assert heard.losses == {1: 6.937, 2: 16.7414, 10: 6.102, 20: 5.4, 30: 5.0, 37: 4.9}
    assert heard.times == [350.0, 302.0, 300.0]
    assert (heard.parameters, heard.memory) == (17059912, 10184.0)
    assert (heard.bpb, heard.train_ms, heard.steps) == (2.8884, 11690.0, 37)
    bench.check(heard, "it")


def test_check_refuses_a_run_that_does_not_learn(bench: ModuleType) -> None:
    """A rising or infinite loss ends the comparison."""
    heard = bench.listen(LOG, skipped=10)
    for losses, said in (({1: 5.0, 2: 6.0}, "does not fall"), ({1: 5.0, 2: math.nan}, "not finite")):
        with pytest.raises(SystemExit, match=f"it: .*{said}"):
            bench.check(replace(heard, losses=losses), "it")


def test_curves_are_compared_in_pairs(bench: ModuleType) -> None:
    """|mean difference| against 2 sd / sqrt(n) of the differences: noise of the seeds, common to both, is no difference."""
    heard = bench.listen(LOG, skipped=10)

    def runs(*losses: float) -> list[object]:
        return [replace(heard, losses={100: loss}) for loss in losses]

    script = runs(3.0, 3.1, 2.9)
    ((step, mean, allowed, verdict),) = bench.curves(runs(3.02, 3.09, 2.9), script, [100])
    assert (step, verdict) == (100, "equal")
    assert mean == pytest.approx(0.01 / 3)
    assert allowed == pytest.approx(2 * math.sqrt((0.02**2 + 0.01**2 + 0.01**2 + 0) / 3) / math.sqrt(3), rel=0.2)
    assert bench.curves(script, script, [100])[0][3] == "equal"
    assert bench.curves(runs(3.02, 3.12, 2.921), script, [100])[0][3] == "DIFFERENT"
    assert bench.curves(script[:1], script[:1], [100])[0][3] == "one pair: no verdict"


def test_scores_state_the_interval_of_the_difference(bench: ModuleType) -> None:
    """Three pairs, differences -0.01, -0.02, -0.03: mean -0.02 and t(2) = 4.303 times 0.01 / sqrt(3)."""
    heard = bench.listen(LOG, skipped=10)
    fixed = {
        who: [replace(heard, bpb=2 + n / 100 * by) for n in (1, 2, 3)] for who, by in (("ours", -1), ("script", 0))
    }
    assert bench.scores(fixed, 240).endswith("difference **-0.0200** [-0.0448, +0.0048].")


@pytest.mark.service
def test_gpu_side_by_side_tests_itself(tmp_path: Path) -> None:
    """Our trainer and a stand-in with the contest's lines are run in turns, compared and written down."""
    page = tmp_path / "page.md"
    done = call(
        SCRIPT,
        "--self-test",
        "--pairs",
        1,
        "--out",
        page,
        env=environment(tmp_path / "cache"),
        cwd=tmp_path,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "| script | 20.00 | 6,400 |" in text
    # Their time is a difference of two runs, which a busy machine can turn around.
    row = re.search(r"\| script \| .*\| 7,828 \| ([2-9]) \| -?[\d.]+ \|", text)
    assert row, f"two operators a step, and what they call: {text}"
    assert text.count("one pair: no verdict") == 3
    assert "Step time, ours over the script's: **" in text
    assert text.count("7,828 |") == 2
