"""GPU: our trainer at the contest's baseline against the contest's own train_gpt.py, same shards, same card, in turns.

    python benchmarks/gpu_side_by_side.py --script PATH/train_gpt.py [--data FOLDER --tokenizer FILE.model] [--pairs 3]
    python benchmarks/gpu_side_by_side.py --self-test

Correctness first: both state the same number of parameters and losses that are finite and fall. Then the median step of each run,
the first ones left out, in rounds A B A B; ratios with intervals; MFU against 790 and 989 TFLOP/s; peak memory; whether the loss
curves are equal (pairs of equal seeds, |mean difference| <= 2 sd / sqrt(pairs) at three steps); score at a fixed time
(`--seconds`); kernels a step and their time, by the difference of two profiled runs. Without --data, shards of the embedded
text are made. The script needs CUDA and sentencepiece; both run unchanged, as processes. --self-test runs a stand-in script that
prints the same lines, on the CPU, at tiny sizes: it proves this file and says nothing about speed. Writes
results/gpu_side_by_side.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "gpu_side_by_side.md"
PEAKS = (790, 989)
"""TFLOP/s of bfloat16 on an H100 or H200: reached by large products, and stated."""


@dataclass(frozen=True)
class Size:
    """What both are told, how long a timed run is, and how long the two are whose kernels are counted."""

    settings: dict[str, Any]
    steps: int
    skipped: int
    tokenizer: str
    profiled: tuple[int, int]
    more: dict[str, Any] = field(default_factory=dict)


CONTEST = Size(
    {
        "NUM_LAYERS": 9,
        "MODEL_DIM": 512,
        "NUM_HEADS": 8,
        "NUM_KV_HEADS": 4,
        "MLP_MULT": 2,
        "TRAIN_SEQ_LEN": 1024,
        "TRAIN_BATCH_TOKENS": 524288,
    },
    steps=300,
    skipped=50,
    tokenizer="sp1024",
    profiled=(10, 20),
)
TINY = Size(
    {
        "NUM_LAYERS": 2,
        "MODEL_DIM": 16,
        "NUM_HEADS": 2,
        "NUM_KV_HEADS": 1,
        "MLP_MULT": 2,
        "TRAIN_SEQ_LEN": 16,
        "TRAIN_BATCH_TOKENS": 128,
    },
    steps=30,
    skipped=5,
    tokenizer="bytes",
    profiled=(2, 5),
    more={"DEVICE": "cpu", "COMPILE": 0, "CPU_THREADS": 1, "COMPILE_OPTIMIZER": 0, "GRAD_ACCUM_STEPS": 1},
)


@dataclass(frozen=True)
class Heard:
    """What one run said: ms of each timed step, loss by step, parameters, MiB, final val_bpb, ms of training, steps."""

    times: list[float]
    losses: dict[int, float]
    parameters: int
    memory: float
    bpb: float
    train_ms: float
    steps: int


STEP = re.compile(r"^step:(\d+)/\d+ train_loss:(\S+) train_time:(\d+)ms", re.M)
VALIDATED = re.compile(r"^step:(\d+)/\d+ val_loss:\S+ val_bpb:(\S+) train_time:(\d+)ms", re.M)


def listen(log: str, skipped: int, exact_ms: list[float] | None = None) -> Heard:
    """Read a log in the contest's format. exact_ms: train_time of the logged steps where they are known better than in ms."""
    found = [(int(step), float(loss), float(time)) for step, loss, time in STEP.findall(log)]
    marks = exact_ms or [time for _, _, time in found]
    points = [(step, time) for (step, _, _), time in zip(found, marks, strict=True) if step >= skipped]
    times = [(b - a) / (t - s) for (s, a), (t, b) in itertools.pairwise(points)]
    count = re.search(r"^(?:seed:.* params|model_params):(\d+)", log, re.M)
    memory = re.search(r"peak memory allocated: (\d+) MiB|peak_mem_mib:([\d.]+)", log)
    step, bpb, train_ms = VALIDATED.findall(log)[-1]
    return Heard(
        times,
        {step: loss for step, loss, _ in found},
        int(count.group(1)) if count else 0,
        float(next(part for part in memory.groups() if part)) if memory else math.nan,
        float(bpb),
        float(train_ms),
        int(step),
    )


