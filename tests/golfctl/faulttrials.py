"""The faults, one function each: do it at a random moment, let everything go on, and account for it.

Each takes a random.Random (and what makes it longer or shorter) and returns an Account whose `seconds` say how long it
took to go on, in the sense its docstring gives.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from golfctl.domain.event import Type
from tests.golfctl.faultlab import GOLF, PLAN, Account, Lab
from tests.golfctl.sshlab import wait_until

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) { const char *text = getenv("CLOCK_SHIFT"); return text ? atol(text) : 0; }

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, at);
    if (answer == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += shift();
    return answer;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


# -- (1), (2): the controller


def controller_killed(draw: random.Random, kills: int = 4) -> Account:
    """SIGKILL at random moments, started again each time. seconds: from the last start to its end."""
    with Lab("pod1") as lab:
        hits = 0
        for _ in range(kills):
            controller = lab.start()
            time.sleep(draw.uniform(0.5, 4.0))
            hits += lab.kill(controller)
        began = time.monotonic()
        lab.end(lab.start())
        seconds = time.monotonic() - began
        account = lab.account()
    account.seconds = seconds
    if not hits:
        account.findings.append("no kill hit a controller that lived")
    return account


def controller_gone(draw: random.Random, ending: str = "over_time", abandon_s: float = 4.0) -> Account:
    """It never comes back while runs go on; they end by a rule of the host ("over_time", "aborted": nan, "completed").

    on_idle runs once, abandon_s or more after the last end and contact, not before; a new controller collects and
    judges. seconds: from that controller's start to its end.
    """
    gates = GOLF.replace("kind: threshold, seeds: 2", "kind: threshold, wallclock_s: 8, seeds: 2")
    more = {"over_time": "HANG_AT: 12", "aborted": "NAN_AT: 12", "completed": "HANG_AT: -1"}[ending]
    told = "date +%s.%N >> ../idle-pod1"
    with Lab(
        "pod1",
        gates=gates,
        plan=PLAN.replace("RATE: 0.01", f"RATE: 0.01, {more}"),
        entry=f"abandon_after_s: {abandon_s}, on_idle: '{told}', persistent: true",
    ) as lab:
        controller = lab.start()
        wait_until(lambda: len([name for name in lab.intents() if name.startswith("fast.g2.")]) == 2, 120)
        wait_until(lambda: len(lab.run_folders()) == 5, 120, f"for the last runs\n{lab.said[-1000:]}")
        time.sleep(draw.uniform(0.0, 0.4))
        assert lab.kill(controller)
        idle = lab.far / "idle-pod1"
        wait_until(lambda: not lab.running(), 120, "for the runs to end by themselves")
        ended = max((run / "exit.json").stat().st_mtime for run in lab.run_folders() if run.name.startswith("fast.g2."))
        wait_until(lambda: idle.exists() and idle.read_text(), 120, "for on_idle")
        time.sleep(abandon_s + 1.0)  # room for a second time, which must not be; after a new contact it may
        calls = len(idle.read_text().split())
        waited = float(idle.read_text().split()[0]) - ended
        began = time.monotonic()
        lab.end(lab.start(), expect=0 if ending == "completed" else 1)
        seconds = time.monotonic() - began
        names = [name for name in lab.intents() if name.startswith("fast.g2.") and ending != "completed"]
        account = lab.account(
            ends=dict.fromkeys(names, ending),
            verdicts=None if ending == "completed" else [("fast", 1, "PASS"), ("fast", 2, "FAIL")],
        )
    account.seconds = seconds
    if waited < abandon_s - 1.2:  # a run that ends between two looks of the keeper, 1 s apart, was not seen by it
        account.findings.append(f"on_idle ran {waited:.2f} s after the last run's end, allowed after {abandon_s:g} s")
    if calls != 1:
        account.findings.append(f"on_idle ran {calls} times")
    return account


# -- (3), (4): the line


def line_down(draw: random.Random, seconds_down: float = 30.0, serving_s: float | None = 170.0) -> Account:
    """The line is cut while runs go on, silently or not, and mended. seconds: from then until a log's new bytes are here."""
    with Lab("pod1", net=True) as lab:
        hold, host = lab.hold("pod1"), lab.hosts["pod1"]
        controller = lab.start()
        name = lab.wait_held("pod1")[0]
        lab.wait_heard(name)
        time.sleep(draw.uniform(0.0, 1.0))
        host.cut(silent=draw.random() < 0.5)
        time.sleep(seconds_down)
        before = lab.heard(name)
        assert controller.poll() is None, f"the controller gave up\n{lab.said[-1000:]}"
        host.restore()
        began = time.monotonic()
        wait_until(lambda: lab.heard(name) > before, 150, f"for more of the log\n{lab.said[-1000:]}")
        seconds = time.monotonic() - began
        hold.unlink()
        lab.end(controller)
        account = lab.account(serving_s=serving_s)
    account.seconds = seconds
    return account


