"""Ways to get a better verdict than was earned, or a record other than what happened: none of them works."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from golfctl.store.bases import freeze_script
from golfctl.store.campaign import load
from tests.golfctl.campaigns import GOLF, GOLFCTL, add_plan, golfctl, make

pytestmark = pytest.mark.service


def runs(root: Path) -> dict[str, dict[str, object]]:
    return {run["spec"]["name"]: run for run in json.loads(golfctl(root, "runs", "list", "--json").stdout)}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign with every verdict in."""
    root = make(tmp_path_factory.mktemp("done") / "c")
    golfctl(root, "gate", "run", "--through", "4", "--yes", expect=1)
    golfctl(root, "report")
    return root


@pytest.fixture
def root(done: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    shutil.copytree(done, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("plan", "more", "command"),
    [
        ("sharper", "gates: {2: {alpha: 0.49}}\n", ["gate", "run", "sharper", "--yes"]),
        ("sharp", "seeds: [1337, 7, 8]\n", ["gate", "run", "sharp", "--yes"]),
        ("blunt", "gates: {1: {overriding: false}}\n", ["gate", "run", "blunt", "--yes"]),
    ],
    ids=["looser alpha", "two seeds of three exchanged", "a rule no longer overriding"],
)
def test_runs_that_were_judged_are_not_judged_again_under_other_terms(
    root: Path, plan: str, more: str, command: list[str]
) -> None:
    """The plan stops, and says which verdict stands."""
    path = root / "plans" / f"{plan}.yaml"
    path.write_text(path.read_text().replace("depends_on: [sharp]\n", "depends_on: [sharp]\n") + more)
    before = len(runs(root))
    said = golfctl(root, *command, expect=1)
    assert "was judged for revision 1" in said.stdout
    assert len(runs(root)) == before


def test_new_seeds_are_allowed_and_the_former_ones_stay_in_the_verdict(root: Path) -> None:
    """Seeds no verdict has used make a new revision; its verdicts name what was run before."""
    path = root / "plans" / "sharper.yaml"
    path.write_text(path.read_text() + "seeds: [7, 8, 9]\n")
    golfctl(root, "gate", "run", "sharper", "--through", "1", "--yes")
    events = [json.loads(line) for line in golfctl(root, "ledger", "show", "-n", "0", "--json").stdout.splitlines()]
    verdict = [event["data"] for event in events if event["type"] == "verdict"][-1]
    assert (verdict["revision"], list(verdict["numbers"]["former_seeds"])) == (2, ["1337"])


def test_second_look_costs_alpha_where_it_was_not_declared(root: Path) -> None:
    """Declared, it tests the seeds of both looks at the level of two looks; else its own seeds alone at half of alpha."""
    path = add_plan(root, "twice", "SMOOTHING: 0.05", "Two looks", "gates: {4: {looks: 2}}\n")
    golfctl(root, "gate", "run", "twice", "--through", "4", "--yes", expect=None)
    for plan in (path, root / "plans" / "sharp.yaml"):
        plan.write_text(plan.read_text() + "seeds: [7, 8, 9]\n")
    golfctl(root, "gate", "run", "twice", "sharp", "--through", "4", "--yes", expect=None)
    events = [json.loads(line) for line in golfctl(root, "ledger", "show", "-n", "0", "--json").stdout.splitlines()]
    verdicts = [event["data"] for event in events if event["type"] == "verdict"]
    found = {(item["plan"], item["revision"]): item for item in verdicts if item["gate"] == 4}
    first, second, undeclared = found["twice", 1], found["twice", 2], found["sharp", 2]
    assert [len(item["numbers"]["seeds"]) for item in (first, second, undeclared)] == [3, 3, 3]
    assert [item["numbers"]["own"]["n"] for item in (first, second, undeclared)] == [3, 6, 3]
    assert 0.005 < second["numbers"]["alpha"] < first["numbers"]["alpha"] < 0.01  # the base got the new seeds, too
    assert "look 2 of 2, at 3, 6 seeds" in second["reason"]
    assert (undeclared["numbers"]["alpha_spent"], undeclared["numbers"]["alpha"] <= 0.005) == (0.005, True)
    assert "look 2, not as declared" in undeclared["reason"]


def test_another_name_for_the_same_plan_earns_nothing(root: Path) -> None:
    """A copy freezes to the same bundle: its runs are the first plan's."""
    add_plan(root, "copy", "SMOOTHING: 0.1")
    assert "was judged for revision 1 of sharp" in golfctl(root, "gate", "run", "copy", "--yes", expect=1).stdout


def test_edit_that_changes_no_terms_keeps_what_was_earned(root: Path) -> None:
    """A stricter target at gate 4 leaves gates 1 to 3 as they were, without new runs."""
    path = root / "plans" / "sharp.yaml"
    path.write_text(path.read_text() + 'gates: {4: {require: {score: "<= base - 0.06"}}, 3: {alpha: 0.1}}\n')
    before = len(runs(root))
    golfctl(root, "gate", "run", "sharp", "--through", "2", "--yes")
    assert len(runs(root)) == before


def test_shell_does_not_change_a_run(tmp_path: Path) -> None:
    """A variable the script reads and nobody set is absent, whatever the caller's shell holds."""
    scores = []
    for name, environment in (("a", {}), ("b", {"LINES_PER_STEP": "400"})):
        root = make(tmp_path / name)
        golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes", **environment)
        (run,) = runs(root).values()
        scores.append(run["result"]["score"])  # type: ignore[index]
    assert scores[0] == scores[1]


def test_runs_of_one_bundle_never_meet(tmp_path: Path) -> None:
    """What a script leaves in its working folder is not there for the next seed."""
    root = tmp_path / "c"
    for folder in ("plans", "bases"):
        (root / folder).mkdir(parents=True)
    (root / "golf.yaml").write_text(GOLF)
    script = tmp_path / "resume.py"
    script.write_text(
        "import os, pathlib, random\n"
        "steps, litter = os.environ['ITERATIONS'], pathlib.Path('checkpoint')\n"
        "seen = litter.exists(); litter.write_text('x')\n"
        "score = random.Random(os.environ['SEED']).random() + (0 if seen else 5) + float(os.environ.get('PLUS', '0'))\n"
        "pathlib.Path(os.environ['OUT_DIR'], 'model.json').write_text('{}')\n"
        "print(f'final_exact val_loss:{score} val_bpb:{score}')\n"
    )
    freeze_script(load(root), "resume", script, score_label="final_exact", artifact=["model.json"])
    (root / "golf.yaml").write_text(GOLF.replace('step_avg_ms: "<= 5000"', "") + "base: resume\n")
    add_plan(root, "plus", "PLUS: 1")
    golfctl(root, "gate", "run", "plus", "--through", "2", "--yes", expect=1)
    assert all(run["result"]["score"] > 5 for run in runs(root).values())  # type: ignore[index]


def damage_ledger(root: Path) -> None:
    shutil.rmtree(root / "experiments" / "ledger")


def cut_with_witness(root: Path) -> None:
    (path,) = (root / "experiments" / "ledger").glob("*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    path.with_suffix(".head").unlink()


def edit_log(root: Path) -> None:
    path = next((root / "experiments" / "runs").glob("sharp.g4*/train.log"))
    path.write_text(path.read_text().replace("val_bpb:3", "val_bpb:2"))


def swap_artifact(root: Path) -> None:
    next((root / "experiments" / "runs").glob("sharp.g4*/model.json")).write_text("{}")


def empty_run(root: Path) -> None:
    for path in next((root / "experiments" / "runs").glob("blunt.g2*")).iterdir():
        path.unlink()


@pytest.mark.parametrize("damage", [damage_ledger, cut_with_witness, edit_log, swap_artifact, empty_run])
def test_damage_to_the_record_is_noticed_and_never_written_over(root: Path, damage: object) -> None:
    """`ledger verify` says no, and `report` refuses to replace its own witness."""
    report = (root / "experiments" / "report.md").read_bytes()
    golfctl(root, "ledger", "verify")
    damage(root)  # type: ignore[operator]
    golfctl(root, "ledger", "verify", expect=1)
    golfctl(root, "report", expect=3)
    assert (root / "experiments" / "report.md").read_bytes() == report


def test_stopped_reference_run_can_be_set_aside_with_a_reason(tmp_path: Path) -> None:
    """It stays visible as attempt 1; attempt 2 takes its place; a run with a score can't be drawn again."""
    root = make(tmp_path / "c", step_seconds=0.1)
    golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes")
    command = [*GOLFCTL, "gate", "run", "sharp", "--through", "2", "--yes"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while golfctl(root, "runs", "stop", "bigram.g2", expect=None).returncode and time.monotonic() < deadline:
            time.sleep(0.1)
        assert process.wait(60) == 1
    (name,) = [name for name, run in runs(root).items() if run["outcome"] == "aborted"]
    golfctl(root, "runs", "retry", name, "--reason", "stopped by mistake")
    golfctl(root, "gate", "run", "sharp", "--through", "2", "--yes")
    attempts = sorted(
        run["spec"]["attempt"] for other, run in runs(root).items() if other.startswith(name.split(".a")[0])
    )  # type: ignore[index]
    assert attempts == [1, 2]
    scored = next(other for other, run in runs(root).items() if run["outcome"] == "completed")
    assert "never drawn again" in golfctl(root, "runs", "retry", scored, "--reason", "unlucky", expect=2).stderr


def test_nothing_published_names_this_machine(done: Path) -> None:
    """Ledger, run folders and reports hold no path of the campaign or of the interpreter."""
    for path in (done / "experiments").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(done).encode() not in content, path
            assert sys.executable.encode() not in content, path


def test_question_is_seen_on_a_terminal_before_anything_runs(tmp_path: Path) -> None:
    """The estimate and the prompt stand on the screen; no ends with nothing started."""
    root = make(tmp_path / "c")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*GOLFCTL, "gate", "run", "sharp"], cwd=root, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"n\n")
    assert process.wait(20) == 1
    os.close(ours)
    assert b"Spend about $0.00?" in shown
    assert runs(root) == {}


def test_ctrl_c_says_what_goes_on_and_how_to_continue(tmp_path: Path) -> None:
    """Exit 130; the run ends by itself and is collected by the next call."""
    root = make(tmp_path / "c", step_seconds=0.3)
    process = subprocess.Popen(
        [*GOLFCTL, "gate", "run", "sharp", "--through", "1", "--yes"],
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background inherits an ignored SIGINT; a person at a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # noqa: PLW1509 - no threads here
    )
    while "sharp.g1" not in golfctl(root, "runs", "list").stdout:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "1 run under way" in errors
    assert "golfctl gate run sharp --through 1" in errors
    golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes")
    assert [run["outcome"] for run in runs(root).values()] == ["completed"]


def test_fallback_is_checked_before_it_is_needed(root: Path) -> None:
    """A typo there is found by the check, not on the day the first form has failed."""
    path = root / "plans" / "blunt.yaml"
    path.write_text(path.read_text() + "fallback: {set: {SMOTHING: 1}}\n")
    assert "did you mean SMOOTHING" in golfctl(root, "plan", "check", expect=2).stderr
