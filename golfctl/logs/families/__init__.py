"""One module per family of logs, each with a FAMILY. Adding a family is adding a file here and its name to ALL."""

from __future__ import annotations

from golfctl.logs.families import baseline, minutes, nanochat, nanogpt, ternary
from golfctl.logs.grammar import Grammar

# In order: the first whose head and keys fit a line has it.
ALL = tuple(Grammar(module.FAMILY) for module in (baseline, minutes, ternary, nanochat, nanogpt))
