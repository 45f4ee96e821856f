"""CPU: our trainer against nanoGPT's own train.py, same text, shape, batch and threads, in turns.

Writes results/cpu_side_by_side.md.

    python benchmarks/cpu_side_by_side.py --nanogpt FOLDER [--shapes tiny,4x128,6x384] [--pairs 5] [--compile]

Both programs run as they are, each in its own process; every pair is a run of each. First correctness: both read the same tokens,
losses are finite and fall. Then tokens/s from the time of every step (nanoGPT's own "time" of an iteration; the difference of our
"train_time"), the first steps left out. FOLDER is a checkout of github.com/karpathy/nanoGPT; nothing of it is kept here.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import os
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "cpu_side_by_side.md"
VOCAB = 256
VALIDATED = 16384
"""Bytes of validation text that are scored."""
SKIPPED = 3
"""First steps of a run that are not timed."""


@dataclass(frozen=True)
class Shape:
    """Layers, width, heads, context, sequences a step; steps of a timed run; steps of a round by processor time."""

    layers: int
    width: int
    heads: int
    context: int
    rows: int
    steps: int
    tries: int = 3


SHAPES = {
    "tiny": Shape(2, 128, 4, 128, 16, 30),
    "4x128": Shape(4, 128, 4, 64, 12, 30),
    "6x384": Shape(6, 384, 6, 256, 4, 9),
    "6x384x64": Shape(6, 384, 6, 256, 64, 7, tries=1),
}
"""Our CPU default; nanoGPT's CPU example of its README; its shakespeare_char with 4 sequences a step, and with its own 64."""


@dataclass(frozen=True)
class Timed:
    """One run: milliseconds of each step, training losses, parameters, nats a token on the validation text."""

    steps: list[float]
    losses: list[float]
    parameters: int
    score: float


def environment(threads: int) -> dict[str, str]:
    """The same for both: threads, and waiting threads that sleep instead of spinning."""
    more = {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "1000", "PYTHONPATH": str(ROOT)}
    return os.environ | more


