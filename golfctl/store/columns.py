"""Many like records as columns of JSON, so that 100,000 of them are read in a second. Pure.

A column of numbers is a list. In a column of words, mappings or tuples, most of which repeat or differ in a key or two, each
is the number of one stored before, with what differs.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping, Sequence
from typing import Any

MOST = 8
"""Keys in which a mapping may differ from one stored before; beyond, it is stored itself."""
_PLAIN = 2
"""The version of marshal's format in which the same value has the same bytes. They are compared only, never stored."""


def pack(values: Sequence[Any]) -> dict[str, Any]:
    """A column as JSON. values: JSON values, mappings of them with string keys, or tuples of strings."""
    first = values[0] if values else None
    if not isinstance(first, str | dict | tuple):
        alike = all(value is first for value in values)
        return {"value": first, "count": len(values), "tuple": False} if alike else {"plain": list(values)}
    if isinstance(first, dict):
        return _mappings(values)
    store: dict[Any, int] = {}
    if isinstance(first, str) and len(set(values)) > len(values) // 2:
        return {"plain": list(values)}
    refs = [store.setdefault(value, len(store)) for value in values]
    return _column(list(store), refs, isinstance(first, tuple))


def _mappings(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    store: list[dict[str, Any]] = []
    exact: dict[bytes, int] = {}
    newest: dict[tuple[str, ...], int] = {}
    refs: list[Any] = []
    for value in values:
        key = marshal.dumps(value, _PLAIN)
        at = exact.get(key)
        if at is not None:
            refs.append(at)
            continue
        at = newest.get(like := tuple(value or ()))
        known = {} if at is None else store[at]
        change = {name: item for name, item in value.items() if at is None or known[name] != item}
        # Equal is not the same: 1, 1.0 and true are three things in a report.
        if at is None or len(change) > MOST or marshal.dumps({**known, **change}, _PLAIN) != key:
            exact[key] = newest[like] = len(store)
            refs.append(len(store))
            store.append(value)
        else:
            refs.append([at, change])
    return _column(store, refs, False)


def _column(store: list[Any], refs: list[Any], tuples: bool) -> dict[str, Any]:
    if not any(refs):
        return {"value": store[0], "count": len(refs), "tuple": tuples}
    return {"tuples": tuples, "store": store, "refs": refs}


def unpack(column: Mapping[str, Any]) -> Sequence[Any]:
    """The values of a packed column. Equal mappings may be one object."""
    if "plain" in column:
        values: list[Any] = column["plain"]
        return values
    if "count" in column:
        return [tuple(column["value"]) if column["tuple"] else column["value"]] * column["count"]
    store = [tuple(value) for value in column["store"]] if column["tuples"] else column["store"]
    return [
        store[ref] if type(ref) is int else {**store[ref[0]], **ref[1]}  # a change never brings a new key
        for ref in column["refs"]
    ]
