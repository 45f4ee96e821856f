"""What was heard of logs so far: a copy of every byte, so that a host that vanishes does not take it along."""

from __future__ import annotations

import contextlib
from pathlib import Path

from golfctl.logs import Progress, progress


class Tails:
    """One file a run in `folder`; reading goes on where an earlier command stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, int] = {}
        self._partial: dict[str, bytes] = {}
        self._newest: dict[str, Progress] = {}

    def path(self, name: str) -> Path:
        """Where the copy lies."""
        return self._folder / f"{name}.log"

    def names(self) -> set[str]:
        """Runs whose log we hold a copy of."""
        return {path.stem for path in self._folder.glob("*.log")}

    def size(self, name: str) -> int:
        """Bytes heard so far."""
        if name not in self._sizes:
            with contextlib.suppress(OSError):
                content = self.path(name).read_bytes()
                self._sizes[name] = len(content)
                self._read(name, content[-65536:])
        return self._sizes.get(name, 0)

    def add(self, name: str, content: bytes) -> None:
        """More of a log. A disk that is full here stops nothing: the bytes are asked for again."""
        if not content:
            return
        size = self.size(name)
        path = self.path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if path.exists() else "wb") as file:
                file.seek(size)  # what a crash or a full disk left half is written over
                file.write(content)
        except OSError:
            return
        self._sizes[name] = size + len(content)
        self._read(name, content)

    def _read(self, name: str, content: bytes) -> None:
        """Keep the newest progress line."""
        lines = (self._partial.get(name, b"") + content).replace(b"\r", b"\n").split(b"\n")
        self._partial[name] = lines.pop()[-4096:]
        for line in lines:
            if found := progress(line.decode(errors="replace")):
                self._newest[name] = _merged(self._newest.get(name), found)

    def newest(self, name: str) -> Progress | None:
        """The latest progress, with the last known value of what its line does not say."""
        self.size(name)
        return self._newest.get(name)

    def forget(self, name: str) -> None:
        """The run is at home, whole."""
        with contextlib.suppress(OSError):
            self.path(name).unlink(missing_ok=True)
        for known in (self._sizes, self._partial, self._newest):
            known.pop(name, None)


def _merged(old: Progress | None, new: Progress) -> Progress:
    if old is None:
        return new
    names = ("steps", "train_loss", "val_loss", "val_bpb", "train_time_ms", "step_avg_ms")
    values = {name: getattr(new, name) if getattr(new, name) is not None else getattr(old, name) for name in names}
    return Progress(step=new.step, **values)