def ours(shape: Shape, steps: int, threads: int, folder: Path, more: dict[str, object]) -> Timed:
    """One run of our trainer; `more`: settings beside the shape."""
    words = [f"{name}={value}" for name, value in (settings(shape, steps, threads, folder) | more).items()]
    subprocess.run(
        [sys.executable, "-m", "trainer", *words], check=True, env=environment(threads), stdout=subprocess.DEVNULL
    )
    rows = [json.loads(line) for line in (folder / "ours" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "train_time_ms" in row]
    times = [row["train_time_ms"] for row in rows]
    result = json.loads((folder / "ours" / "result.json").read_text())
    pairs = itertools.pairwise(times)
    return Timed(
        [after - before for before, after in pairs][SKIPPED:],
        [row["train_loss"] for row in rows],
        result["params"],
        result["prequant"]["val_loss"],
    )


def settings(shape: Shape, steps: int, threads: int, folder: Path) -> dict[str, object]:
    """What our trainer is given for a shape."""
    return {
        "NUM_LAYERS": shape.layers,
        "MODEL_DIM": shape.width,
        "NUM_HEADS": shape.heads,
        "NUM_KV_HEADS": shape.heads,
        "MLP_MULT": 4,
        "TRAIN_SEQ_LEN": shape.context,
        "TRAIN_BATCH_TOKENS": shape.context * shape.rows,
        "ITERATIONS": steps,
        "EVAL_STRIDE": shape.context,
        "TRAIN_LOG_EVERY": 1,
        "DATA_PATH": folder / "data",
        "REFERENCE_SCORES": 0,
        "DEVICE": "cpu",
        "CPU_THREADS": threads,
        "OUT_DIR": folder / "ours",
    }


def theirs(nanogpt: Path, shape: Shape, steps: int, threads: int, folder: Path, compiled: bool) -> Timed:
    """One run of nanoGPT's train.py, unchanged, and the score of the checkpoint that it leaves."""
    settings = {
        "dataset": folder / "data",
        "out_dir": folder / "theirs",
        "device": "cpu",
        "dtype": "float32",
        "compile": compiled,
        "n_layer": shape.layers,
        "n_embd": shape.width,
        "n_head": shape.heads,
        "block_size": shape.context,
        "batch_size": shape.rows,
        "gradient_accumulation_steps": 1,
        "max_iters": steps,
        "lr_decay_iters": steps,
        "warmup_iters": min(100, steps // 10),
        "learning_rate": 1e-3,
        "min_lr": 1e-4,
        "beta2": 0.99,
        "eval_interval": steps,
        "eval_iters": 1,
    }
    words = [f"--{name}={value}" for name, value in settings.items()]
    done = subprocess.run(
        [sys.executable, "train.py", *words],
        check=True,
        cwd=nanogpt,
        env=environment(threads),
        stdout=subprocess.PIPE,
        text=True,
    )
    found = re.findall(r"^iter \d+: loss ([\d.naif]+), time ([\d.]+)ms", done.stdout, re.M)
    times = [float(time) for _, time in found]
    parameters, score = score_checkpoint(nanogpt, folder)
    # The first and the last iteration hold an evaluation.
    return Timed(times[1 + SKIPPED : -1], [float(loss) for loss, _ in found], parameters, score)


def score_checkpoint(nanogpt: Path, folder: Path) -> tuple[int, float]:
    """(parameters, nats a token): the validation text in windows that do not overlap, as our EVAL_STRIDE = context."""
    import numpy as np
    import torch

    module = their_model(nanogpt)
    kept = torch.load(folder / "theirs" / "ckpt.pt", map_location="cpu", weights_only=False)
    model = module.GPT(module.GPTConfig(**kept["model_args"]))
    model.load_state_dict({name.removeprefix("_orig_mod."): value for name, value in kept["model"].items()})
    model.eval()
    context = kept["model_args"]["block_size"]
    stream = np.fromfile(folder / "data" / "val.bin", dtype=np.uint16)
    stream = torch.from_numpy(np.concatenate([np.zeros(1, np.uint16), stream]).astype(np.int64))
    total, count = 0.0, len(stream) - 1
    with torch.inference_mode():
        for start in range(0, count, context):
            piece = stream[start : start + context + 1]
            logits, _ = model(piece[None, :-1], piece[None, 1:])
            total += torch.nn.functional.cross_entropy(logits[0], piece[1:], reduction="sum").item()
    return sum(p.numel() for p in model.parameters()), total / count


def write_data(folder: Path) -> None:
    """The tokens that our trainer reads, as nanoGPT's loader takes them."""
    import numpy as np

    from trainer.data.dataset import open_dataset

    whole = open_dataset("", "bytes")
    target = folder / "data"
    target.mkdir()
    # Speed is what is asked: a short validation text tells whether both learn.
    (target / "train.txt").write_bytes(np.asarray(whole.train[:]).astype(np.uint8).tobytes())
    (target / "val.txt").write_bytes(np.asarray(whole.val[:VALIDATED]).astype(np.uint8).tobytes())
    data = open_dataset(str(target), "bytes")
    np.asarray(data.train[:]).astype("<u2").tofile(target / "train.bin")
    np.asarray(data.val).astype("<u2").tofile(target / "val.bin")
    (target / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": VOCAB}))


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean of the ratios and its 95 % interval by Student's t."""
    from scipy.stats import t

    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.mean(logs)
    if len(logs) < 2:
        return math.exp(middle), float("nan"), float("nan")
    half = float(t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def cell(ratios: list[float]) -> str:
    """Mean and interval as the table shows them."""
    middle, low, high = interval(ratios)
    return f"**{middle:.2f}** [{low:.2f}, {high:.2f}]"


def check(timed: Timed, who: str) -> None:
    """Losses are finite and fall, or the run proves nothing."""
    assert all(map(math.isfinite, [*timed.losses, timed.score])), f"{who}: a loss is not finite"
    third = max(len(timed.losses) // 3, 1)
    first, last = statistics.mean(timed.losses[:third]), statistics.mean(timed.losses[-third:])
    assert last < first, f"{who}: loss {first:.3f} -> {last:.3f} does not fall"


def flops(shape: Shape, parameters: int) -> float:
    """Training FLOPs a token by nanoGPT's own formula, 6 N + 12 L d T, for either model."""
    return 6 * parameters + 12 * shape.layers * shape.width * shape.context


HALLEY: dict[str, object] = {"MUON_COEFFICIENTS": "halley"}
VARIANTS: dict[str, dict[str, object]] = {"Muon": {}, "Muon, Halley": HALLEY, "Adam": {"OPTIMIZER": "adam"}}
"""What trains our matrices; nanoGPT has AdamW."""


def compare(args: argparse.Namespace, name: str) -> list[str]:
    """Rows of the table for one shape, one a variant."""
    shape, rows = SHAPES[name], []
    found: dict[str, list[Timed]] = {"nanoGPT": [], **{variant: [] for variant in VARIANTS}}
    more = {"COMPILE": int(args.compile)}
    for pair in range(args.pairs):
        for who, runs in found.items():
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                write_data(folder)
                if who == "nanoGPT":
                    run = theirs(args.nanogpt, shape, shape.steps, args.threads, folder, args.compile)
                else:
                    run = ours(shape, shape.steps, args.threads, folder, VARIANTS[who] | more)
            check(run, who)
            runs.append(run)
            print(f"{name} pair {pair} {who}: {statistics.median(run.steps):.1f} ms, val {run.score:.3f}", flush=True)
    base = found.pop("nanoGPT")
    eager, traced = by_processor(args, name, False), by_processor(args, name, True)
    processor = {
        who: f"{cell(eager[who].ratios)} | {cell(traced[who].ratios)} | {traced[who].warm:.0f} / {traced['nanoGPT'].warm:.0f}"
        for who in VARIANTS
    }
    if not args.pairs:
        return [f"| {name} | {who} | - | - | - | {cells} | - | - | - | - |" for who, cells in processor.items()]
    tokens = shape.context * shape.rows
    step = statistics.median(time for run in base for time in run.steps)
    for variant, runs in found.items():
        ratios = [statistics.median(b.steps) / statistics.median(a.steps) for a, b in zip(runs, base, strict=True)]
        own = statistics.median(time for run in runs for time in run.steps)
        cells = [
            name + (" compiled" if args.compile else ""),
            variant,
            f"{tokens / own * 1e3:,.0f}",
            f"{tokens / step * 1e3:,.0f}",
            cell(ratios),
            processor[variant],
            f"{runs[0].parameters:,} / {base[0].parameters:,}",
            f"{flops(shape, runs[0].parameters) / 1e6:.1f} / {flops(shape, base[0].parameters) / 1e6:.1f}",
            f"{statistics.mean(r.score for r in runs):.3f} / {statistics.mean(r.score for r in base):.3f}",
            wallclock(args, shape, variant, own, step),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


@dataclass(frozen=True)
class Spent:
    """Ratios, one a round, of processor time of nanoGPT's step over one's own; seconds until the first step was done."""

    ratios: list[float]
    warm: float


def by_processor(args: argparse.Namespace, name: str, compiled: bool) -> dict[str, Spent]:
    """What steps of our variants and of nanoGPT cost on one thread; both eager, or both through torch.compile.

    All step in turns in this process, each with its own model, loader and optimiser: a shared machine's other work does not
    count, and who waits for memory beside it is drawn alike. nanoGPT's step is that of its train.py.
    """
    import numpy as np
    import torch

    from trainer.data.dataset import open_dataset
    from trainer.dist import keep_freed_memory
    from trainer.optim.groups import ALONE

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    shape, data = SHAPES[name], open_dataset("", "bytes")
    text = torch.from_numpy(np.asarray(data.train[:]).astype(np.int64))
    with tempfile.TemporaryDirectory() as place, caches_of_their_own():
        given = settings(shape, 1 << 30, 1, Path(place)) | {"COMPILE": int(compiled)}
        makers: dict[str, Callable[[], Callable[[], None]]] = {
            who: partial(our_step, given | more, data, ALONE, Path(place)) for who, more in VARIANTS.items()
        }
        makers["nanoGPT"] = partial(their_step, args.nanogpt, shape, text, compiled)
        steps, warm = {}, {}
        for who, make in makers.items():
            start = time.perf_counter()
            steps[who] = make()
            steps[who]()
            warm[who] = time.perf_counter() - start
        taken: dict[str, list[float]] = {who: [] for who in steps}
        for _ in range(1 + args.rounds):  # the first warms up
            for who, step in steps.items():
                taken[who].append(min(spent(step) for _ in range(shape.tries)))
    base = taken["nanoGPT"][1:]
    kind = "compiled" if compiled else "eager"
    for who, times in taken.items():
        print(f"{name} {kind} {who}: {min(times[1:]) * 1e3:.1f} ms of processor time at best", flush=True)
    return {
        who: Spent([theirs / own for own, theirs in zip(times[1:], base, strict=True)], warm[who])
        for who, times in taken.items()
    }


@contextmanager
def caches_of_their_own() -> Iterator[None]:
    """Nothing that was compiled before is found again, or the seconds would mean nothing."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory() as place:
        os.environ[name] = place
        yield
    os.environ.pop(name)
    if before is not None:
        os.environ[name] = before


def spent(step: Callable[[], object]) -> float:
    """Seconds of processor time of one step."""
    before = time.process_time()
    step()
    return time.process_time() - before


def our_step(values: dict[str, object], data: Any, group: Any, folder: Path) -> Callable[[], None]:
    """One step of our loop after another: batch, gradients, update, the loss read."""
    from trainer.config import from_values
    from trainer.metrics import Metrics
    from trainer.train import Run

    config = from_values({name: str(value) for name, value in values.items()} | {"DATA_PATH": ""})
    going, at = Run(config, data, group, Metrics(folder, 1)), itertools.count()
    if config.compile:
        going.compile()

    def step() -> None:
        loss = going.gradients(next(at), going.config.train_seq_len)
        going.optimizers.step(scale=1.0, momentum=0.95)
        loss.item()

    return step


def their_step(nanogpt: Path, shape: Shape, text: Any, compiled: bool) -> Callable[[], None]:
    """One step of nanoGPT's train.py after another, on its own model and optimiser: the next batch is drawn after the forward."""
    import torch

    module = their_model(nanogpt)
    model = module.GPT(
        module.GPTConfig(
            block_size=shape.context,
            vocab_size=VOCAB,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_embd=shape.width,
            dropout=0.0,
            bias=False,
        )
    )
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    forward = torch.compile(model) if compiled else model

    def draw() -> tuple[Any, Any]:
        places = torch.randint(len(text) - shape.context, (shape.rows,))
        first, second = (torch.stack([text[at + k : at + k + shape.context] for at in places]) for k in (0, 1))
        return first, second

    batch = draw()

    def step() -> None:
        nonlocal batch
        _, loss = forward(*batch)
        batch = draw()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def their_model(nanogpt: Path) -> Any:
    """nanoGPT's model.py as a module."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", nanogpt / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    return module


def wallclock(args: argparse.Namespace, shape: Shape, variant: str, own: float, step: float) -> str:
    """Validation loss of both after `--seconds` of training each, by steps of the median length."""
    if not args.seconds or shape.tries == 1:
        return "-"
    scores = []
    for who, length in ((variant, own), ("nanoGPT", step)):
        steps = max(int(args.seconds * 1e3 / length), 10)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write_data(folder)
            if who == "nanoGPT":
                scores.append(theirs(args.nanogpt, shape, steps, args.threads, folder, False).score)
            else:
                scores.append(ours(shape, steps, args.threads, folder, VARIANTS[who]).score)
    return f"{scores[0]:.3f} / {scores[1]:.3f}"


HEAD = """\
# CPU: our trainer against nanoGPT

`python benchmarks/cpu_side_by_side.py --nanogpt FOLDER`, {threads} threads. Ratio: {pairs} rounds of runs in turns by the clock
(0: dashes), medians of steps, geometric mean over the rounds of nanoGPT's step time over ours, with its 95 % interval (above 1:
we are faster). By processor time: the same from {rounds} rounds of steps in turns within one process and one thread, the fastest
of 3 steps in a round (6x384x64: one step); other work on the machine does not count there. Both eager, or both compiled:
torch.compile is nanoGPT's own default, `COMPILE=1` ours. Seconds: until the first step was done, compiled, ours / theirs; later
ones of our variants find most of their code compiled by the first.
Machine: {machine}.

Three columns hold ours / theirs: parameters, MFLOP a token, and validation loss in nats a token, after the timed steps and after
{seconds:g} s of training.

| shape | our matrices by | our tokens/s | theirs | ratio | processor time, both eager | both compiled | seconds \
| parameters | MFLOP | loss, steps | loss, time |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""
TAIL = """
Same for both: layers, width, heads, MLP ratio 4, vocabulary of 256 bytes, context, sequences a step, text, float32, threads,
waiting threads that sleep. Different: nanoGPT has learned positions, LayerNorm, GELU and AdamW over everything; ours has rotary
positions, normed queries and keys, RMS norms, relu^2, a learned mix with the embedding in every block, skips, a softcap, and Muon
for matrices (Halley: `MUON_COEFFICIENTS=halley`; Adam: `OPTIMIZER=adam`). Rates are each one's own: losses say that both learn,
not which is tuned better.

Shapes: tiny: our CPU default, 4x128: nanoGPT's CPU example, 6x384: its shakespeare_char with 4 sequences, 6x384x64: its own 64.
"""


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, help="folder with nanoGPT's train.py and model.py")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS], help="of ours")
    parser.add_argument("--pairs", type=int, default=5, help="of runs by the clock; 0: processor time alone")
    parser.add_argument("--rounds", type=int, default=10, help="of steps by processor time")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=10.0, help="of training for losses at fixed time; 0: none")
    parser.add_argument("--compile", action="store_true", help="torch.compile both")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    rows: list[str] = []
    for name in VARIANTS.keys() - set(args.variants):
        del VARIANTS[name]
    machine = ", ".join(f"{key} {value}" for key, value in describe().items())
    head = HEAD.format(
        pairs=args.pairs, rounds=args.rounds, threads=args.threads, machine=machine, seconds=args.seconds
    )
    for name in args.shapes.split(","):
        rows += compare(args, name)
        args.out.write_text(head + "\n".join(rows) + "\n" + TAIL)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
