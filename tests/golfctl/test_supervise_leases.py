"""Supervisors and the slots they hold, with real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from golfctl.hostside import leases, processes
from tests.golfctl.runlab import FAMILY, Lab, laboratory, wait_until

pytestmark = pytest.mark.service
SLOTS = "import os; print(*(os.environ.get(k) for k in ('GOLFCTL_SLOTS','CUDA_VISIBLE_DEVICES','TRITON_CACHE_DIR')));"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose processes are gone afterwards."""
    with laboratory(tmp_path) as place:
        yield place


def lease(need: int = 1, slots: int = 2, **more: Any) -> dict[str, Any]:
    """What a spec asks for; the folder is ROOT/leases."""
    return {"folder": "leases", "slots": [str(slot) for slot in range(slots)], "need": need, **more}


def held(lab: Lab) -> dict[str, str]:
    """Slot -> the run that holds it."""
    return {slot: info["owner"]["run"] for slot, info in leases.holders(str(lab.root / "leases")).items()}


def test_supervise_holds_its_slots_until_the_end(lab: Lab) -> None:
    """Two runs side by side on slots of their own, both told to the child; a third is full and leaves nothing, then starts."""
    wait = SLOTS + "import time\nwhile not os.path.exists('{out}/end'): time.sleep(0.02)"
    for name in ("a", "b", "c"):
        lab.order(wait, name, campaign="camp", lease=lease(gpus=True, cache="cache"))
    assert [lab.ask("a"), lab.ask("b"), lab.ask("c")] == [(0, "claimed"), (0, "claimed"), (0, "full")]
    assert held(lab) == {"0": "a", "1": "b"}
    assert leases.holders(str(lab.root / "leases"))["0"]["owner"]["campaign"] == "camp"
    assert sorted(path.name for path in (lab.root / "runs").iterdir()) == ["a", "b"]
    assert (lab.root / "inbox" / "c.json").exists()
    lab.wait_for_log(f"1 1 {lab.root}/cache/slot-1/triton", "b")
    asked = json.loads((lab.folder("b") / "run.json").read_text())
    assert (asked["slots"], asked["lease"]) == (["1"], {"need": 1, "gpus": True})
    lab.finish("a")
    wait_until(lambda: held(lab) == {"1": "b"})
    assert lab.exit("a")["outcome"] == "completed"
    assert lab.ask("a") == (0, "exists")
    assert lab.ask("c") == (0, "claimed")
    assert held(lab) == {"0": "c", "1": "b"}
    for name in ("b", "c"):
        lab.finish(name)
    wait_until(lambda: held(lab) == {})


def test_supervise_killed_gives_its_slot_away_only_when_its_training_is_gone(lab: Lab) -> None:
    """SIGKILL leaves a grandchild that may use the GPU: the next run gets the slot when that is dead."""
    if not processes.LINUX:
        pytest.skip("needs Linux: environments in /proc")
    process = lab.launch(FAMILY + "time.sleep(60)", "first", lease=lease(slots=1))
    lab.wait_for_log("up", "first")
    wait_until(lambda: len(lab.left("first")) == 2)
    lab.order("import os; print(os.environ['GOLFCTL_SLOTS'], flush=True)", "second", lease=lease(slots=1))
    assert lab.ask("second") == (0, "full")
    process.kill()
    process.wait()
    assert lab.left("first")
    assert lab.ask("second") == (0, "claimed")
    assert lab.left("first") == set()
    lab.wait_for_log("0", "second")
    wait_until((lab.folder("second") / "exit.json").exists)


def test_supervise_killed_before_its_claim_holds_no_slot(lab: Lab) -> None:
    """SIGKILL 0 to 150 ms after the launch: the one slot is free for the next, whether the claim was made or not."""
    for turn in range(8):
        process = lab.launch("import time; time.sleep(60)", f"k{turn}", lease=lease(slots=1))
        time.sleep(turn * 0.02)
        process.kill()
        process.wait()
        assert lab.run("pass", f"n{turn}", lease=lease(slots=1))["outcome"] == "completed"
    assert held(lab) == {}


