"""One-file scripts: the same score as the package, in a place that holds nothing but what they declare."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.golfctl.campaigns import golfctl
from tests.trainer.test_train import TINY
from tests.trainer.tiny import call, environment, text_folder
from trainer import contract, pack
from trainer.config import from_values, preset_names

ROOT = Path(pack.__file__).parents[1]

SMALL = ["TRAIN_SEQ_LEN=32", "TRAIN_BATCH_TOKENS=256", "EVAL_STRIDE=16", "ITERATIONS=3", "CPU_THREADS=1", "DEVICE=cpu"]
SMALL += ["MAX_WALLCLOCK_SECONDS=0", "REFERENCE_SCORES=0", "COMPILE=0", "MODEL_DIM=32", "NUM_HEADS=4", "NUM_KV_HEADS=2"]
SMALL += ["GRAD_ACCUM_STEPS=1", "TTT_CHUNK_BYTES=1024"]
CASES = {
    "cpu-best": [*SMALL, "NGRAM_BUCKETS=64", "NUM_LAYERS=2"],
    "merged-stack": [
        *SMALL,
        "TOKENIZER=caseops",
        "NUM_LAYERS=3",
        "VE_LAYERS=1,2",
        "XSA_LAST_N=2",
        "BIGRAM_VOCAB_SIZE=64",
    ],
    "byte-13": [*SMALL, "NUM_LAYERS=3", "BIGRAM_VOCAB_SIZE=64"],
    "patch-8-autoregressive": [*SMALL, "PATCH_DIM=16"],
    "tied-layers": [
        *SMALL,
        "TRAIN_SEQ_LEN=96",  # long enough for attention of our own
        "TRAIN_BATCH_TOKENS=384",
        "TOKENIZER=bytes",
        "NUM_LAYERS=4",
        "TIE_LAYERS=1-2",
        "XSA_LAST_N=2",
        "VE_LAYERS=0,2",
        "MUON_COEFFICIENTS=halley",
    ],
}
"""Presets shrunk to what two cores train in a second."""

ABSENT = ("golfctl", "trainer", "typer", "scipy", "rich", "pydantic", "yaml", "matplotlib")


def packed(out: Path, *words: str, env: dict[str, str]) -> str:
    """Run the packer; what it printed."""
    done = call("-m", "trainer.pack", out, *words, env=env, cwd=out.parent, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def needed(packages: list[str]) -> set[str]:
    """Distributions of these packages and of all they need here."""
    found: set[str] = set()
    waiting = list(packages)
    while waiting:
        name = re.split(r"[^A-Za-z0-9_.-]", waiting.pop(), maxsplit=1)[0].lower().replace("_", "-")
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            waiting += [line for line in requires if "extra ==" not in line]
    return found


def declared(script: str) -> list[str]:
    """The packages that a script's inline metadata names (PEP 723)."""
    block = re.search(r"^# /// script\n(.*?)^# ///$", script, re.MULTILINE | re.DOTALL)
    assert block is not None
    line = next(line for line in block[1].splitlines() if line.startswith("# dependencies = "))
    return ast.literal_eval(line.partition("=")[2].strip())


