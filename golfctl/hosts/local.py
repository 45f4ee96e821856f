"""This machine as a host: no network, the same folders as everywhere. The embedded default and the test bed."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from golfctl.domain.host import HostSpec
from golfctl.errors import HostError
from golfctl.hosts.folder import FolderHost, told
from golfctl.hostside import keeper
from golfctl.hostside.compiled import install
from golfctl.hostside.package import single_file
from golfctl.hostside.root import Root

NEEDS_SUPERVISOR = ("start", "tool")


class LocalHost(FolderHost):
    """Runs under ROOT = spec.root; asked by a plain call."""

    def __init__(self, spec: HostSpec) -> None:
        """Touches nothing. Raises HostError if the spec has no root."""
        super().__init__(spec)
        self.root = Path(spec.root).expanduser().absolute()
        content = single_file()
        # Under the name of its content: an upgrade of golfctl never changes the file a run lives on.
        self._supervisor = self.root / f"supervise-{hashlib.sha256(content).hexdigest()[:16]}.pyz"
        self._content = content
        self._folder = Root(str(self.root), str(self._supervisor), sys.executable)

    def _ask(self, operation: str, payload: bytes = b"", **arguments: Any) -> tuple[Any, Iterator[bytes]]:
        if self._spec.abandon_after_s is not None:
            keeper.contact(str(self.root), str(self._supervisor))
        try:
            if operation in NEEDS_SUPERVISOR and not self._supervisor.exists():
                self.root.mkdir(parents=True, exist_ok=True)
                new = self._supervisor.with_suffix(f".{os.urandom(8).hex()}.new")
                new.write_bytes(self._content)
                install(str(new), str(self._supervisor))
            answer, blocks = self._folder.ask(operation, arguments, payload)
        except FileNotFoundError as error:
            if operation == "send":
                raise
            raise HostError(f"{self._spec.alias}: {told(error)}") from error
        except (OSError, ValueError) as error:
            text = told(error) if isinstance(error, OSError) else str(error)
            raise HostError(f"{self._spec.alias}: {text}") from error
        return answer, blocks or iter(())
