"""Several values in one answer: sets, tuples, intervals.

Round or square brackets keep their order and must be the same (`[0,9)` is not `(0,9)`); braces and plain lists
(`1, 2`, `2 or 1`, `x=1 or x=2`) have none, nor repetitions. A plain list equals a tuple in the same order only, and
never a half-open interval.
`±3` is 3 and -3. A comma without a space separates, but in a plain `1,234`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tunix_rt.evaluation.numbers import read_number, same_value, units_clash
from tunix_rt.evaluation.plain import LONGEST, bare, plain_text
from tunix_rt.evaluation.texts import same_text

MOST_ITEMS = 100
_LEFT = re.compile(
    r"^(?:[^\W\d]\w{0,2}(?:_\w+)?|\([^\W\d](?:, ?[^\W\d])+\))(?:\([a-z]\))? ?(?:=|∈|\\in(?![a-z])) ?(?=[(\[{])"
)
_THOUSANDS = re.compile(r"[-+]?\$?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_SEPARATOR = re.compile(r", (?:and |or )?|;| (?:and|or) | ?& ?", re.IGNORECASE)
_INFINITY = re.compile(r"([-+]?)(?:∞|inf|infty|infinity|oo)")
_NAMED = re.compile(r"([a-z])(?:_?\{?[0-9]+\}?)?('*)(\([^()=]*\))? ?=", re.IGNORECASE)
"""A variable or a function's value, of which a value is said; its index does not count."""
_BRACKETS = {"(": ")]", "[": ")]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Listed:
    """Values in their order; the brackets that keep it, empty if it does not count."""

    items: tuple[str, ...]
    brackets: str = ""
    plain: bool = False
    """Without any brackets."""


@lru_cache(maxsize=20_000)
def read_list(text: str) -> Listed | None:
    """The values that a text lists, one or more; None if there are too many, or one is empty."""
    if len(text) > LONGEST:
        return None
    text = _LEFT.sub("", bare(plain_text(text), brackets=False))
    if text.replace(" ", "") in ("{}", "∅"):
        return Listed(("∅",))
    inner, brackets = (text[1:-1], text[0] + text[-1]) if _enclosed(text) else (text, "")
    items = [part.strip() for item in _split(inner, bool(brackets)) for part in _both_signs(item.strip())]
    if not items or len(items) > MOST_ITEMS or not all(items):
        return None
    return Listed(tuple(items), brackets.replace("{}", ""), not brackets)


def same_list(one: Listed, other: Listed) -> bool:
    """Whether two lists hold the same values, in the same order if both or one of them keep it."""
    if one.brackets or other.brackets:
        half_open = {"[)", "(]"} & {one.brackets, other.brackets}
        alike = one.brackets == other.brackets or ((one.plain or other.plain) and not half_open)
        return alike and len(one.items) == len(other.items) and all(map(same_item, one.items, other.items))
    return _covers(one.items, other.items) and _covers(other.items, one.items)


def same_item(one: str, other: str) -> bool:
    """Whether two values are the same number, or neither is a number and they are the same text."""
    if names_clash(one, other):
        return False
    left, right = read_number(one), read_number(other)
    if left is None or right is None:
        return left is right and (same_text(one, other) or _infinite(one) == _infinite(other) != "")
    return not units_clash(left, right) and same_value(left, right)


def names_clash(one: str, other: str) -> bool:
    """Whether both texts name what has the value, and differ: `x = 5`, `y = 5`; `f(3) = 5`, `f(4) = 5`."""
    found = [_NAMED.match(bare(plain_text(text))) for text in (one, other)]
    return len({"".join(map(str, name.groups(""))).casefold() for name in found if name}) > 1


def _covers(items: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return all(any(same_item(item, other) for other in others) for item in items)


def _infinite(text: str) -> str:
    found = _INFINITY.fullmatch(text.casefold())
    return "" if found is None else f"{found[1].replace('+', '')}∞"


def _enclosed(text: str) -> bool:
    """Whether one pair of brackets holds the whole text."""
    if len(text) < 3 or text[-1] not in _BRACKETS.get(text[0], ""):
        return False
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0:
            return place == len(text) - 1
    return False


def _split(text: str, bracketed: bool) -> list[str]:
    """The text cut at separators outside brackets."""
    if not bracketed and _THOUSANDS.fullmatch(text):
        return [text]
    pieces = list(_pieces(text))
    apart = len(pieces) > 1
    return [
        part for piece in pieces for part in ([piece] if apart and _THOUSANDS.fullmatch(piece) else _at_commas(piece))
    ]


def _pieces(text: str) -> Iterator[str]:
    begin = 0
    for match in _SEPARATOR.finditer(text):
        if _depth(text, begin, match.start()) == 0:
            yield text[begin : match.start()]
            begin = match.end()
    yield text[begin:]


def _at_commas(text: str) -> Iterator[str]:
    begin = 0
    for match in re.finditer(",", text):
        if _depth(text, begin, match.start()) == 0:
            yield text[begin : match.start()]
            begin = match.end()
    yield text[begin:]


def _depth(text: str, begin: int, end: int) -> int:
    inside = text[begin:end]
    return sum(map(inside.count, "([{")) - sum(map(inside.count, ")]}"))


def _both_signs(item: str) -> tuple[str, ...]:
    rest = item[1:].strip()
    return (rest, f"-{rest}") if item.startswith("±") and read_number(rest) is not None else (item,)


def is_numeric(values: Listed) -> bool:
    """Whether every value is a number or infinite, so that nothing but numbers is compared."""
    return all(read_number(item) is not None or _infinite(item) for item in values.items)
