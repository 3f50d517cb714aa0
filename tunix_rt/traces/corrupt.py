"""A mistake in a step: the result of its equation is another number, everywhere in the step where it is written.

The last number that stands directly behind a `=` and is not computed with is the result (`48/2 = <<48/2=24>>24 clips`);
in a step without an equation, its last number. It is changed by 1 to 9 in its last decimal place, and keeps its
decimals, its separators of thousands and if possible its length.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

LONGEST = 30
"""Digits of a number that is changed."""
_NUMERAL = r"(?<![\w.^,])(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![0-9]|[.,][0-9])"
_NUMBER = re.compile(_NUMERAL)
_RESULT = re.compile(rf"=\s*(?:\\?[$€£¥₹]\s?|\\boxed\{{|\*\*)*-?({_NUMERAL})(?!\s*[-+*/×·÷^]\s*[0-9(\\$])")


@dataclass(frozen=True, slots=True)
class Corruption:
    """A step with a mistake."""

    text: str
    original: str
    """The number as it was written."""
    replacement: str


def corrupted(step: str, seed: str, known: Collection[Decimal] = ()) -> Corruption | None:
    """The step with a mistake that depends on the `seed` alone; None if there is no number in it.

    If possible the new number is none of the `known` ones, so that it is recognised where the model uses it.
    """
    results = [*_RESULT.finditer(step)]
    numbers = [match for match in _NUMBER.finditer(step) if len(match.group()) <= LONGEST]
    written = results[-1][1] if results else numbers[-1].group() if numbers else ""
    if not written or len(written) > LONGEST:
        return None
    value = value_of(written)
    first = min((match.start(1) for match in results if value_of(match[1]) == value), default=numbers[-1].start())
    replacement = _other(written, seed, known)
    text = step
    for match in reversed(numbers):
        if match.start() >= first and value_of(match.group()) == value and not _is_operand(step, match.start()):
            text = text[: match.start()] + _like(match.group(), replacement) + text[match.end() :]
    return Corruption(text, written, _like(written, replacement))


def value_of(written: str) -> Decimal:
    """The value of a number as it is written."""
    return Decimal(written.replace(",", ""))


def numbers_in(text: str) -> set[Decimal]:
    """The value of every number in a text, without signs."""
    return {value_of(match.group()) for match in _NUMBER.finditer(text)}


def _other(written: str, seed: str, known: Collection[Decimal]) -> Decimal:
    value = value_of(written)
    unit = Decimal(1).scaleb(min(int(value.as_tuple().exponent), 0))
    amounts = [amount for amount in range(-9, 10) if amount and value + amount * unit >= 0]
    random.Random(seed).shuffle(amounts)  # noqa: S311 (reproducible, nothing secret)
    found = [value + amount * unit for amount in amounts]
    return min(found, key=lambda new: (new in known, len(_like(written, new)) != len(written)))


def _like(written: str, value: Decimal) -> str:
    """A value in the notation of a written number."""
    whole, _, decimals = written.partition(".")
    comma = "," if "," in whole else ""
    text = f"{value:{comma}.{len(decimals)}f}"
    return text.zfill(len(written)) if whole.startswith("0") and not comma else text


def _is_operand(step: str, place: int) -> bool:
    """Whether a number is computed with inside of a calculator's annotation: the left side of `<<48/2=24>>`."""
    opening = step.rfind("<<", 0, place)
    return opening >= 0 and "=" not in step[opening:place] and ">>" not in step[opening:place]
