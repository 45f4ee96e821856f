"""golfctl: plans in, gated training runs, verdicts out."""

__version__ = "0.1.0"
