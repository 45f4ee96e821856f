"""The README's pictures, made from what the commands really print: docs/images/*.svg.

python scripts/pictures.py DEMO_LOG     (DEMO_LOG: the saved output of `make demo`)
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"


def picture(output: str, title: str, name: str, width: int = 130) -> None:
    """Write one terminal picture."""
    with Path(os.devnull).open("w") as sink:
        console = Console(record=True, width=width, file=sink, force_terminal=True)
        console.print(Text.from_ansi(output.strip("\n")))
        IMAGES.mkdir(parents=True, exist_ok=True)
        (IMAGES / name).write_text(console.export_svg(title=title))


def main() -> None:
    """The demo's log, and the report of this repository's own campaign."""
    demo = Path(sys.argv[1]).read_text()
    picture(demo[demo.index("Campaign ") :], "make demo", "demo.svg")
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "130"}
    golfctl = str(Path(sys.executable).with_name("golfctl"))
    shown = subprocess.run([golfctl, "report"], cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    picture(shown.stdout, "golfctl report", "report.svg")


if __name__ == "__main__":
    main()
