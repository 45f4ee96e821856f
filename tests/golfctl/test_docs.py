"""Docs are tested: every command stands in the README and has help; every code block runs or parses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main

from golfctl.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    """Code blocks of all documents but docs/ssh.md, whose lines need two machines: test_docs_ssh.py."""
    documents = [path for path in DOCUMENTS if path.name != "ssh.md"]
    return [
        block for path in documents for block in re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)
    ]


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    command = command or typer.main.get_command(app)
    if isinstance(command, typer.core.TyperGroup):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))
    else:
        yield path, command


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_command_has_help_and_stands_in_the_readme(path: tuple[str, ...]) -> None:
    """`golfctl GROUP ... NAME` in the table of commands."""
    found = dict(commands())[path]
    assert found.help
    table = README[README.index("## Commands") :]
    row = next(line for line in table.splitlines() if line.startswith(f"| `golfctl {path[0]}"))
    assert f"`{path[-1]}`" in row or f"golfctl {' '.join(path)}" in row
    for parameter in found.params:
        assert getattr(parameter, "help", None) or parameter.name == "help", f"{path} {parameter.name} has no help"


def run_as_a_reader(block: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Lines of a document in one shell that stops at the first failure; golfctl and python are ours."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", block],
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_documents_link_only_to_what_exists() -> None:
    """Relative links and pictures."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert "://" in target or (document.parent / target).exists(), f"{document.name}: {target}"


def test_make_targets_in_the_readme_exist() -> None:
    """The two commands at the top."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.service
@pytest.mark.parametrize(
    "block", [b for b in blocks("sh") if "make " not in b], ids=lambda block: block.split("\n")[0][:30]
)
def test_code_block_runs(block: str, tmp_path: Path) -> None:
    """As a reader would: line by line in one shell, in an empty folder."""
    run_as_a_reader(block, tmp_path)