def line_gone(
    draw: random.Random, lost_after_s: float = 4.0, stop: bool = True, serving_s: float | None = 170.0
) -> Account:
    """The line of one of two hosts is cut for good; the other takes over. When the host is back, `host sweep` finds the runs.

    stop: they still run then, and are stopped; else they have ended by themselves. Either way they are fetched.
    seconds: from the cut to the first intent on the other host.
    """
    with Lab("pod1", "pod2", net=True, slots=1, entry=f"lost_after_s: {lost_after_s}") as lab:
        hold, host = lab.hold("pod1"), lab.hosts["pod1"]
        controller = lab.start()
        (name,) = lab.wait_held("pod1")
        lab.wait_heard(name)
        time.sleep(draw.uniform(0.0, 0.5))
        host.cut(silent=draw.random() < 0.5)
        began = time.monotonic()
        wait_until(lambda: len([spec for spec in lab.intents().values() if spec["host"] == "pod2"]), 120, "for pod2")
        seconds = time.monotonic() - began
        lab.end(controller)
        said = next(event.data["reason"] for event in lab.events(Type.RUN_FINISHED) if event.data["run"] == name)
        host.restore()
        if not stop:
            hold.unlink()
        wait_until(lambda: stop or not lab.running("pod1"), 60, "for the orphan to end")
        swept = lab.cli("host", "sweep", "pod1", "--stop", "--fetch").stdout
        wait_until(lambda: not lab.running("pod1"), 60, "for the orphan to be stopped")
        swept += lab.cli("host", "sweep", "pod1", "--fetch").stdout
        left = lab.cli("host", "sweep", "pod1").stdout
        account = lab.account(ends={name: "lost"}, serving_s=serving_s)
        fetched = [path for path in (lab.root / "experiments").rglob("train.log") if name in str(path)]
        whole = any(path.read_bytes() == (lab.side / f"{name}.log").read_bytes() for path in fetched)
    account.seconds = seconds
    for wrong, text in (
        (not ("not answered for" in said and "last seen at step" in said), f"the reason of the loss is {said!r}"),
        (name not in swept or (stop and "stopped" not in swept), f"sweep said {swept!r}"),
        ("fetched" not in swept or not whole, f"the orphan's log was not fetched whole; sweep said {swept!r}"),
        ("pod1: 0 orphans" not in left, f"the last sweep said {left!r}"),
    ):
        if wrong:
            account.findings.append(text)
    return account


# -- (5), (6): processes on the host


def daemon_trouble(draw: random.Random, times: int = 3) -> Account:
    """Sessions dropped, sshd restarted, or both killed and sshd back a moment later, while runs go on.

    seconds: from the last trouble's end until a log's new bytes are here.
    """
    with Lab("pod1") as lab:
        hold, server = lab.hold("pod1"), lab.servers[0]
        controller = lab.start()
        name = lab.wait_held("pod1")[0]
        lab.wait_heard(name)
        for _ in range(times):
            time.sleep(draw.uniform(0.0, 0.7))
            draw.choice([server.drop, server.restart, server.kill])()
            if server.process is None:
                time.sleep(draw.uniform(0.0, 2.0))
                server.start()
        server.drop()
        before, began = lab.heard(name), time.monotonic()
        wait_until(lambda: lab.heard(name) > before, 120, f"for more of the log\n{lab.said[-1000:]}")
        seconds = time.monotonic() - began
        hold.unlink()
        time.sleep(draw.uniform(0.0, 1.0))
        server.drop()
        lab.end(controller)
        account = lab.account()
    account.seconds = seconds
    return account


