"""What must not be published: secrets, addresses, names of machines, folders of people. Aliases stay."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign

SHORTEST = 4
"""Shorter words are parts of others."""
_ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_TOKEN = re.compile(r"\b(?:gh[pousr]_|github_pat_|hf_|sk-|rpa_|xox[abp]-|AKIA)[A-Za-z0-9_-]{12,}")
_PLAIN = frozenset({"localhost", "local", "root", "user", "home", "python", "golfctl"})


class Mask:
    """Takes known words and everything of a known form out of a text."""

    def __init__(self, campaign: Campaign) -> None:
        words: dict[str, str] = {}
        for alias, host in campaign.hosts.items():
            words |= dict.fromkeys((host.address, host.jump), f"[{alias}]")
            words |= {host.root: f"[{alias}]", host.identity: "[key]", host.data: "[data]"}
            words |= {os.environ.get(name, ""): "***" for name in host.secret_env}
        words |= {str(campaign.root): "[campaign]", str(Path.home()): "[home]", socket.gethostname(): "[host]"}
        known = [word for word in words if len(word) >= SHORTEST and word.lower() not in _PLAIN]
        self.words = [
            (re.compile(rf"(?<!\w){re.escape(word)}(?!\w)"), words[word])
            for word in sorted(known, key=len, reverse=True)
        ]

    def __call__(self, text: str) -> str:
        """The same text without them."""
        for word, shown in self.words:
            text = word.sub(lambda _, shown=shown: shown, text)  # type: ignore[misc]
        return _TOKEN.sub("***", _ADDRESS.sub("[address]", text))