PROFILED = """
import runpy, sys, torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

cuda, sys.argv = torch.cuda.is_available(), sys.argv[1:]
with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
    try:
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, end
wanted = DeviceType.CUDA if cuda else DeviceType.CPU
found = [event.time_range.elapsed_us() for event in seen.events() if event.device_type == wanted]
print(f"kernels:{len(found)} kernel_us:{sum(found):.0f}", flush=True)
"""
"""Runs a script or module under the profiler. On a CPU, operators stand in for kernels."""


def kernels(run: Callable[..., str], size: Size) -> tuple[float, float]:
    """Kernels and copies a step, and their ms: what a longer run has more than a shorter one."""
    heard = []
    for steps in size.profiled:
        with tempfile.TemporaryDirectory() as folder:
            limit = {"ITERATIONS": steps, "MAX_WALLCLOCK_SECONDS": 0}
            log = run(folder=Path(folder), limit=limit, before=["-c", PROFILED])
        found = re.findall(r"^kernels:(\d+) kernel_us:(\d+)", log, re.M)[-1]
        heard.append([float(number) for number in found])
    more = size.profiled[1] - size.profiled[0]
    return (heard[1][0] - heard[0][0]) / more, (heard[1][1] - heard[0][1]) / more / 1e3


def our_log(size: Size, data: Path, folder: Path, limit: dict[str, Any], before: Sequence[str] = ()) -> str:
    """What one run of our trainer at the baseline's preset prints. before: words between python and the module."""
    settings = {
        **size.settings,
        "DATA_PATH": data,
        "TOKENIZER": size.tokenizer,
        "COMPILE": 1,
        "COMPILE_OPTIMIZER": 1,
        "ATTENTION_BACKEND": "auto",
        "PREREAD": 1,
        "REFERENCE_SCORES": 0,
        "OUT_DIR": folder / "ours",
        "TRAIN_LOG_EVERY": max(size.steps // 30, 1),
        "EVAL_STRIDE": size.settings["TRAIN_SEQ_LEN"],
    }
    settings |= size.more | limit
    words = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, *before, "-m", "trainer", "--config", "contest-baseline", *words]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


def ours(size: Size, data: Path, folder: Path, limit: dict[str, Any]) -> Heard:
    """One run of our trainer."""
    log = our_log(size, data, folder, limit)
    rows = [json.loads(line) for line in (folder / "ours" / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "ours" / "result.json").read_text())
    log += f"\npeak_mem_mib:{result['peak_mem_mib']}"
    return listen(log, size.skipped, [row["train_time_ms"] for row in rows if "train_time_ms" in row])


def their_log(
    size: Size,
    data: Path,
    folder: Path,
    limit: dict[str, Any],
    before: Sequence[str] = (),
    *,
    script: Path,
    tokenizer: Path,
) -> str:
    """What one run of the given script prints, unchanged, in a folder of its own: it writes beside itself."""
    settings = {
        **size.settings,
        "DATA_PATH": data,
        "TOKENIZER_PATH": tokenizer,
        "VAL_LOSS_EVERY": 0,
        "TRAIN_LOG_EVERY": max(size.steps // 30, 1),
        "RUN_ID": "side-by-side",
    }
    settings |= limit
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    command = [sys.executable, *before, str(script)]
    return subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True).stdout


def check(heard: Heard, who: str) -> None:
    """Raise SystemExit unless losses are finite and fall."""
    losses = list(heard.losses.values())
    if not all(map(math.isfinite, [*losses, heard.bpb])):
        raise SystemExit(f"{who}: a loss is not finite")
    if losses[-1] >= losses[0]:
        raise SystemExit(f"{who}: loss {losses[0]:.3f} -> {losses[-1]:.3f} does not fall")


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean and its 95 % interval by Student's t; nan without at least two."""
    from scipy.stats import t

    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.mean(logs)
    spread = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    half = float(t.ppf(0.975, max(len(logs) - 1, 1))) * spread
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def curves(ours: list[Heard], script: list[Heard], steps: Sequence[int]) -> list[tuple[int, float, float, str]]:
    """(step, mean difference of training losses over pairs of equal seeds, what is allowed, verdict) at each step."""
    found = []
    for step in steps:
        apart = [a.losses[step] - b.losses[step] for a, b in zip(ours, script, strict=True)]
        if len(apart) < 2:
            found.append((step, apart[0], math.nan, "one pair: no verdict"))
            continue
        mean, allowed = statistics.mean(apart), 2 * statistics.stdev(apart) / math.sqrt(len(apart))
        found.append((step, mean, allowed, "equal" if abs(mean) <= allowed else "DIFFERENT"))
    return found


