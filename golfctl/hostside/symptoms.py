"""What the last words of a failing run mean: memory, communication, or a broken machine. Standard library, Python >= 3.9.

Each table maps a name to a pattern of log lines as the libraries print them. The patterns are narrow: scripts print
their own source into the log, and healthy runs print warnings that speak of NCCL and of memory.
"""

from __future__ import annotations

import re
from typing import Dict, List, Optional

Table = Dict[str, bytes]
"""Name -> regular expression; compiled when first needed, as most runs need none."""

# An exception as Python prints it when nobody caught it: at the start of the line but for the prefix of a launcher
# (`[rank0]: `, `[default0]:`). Program text that names the class stands after `except`, `raise` or white space.
_RAISED = rb"^(?:\S{1,24}:\s?){0,3}(?:[A-Za-z_]\w*\.){0,6}"
_CODE = rb"[#\"'`]|\([^)]*$"
_CHEAP = (b"rror", b"emory", b"NCCL", b"bad_alloc", b"loo", b"atchdog")
"""No line of the first two tables lacks all of these; looking for them costs little."""

MEMORY: Table = {
    "torch": rb"(?:CUDA|HIP|XPU) out of memory\. Tried to allocate \d|MPS backend out of memory \(",
    "cuda": rb"CUDA error: (?:out of memory|CUBLAS_STATUS_ALLOC_FAILED)|\bCuda failure (?:\d+ )?'out of memory'"
    rb"|CUDA_ERROR_OUT_OF_MEMORY\b|\bcudaErrorMemoryAllocation\b|Triton Error \[CUDA\]: out of memory",
    "cpu": rb"DefaultCPUAllocator: (?:can't allocate|not enough) memory: you tried to allocate \d",
    "raised": _RAISED + rb"(?:OutOfMemoryError|_ArrayMemoryError|MemoryError)(?:: |\s*$)",
    "system": _RAISED + rb"OSError: \[Errno 12\] ",
    "cpp": rb"^terminate called after throwing an instance of '(?:std::bad_alloc|c10::OutOfMemoryError)'",
}
"""Memory ran out, on the GPU or beside it."""

COMMUNICATION: Table = {
    "result": rb"\bnccl(?:System|Remote|Internal|UnhandledCuda)Error\b",
    "error": rb"\bNCCL error(?: in)?: |\bunhandled (?:system|cuda) error \(run with NCCL_DEBUG",
    "watchdog": rb"Watchdog caught collective operation timeout: |Some NCCL operations have failed or timed out"
    rb"|[Pp]rocess group watchdog thread terminated with exception",
    "raised": _RAISED + rb"Dist(?:Backend|Network|Store)Error: ",
    "gloo": rb"\bgloo/\S+:\d+\] (?:Connection|Timed out|Socket|connect)|Gloo connectFullMesh failed",
}
"""One process of several can't speak with the others, which then wait until their own timeouts."""

HOST: Table = {
    "nccl": rb"\bncclSystemError\b|\bunhandled system error\b",
    "ecc": rb"(?i)\buncorrectable (?:ECC|NVLink) error|cudaErrorECCUncorrectable|CUDA error: uncorrectable",
    "xid": rb"\bXid \([^)]*\): (?:48|62|64|74|79|92|94|95|119|120),",  # 13, 31, 43 and 45 are what faulty code causes
    "bus": rb"\bfallen off the bus\b",
    "lost": rb"(?i)\b(?:GPU|device) is lost\b",
    "busy": rb"CUDA-capable device\(s\) is/are busy or unavailable",
    "missing": rb"\bno CUDA-capable device is detected|\bNo CUDA GPUs are available",
    "driver": rb"NVIDIA driver on your system is too old|Driver/library version mismatch|CUDA driver initialization failed",
    "full": rb"\bNo space left on device\b|\bDisk quota exceeded\b",
    "disk": rb"\bInput/output error\b|\bRead-only file system\b|\bStale file handle\b",
}
"""The machine is at fault, whatever ran there: another machine may do."""


def symptom(line: bytes, table: Table) -> Optional[str]:
    """Name of the first entry the line shows, None if there is none or the line looks like program text."""
    if not any(word in line for word in _CHEAP) and table is not HOST:
        return None
    for name, pattern in table.items():
        match = re.search(pattern, line)
        if match and not re.search(_CODE, line[: match.start()]):
            return name
    return None


def host_fault(lines: List[str]) -> Optional[str]:
    """The first of these lines that points to the machine."""
    return next((line for line in lines if symptom(line.encode(), HOST)), None)
