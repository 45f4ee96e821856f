"""docs/techniques.md and the settings say the same."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.config import fields_by_name

TEXT = (Path(__file__).parents[2] / "docs" / "techniques.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([A-Z0-9_]+)` \|(.*)\|$", re.MULTILINE)


def rows() -> list[tuple[str, list[str]]]:
    """Setting and the cells after it, in the order of the page."""
    return [(name, [cell.strip() for cell in rest.split(" | ")]) for name, rest in ROW.findall(TEXT)]


def expected(name: str) -> list[str]:
    """Meaning and source as the page must have them."""
    facts = fields_by_name()[name].metadata
    return [facts[key].replace("|", "\\|") for key in ("meaning", "source")]


def test_page_lists_every_setting_once() -> None:
    """A setting without a row is told with the row to paste; a row without a setting is one that was taken out."""
    named = [name for name, _ in rows()]
    missing = [name for name in fields_by_name() if name not in named]
    paste = "\n".join(
        f"| `{name}` | {' | '.join(expected(name))} | none known | not measured yet |" for name in missing
    )
    assert not missing, f"docs/techniques.md lacks rows:\n{paste}"
    assert not set(named) - fields_by_name().keys(), "rows of settings that do not exist"
    assert len(named) == len(set(named)), "a setting has two rows"


def test_page_says_what_the_settings_say() -> None:
    """Meaning and source are the declared ones; a delta is never left blank."""
    for name, cells in rows():
        assert len(cells) == 4, f"{name}: a row has meaning, source, known delta and our delta"
        assert cells[:2] == expected(name), name
        assert all(cells[2:]), f"{name}: say that it is not known, or not measured yet"
