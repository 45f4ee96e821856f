"""Pinned packages for a bare machine: what a campaign says, else what runs the bundled trainer here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from golfctl.store.campaign import Campaign

REQUIREMENTS = "requirements.txt"
TRAINER = ("torch", "numpy", "sentencepiece", "zstandard")


def pinned(campaign: Campaign) -> list[str]:
    """Lines for pip: requirements.txt of the campaign, else the trainer's packages in the versions installed here."""
    path = campaign.root / REQUIREMENTS
    if path.is_file():
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line and not line.startswith("#")]
    found = []
    for name in TRAINER:
        try:
            found.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return found
