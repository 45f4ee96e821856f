"""`golfctl submit`: a folder that stands alone, or none under its name."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from golfctl.domain.host import HostSpec
from golfctl.submit import texts
from golfctl.submit.mask import Mask
from tests.golfctl import campaigns, submitlab
from tests.golfctl.campaigns import golfctl
from tests.trainer.test_pack import bare_python, declared

LENIENT = "name: mine\nlimits: {artifact_cap_bytes: 16000000, seeds: 2}\n"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A campaign on the real trainer whose plan has passed its gate; its prepared data lie in a cache of its own."""
    folder = tmp_path_factory.mktemp("submit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        root = submitlab.campaign(folder / "campaign")
        golfctl(root, "gate", "run", "wide", "--yes")
        yield root


@pytest.mark.service
def test_submit_makes_a_folder_that_scores_the_same_in_a_bare_environment(campaign: Path, tmp_path: Path) -> None:
    """Everything a reviewer needs; a new environment with what the script declares, no network, no training data: the same."""
    python = bare_python(tmp_path / "venv", ["torch", "numpy", "zstandard"])
    place = tmp_path / "2026-01-01_Wide"
    words = ["-o", str(place), "--author", "A. Person", "--github-id", "aperson", "--python", str(python), "--json"]
    made = json.loads(golfctl(campaign, "submit", "wide", *words).stdout)
    assert made["folder"] == str(place)
    rerun = next(check for check in made["audit"]["checks"] if check["id"] == "R5")
    assert rerun["answer"] == "PASS", rerun
    assert "the same to the last digit" in rerun["evidence"][0]["text"]
    probed = {check["id"]: check["answer"] for check in made["audit"]["checks"] if check["id"] in {"R1", "R2", "R3"}}
    assert probed == {"R1": "PASS", "R2": "PASS", "R3": "PASS"}
    names = {path.name for path in place.iterdir()}
    assert names == {
        *("README.md", "research_log.md", "audit.md", "submission.json", "requirements.txt", "train_gpt.py"),
        *(f"train_seed{seed}.log" for seed in (42, 1337)),
        *(f"artifact_seed{seed}.golf" for seed in (42, 1337)),
    }
    said = json.loads((place / "submission.json").read_text())
    code = (place / "train_gpt.py").stat().st_size
    models = [(place / f"artifact_seed{seed}.golf").stat().st_size for seed in (42, 1337)]
    scores = [item["val_bpb"] for item in said["seed_results"].values()]
    assert said["bytes_total"] == code + max(models)
    assert said["val_bpb"] == pytest.approx(sum(scores) / 2, abs=1e-8)
    assert (said["author"], said["github_id"], said["self_reported"]) == ("A. Person", "aperson", False)
    script = (place / "train_gpt.py").read_text()
    assert (place / "requirements.txt").read_text().count("==") >= 2
    assert set(declared(script)) == {
        line.partition("==")[0] for line in (place / "requirements.txt").read_text().split()
    }
    published = "".join(path.read_text() for path in place.iterdir() if path.suffix in {".md", ".log", ".json"})
    assert str(campaign) not in published


@pytest.mark.service
def test_submit_refuses_to_finish_when_the_artifact_scores_otherwise(campaign: Path, tmp_path: Path) -> None:
    """An artifact that is not the one that was scored: DIR.failed with the reason, exit 1, nothing under the name."""
    root = tmp_path / "campaign"
    shutil.copytree(campaign, root)
    one, two = sorted((root / "experiments" / "runs").glob("wide.*/artifact.golf"))
    shutil.copyfile(two, one)  # seed 42's for 1337, whose score is computed again
    done = golfctl(root, "submit", "wide", "-o", str(tmp_path / "mine"), "--data", str(root / "data"), expect=1)
    assert "FAIL" in done.stdout
    assert "R5" in done.stdout
    assert not (tmp_path / "mine").exists()
    assert "apart" in (tmp_path / "mine.failed" / "audit.md").read_text()
    assert not list(tmp_path.glob(".mine*"))


@pytest.mark.service
def test_submit_refuses_a_model_that_looks_ahead(campaign: Path, tmp_path: Path) -> None:
    """A patch of a plan lets the decoder read the byte it predicts: no score tells, the probe of the artifact does."""
    root = tmp_path / "campaign"
    shutil.copytree(campaign, root, ignore=shutil.ignore_patterns(".golfctl"))
    patch = Path(__file__).parents[2] / "studies" / "patches" / "plans" / "patches" / "unshifted.patch"
    shutil.copy(patch, root / "plans")
    campaigns.add_plan(root, "ahead", "PATCH_SIZE: 4, PATCH_DECODER: causal_conv", "Patches of 4 bytes")
    with (root / "plans" / "ahead.yaml").open("a") as file:
        file.write("  - patch: unshifted.patch\n")
    golfctl(root, "gate", "run", "ahead", "--yes", expect=None)  # two seeds may leave it open; that is not the point
    done = golfctl(root, "submit", "ahead", "-o", str(tmp_path / "mine"), "--data", str(root / "data"), expect=1)
    assert "FAIL R1" in done.stdout
    assert "were seen before they happened" in (tmp_path / "mine.failed" / "audit.md").read_text()


@pytest.mark.service
def test_submit_of_a_foreign_script_is_self_reported_and_lists_what_failed(tmp_path: Path) -> None:
    """Its own script and logs; no rerun; the research log holds the plan that failed; a full folder is never touched."""
    root = campaigns.make(tmp_path / "campaign")
    golfctl(root, "gate", "run", "sharp", "blunt", "--yes", expect=None)
    golfctl(root, "fail", "why", "blunt", "too much mass on what was never seen")
    place = tmp_path / "sharp"
    done = golfctl(root, "submit", "sharp", "-o", str(place))
    assert "self-reported" in done.stdout
    assert "takes no --score" in done.stdout
    assert "its code brings no probe" in done.stdout
    assert (place / "train_gpt.py").read_bytes() == campaigns.SCRIPT.read_bytes()
    log = (place / "research_log.md").read_text()
    assert "too much mass on what was never seen" in log
    assert "blunt" in log
    assert "SMOOTHING=0.1" in (place / "README.md").read_text()
    assert json.loads((place / "submission.json").read_text())["self_reported"]
    before = sorted(path.stat().st_mtime_ns for path in place.iterdir())
    assert "not empty" in golfctl(root, "submit", "sharp", "-o", str(place), expect=2).stderr
    assert sorted(path.stat().st_mtime_ns for path in place.iterdir()) == before
    small = tmp_path / "rules.yaml"
    small.write_text("name: tiny\nlimits: {artifact_cap_bytes: 10, seeds: 2}\n")
    golfctl(root, "submit", "sharp", "-o", str(tmp_path / "over"), "--contest", str(small), expect=1)
    assert "over the cap" in (tmp_path / "over.failed" / "audit.md").read_text()
    assert "no such plan has run here" in golfctl(root, "submit", "shrap", "-o", str(tmp_path / "x"), expect=2).stderr
    assert not (tmp_path / "x").exists()


def mask() -> Mask:
    """Of a campaign with one remote host that gets a secret."""
    host = HostSpec(
        "pod1", address="gpu7.example.org", jump="gate.example.org", identity="/home/me/.ssh/key", root="/scratch/me"
    )
    return Mask(SimpleNamespace(hosts={"pod1": host}, root=Path("/home/me/golf")))  # type: ignore[arg-type]


def test_mask_takes_out_what_is_nobodys_business() -> None:
    """Addresses, machines, folders, keys and tokens; numbers that are none stay."""
    text = "gpu7.example.org 203.0.113.7 /scratch/me/x /home/me/golf/y me@example.org ghp_abcdefghijklmnop1234 1.2.3 570.211 a.b"
    found = mask()(text)
    for word in ("example", "203.0", "scratch", "/home/me", "ghp_"):
        assert word not in found, found
    assert "[pod1]" in found
    assert found.endswith("1.2.3 570.211 a.b")


def test_mask_leaves_a_log_as_it_is() -> None:
    """Lines of ours hold nothing of the kind."""
    line = (
        "step:10/200 train_loss:3.1234 train_time:512ms step_avg:51.20ms\nfinal_flat_exact val_loss:1.57 val_bpb:2.26\n"
    )
    assert mask()(line) == line


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        ('# /// script\n# dependencies = ["numpy","torch"]\n# ///\nimport json\n', "numpy==2.4.6\ntorch==2.9.1\n"),
        (
            "import os, torch.nn\nfrom numpy import array\nfrom . import x\nimport yaml\n",
            "numpy==2.4.6\ntorch==2.9.1\nyaml\n",
        ),
        ("def f(:\n", "\n"),
    ],
)
def test_requirements_are_what_a_script_imports(script: str, wanted: str) -> None:
    """From its inline metadata or its imports, pinned where the run said a version."""
    assert texts.requirements(script.encode(), {"torch": "2.9.1+cu128", "numpy": "2.4.6", "yaml": None}) == wanted


def test_submit_outside_of_a_campaign_is_the_users_error(tmp_path: Path) -> None:
    """One line, exit 2."""
    done = subprocess.run(
        [*campaigns.GOLFCTL, "submit", "x", "-o", "y"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "no golf.yaml" in done.stderr
