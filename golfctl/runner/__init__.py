"""Obeys decide.py on one or many hosts."""

from golfctl.runner.loop import Observer, Runner

__all__ = ["Observer", "Runner"]
