"""Longer jobs on a host, each a process of its own: `python FILE tool NAME`, the request as JSON on stdin.

It prints lines of JSON: {"say": text} while it works, at the end {"done": answer} or {"error": one line}. A tool is a module
with run(request, say) -> answer that raises OSError or ValueError. Standard library, Python >= 3.9.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from golfctl.hostside.files import one_line

TOOLS = ("probe", "setup", "speed")


def main(arguments: list[str]) -> int:
    """Run one tool; the exit code is 0 also where the tool answers with an error."""
    if len(arguments) != 1 or arguments[0] not in TOOLS:
        print(f"usage: tool {'|'.join(TOOLS)}", file=sys.stderr)
        return 2
    # What a tool or its children print by themselves must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(kind: str, content: Any) -> None:
        print(json.dumps({kind: content}), file=answers, flush=True)

    request = json.loads(sys.stdin.buffer.read())
    try:
        tool = importlib.import_module(f"golfctl.hostside.{arguments[0]}")
        say("done", tool.run(request, lambda text: say("say", text)))
    except BrokenPipeError:
        return 1  # nobody listens any more
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        say("error", one_line(f"{place}{error.strerror or error}"))
    except ValueError as error:
        say("error", one_line(str(error)))
    return 0
