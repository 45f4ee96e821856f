"""A foreign single-file script, as the field writes them, through all gates: judged from its log and its artifact alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from golfctl.hostside.guards import artifact_bytes, artifact_files, bring_home
from tests.golfctl.campaigns import golfctl

SCRIPT = Path(__file__).parent / "foreign" / "train_gpt.py"
GOLF = """\
name: foreign
seeds: [1337, 42, 2025]
rules: {{artifact_cap_bytes: 16000000}}
hosts:
  local: {{kind: local, slots: 2}}
gates:
  1: {{name: smoke, kind: threshold, env: {{ITERATIONS: 6}}, require: {{{step} artifact_bytes: "<= 16000000"}}, overriding: true}}
  2: {{name: full, kind: versus, env: {{ITERATIONS: 15}}}}
  3: {{name: scale, kind: threshold, {processes} env: {{ITERATIONS: 15}}, require: {{score: "<= 5.0"}}}}
  4: {{name: final, kind: threshold, seeds: 3, env: {{ITERATIONS: 15}}, require: {{score: "<= base - 0.05"}}}}
"""


def campaign(root: Path, step: str, processes: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A campaign on the script and one plan that helps, made as a person makes them; what `base add` said."""
    (root / "plans").mkdir(parents=True)
    (root / "golf.yaml").write_text(GOLF.format(step=step, processes=processes))
    added = golfctl(root, "base", "add", "field", "--script", str(SCRIPT), *options)
    (root / "golf.yaml").write_text(GOLF.format(step=step, processes=processes) + "base: field\n")
    golfctl(root, "plan", "new", "prior", "--title", "Start from the unigram counts")
    path = root / "plans" / "prior.yaml"
    path.write_text(path.read_text().replace("diffs: []", "diffs:\n  - set: {UNIGRAM_START: 1}"))
    return added


def test_artifact_is_brought_home_from_the_working_folder(tmp_path: Path) -> None:
    """Files the globs match, also below; not the code, no link, nothing that would replace a file or a record of the run."""
    source, run = tmp_path / "source", tmp_path / "run"
    work = run / "work"
    (work / "out").mkdir(parents=True)
    source.mkdir()
    (source / "table.ptz").write_text("code")
    (run / "there.ptz").write_text("of the run")
    for name in ("model.ptz", "out/deep.ptz", "table.ptz", "there.ptz", "exit.json", "notes.txt"):
        (work / name).write_text(name)
    (work / "link.ptz").symlink_to("/etc/passwd")
    bring_home(str(run), ["*.ptz", "*/*.ptz", "exit.json"], str(work), str(source))
    home = {path.relative_to(run).as_posix() for path in run.rglob("*") if work not in path.parents} - {"work"}
    assert home == {"model.ptz", "out", "out/deep.ptz", "there.ptz"}
    assert (run / "there.ptz").read_text() == "of the run"
    bring_home(str(run), ["*.ptz"], str(tmp_path / "none"), str(source))


def test_artifact_saved_twice_counts_as_it_will_in_the_end(tmp_path: Path) -> None:
    """In the working folder and in OUT_DIR, with code beside it: what a run is aborted for is what is kept of it."""
    source, run = tmp_path / "source", tmp_path / "run"
    work = run / "work"
    work.mkdir(parents=True)
    source.mkdir()
    for path, size in ((run / "a.ptz", 10), (work / "a.ptz", 11), (work / "b.ptz", 100), (work / "code.ptz", 1000)):
        path.write_bytes(bytes(size))
    (source / "code.ptz").write_bytes(bytes(1000))
    place = (str(run), ["*.ptz", "*/*.ptz"], str(work), str(source))
    assert artifact_bytes(artifact_files(*place).values()) == 110
    bring_home(*place)
    assert sum(path.stat().st_size for path in run.glob("*.ptz")) == 110


def runs_of(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(golfctl(root, "runs", "list", "--json").stdout)
    return found


def log_of(folder: Path, **settings: str) -> Path:
    """A log the script wrote elsewhere, before anybody thought of a campaign."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=folder,
        env=os.environ | {"ITERATIONS": "6"} | settings,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    path = folder / "train.log"
    path.write_text(done.stdout)
    return path


@pytest.mark.service
def test_foreign_script_goes_through_all_gates(tmp_path: Path) -> None:
    """The score is the round trip's and not the decoy's, the artifact comes home from the folder it was started in."""
    root = tmp_path / "golf"
    added = campaign(
        root, 'step_avg_ms: "<= 60000",', "processes: 2,", "--score-label", "final_int8_zlib_roundtrip_exact"
    )
    assert "it reads 9 variables" in added.stdout
    assert "it does not read DATA_PATH (data), OUT_DIR (out)" in added.stderr
    done = golfctl(root, "gate", "run", "prior", "--through", "4", "--yes")
    assert done.stdout.count("PASS") >= 4, done.stdout
    runs = runs_of(root)
    assert {run["spec"]["processes"] for run in runs} == {1, 2}
    for run in runs:
        folder = root / "experiments" / "runs" / run["spec"]["name"]
        result, lines = run["result"], (folder / "train.log").read_text().splitlines()
        final = next(line for line in lines if line.startswith("final_int8_zlib_roundtrip_exact"))
        decoy = next(line for line in lines if line.startswith("DIAGNOSTIC"))
        assert f"val_bpb:{result['score']:.8f}" in final
        assert f"val_bpb:{result['score']:.8f}" not in decoy
        assert result["self_reported"]
        size = (folder / "final_model.int8.ptz").stat().st_size
        assert (result["model_bytes"], result["code_bytes"]) == (size, SCRIPT.stat().st_size)
    shown = json.loads(golfctl(root, "base", "show", "field", "--json").stdout)
    assert shown["plans"] == ["prior"]
    assert [(item["gate"], item["score"]["n"]) for item in shown["runs"]] == [(2, 3)]
    assert shown["runs"][0]["artifact_bytes"]["mean"] > SCRIPT.stat().st_size
    assert "runs     gate 2: 1 process; score " in golfctl(root, "base", "show", "field").stdout
    golfctl(root, "ledger", "verify")


@pytest.mark.service
def test_foreign_script_with_the_newer_log_goes_through_all_gates(tmp_path: Path) -> None:
    """Minutes, no step average, another final line: the label comes from a log that is given."""
    log = log_of(tmp_path / "before", LOG_FAMILY="minutes")
    root = tmp_path / "golf"
    added = campaign(root, "", "", "--log", str(log), "--set", "LOG_FAMILY=minutes")
    assert "score: quantized," in added.stderr
    assert "bytes of headroom left" in added.stdout
    done = golfctl(root, "gate", "run", "prior", "--through", "4", "--yes")
    assert done.stdout.count("PASS") >= 4, done.stdout
    for run in runs_of(root):
        text = (root / "experiments" / "runs" / run["spec"]["name"] / "train.log").read_text()
        final = next(line for line in text.splitlines() if line.startswith("quantized val_loss:"))
        assert f"val_bpb:{run['result']['score']:.8f}" in final
        assert "train_time: 0.0m tok/s: " in text
