"""All of this folder as one file that travels: a zip archive Python runs as it is (PEP 441). Not part of that archive."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

OUTSIDE = ("__init__.py", "package.py")
_ENTRY = "import sys\n\nfrom golfctl.hostside.main import main\n\nsys.exit(main(sys.argv[1:]))\n"


def single_file() -> bytes:
    """The archive, for `python FILE ...` (see main.py). The same sources give the same bytes."""
    here = Path(__file__).parent
    entries = {"__main__.py": _ENTRY, "golfctl/__init__.py": "", "golfctl/hostside/__init__.py": ""}
    for part in sorted(here.glob("*.py")):
        if part.name not in OUTSIDE:
            entries[f"golfctl/hostside/{part.name}"] = part.read_text(encoding="utf-8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, text in entries.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()