def bare_python(folder: Path, packages: list[str]) -> Path:
    """The Python of a new environment with these packages and what they need, as links, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    for name in needed(packages):
        for file in metadata.files(name) or []:
            top = Path(file).parts[0]
            source = Path(str(metadata.distribution(name).locate_file(top)))
            if top not in ("..", "__pycache__") and not (site / top).exists() and source.exists():
                (site / top).symlink_to(source)
    return folder / "bin" / "python"


def run_in(python: Path, folder: Path, env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder of its own, without this checkout on its path."""
    alone = {name: value for name, value in env.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run(
        [python, *words], cwd=folder, env=alone, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.mark.service
@pytest.mark.timeout(900)  # a quarter of a minute on a quiet machine
@pytest.mark.parametrize("name", CASES)
def test_packed_script_gives_the_artifact_and_the_scores_of_the_package(tmp_path: Path, name: str) -> None:
    """In an environment with what it declares alone: the same artifact, byte for byte, the same scores, its own bytes counted."""
    env = environment(tmp_path / "cache", DATA_PATH=str(text_folder(tmp_path / "text")))
    words = ["--config", name, *CASES[name]]
    flags = ["--compress"] if name == "byte-13" else []
    script = tmp_path / "made.py"
    said = packed(script, *words, *flags, env=env)
    assert f": {script.stat().st_size} bytes" in said
    whole = call("-m", "trainer", *words, "OUT_DIR=whole", env=env, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    python = bare_python(tmp_path / "venv", declared(script.read_text()))
    for absent in ABSENT:
        assert run_in(python, tmp_path, env, "-c", f"import {absent}").returncode == 1, absent
    folder = tmp_path / "alone"
    folder.mkdir()
    script.rename(folder / "only.py")
    done = run_in(python, folder, env, "only.py", "OUT_DIR=out")
    assert done.returncode == 0, done.stderr
    size = (folder / "only.py").stat().st_size
    assert f"Code size: {size} bytes" in done.stdout
    ours, theirs = ((path / contract.RESULT) for path in (folder / "out", tmp_path / "whole"))
    found, wanted = json.loads(ours.read_text()), json.loads(theirs.read_text())
    assert found["code_bytes"] == size
    assert found["total_bytes"] == size + (folder / "out" / contract.ARTIFACT).stat().st_size
    own = hashlib.sha256((folder / "only.py").read_bytes()).hexdigest()
    assert found["code_sha256"] == hashlib.sha256(f"only.py\0{own}\n".encode()).hexdigest()
    assert found["artifact_sha256"] == wanted["artifact_sha256"]
    assert found["settings"] == wanted["settings"]
    for label, score in wanted["scores"].items():
        assert {k: v for k, v in found["scores"][label].items() if k != "eval_time_ms"} == {
            k: v for k, v in score.items() if k != "eval_time_ms"
        }
    assert found["scores"].keys() == wanted["scores"].keys()
    alone = run_in(python, folder, env, "only.py", "--score", f"out/{contract.ARTIFACT}")
    final = [
        line.partition(" eval_time")[0] for line in done.stdout.splitlines() if line.startswith(("final_", "legal_"))
    ]
    assert final
    assert [
        line.partition(" eval_time")[0] for line in alone.stdout.splitlines() if line.startswith(("final_", "legal_"))
    ] == final


ROUNDED = {
    "qat": ["QAT_START=0.5", "MATRIX_BITS=5", "QUANT_CLIP=mse", "GPTQ=1", "GPTQ_BATCHES=1", "CODEC=rans"],
    "calibrated": ["MATRIX_BITS=4", "GPTQ_BATCHES=1", "AWQ_ALPHA=1", "LQER_RANK=2", "EMBED_BITS=2"],
    "target": ["QUANT_CLIP=sigma", "MODEL_BYTES_TARGET=9000", "MATRIX_BITS=6"],
}
"""Ways of rounding that no preset above uses."""


@pytest.mark.service
@pytest.mark.parametrize("name", ROUNDED)
def test_packed_script_rounds_as_the_package_does(tmp_path: Path, name: str) -> None:
    """Training on the grid, calibration and a size on demand: the same artifact, byte for byte."""
    env = environment(tmp_path / "cache", DATA_PATH=str(text_folder(tmp_path / "text")))
    words = [*SMALL, "NGRAM_BUCKETS=64", "NUM_LAYERS=2", "TTT_ENABLED=0", *ROUNDED[name]]
    packed(tmp_path / "made.py", *words, env=env)
    assert ("register_fake" in (tmp_path / "made.py").read_text()) == (name == "qat")  # else COMPILE=1 ends at once
    whole = call("-m", "trainer", *words, "OUT_DIR=whole", env=env, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    done = run_in(Path(sys.executable), tmp_path, env, "made.py", "OUT_DIR=out")
    assert done.returncode == 0, done.stderr
    made = [(tmp_path / folder / contract.ARTIFACT).read_bytes() for folder in ("whole", "out")]
    assert made[0] == made[1]


@pytest.fixture(scope="module")
def tiny_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny configuration as a script; its folder holds nothing else."""
    folder = tmp_path_factory.mktemp("script")
    settings = dict(word.split("=", 1) for word in TINY)
    (folder / "tiny.py").write_text(pack.pack(from_values(settings), compress=True))
    return folder / "tiny.py"


@pytest.mark.service
def test_packed_script_refuses_what_it_was_not_made_for(tiny_script: Path, tmp_path: Path) -> None:
    """Another value of a frozen setting, an unknown one, and an artifact of other settings: one line each, exit 2, 2 and 1."""
    env = environment(tmp_path / "cache", DATA_PATH=str(text_folder(tmp_path / "text")))
    other = [word for word in TINY if not word.startswith("NGRAM")]
    made = call("-m", "trainer", *other, "ITERATIONS=1", "OUT_DIR=other", env=env, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    python = Path(sys.executable)
    cases = {
        ("MODEL_DIM=32",): (2, "MODEL_DIM=32: this script was exported with 16"),
        ("MODEL_DIN=16",): (2, "MODEL_DIN: unknown setting"),
        ("SEED=x",): (2, "SEED='x': not a whole number"),
        ("--score", f"{tmp_path}/other/{contract.ARTIFACT}"): (1, "NGRAM_MAX_ORDER=0: this script was exported with 3"),
    }
    for words, (code, said) in cases.items():
        done = run_in(python, tiny_script.parent, env, str(tiny_script), *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
        assert said in done.stderr
    same = run_in(
        python, tiny_script.parent, env, str(tiny_script), "MODEL_DIM=16", "ITERATIONS=1", f"OUT_DIR={tmp_path}/own"
    )
    assert same.returncode == 0, same.stderr


GOLF = """\
name: exported
seeds: [1, 2, 3]
hosts:
  local: {kind: local, slots: 1}
gates:
  1: {name: smoke, kind: threshold, env: {ITERATIONS: 2}, require: {artifact_bytes: "<= 16000000"}}
"""


@pytest.mark.service
def test_packed_script_is_a_base_of_golfctl(tiny_script: Path, tmp_path: Path) -> None:
    """`base add` reads its settings through the compression; a plan that sets one of them passes a smoke run."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "golf.yaml").write_text(GOLF)
    options = ["--artifact", "artifact.golf", "--score-label", contract.FINAL_SLIDING]
    added = golfctl(tmp_path, "base", "add", "made", "--script", str(tiny_script), *options)
    assert "does not read" not in added.stderr
    (tmp_path / "golf.yaml").write_text(GOLF + "base: made\n")
    golfctl(tmp_path, "plan", "new", "log", "--title", "Says more")
    plan = tmp_path / "plans" / "log.yaml"
    plan.write_text(plan.read_text().replace("diffs: []", "diffs:\n  - set: {TRAIN_LOG_EVERY: 1}"))
    done = golfctl(tmp_path, "gate", "run", "log", "--through", "1", "--yes")
    assert re.search(r"gate 1 smoke +log +PASS", done.stdout), done.stdout


@pytest.mark.service
@pytest.mark.parametrize("name", preset_names())
def test_every_preset_exports_to_a_whole_script(tmp_path: Path, name: str) -> None:
    """Written, every name in it defined, imported without a run, `--help` lists what is open and nothing frozen."""
    env = environment(tmp_path / "cache")
    script = tmp_path / "made.py"
    packed(script, "--config", name, env=env)
    ruff = Path(sys.executable).parent / "ruff"
    checked = subprocess.run(
        [ruff, "check", "--isolated", "--select", "F821,F823,E9", script], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    told = call(script, "--help", env=env, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "\n  SEED=1337  " in told.stdout
    assert "\n  MODEL_DIM=" not in told.stdout


def test_pack_called_wrongly_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    """No name, a flag, a name that is not Python, two forms at once: usage and exit 2; so for settings that are wrong."""
    for words in ([], ["--wrong"], ["out.txt"], ["a.py", "--compress", "--readable"]):
        assert pack.main(words) == 2
        assert "usage" in capsys.readouterr().err
    assert pack.main(["a.py", "MODEL_DIN=3"]) == 2
    assert capsys.readouterr().err == "trainer.pack: MODEL_DIN: unknown setting; did you mean MODEL_DIM?\n"


@pytest.mark.service
def test_counted_code_is_what_a_run_can_import(tmp_path: Path) -> None:
    """The exporter does not count as code, and no run imports it; everything that a run imports does count."""
    code = (
        "import sys; from trainer.__main__ import main\n"
        f"assert main(['ITERATIONS=1', 'OUT_DIR={tmp_path}/run', 'REFERENCE_SCORES=0', 'TRAIN_SEQ_LEN=16', 'MODEL_DIM=16',\n"
        "             'TRAIN_BATCH_TOKENS=32', 'EVAL_STRIDE=16', 'NUM_HEADS=1', 'NUM_KV_HEADS=1']) == 0\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'trainer' and m.__file__), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = {Path(line) for line in done.stdout.splitlines() if line.endswith(".py")}
    counted = set(contract.code_files(ROOT / "trainer"))
    assert len(imported) > 20
    assert imported <= counted
    assert not any(contract.TOOLS in path.relative_to(ROOT / "trainer").parts for path in counted)