def scores(fixed: dict[str, list[Heard]], seconds: float) -> str:
    """Scores after a fixed time, with the mean difference's 95 % interval."""
    from scipy.stats import t

    parts = []
    for who, heard in fixed.items():
        steps = statistics.mean(run.steps for run in heard)
        parts.append(f"{who} {statistics.mean(run.bpb for run in heard):.4f} ({steps:,.0f} steps)")
    apart = [a.bpb - b.bpb for a, b in zip(fixed["ours"], fixed["script"], strict=True)]
    mean, count = statistics.mean(apart), len(apart)
    spread = statistics.stdev(apart) / math.sqrt(count) if count > 1 else math.nan
    half = float(t.ppf(0.975, max(count - 1, 1))) * spread
    return (
        f"val_bpb before quantisation after {seconds:g} s of training: {', '.join(parts)}; difference "
        f"**{mean:+.4f}** [{mean - half:+.4f}, {mean + half:+.4f}]."
    )


def flops_per_token(size: Size) -> float:
    """6 P + 12 L (T / 2) d, matrices and the tied head; what is looked up costs nothing."""
    s = size.settings
    d, layers = s["MODEL_DIM"], s["NUM_LAYERS"]
    kv = d * s["NUM_KV_HEADS"] // s["NUM_HEADS"]
    vocabulary = 1024 if size.tokenizer == "sp1024" else 256
    matrices = layers * (2 * d * d + 2 * d * kv + 2 * s["MLP_MULT"] * d * d) + vocabulary * d
    return float(6 * matrices + 12 * layers * s["TRAIN_SEQ_LEN"] / 2 * d)


