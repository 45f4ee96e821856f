"""Where the bytes of an artifact go: of its frame, its header, and every section, role, tensor and stream.

The bound of a section is the sum of -log2 p of its symbols: under the range coder's tables where it was the codec (row labels
included, tables not), else under the section's own histogram (one for each byte of a value). A general codec may come below its
bound where rows repeat. What streams of one section share is divided among them in proportion to their bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainer.packing import codecs
from trainer.packing.blocks import layout_of, shuffled, unshuffled, width_of
from trainer.packing.codecs import RANS
from trainer.packing.sections import Section, symbols_in

_SUMS = ("values", "raw_bytes", "bound_bytes", "coded_bytes")


def explain(
    sections: Sequence[Section], schemes: Mapping[str, str], header_bytes: int, file_bytes: int, code_bytes: int
) -> dict[str, Any]:
    """Everything as JSON. sections: of a file that was read. schemes: by tensor. header_bytes: as they lie in the file."""
    told = [section(item, schemes) for item in sections]
    frame = file_bytes - header_bytes - sum(entry["coded_bytes"] for entry in told)
    parts = [part | {"role": entry["role"]} for entry in told for part in entry["parts"]]
    return {
        "file_bytes": file_bytes,
        "frame_bytes": frame,
        "header_bytes": header_bytes,
        "sections": told,
        "roles": _grouped(parts, lambda part: part["role"]),
        "tensors": _grouped(parts, lambda part: part["tensor"]),
        "code_bytes": code_bytes,
        "total_bytes": file_bytes + code_bytes,
    }


def section(item: Section, schemes: Mapping[str, str]) -> dict[str, Any]:
    """Sizes of one section, and of each stream in it."""
    streams = item.kind.streams
    ends = np.cumsum([math.prod(stream.shape) * width_of(stream) for stream in streams])
    bits = np.array([part.sum() for part in np.split(_bits(item), ends[:-1])])
    coded = _shares(len(item.content), bits if bits.sum() else ends - np.concatenate([[0], ends[:-1]]))
    parts = []
    for (tensor, name), stream, cost, size in zip(item.kind.parts, streams, bits, coded, strict=True):
        values = math.prod(stream.shape)
        raw = values * np.dtype(stream.dtype).itemsize
        entry = {"tensor": tensor, "scheme": schemes[tensor], "stream": name}
        parts.append(entry | _facts(values, raw, cost / 8, size))
    sums = {key: sum(part[key] for part in parts) for key in _SUMS}
    whole = _facts(sums["values"], sums["raw_bytes"], sums["bound_bytes"], len(item.content))
    entry = {"role": item.kind.role, "stream": item.kind.stream}
    return entry | {"codec": item.codec, "shuffled": item.shuffled} | whole | {"parts": parts}


def _facts(values: int, raw: int, bound: float, coded: int) -> dict[str, Any]:
    each = {"bits_per_value": round(8 * coded / values, 3) if values else 0.0}
    return {"values": values, "raw_bytes": raw, "bound_bytes": round(bound, 1), "coded_bytes": coded} | each


def _grouped(parts: Sequence[Mapping[str, Any]], name: Callable[[Mapping[str, Any]], str]) -> dict[str, dict[str, Any]]:
    """Sums by name, in the order of first appearance. Values are those of weights: scales and corrections are bytes only."""
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        entry = found.setdefault(name(part), dict.fromkeys(_SUMS, 0))
        for key in _SUMS:
            entry[key] += part[key] if key != "values" or part["stream"] in {"symbols", "values"} else 0
    for entry in found.values():
        entry["bound_bytes"] = round(entry["bound_bytes"], 1)
        entry["bits_per_value"] = round(8 * entry["coded_bytes"] / entry["values"], 3) if entry["values"] else 0.0
    return found


def _bits(section: Section) -> np.ndarray:
    """The bound of every symbol, (N,), in the order of the streams."""
    layout, symbols = layout_of(section.kind.streams), symbols_in(section)
    mixed = shuffled(symbols, layout.width)
    if section.codec == RANS:
        return unshuffled(codecs.cost(section.coded, mixed, layout), layout.width)
    planes = []
    for plane in mixed.reshape(layout.width, -1):
        counts = np.bincount(plane, minlength=layout.alphabet)
        planes.append(-np.log2(np.maximum(counts, 1) / max(len(plane), 1))[plane])
    return unshuffled(np.concatenate(planes), layout.width)


def _shares(total: int, weights: np.ndarray) -> list[int]:
    """Whole numbers with this sum, in proportion to the weights (one at least is above 0)."""
    if not weights.sum():
        return [total, *[0] * (len(weights) - 1)]
    ends = np.rint(np.cumsum(weights) / weights.sum() * total).astype(np.int64)
    return np.diff(ends, prepend=0).tolist()


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `explain` returned, for people."""
    columns = f"{'values':>12}{'raw':>12}{'bound':>12}{'coded':>12}{'bits':>8}"
    out = [f"{'section':26}{'codec':14}{columns}"]
    for entry in found["sections"]:
        codec = entry["codec"] + " shuffled" * entry["shuffled"]
        out.append(f"{entry['role'] + ' ' + entry['stream']:26}{codec:14}{_row(entry)}")
    width = max(len(name) for name in found["tensors"])
    for title in ("roles", "tensors"):
        out += ["", f"{title[:-1]:{width}}  {columns}"]
        out += [f"{name:{width}}  {_row(entry)}" for name, entry in found[title].items()]
    streams = [part for entry in found["sections"] for part in entry["parts"]]
    labels = [f"{part['tensor']} {part['stream']}" for part in streams]
    width = max(map(len, labels))
    out += ["", f"{'stream':{width}}  {'scheme':12}{columns}"]
    out += [f"{label:{width}}  {part['scheme']:12}{_row(part)}" for label, part in zip(labels, streams, strict=True)]
    coded = sum(entry["coded_bytes"] for entry in found["sections"])
    return [
        *out,
        "",
        f"frame {found['frame_bytes']:,} + header {found['header_bytes']:,} + sections {coded:,} "
        f"= file {found['file_bytes']:,} bytes",
        f"with {found['code_bytes']:,} bytes of code: {found['total_bytes']:,}",
    ]


def _row(entry: Mapping[str, Any]) -> str:
    sizes = f"{entry['raw_bytes']:>12,}{entry['bound_bytes']:>12,.0f}{entry['coded_bytes']:>12,}"
    return f"{entry['values']:>12,}{sizes}{entry['bits_per_value']:>8.3f}"
