"""One thread per process: on a busy machine torch's own threads wait for each other (30 s for what takes 0.6 s)."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is imported: before any test module is
