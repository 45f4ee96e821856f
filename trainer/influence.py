"""How much each layer of a trained model changes the stream: `python -m trainer.influence ARTIFACT [--windows N]`.

Block influence (ShortGPT, Men et al. 2024): BI_l = 1 - mean over positions of cos(x_l, x_{l+1}), x_l being the residual stream
as it enters layer l, U-Net skip included, and x_{l+1} as it leaves it. A layer that does nothing has 0. The contiguous run of
layers with low influence is what TIE_LAYERS may share one block for. Measured on held-out training text, never on validation
text.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.artifact import ArtifactError, load_model
from trainer.data.dataset import open_dataset
from trainer.data.errors import DataError
from trainer.model.gpt import GPT


@torch.inference_mode()
def block_influence(model: GPT, ids: Tensor) -> list[float]:
    """BI of every place of the virtual stack, in the order in which blocks run. ids: (B, T) int64 on the model's device."""
    found: list[float] = []

    def note(_: torch.nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        found.append(1.0 - F.cosine_similarity(given[0].double(), out.double(), dim=-1).mean().item())

    hooks = [block.register_forward_hook(note) for block in model.blocks]
    try:
        model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def low_run(influence: list[float]) -> tuple[int, int] | None:
    """First and last of the longest run of two or more layers below the median; of equally long ones the lowest counts.

    None if no two neighbours lie below the median.
    """
    middle = float(np.median(influence))
    runs: list[tuple[int, int]] = []
    for layer, value in enumerate(influence):
        if value < middle:
            first = runs.pop()[0] if runs and runs[-1][1] == layer - 1 else layer
            runs.append((first, layer))
    runs = [run for run in runs if run[1] > run[0]]
    return min(runs, key=lambda run: (run[0] - run[1], sum(influence[run[0] : run[1] + 1])), default=None)


def main(arguments: list[str] | None = None) -> int:
    """Print one line a layer and the proposal. Returns the exit code: 2 when a file can't be used."""
    parser = argparse.ArgumentParser(prog="python -m trainer.influence", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("artifact", type=Path, help="artifact of a finished run")
    parser.add_argument(
        "--data-path", default=os.environ.get("DATA_PATH", ""), help="folder of data; empty: the embedded corpus"
    )
    parser.add_argument("--windows", type=int, default=32, help="windows of held-out training text to measure on")
    given = parser.parse_args(arguments)
    try:
        model, held = load_model(given.artifact)
        dataset = open_dataset(given.data_path, held.config.tokenizer)
    except (ArtifactError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    length = held.config.train_seq_len
    count = min(given.windows, len(dataset.tune) // length)
    if count < 1:
        print(
            f"error: --windows {given.windows}: must be at least 1, and {length} ids of text are needed",
            file=sys.stderr,
        )
        return 2
    ids = torch.from_numpy(dataset.tune[: count * length].astype(np.int64)).view(count, length)
    influence = block_influence(model, ids)
    for place, (number, value) in enumerate(zip(model.depth.blocks, influence, strict=True)):
        print(f"layer:{place} block:{number} influence:{value:.6f}")
    if held.config.num_loops:
        print("no proposal: places of a looped stack are not layers, and loops exclude TIE_LAYERS")
        return 0
    run = low_run(influence)
    print(f"TIE_LAYERS={run[0]}-{run[1]}" if run else "no two neighbouring layers have an influence below the median")
    return 0


if __name__ == "__main__":
    sys.exit(main())
