"""How a section of the config is declared: a frozen dataclass whose check refuses unknown keys.

A field is part of an identity unless it is marked as one that changes no result: `Execution[int]`. A field that is
neither marked nor taken by a stage (`identity.STAGES`) fails a test, so that no value can be forgotten.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, MinLen

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number of the config counts, as a mark in its type: `Annotated[Count, Unit("rows")]`."""

    name: str


Count = Annotated[int, Gt(0)]
Natural = Annotated[int, Ge(0)]
Text = Annotated[str, MinLen(1)]
Steps = Annotated[Count, Unit("steps")]
Tokens = Annotated[Count, Unit("tokens")]


Identity = Annotated[T, "identity"]
"""Changes a result. The default for unmarked fields; written out only among `Execution` fields."""
Execution = Annotated[T, "execution"]
"""Changes no byte of a result: where and how it runs, labels, and paths (the content they point to counts)."""
Added = Annotated[T, "added"]
"""Came later, and null is how it was before: a null is left out of the identity, so that recorded runs keep theirs."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass with slots whose check (`config.load`) forbids extra keys."""
    made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
    made.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return made


def is_execution(hint: Any) -> bool:
    """Whether a field of this type is marked `Execution`."""
    return get_origin(hint) is Annotated and "execution" in get_args(hint)[1:]


def is_added(hint: Any) -> bool:
    """Whether a field of this type is marked `Added`."""
    return get_origin(hint) is Annotated and "added" in get_args(hint)[1:]


def members(hint: Any) -> Iterator[Any]:
    """The types that a hint may stand for, with unions and Annotated unwrapped."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from members(get_args(hint)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(hint):
            yield from members(member)
    else:
        yield hint


def hints_of(cls: Any) -> dict[str, Any]:
    """Name → type of each field of a section, marks included."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar and name != "__slots__"}


@cache
def keys_below(hint: Any) -> tuple[tuple[str, Any], ...]:
    """(dotted path, type) of every key below a section's type, whatever the `kind` of the sections inside."""
    sections = [member for member in members(hint) if is_dataclass(member)]
    found: list[tuple[str, Any]] = []
    for name, field in (item for section in sections for item in hints_of(section).items()):
        found += [(name, field), *((f"{name}.{path}", below) for path, below in keys_below(field))]
    return tuple(found)


def element_of(hint: Any) -> Any:
    """The type of the items of a list; None if the hint is of none."""
    lists = (member for member in members(hint) if get_origin(member) is tuple)
    return next((get_args(member)[0] for member in lists if get_args(member)[-1] is Ellipsis), None)


def fields_of(hint: Any, data: Any) -> dict[str, Any]:
    """Name → type of each field of the section that plain `data` describes (by its `kind`); empty if there is none."""
    for member in members(hint):
        if is_dataclass(member):
            hints = hints_of(member)
            kinds = get_args(hints["kind"]) if "kind" in hints else ()
            if not kinds or (isinstance(data, dict) and data.get("kind") in kinds):
                return hints
    return {}


def kinds_with(hint: Any, name: str) -> list[str]:
    """The kinds of a section's type that have a field of this name."""
    classes = [hints_of(member) for member in members(hint) if is_dataclass(member)]
    return [kind for hints in classes if name in hints and "kind" in hints for kind in get_args(hints["kind"])]
