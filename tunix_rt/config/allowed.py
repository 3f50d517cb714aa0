"""The type of a field in words: what may be given for it, and what its number counts."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ByteSize

from tunix_rt.config.section import Unit

WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    str: "text",
    ByteSize: "size such as `5GB`",
    type(None): "`null`",
    Any: "any value",
}
BOUNDS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def allowed(hint: Any) -> str:
    """What may be given, in words; values to be typed as they stand are in backticks."""
    return listed(dict.fromkeys(_parts(hint)))


def listed(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _parts(hint: Any) -> Iterator[str]:
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [f"{sign} {getattr(mark, name):g}" for mark in inside[1:] for name, sign in _bound(mark)]
        words = list(_parts(inside[0]))
        yield from [" ".join([words[0], ", ".join(bounds)])] if bounds else words
    elif origin in (Union, types.UnionType):
        for member in inside:
            yield from _parts(member)
    elif origin is Literal:
        yield from (f"`{value if isinstance(value, str) else json.dumps(value)}`" for value in inside)
    elif origin is tuple:
        yield (
            f"list of {allowed(inside[0])}"
            if inside[-1] is Ellipsis
            else f"list of {len(inside)}: {allowed(inside[0])}"
        )
    elif origin is dict:
        yield f"mapping of {allowed(inside[0])} to {allowed(inside[1])}"
    else:
        yield "section" if is_dataclass(hint) else WORDS[hint]


def _bound(mark: Any) -> list[tuple[str, str]]:
    return [BOUNDS[type(mark)]] if type(mark) in BOUNDS else []


def unit(hint: Any) -> str:
    """What the number of a field counts; empty if its type does not say."""
    marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Unit)]
    if marks:
        return marks[0].name
    return next(filter(None, map(unit, get_args(hint))), "") if get_origin(hint) is not Literal else ""