def table(
    size: Size,
    runs: dict[str, list[Heard]],
    fixed: dict[str, list[Heard]],
    seconds: float,
    counted: dict[str, tuple[float, float]],
) -> str:
    """The page's figures."""
    rows, cost = [], flops_per_token(size) * size.settings["TRAIN_BATCH_TOKENS"]
    for who, heard in runs.items():
        step = statistics.median(time for run in heard for time in run.times)
        used = [f"{cost / step / 1e9 / peak:.3f}" for peak in PEAKS]
        tokens = size.settings["TRAIN_BATCH_TOKENS"] / step * 1e3
        memory = max(run.memory for run in heard)
        rows.append(
            f"| {who} | {step:.2f} | {tokens:,.0f} | {' | '.join(used)} | {memory:,.0f} | {heard[0].parameters:,} | "
            f"{counted[who][0]:,.0f} | {counted[who][1]:.2f} |"
        )
    pairs = zip(runs["ours"], runs["script"], strict=True)
    low = interval([statistics.median(a.times) / statistics.median(b.times) for a, b in pairs])
    lines = [
        "| who | ms a step | tokens/s | MFU of 790 | MFU of 989 | peak MiB | parameters | kernels a step | their ms |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Step time, ours over the script's: **{low[0]:.3f}** [{low[1]:.3f}, {low[2]:.3f}] (aim: at most 0.67).",
        "",
        "| training loss at step | ours | script | mean difference | allowed | |",
        "|---|---|---|---|---|---|",
    ]
    fixed_steps = (size.steps // 3, 2 * size.steps // 3, size.steps)
    for step, apart, allowed, verdict in curves(runs["ours"], runs["script"], fixed_steps):
        means = [statistics.mean(run.losses[step] for run in heard) for heard in runs.values()]
        lines.append(f"| {step} | {means[0]:.4f} | {means[1]:.4f} | {apart:+.4f} | {allowed:.4f} | {verdict} |")
    lines += ["", "With three pairs, equal curves are called different at a step in 18 of 100 cases."]
    if seconds:
        lines += ["", scores(fixed, seconds)]
    return "\n".join(lines) + "\n"


def make_shards(folder: Path) -> tuple[Path, Path]:
    """Shards of the embedded text in pieces and the tokenizer they need: (folder, model file)."""
    from trainer.data import shards
    from trainer.data.dataset import open_dataset

    data = open_dataset("", "sp1024")
    shards.write(folder / "fineweb_train_000000.bin", data.train[:])
    shards.write(folder / "fineweb_val_000000.bin", data.val)
    model = next(data.folder.glob("*.model"))
    shutil.copy(model, folder / model.name)
    return folder, folder / model.name


STAND_IN = """
import os, sys
torch = sys.modules.get("torch")  # where kernels are counted
steps, every = int(os.environ["ITERATIONS"]), int(os.environ["TRAIN_LOG_EVERY"])
print("model_params:{parameters}")
for step in range(1, steps + 1):
    if torch is not None:
        torch.zeros(1).add_(1)
    if step <= 10 or step % every == 0:
        print(f"step:{{step}}/{{steps}} train_loss:{{6 - step / steps:.4f}} train_time:{{20 * step}}ms step_avg:20.00ms")
print(f"step:{{steps}}/{{steps}} val_loss:5.0000 val_bpb:4.0000 train_time:{{20 * steps}}ms step_avg:20.00ms")
print("peak memory allocated: 1000 MiB reserved: 1200 MiB")
"""


def self_test(place: Path) -> tuple[Path, Path, Path]:
    """(script, data, tokenizer) for a run without a GPU."""
    parameters = 256 * 16 + 2 * (16 * 16 * 2 + 16 * 8 * 2 + 2 * 16 * 32 + 2 + 4 * 16) + 16
    script = place / "stand_in.py"
    script.write_text(STAND_IN.format(parameters=parameters))
    data = place / "text"
    data.mkdir()
    words = b"the cat sat on a mat and saw the dog that ran from the rat in the red hat . "
    (data / "train.txt").write_bytes(words * 500)
    (data / "val.txt").write_bytes(words * 10)
    return script, data, place / "none.model"


def main() -> None:
    """Check, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--script", type=Path, help="the contest's train_gpt.py, or one like it")
    parser.add_argument("--data", type=Path, help="folder of contest shards; without: made from the embedded text")
    parser.add_argument("--tokenizer", type=Path, help="the shards' sentencepiece model; without: the one in --data")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=240.0, help="for the score at a fixed time; 0: none")
    parser.add_argument("--self-test", action="store_true", help="a stand-in script on the CPU, tiny")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as named:
        place = Path(named)
        if args.self_test:
            size, seconds = TINY, 0.0
            script, data, tokenizer = self_test(place)
        elif args.script is None:
            parser.error("--script PATH/train_gpt.py is needed, or --self-test")
        else:
            size, seconds, script = CONTEST, args.seconds, args.script.resolve()
            data, tokenizer = (args.data.resolve(), args.tokenizer) if args.data else make_shards(place)
            tokenizer = tokenizer or next(data.glob("*.model"))
        how = {
            "ours": our_log,
            "script": partial(their_log, script=script, tokenizer=tokenizer.resolve()),
        }
        counted = {}
        for who, run in how.items():
            counted[who] = kernels(partial(run, size, data), size)
            print(f"{who}: {counted[who][0]:.0f} kernels a step", flush=True)
        runs: dict[str, list[Heard]] = {"ours": [], "script": []}
        fixed: dict[str, list[Heard]] = {"ours": [], "script": []}
        for number in range(args.pairs):
            seed = {"SEED": (1337, 42, 2025)[number % 3]}
            limits = [(runs, {"ITERATIONS": size.steps, "MAX_WALLCLOCK_SECONDS": 0} | seed)]
            if seconds:
                limits.append((fixed, {"ITERATIONS": 20000, "MAX_WALLCLOCK_SECONDS": seconds} | seed))
            for kept, limit in limits:
                for who in kept:
                    folder = Path(tempfile.mkdtemp(dir=place))
                    if who == "ours":
                        heard = ours(size, data, folder, limit)
                    else:
                        heard = listen(how[who](size, data, folder, limit), size.skipped)
                    check(heard, who)
                    kept[who].append(heard)
                    print(f"{number} {who}: {heard.steps} steps, val_bpb {heard.bpb:.4f}", flush=True)
        counts = {who: heard[0].parameters for who, heard in runs.items()}
        if len(set(counts.values())) > 1:
            raise SystemExit(f"not the same model: {counts} parameters")
        page = f"# GPU: our trainer against the contest's script\n\nMachine: {card()}\n\n"
        args.out.write_text(page + table(size, runs, fixed, seconds, counted))
        print(args.out.read_text())


def card() -> str:
    """The machine and its GPU, without naming it."""
    import torch

    found = describe()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return ", ".join(f"{key} {value}" for key, value in {**found, "gpu": name, "torch": torch.__version__}.items())


if __name__ == "__main__":
    main()
