"""Numerals in running text, found and valued: what steps and completions are searched for. No units, no words.

`numbers.py` reads what a whole answer means, in more notations. Sources of the rules: EleutherAI/lm-evaluation-harness
at 47f16bf (`lm_eval/tasks/gsm8k/gsm8k.yaml`: separators of thousands, `$`); stricter here: groups have three digits.
`1 1/2` is 3/2 and the fraction must be below one: huggingface/Math-Verify at 2123114
(`tests/test_mixed_number_extraction.py`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction

_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]+)?(?:e[+-]?[0-9]{{1,3}}(?![0-9]))?|\.[0-9]+)"
"""An unsigned decimal number; the exponent is bounded, because a Fraction stores every digit."""
MIXED = rf"{_INTEGER}[ ]+{_INTEGER}/{_INTEGER}"
CURRENCIES = "$€£¥₹¢"
LONGEST = 1_000
"""Maximum characters of a numeral; Python refuses to convert integers of more than 4,300 digits."""

_VALUE = rf"(?:{MIXED}|{DECIMAL}[ ]?/[ ]?{DECIMAL}|{DECIMAL})"
_IN_TEXT = re.compile(
    rf"(?:(?<![\w)%])[-+])?[{CURRENCIES}]?(?<!\w)(?<![0-9]\.){_VALUE}(?:[ ]?%)?(?![0-9])", re.IGNORECASE
)


def unify(text: str) -> str:
    """NFKC with plain signs, slashes, spaces and digits (`১২` is 12), without invisible characters (category Cf);
    `1½` is `1 1/2` and `5²` is `5^2` (NFKC alone: 11/2 and 52)."""
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKC", "".join(map(_spread, text)))
    return plain.translate({0x2044: "/", 0x2212: "-", 0x2013: "-", 0x2010: "-", 0x2011: "-"})


def _spread(character: str) -> str:
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.category(character) == "Cf":
        return ""
    kind = unicodedata.decomposition(character).partition(" ")[0]
    if kind == "<fraction>":
        return f" {character}"
    if kind == "<super>" and unicodedata.normalize("NFKC", character).isdigit():
        return f"^{character}"
    return character


def numerals_in(text: str) -> Iterator[str]:
    """Every numeral in running text, in order, as written: sign, currency, value, percent sign.

    A `-` after a digit, a letter or `)` is an operator, so `10-4` holds 10 and 4.
    """
    return (match.group() for match in _IN_TEXT.finditer(unify(text)))


def value_of(text: str) -> Fraction | None:
    """Value of an unsigned numeral (`1,234.5`, `2e3`, `3/4`, `1 1/2`, `1 234`); None if it has none (`1/0`)."""
    if len(text) > LONGEST:
        return None
    left, slash, right = text.replace(",", "").partition("/")
    if not slash:
        return Fraction(left.replace(" ", ""))
    *whole, top = map(Fraction, left.split())
    bottom = Fraction(right.strip())
    if bottom == 0 or (whole and top >= bottom):
        return None
    return sum(whole, top / bottom)
