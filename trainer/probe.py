"""`python -m trainer.probe ARTIFACT [--mode LABEL ...] [--tokens N] [--json] [--settings FILE] [NAME=VALUE ...]`.

`python -m trainer.probe --adapter FILE [--tokens N] [--seconds S] [--json]` probes a model that is not ours (`trainer.foreign`).

Runs the evaluation of an artifact, or a part of it, again and again on changed text, and says whether each score is what it
says (`evaluate.probes`): flip, sum, order, and boundary where independence is claimed. LABEL is the name of a final line;
without one the scores that the settings ask for are probed. Works on the first N tokens of the validation text, in
float64, with steps and chunks so small that learning takes part. Exit codes: 0 all passed, 1 one did not, 2 wrong input.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import contract
from trainer.config import Config, SettingsError

if TYPE_CHECKING:
    from trainer.evaluate.probes import Finding
    from trainer.evaluate.walk import Mode

LABELS = tuple(value for name, value in sorted(vars(contract).items()) if name.startswith("FINAL_"))
TOKENS = 1024
SECONDS = 300.0
"""For the flips of a foreign model."""
DOCUMENTS = 6
"""Documents that the probed text holds, if there is such a place."""
CHUNKS = 8
"""Chunks that the probed text falls into."""


def small(config: Config) -> Config:
    """The same evaluation in small steps: a window at a time, and as many phases as there were."""
    return dataclasses.replace(
        config,
        eval_batch_seqs=1,
        lora_docs=min(4, config.lora_docs),
        phases=config.phases or 2,  # for the phased score alone
        phase_docs=min(2, config.phase_docs),
        eval_max_seconds=0.0,
    )


def stretch(tokens: Any, bos: int, length: int) -> Any:
    """So many tokens from the start of a document on: the first such place with DOCUMENTS of them, else the beginning."""
    from trainer.evaluate.documents import bounds

    starts = [first for first, _ in bounds(tokens, bos)]
    for number, first in enumerate(starts[: -DOCUMENTS + 1]):
        if starts[number + DOCUMENTS - 1] < first + length <= len(tokens):
            return tokens[first : first + length]
    return tokens[:length]


def probe(path: Path, config: Config, labels: list[str], tokens: int) -> Iterator[tuple[str, list[Finding]]]:
    """A label and its findings, one after the other. Raises as `trainer.score` does."""
    from trainer import artifact, dist, score
    from trainer.data.dataset import open_dataset, open_validation
    from trainer.data.prepare import holds_training
    from trainer.evaluate import modes, probes

    device = dist.start(config).device
    model, held = artifact.load_model(path, device)
    model = model.double().eval()
    opened = open_dataset if holds_training(config.data_path) else open_validation
    dataset = opened(config.data_path, config.tokenizer)
    score._check_alphabet(path, held, dataset)
    text = stretch(dataset.val, dataset.bos, tokens)
    chunk = max(1, len(text) // CHUNKS // config.patch_size) * config.patch_size
    labels, config = labels or modes.wanted(config), small(config)
    for label in labels:
        # Each call of the function makes a fresh mode; what it binds is this label's.
        make = partial(_mode, modes.build, label, model, config, chunk)
        yield label, probes.of_our_mode(make, text, dataset.bos, device)


def _mode(build: Callable[..., tuple[Mode, str]], *how: Any) -> Mode:
    return build(*how)[0]


def said(label: str, item: Finding) -> str:
    """A finding for people."""
    numbers = item.numbers
    size = f" (largest {numbers['largest']:.1e}, allowed {numbers['tolerance']:.0e})" if "largest" in numbers else ""
    return f"{label} {item.probe}: {'PASS' if item.passed else 'FAIL'}  {item.said}{size}"


def _arguments(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What is ours, and what `trainer.score` understands. Raises SettingsError."""
    ours: dict[str, Any] = {"mode": [], "tokens": TOKENS, "seconds": SECONDS, "json": False}
    rest, words = [], list(words)
    while words:
        word = words.pop(0)
        if word == "--json":
            ours["json"] = True
        elif word == "--mode":
            label = words.pop(0) if words else ""
            if label not in LABELS:
                raise SettingsError(f"--mode {label}: allowed are {', '.join(LABELS)}")
            ours["mode"].append(label)
        elif word == "--tokens":
            count = words.pop(0) if words else ""
            if not count.isdigit() or int(count) < 16:
                raise SettingsError(f"--tokens {count}: needs a whole number, at least 16")
            ours["tokens"] = int(count)
        elif word == "--seconds":
            seconds = words.pop(0) if words else ""
            if not seconds.isdigit():
                raise SettingsError(f"--seconds {seconds}: needs a whole number")
            ours["seconds"] = float(seconds)
        else:
            rest.append(word)
    return ours, rest


def main(arguments: list[str]) -> int:
    """Probe one artifact and print what was found. Returns the exit code."""
    if arguments[:1] == ["--adapter"]:
        return _foreign(arguments[1:])
    if not arguments or arguments[0].startswith("-") or "=" in arguments[0]:
        print(
            "usage: python -m trainer.probe ARTIFACT [--mode LABEL ...] [--tokens N] [--json] [--settings FILE] [NAME=VALUE ...]"
        )
        print("       python -m trainer.probe --adapter FILE [--tokens N] [--seconds S] [--json]")
        print(f"labels: {', '.join(LABELS)}")
        return 0 if {"-h", "--help"} & set(arguments) else 2
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in `trainer.__main__`: on a busy machine waiting threads sleep
    from trainer import artifact, score
    from trainer.data.errors import DataError

    path = Path(arguments[0])
    try:
        ours, rest = _arguments(arguments[1:])
        config = score.settings_for(artifact.read(path).config, rest, os.environ)
        found = {}
        for label, items in probe(path, config, ours["mode"], ours["tokens"]):
            found[label] = [dataclasses.asdict(item) for item in items]
            if not ours["json"]:
                print("\n".join(said(label, item) for item in items), flush=True)
    except (
        DataError,
        artifact.ArtifactError,
        OSError,
        ValueError,
    ) as error:  # ValueError: settings, and sizes no mode takes
        return _refused(error)
    if ours["json"]:
        print(json.dumps(found))
    return 0 if all(item["passed"] for items in found.values() for item in items) else 1


def _foreign(words: list[str]) -> int:
    """Probe what an adapter file answers. Returns the exit code."""
    from trainer import foreign

    try:
        path, (ours, rest) = Path(words[0] if words else ""), _arguments(words[1:])
        if not path.is_file() or rest or ours["mode"]:
            raise SettingsError(
                f"--adapter {path}: " + (f"{rest} is not understood" if path.is_file() else "no such file")
            )
        with contextlib.redirect_stdout(sys.stderr):  # what the file prints is no answer
            items = foreign.probe(foreign.load(path, ours["tokens"]), ours["seconds"])
    except Exception as error:  # a stranger's code may raise anything
        return _refused(f"{type(error).__name__}: {error}")
    if ours["json"]:
        print(json.dumps({path.name: [dataclasses.asdict(item) for item in items]}))
    else:
        print("\n".join(said(path.name, item) for item in items))
    return 0 if all(item.passed for item in items) else 1


def _refused(error: Exception | str) -> int:
    for line in str(error).splitlines():
        print(f"trainer.probe: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
