"""Numbers in English words → exact fractions: `forty-two`, `one hundred and five`, `two thirds`, `5 and a half`.

Short scale; `lakh` and `crore` as in Indian English. What has no single reading (`two three`) is no number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

ONES = {
    word: value
    for value, word in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen""".split()
    )
}
TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
SCALES = {
    "dozen": 12,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "lakh": 10**5,
    "crore": 10**7,
}
PARTS = {
    name: n
    for n, names in (
        (2, "half halves"), (3, "third thirds"), (4, "quarter quarters fourth fourths"), (5, "fifth fifths"),
        (6, "sixth sixths"), (7, "seventh sevenths"), (8, "eighth eighths"), (9, "ninth ninths"),
        (10, "tenth tenths"), (12, "twelfth twelfths"), (16, "sixteenth sixteenths"), (20, "twentieth twentieths"),
        (100, "hundredth hundredths"), (1000, "thousandth thousandths"), (10**6, "millionth millionths"),
    )
    for name in names.split()
}  # fmt: skip
_TOKEN = re.compile(r"[a-z]+|[0-9]+")


def read_words(text: str) -> tuple[Fraction, str] | None:
    """The number at the start of `text` and what follows it; None if it begins with none."""
    found = [(token.group().casefold(), token.end()) for token in _TOKEN.finditer(text.casefold())]
    tokens = [token for token, _ in found]
    negative = tokens[:1] in (["minus"], ["negative"])
    value, place = _number(tokens, int(negative))
    if value is None:
        return None
    end = found[place - 1][1]
    if re.search(r"[^a-z0-9 -]|[0-9-]-|[ ]-", text[:end].casefold()):
        return None
    return (-value if negative else value), text[end:].strip()


def _number(tokens: Sequence[str], start: int) -> tuple[Fraction | None, int]:
    """The number from `start`, and the place after it."""
    whole, place = _integer(tokens, start)
    if whole is not None:
        parts, end = _parts_of(whole, tokens, place)
        if parts is not None:
            return parts, end
        added, end = _and_part(tokens, place)
        if added is not None:
            return whole + added, end
        return _decimals(whole, tokens, place)
    return _one_part(tokens, start)


def _decimals(whole: Fraction, tokens: Sequence[str], place: int) -> tuple[Fraction, int]:
    """`ten point five`: digits one by one."""
    digits, end = "", place + 1
    if place < len(tokens) and tokens[place] == "point":
        while end < len(tokens) and ONES.get(tokens[end], 10) < 10:
            digits, end = digits + str(ONES[tokens[end]]), end + 1
    return (whole + Fraction(f"0.{digits}"), end) if digits else (whole, place)


def _parts_of(number: Fraction, tokens: Sequence[str], place: int) -> tuple[Fraction | None, int]:
    """`two thirds`."""
    size = PARTS.get(tokens[place]) if place < len(tokens) else None
    return (None, place) if size is None else (number / size, place + 1)


def _and_part(tokens: Sequence[str], place: int) -> tuple[Fraction | None, int]:
    """`and a half`, `and three quarters`: a part below one."""
    if tokens[place : place + 1] != ["and"]:
        return None, place
    part, end = _one_part(tokens, place + 1)
    if part is None:
        number, end = _integer(tokens, place + 1)
        part, end = (None, place) if number is None else _parts_of(number, tokens, end)
    return (part, end) if part is not None and part < 1 else (None, place)


def _one_part(tokens: Sequence[str], place: int) -> tuple[Fraction | None, int]:
    """`half`, `a half`, `a third`; `third` alone is a place in an order."""
    article = tokens[place : place + 1] in (["a"], ["an"])
    name = tokens[place + article] if place + article < len(tokens) else ""
    if name not in PARTS or not (article or name == "half"):
        return None, place
    return Fraction(1, PARTS[name]), place + article + 1


def _integer(tokens: Sequence[str], start: int) -> tuple[Fraction | None, int]:
    """Groups with falling scales: `two million three hundred thousand and five`."""
    total, place, last = None, start, 10**30
    while True:
        after = place + (total is not None and tokens[place : place + 1] == ["and"])
        value, end = _below_thousand(tokens, after)
        if value is None:
            break
        scale = 1
        while end < len(tokens) and tokens[end] in SCALES:
            scale, end = scale * SCALES[tokens[end]], end + 1
        if scale >= last:
            break
        total, place, last = (total or 0) + value * scale, end, scale
    return (None, start) if total is None else (Fraction(total), place)


def _below_thousand(tokens: Sequence[str], start: int) -> tuple[int | None, int]:
    value, place = _below_hundred(tokens, start)
    if (
        value is None
        and tokens[start : start + 1] == ["a"]
        and tokens[start + 1 : start + 2]
        and _is_scale(tokens[start + 1])
    ):
        value, place = 1, start + 1
    if value is None or tokens[place : place + 1] != ["hundred"]:
        return value, place
    value, place = value * 100, place + 1
    rest, end = _below_hundred(tokens, place + (tokens[place : place + 1] == ["and"]))
    return (value, place) if rest is None or (end < len(tokens) and tokens[end] in PARTS) else (value + rest, end)


def _is_scale(word: str) -> bool:
    return word == "hundred" or word in SCALES


def _below_hundred(tokens: Sequence[str], place: int) -> tuple[int | None, int]:
    first, second = (tokens[place + k] if place + k < len(tokens) else "" for k in (0, 1))
    if first.isdigit() and len(first) <= 15:
        return int(first), place + 1
    if first in TENS:
        ones = ONES.get(second, 0)
        return (TENS[first] + ones, place + 2) if 0 < ones < 10 else (TENS[first], place + 1)
    return (ONES[first], place + 1) if first in ONES else (None, place)
