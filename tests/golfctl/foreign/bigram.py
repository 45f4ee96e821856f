"""A foreign single-file training script, as golfctl meets them: settings from the environment, a log, an artifact.

It trains a byte bigram model on part of pydoc's topics by stochastic counting; real scores, standard library only, a second or two.
"""

import json
import math
import os
import random
import sys
import time
from pathlib import Path
from pydoc_data import topics

SEED = int(os.environ.get("SEED", "1337"))
ITERATIONS = int(os.environ.get("ITERATIONS", "20"))
SMOOTHING = float(os.environ.get("SMOOTHING", "0.5"))
LINES_PER_STEP = int(os.environ.get("LINES_PER_STEP", "40"))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0.01"))
CRASH_AT = int(os.environ.get("CRASH_AT", "-1"))
OUT_DIR = Path(os.environ.get("OUT_DIR", "."))


def main():
    lines = "\n".join(topics.topics[key] for key in sorted(topics.topics)[:40]).splitlines(keepends=True)
    validation, training = lines[::10], [line for number, line in enumerate(lines) if number % 10]
    draw = random.Random(SEED)
    counts = [[0] * 256 for _ in range(256)]
    print(f"seed:{SEED}", flush=True)
    spent = 0.0
    for step in range(1, ITERATIONS + 1):
        began = time.perf_counter()
        seen = 0
        for _ in range(LINES_PER_STEP):
            data = draw.choice(training).encode()
            for before, after in zip(b"\n" + data, data):
                counts[before][after] += 1
                seen += 1
        time.sleep(STEP_SECONDS)
        spent += (time.perf_counter() - began) * 1000
        if step == CRASH_AT:
            sys.exit("asked to crash")
        print(
            f"step:{step}/{ITERATIONS} train_loss:{score(counts, validation)[0]:.4f} train_time:{spent:.0f}ms "
            f"step_avg:{spent / step:.2f}ms",
            flush=True,
        )
    loss, bpb = score(counts, validation)
    (OUT_DIR / "model.json").write_text(json.dumps(counts))
    print(f"final_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}", flush=True)


def score(counts, validation):
    nats = bytes_seen = 0
    for line in validation[:60]:
        data = line.encode()
        for before, after in zip(b"\n" + data, data):
            row = counts[before]
            nats -= math.log((row[after] + SMOOTHING) / (sum(row) + 256 * SMOOTHING))
            bytes_seen += 1
    return nats / bytes_seen, nats / bytes_seen / math.log(2)


if __name__ == "__main__":
    main()
