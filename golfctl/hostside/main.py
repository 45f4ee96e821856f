"""The travelling file's front door. Standard library, Python >= 3.9.

python FILE [--detach] ROOT NAME [ORDER]   supervise a run (supervise.py)
python FILE serve ROOT NONCE       answer a controller on stdin and stdout (serve.py)
python FILE keep ROOT              wait for silence, then run on_idle (keeper.py)
python FILE tool NAME              a longer job (tools.py)
"""

from __future__ import annotations

import sys

# Only what was asked for is imported: a supervisor starts with every run.


def main(arguments: list[str]) -> int:
    """Exit code of what was asked for."""
    what = arguments[0] if arguments else ""
    if what == "serve" and len(arguments) == 3:
        from golfctl.hostside import serve

        return serve.main(arguments[1:])
    if what == "keep" and len(arguments) == 2:
        from golfctl.hostside import keeper

        return keeper.main(arguments[1:])
    if what == "tool":
        from golfctl.hostside import tools

        return tools.main(arguments[1:])
    from golfctl.hostside import supervise

    return supervise.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