def supervisor_killed(draw: random.Random) -> Account:
    """SIGKILL of a run's supervisor. Its child dies, the run counts as lost and is done again on the other host.

    seconds: from the kill to the death of the run's last process.
    """
    with Lab("pod1", "pod2", slots=1) as lab:
        hold = lab.hold("pod1")
        controller = lab.start()
        (name,) = lab.wait_held("pod1")
        time.sleep(draw.uniform(0.0, 1.0))
        beat = lab.running("pod1")[name]
        child = Path("/proc") / str(beat["child_pid"])
        os.kill(beat["pid"], signal.SIGKILL)
        began = time.monotonic()
        wait_until(
            lambda: not child.exists() or "State:\tZ" in (child / "status").read_text(), 30, "for the child to die"
        )
        seconds = time.monotonic() - began
        hold.unlink()
        lab.end(controller)
        second = next(spec["host"] for run, spec in lab.intents().items() if run != name and _side(spec) == ("fast", 1))
        account = lab.account(ends={name: "lost"})
    account.seconds = seconds
    if second != "pod2":
        account.findings.append(f"the second attempt ran on {second}")
    return account


def _side(spec: dict[str, object]) -> tuple[object, object]:
    return spec["owner"], spec["gate"]


def child_killed(draw: random.Random) -> Account:
    """SIGKILL of the training process: the run crashed, with the signal as its reason, and the gate says no.

    seconds: from the kill to the end of `gate run`.
    """
    with Lab("pod1") as lab:
        lab.hold("pod1")
        controller = lab.start()
        (name,) = lab.wait_held("pod1")
        time.sleep(draw.uniform(0.0, 1.0))
        os.kill(lab.running("pod1")[name]["child_pid"], signal.SIGKILL)
        began = time.monotonic()
        lab.end(controller, expect=1)
        seconds = time.monotonic() - began
        reason = next(event.data["reason"] for event in lab.events(Type.RUN_FINISHED) if event.data["run"] == name)
        account = lab.account(ends={name: "crashed"}, verdicts=[("fast", 1, "FAIL")])
    account.seconds = seconds
    if "SIGKILL" not in reason:
        account.findings.append(f"{name}: {reason!r} does not name the signal")
    return account


