"""Two machines out of network namespaces with real OpenSSH servers, and this repository's three plans on them, by one command.

    python scripts/ssh_tour.py FOLDER           gates 1-4 of all plans on pod1 (1 slot) and pod8 (8 slots), then the report
    python scripts/ssh_tour.py FOLDER --shell   the same machines and an empty campaign, and a shell to try things in

Needs root on Linux, iproute2 and an OpenSSH server. FOLDER must not exist. In the shell, `ip netns list` shows the machines; this
cuts a cable: ip -n NAME link set line0 down.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.golfctl.sshlab import Home, Net  # noqa: E402

HOSTS = """\
pod1: {{kind: ssh, address: pod1, slots: 1, usd_per_hour: 2.69, root: {far}/pod1, python: {python}}}
pod8: {{kind: ssh, address: pod8, slots: 8, usd_per_hour: 21.52, root: {far}/pod8, python: {python}}}
"""


def main() -> int:
    """Make the machines, run, take them away."""
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True)
    os.environ["HOME"] = str(folder / "home")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ.pop("SSH_AUTH_SOCK", None)
    with Net(Home(folder / "home")) as net:
        for alias in ("pod1", "pod8"):
            net.host(alias)
        say("golfctl", "init", "golf", "--preset", "cpu-demo", "--plans", str(ROOT / "plans"), cwd=folder)
        campaign = folder / "golf"
        (campaign / "hosts.yaml").write_text(HOSTS.format(far=folder / "far", python=sys.executable))
        if "--shell" in sys.argv:
            return subprocess.call([os.environ.get("SHELL", "bash")], cwd=campaign)
        began = time.monotonic()
        command = ["golfctl", "gate", "run", "--through", "4", "--host", "pod1", "--host", "pod8", "--yes"]
        said = say(*command, cwd=campaign)
        print(f"--- {time.monotonic() - began:.0f} s, exit code {said}")
        say("golfctl", "report", cwd=campaign)
        say("golfctl", "runs", "list", cwd=campaign)
        for alias in ("pod1", "pod8"):
            say("golfctl", "host", "sweep", alias, cwd=campaign)
        return say("golfctl", "ledger", "verify", cwd=campaign)


def say(*words: str, cwd: Path) -> int:
    """Show a command and run it."""
    print("$", " ".join(words), flush=True)
    return subprocess.call(words, cwd=cwd)


if __name__ == "__main__":
    sys.exit(main())
