"""Obeys decide.py on one or many hosts."""

from golfctl.runner.loop import Runner
from golfctl.runner.telling import Observer

__all__ = ["Observer", "Runner"]