def test_supervise_twenty_runs_share_four_slots(lab: Lab) -> None:
    """Twenty names asked for again and again: each runs once, never two on a slot, and every slot is used."""
    code = (
        "import fcntl, os, time\n"
        "file = os.open('{out}/../../slot-' + os.environ['GOLFCTL_SLOTS'], os.O_CREAT | os.O_RDWR)\n"
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"  # fails if another run is on the slot
        "os.write(file, b'x'); time.sleep(0.1)\n"
    )
    names = [f"r{number}" for number in range(20)]
    for name in names:
        lab.order(code, name, lease=lease(slots=4))
    end = time.monotonic() + 120
    waiting = list(names)
    while waiting:
        assert time.monotonic() < end, f"{waiting} never got a slot"
        command = [sys.executable, "-I", "-S", str(lab.file), "--detach", str(lab.root)]
        asked = {name: subprocess.Popen([*command, name], stdout=subprocess.PIPE) for name in waiting[:6]}
        answers = {name: process.communicate()[0].strip() for name, process in asked.items()}
        assert set(answers.values()) <= {b"claimed", b"full"}
        waiting = [name for name in waiting if answers.get(name) != b"claimed"]
    wait_until(lambda: all((lab.folder(name) / "exit.json").exists() for name in names), 60)
    assert {lab.exit(name)["outcome"] for name in names} == {"completed"}
    assert all((lab.root / f"slot-{slot}").exists() for slot in range(4))
    wait_until(lambda: held(lab) == {})


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"folder": "leases"}, "slots"),
        ({"folder": "leases", "slots": ["0"], "ned": 1}, "need"),
        ({"folder": "leases", "slots": ["0"], "need": 2}, "lease.need"),
        ({"folder": "leases", "slots": ["x"]}, "lease.slots"),
        ({"folder": 3, "slots": ["0"]}, "folder"),
        ([], "lease must be"),
    ],
)
def test_supervise_refuses_a_lease_nobody_can_hold(
    lab: Lab, capfd: pytest.CaptureFixture[str], wrong: Any, named: str
) -> None:
    """One line that names the inbox file, and nothing is left behind."""
    lab.order("pass", lease=wrong)
    assert lab.ask() == (1, "")
    said = capfd.readouterr().err
    assert said.startswith(f"supervise: {lab.root}/inbox/r.json: ") and named in said and said.count("\n") == 1
    assert not (lab.root / "runs").exists() and not (lab.root / "leases").exists()


def test_supervise_start_that_fails_frees_its_slot(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """A cache folder that can't be made, runs that can't be written: an error of the start, and no slot is held."""
    (lab.root / "cache").write_text("a file")
    lab.order("pass", lease=lease(cache="cache"))
    assert lab.ask() == (1, "")
    (lab.root / "cache").unlink()
    (lab.root / "runs").write_text("a file")
    assert lab.ask() == (1, "")
    assert capfd.readouterr().err.count("supervise: ") == 2
    assert held(lab) == {}
    (lab.root / "runs").unlink()
    assert lab.ask() == (0, "claimed")
    wait_until((lab.folder() / "exit.json").exists)


def test_supervise_publishes_no_secret_and_no_folder_of_the_host(lab: Lab) -> None:
    """run.json shows neither the value of a secret variable nor where leases and caches lie; the child sees the value."""
    lab.run(
        "import os; open('{out}/seen', 'w').write(os.environ['TOKEN'][::-1])",
        env={"TOKEN": "hunter2secret", "OTHER": "shown"},
        secret_env=["TOKEN"],
        lease={**lease(), "folder": str(lab.root / "leases"), "cache": str(lab.root / "cache")},
    )
    assert (lab.folder() / "seen").read_text() == "terces2retnuh"
    asked = json.loads((lab.folder() / "run.json").read_text())
    assert asked["env"] == {"TOKEN": "***", "OTHER": "shown"}
    assert str(lab.root) not in json.dumps({**asked, "cwd": ""})
    assert "hunter2secret" not in "".join(path.read_text() for path in lab.folder().iterdir())
