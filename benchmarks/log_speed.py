"""How fast logs are read, and in how much memory: python benchmarks/log_speed.py [--mib 1024] [LOGS...]

Two logs are written to a temporary folder: one whose lines are all progress, and one where that is one line in a hundred among
warnings, tables and prose. Each is read in a process of its own; LOGS are read together in another, after start-up.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe


def progress(step: int) -> str:
    return f"step:{step}/20000000 train_loss:{3 + (step * 7919 % 1000) / 1000:.4f} train_time:{step * 43}ms step_avg:43.54ms\n"


def noise(rng: random.Random) -> list[str]:
    words = [
        "the",
        "of",
        "rank",
        "kernel",
        "warning",
        "tensor",
        "shard",
        "cache",
        "compile",
        "graph",
        "stream",
        "device",
        "loaded",
        "at",
        "in",
        "value",
        "layer",
        "norm",
    ]
    lines = [
        f"[rank{rng.randrange(8)}]:[W318 14:38:18.{rng.randrange(10**9)} Utils.hpp:112] Warning: NCCL_{n} is deprecated\n"
        for n in range(300)
    ]
    lines += [
        f"|   {n}  NVIDIA H100 80GB HBM3   On  |   00000000:{n:02X}:00.0 Off |            0 |\n" for n in range(100)
    ]
    lines += [f"ttt_chunk [{n}/1893] bpb={1 + n / 9000:.6f} time={n / 3:.1f}s\n" for n in range(200)]
    lines += [" ".join(rng.choices(words, k=rng.randrange(3, 16))) + "\n" for _ in range(600)]
    return lines


def write(path: Path, size: int, every: int) -> None:
    rng, step, written = random.Random(0), 0, 0
    lines = noise(rng)
    with path.open("w") as file:
        while written < size:
            block = "".join(
                progress(step + n // every) if n % every == 0 else rng.choice(lines) for n in range(20 * every)
            )
            step += 20
            written += file.write(block)


CHILD = """
import json, resource, sys, time
from pathlib import Path
from golfctl.logs import read_file
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began, worked = time.perf_counter(), time.process_time()
points = sum(len(run.train) + len(run.val) for path in sys.argv[1:] for run in read_file(Path(path)).runs)
seconds, cpu = time.perf_counter() - began, time.process_time() - worked
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "cpu": cpu, "points": points, "mib": (peak - before) / 1024, "start_mib": before / 1024}))
"""


def read(*paths: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", CHILD, *map(str, paths)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("logs", nargs="*", type=Path)
    parser.add_argument("--mib", type=int, default=1024)
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        for name, every in (("one line in a hundred", 100), ("every line", 1)):
            path = Path(folder) / "run.log"
            write(path, options.mib << 20, every)
            found = min((read(path) for _ in range(3)), key=lambda item: item["seconds"])
            size = path.stat().st_size
            kept = found["points"] * 40 / 2**20  # five columns of eight bytes
            print(
                f"{name:<22} {size / 2**20:,.0f} MiB in {found['seconds']:.2f} s: {size / 1e6 / found['seconds']:.0f} MB/s "
                f"({size / 1e6 / found['cpu']:.0f} MB per second of the processor), "
                f"{found['points']:,.0f} points, {found['mib']:.0f} MiB more memory, {found['mib'] - kept:.0f} beyond the points"
            )
    if options.logs:
        found = min((read(*options.logs) for _ in range(3)), key=lambda item: item["seconds"])
        size = sum(path.stat().st_size for path in options.logs)
        print(f"{len(options.logs)} logs, {size / 1e6:.2f} MB, in {found['seconds']:.2f} s")


if __name__ == "__main__":
    main()
