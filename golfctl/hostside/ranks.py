"""One process of the speed probe: it owns one GPU, or is one of two processes on the CPU. Needs torch; started by speed.py.

It prints lines of JSON and obeys lines on stdin: `local` measures its own device, `together FILE` joins the group that meets
at that file and measures the all-reduce; the end of stdin ends it. Errors are lines, too: {"error": what}.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from golfctl.hostside.files import one_line

GPU_SIDE, CPU_SIDE = 8192, 1024
"""Rows and columns of the matrices multiplied: bf16 on a GPU, fp32 on a CPU."""
GPU_COPY_BYTES, CPU_COPY_BYTES, HOST_COPY_BYTES = 1 << 30, 64 << 20, 256 << 20
GPU_REDUCE_BYTES, CPU_REDUCE_BYTES = 512 << 20, 8 << 20
WARM_S, MEASURE_S, REPEATS = 0.3, 0.6, 25
"""Seconds of warm-up and of measuring for each figure, and repeats at most."""
MARK = "golfctl-speed "


def summary(values: list[float]) -> dict[str, Any]:
    """Median, spread (interquartile range over median) and number of repeats."""
    middle = statistics.median(values)
    quarters = statistics.quantiles(values, n=4) if len(values) > 1 else [middle] * 3
    return {"value": middle, "spread": (quarters[2] - quarters[0]) / middle if middle else 0.0, "repeats": len(values)}


def repeat(
    once: Callable[[], float], work: float, warm_s: float = WARM_S, measure_s: float = MEASURE_S
) -> dict[str, Any]:
    """`once` takes a measurement and returns its seconds; the figures are work / seconds. At least 3 repeats."""
    end = time.monotonic() + warm_s
    once()
    while time.monotonic() < end:
        once()
    values: list[float] = []
    end = time.monotonic() + measure_s
    while len(values) < 3 or (time.monotonic() < end and len(values) < REPEATS):
        values.append(work / once())
    return summary(values)


def main(rank_word: str, world_word: str, kind: str) -> None:
    """Entry of the process: its rank, the number of ranks, "cuda" or "cpu"."""
    rank, world = int(rank_word), int(world_word)
    try:
        _serve(rank, world, kind)
    except Exception as error:  # whatever torch raises is told in one line
        _tell({"error": one_line(f"{type(error).__name__}: {error}")})
    finally:
        sys.stdout.flush()
        os._exit(0)  # destructors of a broken process group may hang


def _tell(content: dict[str, Any]) -> None:
    print(MARK + json.dumps(content), flush=True)


def _serve(rank: int, world: int, kind: str) -> None:
    torch = importlib.import_module("torch")
    seen = torch.cuda.device_count() if kind == "cuda" and torch.cuda.is_available() else 0
    _tell({"ready": True, "torch": str(torch.__version__), "gpus": seen})
    if kind == "cuda":
        torch.cuda.set_device(rank)
    for line in sys.stdin:
        word, _, meeting = line.rstrip("\n").partition(" ")
        if word == "local":
            _local(torch, rank, kind)
        elif word == "together":
            _together(torch, rank, world, kind, meeting)
        _tell({"done": word})


def _timer(torch: Any, kind: str, work: Callable[[], Any], times: int) -> Callable[[], float]:
    """A function that does `work` so often and returns the seconds of one, measured on the device."""

    def on_gpu() -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(times):
            work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / times

    def on_cpu() -> float:
        begin = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - begin) / times

    return on_gpu if kind == "cuda" else on_cpu


def _local(torch: Any, rank: int, kind: str) -> None:
    """Matmul, memory bandwidth, and on a GPU the copy from the host's pinned memory."""
    device = torch.device("cuda", rank) if kind == "cuda" else torch.device("cpu")
    _matmul(torch, device)
    _copy(torch, device)
    if kind == "cuda":
        _upload(torch, device)
        torch.cuda.empty_cache()


def _matmul(torch: Any, device: Any) -> None:
    gpu = device.type == "cuda"
    side, dtype = (GPU_SIDE, torch.bfloat16) if gpu else (CPU_SIDE, torch.float32)
    # Random numbers, not zeros: a GPU draws less power on zeros and clocks higher than it would in training.
    a, b, out = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(3))
    once = _timer(torch, device.type, lambda: torch.mm(a, b, out=out), 10 if gpu else 1)
    method = f"{str(dtype)[6:]} {side}^3" + ("" if gpu else f", {torch.get_num_threads()} threads")
    _tell({"figure": "matmul_tflops", "method": method, **repeat(once, 2 * side**3 / 1e12)})


def _copy(torch: Any, device: Any) -> None:
    gpu = device.type == "cuda"
    size = GPU_COPY_BYTES if gpu else CPU_COPY_BYTES
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    once = _timer(torch, device.type, lambda: target.copy_(source), 10 if gpu else 1)
    method = f"copy of {size >> 20} MiB, read + write" + ("" if gpu else f", {torch.get_num_threads()} threads")
    _tell({"figure": "memory_gb_s", "method": method, **repeat(once, 2 * size / 1e9)})


def _upload(torch: Any, device: Any) -> None:
    host = torch.ones(HOST_COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(HOST_COPY_BYTES, dtype=torch.uint8, device=device)
    once = _timer(torch, device.type, lambda: target.copy_(host, non_blocking=True), 2)
    method = f"pinned copy of {HOST_COPY_BYTES >> 20} MiB, all GPUs at once"
    _tell({"figure": "host_to_device_gb_s", "method": method, **repeat(once, HOST_COPY_BYTES / 1e9)})


def _together(torch: Any, rank: int, world: int, kind: str, meeting: str) -> None:
    """All-reduce; the bus bandwidth is bytes/seconds x 2(n-1)/n, as the NCCL tests define it."""
    # One machine only: the loopback interface serves whatever its name resolution and network cards are like.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    gpu = kind == "cuda"
    distributed = importlib.import_module("torch.distributed")
    backend = "nccl" if gpu else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=world)
    size = GPU_REDUCE_BYTES if gpu else CPU_REDUCE_BYTES
    device = torch.device("cuda", rank) if gpu else torch.device("cpu")
    dtype = torch.bfloat16 if gpu else torch.float32
    tensor = torch.zeros(size // (2 if gpu else 4), dtype=dtype, device=device)
    once = _timer(torch, kind, lambda: distributed.all_reduce(tensor), 5 if gpu else 1)
    # A fixed number of repeats: ranks that went by their own clocks would not agree on the last one.
    for _ in range(3):
        once()
    values = [size / 1e9 * 2 * (world - 1) / world / once() for _ in range(15 if gpu else 11)]
    method = f"{backend}, {world} ranks, {size >> 20} MiB"
    _tell({"figure": "all_reduce_gb_s", "method": method, **summary(values)})
