"""hosts.yaml: this person's machines. It is git-ignored: it holds addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from golfctl.errors import InputError
from golfctl.hostside.files import replace_file
from golfctl.store.campaign import HOSTS, Campaign, load


def append(campaign: Campaign, alias: str, entry: Mapping[str, Any]) -> None:
    """Add a machine; what the file holds stays byte for byte. Raises InputError, InputErrors, OSError; then nothing changed."""
    if alias in campaign.hosts:
        raise InputError(f"host {alias}: is there already; edit hosts.yaml, or take another name")
    path = campaign.root / HOSTS
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    text = yaml.safe_dump({alias: dict(entry)}, sort_keys=False, allow_unicode=True, width=1000)
    replace_file(str(path), (old + ("" if not old or old.endswith("\n") else "\n") + text).encode())
    try:
        load(campaign.root)
    except InputError:
        if old:
            replace_file(str(path), old.encode())
        else:
            path.unlink()
        raise
