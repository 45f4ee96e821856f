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

from golfctl.hosts.ssh import SshHost
from golfctl.store.campaign import load
from tests.golfctl.faultlab import GATES, GOLF, Account, Lab
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
    gates = {
        "over_time": GOLF.replace("kind: threshold, seeds: 2", "kind: threshold, wallclock_s: 6, seeds: 2"),
        "aborted": GOLF.replace("ITERATIONS: 16", "ITERATIONS: 16, NAN_AT: 6"),
        "completed": GOLF,
    }[ending]
    told = "date +%s.%N >> ../idle-pod1"
    with Lab(
        "pod1", gates=gates, entry=f"abandon_after_s: {abandon_s}, on_idle: '{told}', persistent: true"
    ) as lab:
        controller = lab.start()
        if ending == "over_time":  # gate 1 must be behind us before runs may wait
            wait_until(lambda: lab.verdicts(), 120, "for gate 1")
            lab.hold("pod1")
        wait_until(lambda: any(".g2." in name for name in lab.running()), 120, f"for gate 2\n{lab.said[-1000:]}")
        time.sleep(draw.uniform(0.0, 0.4))
        assert lab.kill(controller)
        idle = lab.far / "idle-pod1"
        wait_until(lambda: not lab.running(), 120, "for the runs to end by themselves")
        ended = max((folder / "exit.json").stat().st_mtime for folder in lab.run_folders() if ".g2." in folder.name)
        wait_until(lambda: idle.exists() and idle.read_text(), 120, "for on_idle")
        (lab.side / "hold-pod1").unlink(missing_ok=True)
        waited = float(idle.read_text().split()[0]) - ended
        began = time.monotonic()
        lab.end(lab.start(), expect=0 if ending == "completed" else 1)
        seconds = time.monotonic() - began
        names = [name for name in lab.intents() if ".g2." in name] if ending != "completed" else []
        account = lab.account(
            ends={name: ending for name in names if name in lab.outcomes()},
            verdicts=None if ending == "completed" else [("fast", 1, "PASS")],
        )
        calls = len(idle.read_text().split())
    account.seconds = seconds
    if waited < abandon_s - 0.1:
        account.findings.append(f"on_idle ran {waited:.2f} s after the last run's end, allowed after {abandon_s:g} s")
    if calls != 1:
        account.findings.append(f"on_idle ran {calls} times")
    return account
