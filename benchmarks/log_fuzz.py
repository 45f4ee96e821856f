"""Reads a million damaged logs: no exception, no hang, nothing that can't be printed, and the same twice.

    python benchmarks/log_fuzz.py [--inputs 1000000] [--seed 0] [--processes 2] [LOGS...]

Inputs are pieces of logs (LOGS, or lines written here in the forms of every family) that were cut, spliced, repeated, shuffled
and recoded.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

from golfctl.logs import progress, read_bytes
from golfctl.logs.asjson import describe
from golfctl.logs.endings import OUTCOMES

SLOW_S = 2.0
FORMS = [
    "seed:{n}",
    "model_params:{n}",
    "world_size:{n} grad_accum_steps:{n}",
    "train_batch_tokens:{n} train_seq_len:{n} iterations:{n} warmup_steps:{n} max_wallclock_seconds:{f}",
    "  iterations: {n}",
    "step:{n}/{n} train_loss:{f} train_time:{n}ms step_avg:{f}ms",
    "step:{n}/{n} val_loss:{f} val_bpb:{f} train_time:{n}ms step_avg:nanms",
    "{n}/{n} train_loss: {f} train_time: {f}m tok/s: {n}",
    "{n}/{n} val_loss: {f} val_bpb: {f}",
    "step:{n}/{n} loss:{f} t:{n}ms avg:{f}ms",
    "step {n}/{n} ({f}%) | loss: {f} | lrm: {f} | dt: {f}ms | tok/sec: {n} | mfu: {f} | total time: {f}m",
    "iter {n}: loss {f}, time {f}ms, mfu {f}%",
    "params:{n} L:{n} d:{n} h:{n} kv:{n} ws:{n} ga:{n} s:{n}",
    "final_int6_sliding_window_exact val_loss:{f} val_bpb:{f}",
    "final_sliding val_loss:{f} val_bpb:{f} (stride=16, T=0.90) eval_time:{n}ms",
    "stopping_early: wallclock_cap train_time:{n}ms step:{n}/{n}",
    "peak memory allocated: {n} MiB reserved: {n} MiB",
    "Serialized model int8+zlib: {n} bytes (payload:{n} raw_torch:{n} payload_ratio:3.91x)",
    "Code size: {n} bytes",
    "Total submission size int8+zlib: {n} bytes",
    "budget:{n}/16000000 (16.00/16.00MB) FITS",
    "artifact:15.92MB ternary:{n}({n}B) fp:{n}({n}B) code:{n}",
    "total_eval_time:{f}s",
    "Traceback (most recent call last):",
    "torch.OutOfMemoryError: CUDA out of memory.",
    "import torch",
    "def main() -> None:",
    '    log0(f"step:{step}")',
    "=" * 100,
    "Running Python 3.12.4",
    "Killed",
    "val_bpb:   {f}",
]


def line(rng: random.Random) -> bytes:
    text = rng.choice(FORMS)
    while "{n}" in text or "{f}" in text:
        number = str(rng.choice([0, 1, rng.randrange(100), rng.randrange(10**6), 10 ** rng.randrange(20)]))
        text = text.replace("{n}", number, 1)
        text = text.replace(
            "{f}", rng.choice(["nan", "inf", "-1.5", f"{rng.random() * 9:.4f}", f"{rng.random():.8f}"]), 1
        )
    prefix = rng.choice(["", "", "", "", "1776142719.400 ", "[rank3]: ", "run_a: ", "2026-03-18 14:38:12,345 INFO "])
    return (prefix + text).encode()


def piece(rng: random.Random, logs: list[list[bytes]]) -> list[bytes]:
    if logs and rng.random() < 0.6:
        lines = rng.choice(logs)
        start = rng.randrange(len(lines))
        return lines[start : start + rng.randrange(1, 14)]
    return [line(rng) for _ in range(rng.randrange(1, 12))]


def damage(rng: random.Random, content: bytes) -> bytes:
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(content) + 1)
        kind = rng.randrange(9)
        if kind == 0:
            content = content[:at]
        elif kind == 1:
            content = content[at:]
        elif kind == 2:
            content = content[:at] + rng.randbytes(rng.randrange(1, 6)) + content[at:]
        elif kind == 3:
            content = content[:at] + content[at + rng.randrange(1, 9) :]
        elif kind == 4:
            content = content[:at] + content[max(0, at - rng.randrange(200)) :]
        elif kind == 5:
            content = content.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b""]))
        elif kind == 6:
            content = content[:at] + b"\x1b[31m" + content[at:]
        elif kind == 7:
            content = content.decode("utf-8", "replace").encode(
                rng.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
            )
        else:
            content = (
                content[:at]
                + rng.choice([b"9" * 500, b"\0" * 9, b"step:", b" val_loss:nan", b"\xff\xfe"])
                + content[at:]
            )
    return content


def check(content: bytes) -> str:
    """The outcome; raises AssertionError or whatever the reader raises."""
    began = time.process_time()
    found = describe(read_bytes(content), explain=True)
    text = json.dumps(found, allow_nan=False)
    assert time.process_time() - began < SLOW_S, "slow"
    assert found["outcome"] in {*OUTCOMES, None}
    assert all(number > 0 for number in found["lines"].values())
    assert json.dumps(describe(read_bytes(content), explain=True), allow_nan=False) == text
    progress(content[:300].decode("latin-1"))
    return str(found["outcome"])


def work(job: tuple[int, int, list[Path]]) -> tuple[Counter[str], list[str]]:
    seed, count, paths = job
    rng, seen, failures = random.Random(seed), Counter[str](), []
    logs = [path.read_bytes().splitlines() for path in paths]
    for _ in range(count):
        content = damage(rng, b"\n".join(line for _ in range(rng.randrange(1, 4)) for line in piece(rng, logs)) + b"\n")
        try:
            seen[check(content)] += 1
        except Exception as error:
            failures.append(f"{error!r} {content[:2000]!r}")
    return seen, failures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("logs", nargs="*", type=Path)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    size = 5000
    jobs = [(options.seed * 10**6 + n, size, options.logs) for n in range(-(-options.inputs // size))]
    seen, failures, began = Counter[str](), [], time.monotonic()
    with multiprocessing.Pool(options.processes) as pool:
        for found, wrong in pool.imap_unordered(work, jobs):
            seen += found
            failures += wrong
    print(
        f"{len(jobs) * size:,} inputs, each read twice, in {time.monotonic() - began:.0f} s: {len(failures)} failures"
    )
    print("outcomes:", dict(seen.most_common()))
    for failure in failures[:10]:
        print(failure)
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
