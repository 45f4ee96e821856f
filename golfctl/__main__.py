"""Entry point: run a command; turn every error into one line and an exit code."""

from __future__ import annotations

import sys


def main() -> None:
    """Exit codes: 0 done, 1 a gate or check said no, 2 wrong input, 3 a host or run failed, 4 our bug."""
    from golfctl.cli.run import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
