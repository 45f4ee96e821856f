"""A contest-style script: everything from the environment, gradients accumulated to eight parts, a packed int8 model at the end.

A softmax over the next byte given the last one, trained by momentum SGD on part of pydoc's topics; numpy, and torch.distributed
only with several processes. LOG_FAMILY picks the older or the newer form of log.
"""

import io
import math
import os
import sys
import time
import zlib
from pydoc_data import topics

import numpy as np


class Hyperparameters:
    seed = int(os.environ.get("SEED", 1337))
    iterations = int(os.environ.get("ITERATIONS", 40))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
    train_log_every = int(os.environ.get("TRAIN_LOG_EVERY", 10))
    batch_bytes = int(os.environ.get("TRAIN_BATCH_BYTES", 4096))
    matrix_lr = float(os.environ.get("MATRIX_LR", 2.0))
    momentum = float(os.environ.get("MOMENTUM", 0.9))
    unigram_start = bool(int(os.environ.get("UNIGRAM_START", "0")))
    log_family = os.environ.get("LOG_FAMILY", "baseline")


def load():
    text = "\n".join(topics.topics[key] for key in sorted(topics.topics)[:60]).encode()
    data = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
    cut = len(data) * 9 // 10
    return data[:cut], data[cut:]


def loss_and_gradient(weights, before, after):
    logits = weights[before]
    logits = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(after))
    loss = -np.log(p[rows, after] + 1e-12).mean()
    p[rows, after] -= 1.0
    gradient = np.zeros_like(weights)
    np.add.at(gradient, before, p / len(after))
    return loss, gradient


def evaluate(weights, data):
    loss, _ = loss_and_gradient(weights, data[:-1], data[1:])
    return float(loss), float(loss / math.log(2))


def quantize(weights):
    scale = np.abs(weights).max(axis=1, keepdims=True) / 127 + 1e-12
    return np.round(weights / scale).astype(np.int8), scale.astype(np.float32)


def main():
    args = Hyperparameters()
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if 8 % world_size:
        sys.exit(f"WORLD_SIZE={world_size} must divide 8")
    grad_accum_steps = 8 // world_size
    dist = None
    if world_size > 1:
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo")

    def log0(text):
        if rank == 0:
            print(text, flush=True)

    minutes = args.log_family == "minutes"
    train, val = load()
    draw = np.random.default_rng(args.seed * 1000 + rank)
    weights = np.random.default_rng(args.seed).normal(0.0, 0.5, (256, 256))
    if args.unigram_start:
        weights[:] = np.log(np.bincount(train, minlength=256) + 1.0)
    velocity = np.zeros_like(weights)
    log0(f"model_params:{weights.size}")
    log0(f"world_size:{world_size} grad_accum_steps:{grad_accum_steps}")
    log0(f"seed:{args.seed}")
    began, step = time.perf_counter(), 0
    for step in range(1, args.iterations + 1):
        total, gradient = 0.0, np.zeros_like(weights)
        for _ in range(grad_accum_steps):
            at = draw.integers(0, len(train) - 1, args.batch_bytes // 8)
            loss, part = loss_and_gradient(weights, train[at], train[at + 1])
            total, gradient = total + loss / grad_accum_steps, gradient + part / grad_accum_steps
        if dist is not None:
            shared = torch.from_numpy(gradient)
            dist.all_reduce(shared)
            gradient = shared.numpy() / world_size
        velocity = args.momentum * velocity + gradient
        weights -= args.matrix_lr * velocity
        ms = 1000.0 * (time.perf_counter() - began)
        if step <= 5 or step % args.train_log_every == 0 or step == args.iterations:
            if minutes:
                speed = step * args.batch_bytes / (ms / 1000)
                log0(
                    f"{step}/{args.iterations} train_loss: {total:.4f} train_time: {ms / 60000:.1f}m tok/s: {speed:.0f}"
                )
            else:
                log0(
                    f"step:{step}/{args.iterations} train_loss:{total:.4f} train_time:{ms:.0f}ms step_avg:{ms / step:.2f}ms"
                )
        if ms > 1000.0 * args.max_wallclock_seconds:
            log0(f"stopping_early: wallclock_cap train_time:{ms:.0f}ms step:{step}/{args.iterations}")
            break
    ms = 1000.0 * (time.perf_counter() - began)
    loss, bpb = evaluate(weights, val)
    if minutes:
        log0(f"{step}/{args.iterations} val_loss: {loss:.4f} val_bpb: {bpb:.4f}")
        log0(f"pre-quantization post-ema val_loss:{loss:.8f} val_bpb:{bpb:.8f} eval_time:1ms")
    else:
        log0(
            f"step:{step}/{args.iterations} val_loss:{loss:.4f} val_bpb:{bpb:.4f} train_time:{ms:.0f}ms step_avg:{ms / step:.2f}ms"
        )
        log0(f"DIAGNOSTIC post_ema val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:1ms")
    if rank == 0:
        finish(weights, val, minutes)
    if dist is not None:
        dist.destroy_process_group()


def finish(weights, val, minutes):
    """Pack, write, read back, score."""
    codes, scale = quantize(weights)
    packed = io.BytesIO()
    np.savez(packed, codes=codes, scale=scale)
    with open("final_model.int8.ptz", "wb") as file:
        file.write(zlib.compress(packed.getvalue(), 9))
    size, code = os.path.getsize("final_model.int8.ptz"), os.path.getsize(__file__)
    how = "quantized+zlib" if minutes else "int8+zlib"
    print(f"Code size: {code} bytes")
    print(f"Serialized model {how}: {size} bytes")
    print(f"Total submission size {how}: {size + code} bytes")
    with open("final_model.int8.ptz", "rb") as file:
        stored = np.load(io.BytesIO(zlib.decompress(file.read())))
    began = time.perf_counter()
    loss, bpb = evaluate(stored["codes"] * stored["scale"], val)
    took = 1000.0 * (time.perf_counter() - began)
    if minutes:
        print(f"quantized val_loss:{loss:.8f} val_bpb:{bpb:.8f} eval_time:{took:.0f}ms", flush=True)
    else:
        print(f"final_int8_zlib_roundtrip val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:{took:.0f}ms")
        print(f"final_int8_zlib_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}", flush=True)


if __name__ == "__main__":
    main()
