"""A document against a model: every finding with its line and column, in words."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import ErrorDetails

from golfctl.errors import Problem
from golfctl.store.marks import Document, Spot, did_you_mean

M = TypeVar("M", bound=BaseModel)

_FIXED_IN_PLANS = ("name", "kind", "number")
_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


def validate(
    document: Document, model: type[M], settings: Iterable[tuple[str | int, ...]] = ()
) -> tuple[M | None, list[Problem]]:
    """The document as a model (None if it is not one) and all problems, those of the reader first.

    settings: paths of mappings of settings; `*` stands for any key or index. Their values are taken as they are written, because
    a process sees text: 0.10 stays `0.10`, 1e-3 stays `1e-3`.
    """
    problems = list(document.problems)
    value = document.value
    for path in settings:
        value = _as_written(value, document.spot, path)
    try:
        return model.model_validate(value), problems
    except ValidationError as error:
        problems += [_problem(document, model, details) for details in error.errors(include_url=False)]
        return None, problems


def _as_written(value: Any, spot: Spot, path: tuple[str | int, ...]) -> Any:
    """A copy of `value` in which numbers of the mappings at `path` are their source text."""
    if path and isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        changed = {
            key: _as_written(item, spot.kids[key][2], path[1:]) if path[0] in ("*", key) else item
            for key, item in items
        }
        return changed if isinstance(value, dict) else list(changed.values())
    if not path and isinstance(value, dict):
        return {key: _source(item, spot.kids[key][2]) for key, item in value.items()}
    return value


def _source(item: Any, spot: Spot) -> Any:
    return spot.text if isinstance(item, int | float) and not isinstance(item, bool) else item


def _problem(document: Document, model: type[BaseModel], details: ErrorDetails) -> Problem:
    location = _location(document, details["loc"])
    kind, context = details["type"], details.get("ctx", {})
    about_key = details["loc"][-1:] == ("[key]",)
    if kind == "extra_forbidden":
        return document.problem(location, _unknown(location, model, details["loc"]), key=True)
    if kind == "at_index":
        location = (*location, context["index"])
    return document.problem(location, _message(kind, context, details), key=about_key)


def _unknown(location: tuple[str | int, ...], model: type[BaseModel], loc: tuple[str | int, ...]) -> str:
    known = _fields_at(model, loc[:-1])
    word = str(location[-1])
    if "gates" in location and word in _FIXED_IN_PLANS:
        return "can't be changed by a plan; it stands in golf.yaml"
    return f"unknown key{did_you_mean(word, known)}"


def _message(kind: str, context: dict[str, Any], details: ErrorDetails) -> str:
    said = details["msg"]
    if kind == "missing":
        said = "is missing"
    elif kind == "value_error":
        said = str(context["error"])
    elif kind in _KINDS:
        said = f"must be {_KINDS[kind]}, is {_what(details['input'])}"
        if kind == "string_type" and not isinstance(details["input"], list | dict) and details["input"] is not None:
            said += "; quote it"
    elif kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
        (bound,) = (value for key, value in context.items() if key in {"gt", "ge", "lt", "le"})
        relation = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
        (key,) = (key for key in context if key in relation)
        said = f"must be {relation[key]} {bound}, is {details['input']}"
    elif kind == "literal_error":
        said = f"must be {context['expected']}, is {_what(details['input'])}"
    elif kind in {"string_too_short", "too_short"}:
        said = "must not be empty"
    return said


def _what(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"the switch {str(value).lower()}"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _location(document: Document, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """pydantic's path as one in the file: `[key]` marks fall off, so does the 0 of a single fallback, and "1" may be 1."""
    path: list[str | int] = []
    spot: Spot | None = document.spot
    for part in loc:
        if part == "[key]":
            break
        if part == 0 and path == ["fallback"] and spot is not None and not spot.is_list:
            continue
        name = str(part) if spot is not None and part not in spot.kids and str(part) in spot.kids else part
        path.append(name)
        spot = spot.kids[name][2] if spot is not None and name in spot.kids else None
    return tuple(path)


def _fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """Known keys of the model that pydantic was in at `loc`."""
    here: Any = _inner(model.model_fields["root"].annotation) if issubclass(model, RootModel) else model
    for part in loc:
        here = _inner(here.model_fields[part].annotation) if _is_model(here) and part in here.model_fields else here
    return list(here.model_fields) if _is_model(here) else []


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def _inner(annotation: Any) -> Any:
    """The model inside `X | None`, `list[X]` or `dict[K, X]`."""
    if get_origin(annotation) is None and not isinstance(annotation, types.UnionType):
        return annotation
    for argument in reversed(get_args(annotation)):
        if _is_model(found := _inner(argument)):
            return found
    return annotation
