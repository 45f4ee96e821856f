"""What an exported script has in the place of some of the package's functions: the settings are known, or nearly so.

Read as text by `trainer.export.script` and never run here: each module's part stands under its name. Made from the settings are
SETTINGS (name to value of all of them), OPEN (names of those a script still takes) and Config (a dataclass of what is read).
"""

from __future__ import annotations

import ast
from pathlib import Path

MARK = "# module "
"""What stands before the name of the module whose functions follow."""


def by_module() -> dict[str, list[ast.stmt]]:
    """Module to the statements that replace those of the same names in it."""
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
    found = {}
    for part in text.split(MARK)[1:]:
        name, _, code = part.partition("\n")
        found[name.strip()] = ast.parse(code).body
    return found
