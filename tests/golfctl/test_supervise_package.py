"""The supervisor as a file that travels: old Pythons, nothing but the standard library, a fast start."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from golfctl.hostside import package, supervise

SOURCES = sorted(path for path in Path(package.__file__).parent.glob("*.py") if path.name not in package.OUTSIDE)


@pytest.mark.service
def test_supervise_starts_fast(tmp_path: Path) -> None:
    """Its own start (usage line and out) costs well below 0.3 s of processor time; 0.07 s on a quiet machine."""
    file = tmp_path / "supervise.pyz"
    file.write_bytes(package.single_file())
    costs = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-I", "-S", str(file)], stderr=subprocess.DEVNULL, check=False)
        after = os.times()
        costs.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(costs) < 0.3


def test_supervise_sources_are_python_39_and_stdlib_only() -> None:
    """Every part parses as Python 3.9 and imports the standard library and its siblings only."""
    parts = {path.stem for path in SOURCES}
    assert {"main", "supervise", "watch", "leases", "keeper"} <= parts
    for path in SOURCES:
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                package_itself = node.module in ("golfctl", "golfctl.hostside")
                names = (
                    [f"{node.module}.{alias.name}" for alias in node.names] if package_itself else [node.module or ""]
                )
            for name in names:
                sibling = name == "golfctl.hostside" or (
                    name.startswith("golfctl.hostside.") and name.split(".")[2] in parts
                )
                assert sibling or name.split(".")[0] in sys.stdlib_module_names, f"{path.name} imports {name}"
    command = ["ruff", "check", "--isolated", "--select", "E9,F", "--target-version", "py39"]
    files = list(map(str, SOURCES))
    ruff = Path(sys.executable).parent / "ruff"
    if ruff.exists():
        assert subprocess.run([str(ruff), *command[1:], *files], check=False).returncode == 0


def test_package_is_the_same_every_time() -> None:
    """Same sources, same bytes: the name of the file on the host is the hash of its content."""
    assert package.single_file() == package.single_file()
    assert supervise.NAME.match("D-g1-s1337.1")
