"""Logistic regression by stochastic gradient descent on four noisy features; the standard library only.

Driven by the environment. It keeps books of its own in a folder beside the host's ROOT (faultlab.py): a line for each start, and
every byte of its log a second time. While hold-<name of ROOT> lies there, it waits at half time and goes on writing.
"""

import json
import math
import os
import random
import time
from pathlib import Path

OUT = Path(os.environ.get("OUT_DIR", ".")).resolve()
SEED = int(os.environ.get("SEED", "1337"))
ITERATIONS = int(os.environ.get("ITERATIONS", "20"))
RATE = float(os.environ.get("RATE", "0.001"))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0.03"))
ARTIFACT_KB = int(os.environ.get("ARTIFACT_KB", "64"))
NAN_AT = int(os.environ.get("NAN_AT", "-1"))
HANG_AT = int(os.environ.get("HANG_AT", "-1"))
SIDE = OUT.parents[2] / "side"
HOLD = SIDE / f"hold-{OUT.parents[1].name}"
BOOK = os.open(SIDE / f"{OUT.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def say(text):
    content = text.encode() + b"\n"
    while content:
        written = os.write(1, content)
        os.write(BOOK, content[:written])
        content = content[written:]


def examples(draw, count):
    for _ in range(count):
        x = [draw.gauss(0, 1) for _ in range(4)]
        yield x, x[0] - 0.7 * x[1] + 0.4 * x[2] + draw.gauss(0, 1) > 0


def loss(weights, data):
    total = 0.0
    for x, y in data:
        margin = sum(w * v for w, v in zip(weights, x)) * (1 if y else -1)
        total += math.log1p(math.exp(-margin))
    return total / len(data)


def main():
    with (SIDE / "starts").open("a") as starts:
        starts.write(f"{OUT.name}\n")
    validation = list(examples(random.Random(0), 200))
    draw, weights, began = random.Random(SEED), [0.0] * 4, time.perf_counter()
    for step in range(1, ITERATIONS + 1):
        for x, y in examples(draw, 60):
            gap = (1.0 if y else 0.0) - 1 / (1 + math.exp(-sum(w * v for w, v in zip(weights, x))))
            weights = [w + RATE * gap * v for w, v in zip(weights, x)]
        time.sleep(STEP_SECONDS)
        spent = (time.perf_counter() - began) * 1000
        shown = "nan" if step == NAN_AT else f"{loss(weights, validation):.4f}"
        say(f"step:{step}/{ITERATIONS} train_loss:{shown} train_time:{spent:.0f}ms step_avg:{spent / step:.2f}ms")
        held = 0
        while step == HANG_AT or (step == ITERATIONS // 2 and HOLD.exists()):
            held += 1
            say(f"held:{held}")
            time.sleep(0.03)
    content = json.dumps(weights).encode()
    (OUT / "model.json").write_bytes(content + random.Random(SEED).randbytes(1024 * ARTIFACT_KB))
    final = loss(weights, validation)
    say(f"final_exact val_loss:{final:.8f} val_bpb:{final / math.log(2):.8f}")


if __name__ == "__main__":
    main()