def serve_killed(draw: random.Random, times: int = 4) -> Account:
    """SIGKILL of the process that answers us, at random moments of a whole campaign. seconds: the campaign's."""
    with Lab("pod1") as lab:
        began, hits = time.monotonic(), 0
        controller = lab.start()
        wait_until(
            lab.run_folders, 120, f"for a run\n{lab.said[-1000:]}"
        )  # a preflight that is cut short starts nothing
        for _ in range(times):
            wait_until(lambda: lab.processes(b"serve") or controller.poll() is not None, 60, "for a conversation")
            time.sleep(draw.uniform(0.0, 0.8))
            for pid in lab.processes(b"serve"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    hits += 1
        lab.end(controller)
        seconds = time.monotonic() - began
        account = lab.account()
    account.seconds = seconds
    if not hits:
        account.findings.append("no kill hit")
    return account


# -- (7), (8): disks


def disk_full_there(draw: random.Random, during: str = "log") -> Account:
    """The host's disk is full while the log is written, or has no room for the artifact; the run is done again elsewhere.

    The host at fault is named, what was written is brought home, and there is nothing left to free by hand.
    seconds: from the full disk to the intent of the second attempt.
    """
    settings = {"ARTIFACT_KB": "2048"} if during == "artifact" else {}
    with Lab("pod1", "pod2", slots=1, settings=settings, full_there=True) as lab:
        disk, hold = lab.far / "pod1", lab.hold("pod1")
        controller = lab.start()
        (name,) = lab.wait_held("pod1")
        lab.wait_heard(name)
        time.sleep(draw.uniform(0.0, 0.5))
        lab.fill(disk, 0 if during == "log" else 1 << 20)
        began = time.monotonic()
        if during == "artifact":
            hold.unlink()
        wait_until(
            lambda: sum(_side(spec) == ("fast", 1) for spec in lab.intents().values()) == 2, 120, "for the second"
        )
        seconds = time.monotonic() - began
        hold.unlink(missing_ok=True)
        lab.free(disk)
        lab.end(controller)
        end = next(event.data for event in lab.events(Type.RUN_FINISHED) if event.data["run"] == name)
        second = next(spec["host"] for run, spec in lab.intents().items() if run != name and _side(spec) == ("fast", 1))
        account = lab.account(ends={name: "crashed"})
    account.seconds = seconds
    if (end["fault"], second) != ("host", "pod2") or not any(
        word in end["reason"] for word in ("No space left", "disk full")
    ):
        account.findings.append(f"fault {end['fault']!r}, reason {end['reason']!r}, second attempt on {second}")
    return account


def disk_full_here(draw: random.Random) -> Account:
    """The campaign's own disk gets full at a random moment: one clear line; with room again the next call goes on.

    seconds: from the room to the end of that call.
    """
    with Lab("pod1", settings={"ARTIFACT_KB": "512"}, full_here=True) as lab:
        controller = lab.start()
        wait_until(lambda: (lab.root / "experiments" / "ledger").is_dir() and lab.events(), 60, "for the ledger")
        time.sleep(draw.uniform(0.0, 3.0))
        lab.fill(lab.root, draw.choice([0, 4096, 65536, 300_000]))
        code = controller.wait(120)
        lab.observe()
        said = lab.said
        lab.free(lab.root)
        began = time.monotonic()
        lab.end(lab.start())
        seconds = time.monotonic() - began
        account = lab.account()
    account.seconds = seconds
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if code not in (0, 1, 3) or "Traceback" in said or (code and "No space left" not in said):
        account.findings.append(f"on a full disk: exit {code}, {last[-300:]!r}")
    return account


# -- (9): the clock


def clock_wrong(draw: random.Random) -> Account:
    """The host's time of day is an hour off, to either side; a controller is killed meanwhile, too.

    seconds: of the whole campaign.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: builds a clock that is wrong")
    shift = draw.choice([-3600, 3600])
    with tempfile.TemporaryDirectory(prefix="golf-clock-") as folder:
        source, library = Path(folder, "clock.c"), Path(folder, "clock.so")
        source.write_text(SHIM)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        with Lab("pod1", environment={"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(shift)}) as lab:
            began = time.monotonic()
            controller = lab.start()
            wait_until(lab.run_folders, 120, f"for a run\n{lab.said[-1000:]}")
            time.sleep(draw.uniform(0.0, 1.5))
            lab.kill(controller)
            started = json.loads((lab.run_folders()[0] / "run.json").read_bytes())
            lab.end(lab.start())
            seconds = time.monotonic() - began
            account = lab.account()
            ends = [json.loads((run / "exit.json").read_bytes())["ended_at"] for run in lab.run_folders()]
            skew = time.mktime(time.strptime(ends[0], "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(time.gmtime())
            noticed = "clock" in lab.said
    account.seconds = seconds
    assert started
    if abs(skew - shift) > 600:
        account.findings.append(f"the host's clock was {skew:.0f} s off, {shift} was meant")
    if not noticed:
        account.findings.append("the preflight did not name the clock")
    return account


# -- (10): transfers


def transfer_cut(draw: random.Random, cuts: int = 6) -> Account:
    """Connections are cut after a random number of bytes, again and again, while results of 2 MB come up.

    seconds: from the last cut to the end of `gate run`.
    """
    with Lab("pod1", settings={"ARTIFACT_KB": "2048"}, proxy=True) as lab:
        controller = lab.start()
        wait_until(lab.run_folders, 120, f"for a run\n{lab.said[-1000:]}")
        for _ in range(cuts):
            cut = lab.proxy.connections + 1  # a cut shows in the next connection
            lab.proxy.cut_after(draw.randrange(20_000, 1_500_000))
            while lab.proxy.connections < cut and controller.poll() is None:
                time.sleep(0.02)
            time.sleep(draw.uniform(0.0, 0.5))
        lab.proxy.cut_after(None)
        began = time.monotonic()
        lab.end(controller, expect=controller.wait(150))
        if controller.returncode:  # it may have given up on a run that could not be brought home
            lab.end(lab.start())
        seconds = time.monotonic() - began
        account = lab.account()
    account.seconds = seconds
    return account


def file_short(draw: random.Random) -> Account:
    """A file of a run that ended is cut short on the host: refused, nothing recorded or freed; once mended, all goes on.

    seconds: from the mending to the end of `gate run`.
    """
    with Lab("pod1") as lab:
        hold = lab.hold("pod1")
        controller = lab.start()
        (name,) = lab.wait_held("pod1")
        lab.kill(controller)
        hold.unlink()
        wait_until(lambda: not lab.running("pod1"), 60, "for the run to end")
        file = lab.far / "pod1" / "runs" / name / draw.choice(["model.json", "train.log"])
        content = file.read_bytes()
        file.write_bytes(content[: draw.randrange(len(content))])
        controller = lab.start()
        lab.end(controller, expect=1)
        refused = (
            name not in lab.outcomes()
            and file.exists()
            and f"{file.name}: " in lab.said
            and "exit.json says" in lab.said
        )
        file.write_bytes(content)
        began = time.monotonic()
        lab.end(lab.start())
        seconds = time.monotonic() - began
        account = lab.account()
    account.seconds = seconds
    if not refused:
        account.findings.append(f"{file.name}, cut short, was not refused: {lab.said[-500:]!r}")
    return account
