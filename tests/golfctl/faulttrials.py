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
from golfctl.hosts.ssh import SshHost
from golfctl.store.campaign import load
from tests.golfctl.faultlab import GATES, GOLF, PLAN, Account, Lab
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
        waited = float(idle.read_text().split()[0]) - ended
        began = time.monotonic()
        lab.end(lab.start(), expect=0 if ending == "completed" else 1)
        seconds = time.monotonic() - began
        names = [name for name in lab.intents() if name.startswith("fast.g2.") and ending != "completed"]
        account = lab.account(
            ends=dict.fromkeys(names, ending),
            verdicts=None if ending == "completed" else [("fast", 1, "PASS"), ("fast", 2, "FAIL")],
        )
        calls = len(idle.read_text().split())
    account.seconds = seconds
    if waited < abandon_s - 0.1:
        account.findings.append(f"on_idle ran {waited:.2f} s after the last run's end, allowed after {abandon_s:g} s")
    if calls != 1:
        account.findings.append(f"on_idle ran {calls} times")
    return account


# -- (3), (4): the line


def line_down(draw: random.Random, seconds_down: float = 30.0) -> Account:
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
        account = lab.account(serving_s=170.0)
    account.seconds = seconds
    return account


def line_gone(draw: random.Random, lost_after_s: float = 4.0, stop: bool = True) -> Account:
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
        account = lab.account(ends={name: "lost"}, serving_s=170.0)
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
