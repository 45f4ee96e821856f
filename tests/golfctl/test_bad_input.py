"""Bad input through the command line: clear lines, exit 2 or 3, nothing changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.golfctl.campaigns import add_plan, golfctl, make

pytestmark = pytest.mark.service

PATCH = """\
--- a/bigram.py
+++ b/bigram.py
@@ -1,3 +1,3 @@
-no such line
+another line
 nor this one
 nor that
"""


def plan_text(root: Path, change: Callable[[str], str]) -> None:
    path = root / "plans" / "sharp.yaml"
    path.write_text(change(path.read_text()))


def patched(root: Path, patch: str) -> None:
    (root / "plans" / "patches").mkdir()
    (root / "plans" / "patches" / "p.patch").write_text(patch)
    plan_text(root, lambda text: text + "  - patch: patches/p.patch\n")


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "misspelt key": (
        lambda root: plan_text(root, lambda text: text.replace("title:", "titel:")),
        "plans/sharp.yaml:2:1 titel: unknown key; did you mean 'title'?",
    ),
    "duplicate key": (
        lambda root: plan_text(root, lambda text: text + "title: again\n"),
        "plans/sharp.yaml:6:1 title",
    ),
    "wrong type": (
        lambda root: plan_text(root, lambda text: text + "seeds: many\n"),
        "plans/sharp.yaml:6:8 seeds",
    ),
    "cycle": (
        lambda root: plan_text(root, lambda text: text + "depends_on: [sharper]\n"),
        "sharp -> sharper -> sharp",
    ),
    "patch that does not apply": (lambda root: patched(root, PATCH), "plans/patches/p.patch"),
    "unknown variable": (
        lambda root: plan_text(root, lambda text: text.replace("SMOOTHING:", "SMOTHING:")),
        "did you mean SMOOTHING",
    ),
    "not UTF-8": (
        lambda root: (root / "plans" / "sharp.yaml").write_bytes(b"id: sharp\ntitle: caf\xe9\n") and None,
        "UTF-8",
    ),
    "empty file": (lambda root: (root / "plans" / "sharp.yaml").write_bytes(b"") and None, "plans/sharp.yaml"),
    "broken golf.yaml": (
        lambda root: (root / "golf.yaml").write_text("name: x\ngates: 3\n") and None,
        "golf.yaml:2:8 gates",
    ),
}


def fingerprint(root: Path) -> dict[str, str]:
    """Every file of the campaign with its hash; locks aside."""
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("case", BAD)
def test_bad_plan_is_refused_before_anything_happens(case: str, tmp_path: Path) -> None:
    """`plan check` and `gate run` say the same, exit 2, and not a file differs afterwards."""
    root = make(tmp_path / "c")
    spoil, expected = BAD[case]
    spoil(root)
    before = fingerprint(root)
    for command in (["plan", "check"], ["gate", "run", "--yes"]):
        done = golfctl(root, *command, expect=2)
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
        assert len(lines) <= 3, done.stderr
    assert fingerprint(root) == before


def test_all_errors_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """Three mistakes, three lines, in file order."""
    root = make(tmp_path / "c")
    plan_text(root, lambda text: text.replace("title:", "titel:") + "seeds: many\nrisky: 1\n")
    done = golfctl(root, "plan", "check", "sharp", expect=2)
    places = [line.split()[0] for line in done.stderr.splitlines() if line.startswith("plans/sharp.yaml")]
    assert {"plans/sharp.yaml:2:1", "plans/sharp.yaml:6:8", "plans/sharp.yaml:7:1"} <= set(places)
    assert places == sorted(places)


def test_patch_that_touches_the_judge_is_refused(tmp_path: Path) -> None:
    """Of the bundled trainer, evaluation, artifact, scoring and data are not a plan's to change."""
    golfctl(tmp_path, "init", "c")
    root = tmp_path / "c"
    (root / "plans" / "patches").mkdir(exist_ok=True)
    (root / "plans" / "patches" / "judge.patch").write_text(
        "--- a/trainer/evaluate/bpb.py\n+++ b/trainer/evaluate/bpb.py\n@@ -1 +1 @@\n-x\n+y\n"
    )
    add_plan(root, "cheat", "NUM_LAYERS: 3").write_text(
        "id: cheat\ntitle: t\nhypothesis: h\ndiffs:\n  - patch: patches/judge.patch\n"
    )
    before = fingerprint(root)
    done = golfctl(root, "gate", "run", "cheat", "--yes", expect=2)
    assert "trainer/evaluate/bpb.py" in done.stderr
    assert fingerprint(root) == before


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A campaign whose experiments lie on a tmpfs of 1 MiB."""
    root = make(tmp_path / "c")
    mounted = root / "experiments"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mounted)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    yield root
    subprocess.run(["umount", "-l", str(mounted)], check=True)


@needs_root
def test_full_disk_is_one_line_and_loses_nothing(small_disk: Path) -> None:
    """Exit 3; what was recorded before is still there and whole; with room again, it goes on."""
    root = small_disk
    golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes")
    before = golfctl(root, "ledger", "show", "--last", "0", "--json").stdout
    filler = root / "experiments" / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    done = golfctl(root, "gate", "run", "blunt", "--through", "1", "--yes", expect=3)
    assert "No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    filler.unlink()
    after = golfctl(root, "ledger", "show", "--last", "0", "--json").stdout
    assert after.startswith(before)
    golfctl(root, "ledger", "verify")
    golfctl(root, "gate", "run", "blunt", "--through", "1", "--yes")
    golfctl(root, "ledger", "verify")


@needs_root
def test_host_without_room_is_refused_before_a_run(tmp_path: Path) -> None:
    """The local host's own folder on a disk that is too small: said by the preflight, exit 3."""
    root = make(tmp_path / "c")
    (root / ".golfctl").mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root / ".golfctl")], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        said = golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes", expect=3).stderr
        assert "bytes free" in said
        assert not list((root / "experiments").rglob("*.jsonl"))
    finally:
        subprocess.run(["umount", "-l", str(root / ".golfctl")], check=True)


