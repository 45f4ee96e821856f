"""How byte patches come to "0.2 to 0.6 bpb": an honest model and four mistakes, each a record folder for `golfctl audit`.

    python benchmarks/patch_mistakes.py [--size 8] [--steps 500] [--settings NAME=VALUE ...] [--work FOLDER]

A mistake is a change to a copy of the trainer, or to its data. Every copy is packed to one script and trained, and what its
author would publish (script, log, claim) is audited with an adapter that asks the model for its distributions on the validation
text. Writes results/patch_mistakes.md unless --work names a folder, which then keeps everything.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

from trainer.data.dataset import Dataset, open_dataset

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "patch_mistakes.md"
UNSHIFTED = ROOT / "studies" / "patches" / "plans" / "patches" / "unshifted.patch"
WINDOW, ROW, PAD = 480, 1920, b"\x04"
"""Bytes the model sees at once; bytes to which the last mistake pads a document, and with what."""
SETTINGS = [
    "NUM_LAYERS=4",
    "PATCH_DECODER=causal_conv",
    f"TRAIN_SEQ_LEN={WINDOW}",
    f"EVAL_STRIDE={WINDOW // 2}",
    f"TRAIN_BATCH_TOKENS={8 * WINDOW}",
    "WARMDOWN_FRACTION=0.6",
    "REFERENCE_SCORES=0",
    "TRAIN_LOG_EVERY=50",
    "CPU_THREADS=1",
    "SEED=1",
]
ADAPTER = """\
import importlib.util
from pathlib import Path

import numpy as np
import torch

from trainer.data.dataset import open_dataset

torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("theirs", {script!r})
theirs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(theirs)
MODEL = theirs.load_model(Path({artifact!r}), "cpu")[0].eval()


def tokens():
    return open_dataset("", "bytes").val


def logprobs(tokens):
    before = torch.from_numpy(np.concatenate([[0], tokens[:-1]]))
    with torch.no_grad():
        rows = [MODEL(part[None])[0] for part in before.split({window})]
    return torch.cat(rows).log_softmax(-1).numpy()
"""


@dataclass(frozen=True)
class Case:
    """name; what: one sentence; change: what is done to a copy of the trainer of this patch size; padded: whether to its data."""

    name: str
    what: str
    change: Callable[[Path, int], None] = lambda tree, size: None
    padded: bool = False


def replaced(tree: Path, path: str, old: str, new: str) -> None:
    """Change one place of a file. Raises SystemExit if it is not there once."""
    file = tree / path
    text = file.read_text()
    if text.count(old) != 1:
        raise SystemExit(f"{path} no longer holds {old!r} once: this mistake can't be made")
    file.write_text(text.replace(old, new))


def unshifted(tree: Path, size: int) -> None:
    """The plan's patch: the decoder's convolution begins one byte too late, so that it reads the byte it predicts."""
    subprocess.run(["git", "apply", str(UNSHIFTED)], cwd=tree, check=True)


def divided_twice(tree: Path, size: int) -> None:
    """The patch's loss is already a mean over its bytes, and is divided by their number again."""
    replaced(
        tree, "trainer/evaluate/bpb.py", "return self.nats / self.tokens", f"return self.nats / self.tokens / {size}"
    )
    tokens_as_patches(tree, size)


def tokens_as_patches(tree: Path, size: int) -> None:
    """The loss is a byte's, and is divided by the bytes of a patch."""
    bits = "return self.nats / (math.log(2) * self.bytes"
    replaced(tree, "trainer/evaluate/bpb.py", f"{bits})", f"{bits} * {size})")


CASES = (
    Case("honest", "nothing"),
    Case("unshifted", "the decoder of a patch is fed the patch itself, not what comes before each byte", unshifted),
    Case("divided-twice", "the mean loss of a patch is divided by its bytes once more", divided_twice),
    Case("tokens-as-patches", "bpb takes a byte's loss for a patch's", tokens_as_patches),
    Case("padding-counted", f"documents are padded to {ROW} bytes, and the padding is scored and counted", padded=True),
)


def pad(text: bytes) -> bytes:
    """Every document filled up to a multiple of ROW, its separator included."""
    filled = [item + PAD * (-(len(item) + 1) % ROW) for item in text.split(b"\0")]
    return b"\0".join(filled)


def padded_folder(dataset: Dataset, folder: Path) -> Path:
    """The embedded text with its documents padded."""
    folder.mkdir()
    for part, source in (("train", ("train", "tune")), ("val", ("val",))):
        text = b"".join(dataset.text(name) or b"" for name in source)
        (folder / f"{part}.txt").write_bytes(pad(text))
    return folder


