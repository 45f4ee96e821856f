"""The exception tree. The library raises these; only the command line turns them into a line and an exit code.

GolfctlError (exit 4: our bug unless a subclass says otherwise)
├── InputError      exit 2: what the user wrote or asked for is wrong
│   └── InputErrors exit 2: several problems of one file, reported together
├── Interrupted     exit 130: Ctrl-C
├── GateSaidNo      exit 1: a gate or a check said no
├── HostError       exit 3: a host, a run or the disk failed
│   └── HostUnreachable exit 3: no answer from a host; says nothing about the runs on it
└── LedgerError     exit 3: the ledger is damaged or can't be written

Every message is one line: what, where, what was allowed, what to do.
"""

from __future__ import annotations

from dataclasses import dataclass


class GolfctlError(Exception):
    """Base of all errors golfctl raises on purpose."""

    exit_code = 4


class InputError(GolfctlError):
    """The user's input is wrong; nothing was changed."""

    exit_code = 2


class NoCampaign(InputError):
    """There is no golf.yaml here or above."""


@dataclass(frozen=True, order=True)
class Problem:
    """One finding in a file. `line` and `column` count from 1; 0 means the file as a whole."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place} {self.message}"


class InputErrors(InputError):
    """All problems found in one reading, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Interrupted(GolfctlError):
    """A person pressed Ctrl-C; what runs on hosts goes on."""

    exit_code = 130


class GateSaidNo(GolfctlError):
    """A gate, a verification or an audit answered no."""

    exit_code = 1


class HostError(GolfctlError):
    """A host, a run on it, or the disk under us failed."""

    exit_code = 3


class HostUnreachable(HostError):
    """A host did not answer. Nothing is known about what runs there; asking again later is the remedy."""


class LedgerError(GolfctlError):
    """The ledger is damaged, was cut, or can't be written."""

    exit_code = 3