@needs_root
def test_read_only_experiments_are_one_line_and_nothing_runs(tmp_path: Path) -> None:
    """Exit 3 before a run is started."""
    root = make(tmp_path / "c")
    experiments = root / "experiments"
    bind = subprocess.run(["mount", "--bind", str(experiments), str(experiments)], capture_output=True, check=False)
    if bind.returncode:
        pytest.skip("this machine does not allow bind mounts")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(experiments)], check=True)
        before = fingerprint(root)
        done = golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes", expect=3)
        assert "Read-only file system" in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert all(name.startswith(".golfctl/") for name in fingerprint(root) if name not in before)
        assert not list((root / ".golfctl").rglob("run.json"))
    finally:
        subprocess.run(["umount", "-l", str(experiments)], check=True)
    golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gate", "run", "nosuch"], "nosuch"),
        (["gate", "run", "--host", "mars", "--yes"], "mars"),
        (["gate", "waive", "sharp", "2", "--reason", "x"], "nothing to waive"),
        (["seeds", "--n", "3"], "no plan is ready"),
        (["seeds", "sharp", "--n", "5"], "declares 3 seeds"),
        (["runs", "show", "nosuch"], "no such run"),
        (["fail", "why", "sharp", "because"], "no recorded failure"),
        (["report", "nosuch"], "no such plan"),
        (["plan", "show", "shrap"], "sharp"),
        (["init", "."], "holds a campaign already"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_request_is_one_line_and_exit_two(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], said: str
) -> None:
    """What is wrong, and what would have been right."""
    root = make(tmp_path_factory.mktemp("wrong") / "c")
    done = golfctl(root, *words, expect=2)
    assert said in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("note:")]) == 1, done.stderr


def test_outside_a_campaign_the_way_in_is_told(tmp_path: Path) -> None:
    """Bare golfctl helps; a command that needs a campaign says so."""
    assert "golfctl init" in golfctl(tmp_path).stdout
    assert "golfctl init" in golfctl(tmp_path, "gate", "status", expect=2).stderr