def published(case: Case, size: int, settings: list[str], data: str, work: Path) -> tuple[Path, float]:
    """Make the trainer, train it, and lay down what its author would publish. Returns the folder and the claim."""
    tree, record = work / "trainers" / case.name, work / "records" / case.name
    shutil.copytree(ROOT / "trainer", tree / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    case.change(tree, size)
    record.mkdir(parents=True)
    words = [*SETTINGS, f"PATCH_SIZE={size}", *settings]
    python = [sys.executable, "-m", "trainer.pack"]
    subprocess.run(
        [*python, str(record / "train_gpt.py"), "--readable", *words], cwd=tree, check=True, capture_output=True
    )
    out = tree / "run"
    chosen = [word for word in settings if word.startswith("ITERATIONS=")]
    line = [sys.executable, "train_gpt.py", f"OUT_DIR={out}", f"DATA_PATH={data}", "CPU_THREADS=1", "SEED=1", *chosen]
    log = subprocess.run(line, cwd=record, check=True, capture_output=True, text=True).stdout
    (record / "train_seed1.log").write_text(log)
    shutil.copy(out / "artifact.golf", record)
    (score,) = json.loads((out / "result.json").read_text())["scores"].values()
    (record / "submission.json").write_text(json.dumps({"val_bpb": score["val_bpb"], "author": case.name}))
    (record / "README.md").write_text(f"# Byte patches of {size}\n\n`python train_gpt.py`\n\npip install zstandard\n")
    return record, score["val_bpb"]


def contest(dataset: Dataset, lowest: float | None, path: Path) -> Path:
    """The rules: the embedded text has so many bytes, and no model of this study has shown less than the honest one."""
    size = len(dataset.val)
    rules = {
        "name": "embedded",
        "limits": {"artifact_cap_bytes": 16_000_000, "seeds": 1},
        "text": {"what": "the embedded validation text", "bytes": size, "tail": 0.001},
        "references": [{"name": "bytes", "val_tokens": size, "bytes_per_token": 1.0, "source": "the text itself"}],
        **({} if lowest is None else {"lowest": {"bpb": lowest, "source": "the honest model"}}),
    }
    path.write_text(json.dumps(rules))  # JSON is YAML
    return path


def audited(record: Path, tree: Path, rules: Path, tokens: int) -> dict[str, dict[str, object]]:
    """What every check and probe answers, by its number."""
    adapter = tree / "adapter.py"
    files = {"script": str(record / "train_gpt.py"), "artifact": str(record / "artifact.golf")}
    adapter.write_text(ADAPTER.format(window=WINDOW, **files))
    words = ["--contest", str(rules), "--adapter", str(adapter), "--probe-tokens", str(tokens), "--json"]
    line = [sys.executable, "-m", "golfctl", "audit", str(record), *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, check=False, cwd=tree, env=env, capture_output=True, text=True)
    if done.returncode not in {0, 1}:
        raise SystemExit(done.stderr)
    return {check["id"]: check for check in json.loads(done.stdout)["checks"]}


def study(
    work: Path, size: int, settings: list[str], tokens: int, cases: tuple[Case, ...] = CASES
) -> list[tuple[Case, float, dict[str, dict[str, object]]]]:
    """Cases with their claims and their audits, the honest one first."""
    dataset = open_dataset("", "bytes")
    padded, found, lowest = padded_folder(dataset, work / "padded"), [], None
    for case in cases:
        record, claim = published(case, size, settings, str(padded) if case.padded else "", work)
        lowest = claim if lowest is None else lowest
        rules = contest(dataset, lowest, work / "contest.yaml")
        found.append((case, claim, audited(record, work / "trainers" / case.name, rules, tokens)))
        print(f"{case.name}: {claim:.4f} bpb, {caught(found[-1][2])}", flush=True)
    return found


def caught(checks: dict[str, dict[str, object]]) -> str:
    """The checks that say no, or warn about the score."""
    told = [name for name, check in checks.items() if check["answer"] == "FAIL"]
    warned = [name for name in ("A12",) if checks[name]["answer"] == "WARN"]
    return ", ".join([*told, *(f"{name} (warns)" for name in warned)]) or "-"


def evidence(checks: dict[str, dict[str, object]]) -> str:
    """The first sentence of each check that fails."""
    said = []
    for name, check in checks.items():
        if check["answer"] == "FAIL":
            bad = next(item for item in check["evidence"] if item["answer"] == "FAIL")  # type: ignore[attr-defined]
            said.append(f"{name}: {bad['text']}")
    return "; ".join(said) or "-"


def main() -> None:
    """Train, audit, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--settings", nargs="*", default=[])
    parser.add_argument("--tokens", type=int, default=3 * WINDOW)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    settings = [f"ITERATIONS={given.steps}", *given.settings]
    if given.work is not None:
        given.work.mkdir(parents=True)
        study(given.work.resolve(), given.size, settings, given.tokens)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = study(Path(folder).resolve(), given.size, settings, given.tokens)
    rows = [f"| {case.what} | {claim:.4f} | {caught(item)} | {evidence(item)} |" for case, claim, item in found]
    head = [
        "# Mistakes that make byte patches look good",
        "",
        f"`python benchmarks/patch_mistakes.py --size {given.size} --steps {given.steps}`: patches of {given.size} bytes, "
        f"causal_conv decoder, one seed; probes on {given.tokens} bytes of the validation text.",
        "",
        "| mistake | claimed bpb | caught by | what the audit says |",
        "|---|---|---|---|",
    ]
    RESULTS.write_text("\n".join([*head, *rows, "", f"Machine: {json.dumps(describe())}", ""]))


if __name__ == "__main__":
    main()
