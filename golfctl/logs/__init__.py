"""Reading training logs of every family of the field: lines in, records out. `docs/logs.md` says how to add one."""

from golfctl.logs.reader import progress, read, read_bytes, read_file
from golfctl.logs.record import Eval, LogFile, Points, Progress, RunLog

__all__ = ["Eval", "LogFile", "Points", "Progress", "RunLog", "progress", "read", "read_bytes", "read_file"]
