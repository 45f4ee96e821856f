"""Small things the trainer's tests share: a text, a dataset, settings and a started process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from trainer.config import Config, from_values
from trainer.data.dataset import Dataset

WORDS = b"the cat sat on a mat and saw the dog that ran from the rat in the red hat . "


def settings(**values: object) -> Config:
    """A model of a few thousand weights, and few steps."""
    small = {"NUM_LAYERS": 2, "MODEL_DIM": 16, "NUM_HEADS": 2, "NUM_KV_HEADS": 1, "TRAIN_SEQ_LEN": 16}
    small |= {"TRAIN_BATCH_TOKENS": 128, "ITERATIONS": 4, "EVAL_STRIDE": 8, "CPU_THREADS": 1, "NGRAM_BUCKETS": 64}
    return from_values(small | values)


def text(size: int, seed: int) -> bytes:
    """English-like words in random order, `size` bytes."""
    words = WORDS.split(b" ")
    order = np.random.default_rng(seed).integers(len(words), size=size)
    return b" ".join(words[i] for i in order)[:size]


def dataset() -> Dataset:
    """A byte dataset in memory."""
    parts = [np.frombuffer(text(size, seed), np.uint8).astype(np.uint16) for seed, size in enumerate((4000, 500, 500))]
    train, tune, val = parts
    ones = np.ones(500, np.uint16)
    return Dataset(256, train, tune, val, ones, ones, 0, "bytes", "t" * 64, "a" * 64, "b" * 64, "c" * 64, Path())


def text_folder(folder: Path) -> Path:
    """A folder with train.txt and val.txt, as DATA_PATH takes it."""
    folder.mkdir(exist_ok=True)
    (folder / "train.txt").write_bytes(b"\0".join(text(3000, seed) for seed in range(30)))
    (folder / "val.txt").write_bytes(text(3000, 99))
    return folder


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without settings or ranks, with a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "VIRTUAL_ENV"}}
    root = str(Path(__file__).parents[2])
    return kept | {"XDG_CACHE_HOME": str(home), "PYTHONPATH": root, "OMP_NUM_THREADS": "1"} | more


def call(*arguments: object, env: dict[str, str], cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments to its end."""
    line = [sys.executable, *map(str, arguments)]
    return subprocess.run(line, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def two_processes(script: str, *arguments: object, home: Path, timeout: float = 90) -> list[str]:
    """Run a script as two gloo ranks to their end; what each printed. Fails if one fails or warns."""
    port = str(free_port())
    peers = []
    for rank in range(2):
        place = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        line = [sys.executable, "-c", script, *map(str, arguments)]
        env = environment(home, **place)
        peers.append(subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    heard = []
    for peer in peers:
        out, err = peer.communicate(timeout=timeout)
        assert peer.returncode == 0, err
        assert "Warning" not in err, err
        heard.append(out)
    return heard
