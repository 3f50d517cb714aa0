"""Numbers as people write them → exact fractions.

Sources of the rules, by what they read:

- Thousands separators, `$` and a full stop at the end do not matter: openai/grade-school-math at 2909d34
  (`grade_school_math/dataset.py`, `extract_answer`), EleutherAI/lm-evaluation-harness at 47f16bf
  (`lm_eval/tasks/gsm8k/gsm8k.yaml`, `regexes_to_ignore`). Stricter here: groups have three digits, so `1,5` is
  no number (there it is 15).
- Text left of the last `=` does not matter, nor do units: Lewkowycz et al. 2022 (Minerva), appendix D, as
  in EleutherAI/lm-evaluation-harness at 4785623 (`lm_eval/tasks/minerva_math/utils.py`,
  `normalize_final_answer`).
- `a/b` is a fraction, `.5` is 0.5, a percent sign is a unit (50 % is 50, never 0.5): hendrycks/math at 940d1bf
  (`modeling/math_equivalence.py`, `_strip_string`). microsoft/ToRA at 723a8f7 (`src/eval/grader.py`,
  `math_equal`) also takes 50 for 0.5; we do not: it hides errors by a factor of 100.
- `1 1/2` is 3/2, `-1 1/2` is -3/2, the fraction must be below one, and spaces may group
  thousands: huggingface/Math-Verify at 2123114 (`tests/test_mixed_number_extraction.py`) and 056ad62
  (`src/math_verify/parser.py`, `lazy_expr_regex`).
- Ours: units that are both in `UNITS` and differ make two numbers differ (`$50` is not `50%`, `5 km` is not
  `5 m`), and a word that changes the value (`3 million`) makes the text no number.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
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
_WHOLE = re.compile(
    rf"(?P<sign>[-+]?)[ ]?(?P<currency>[{CURRENCIES}]?)[ ]?(?P<inner>[-+]?)"
    rf"(?P<value>[0-9]{{1,3}}(?:[ ][0-9]{{3}})+(?:\.[0-9]+)?(?![0-9/])|{_VALUE})"
    rf"(?:[ ]?[*×x·][ ]?10\^(?P<power>[-+]?[0-9]{{1,3}}))?[ ]?(?P<unit>.*)",
    re.IGNORECASE,
)
_UNIT = re.compile(r"(?:%|¢|[€$£¥₹°'\"/]?[^\W\d_][^\d=+*<>|!]*(?:\^?-?[0-9])?)")

_UNITS = """
%: percent per_cent pct percentage
$: usd dollar dollars; €: eur euro euros; £: gbp; ¥: jpy yen; ₹: inr rupee rupees; ¢: cent cents
mm: millimeter millimeters millimetre millimetres; cm: centimeter centimeters centimetre centimetres
m: meter meters metre metres; km: kilometer kilometers kilometre kilometres
in: inch inches; ft: foot feet; yd: yard yards; mi: mile miles
g: gram grams gm; kg: kilogram kilograms kgs; lb: lbs pound pounds; oz: ounce ounces
gal: gallon gallons; ml: milliliter milliliters millilitre millilitres; l: liter liters litre litres
s: sec secs second seconds; min: mins minute minutes; h: hr hrs hour hours
day: days; week: weeks; month: months; year: years yr yrs
km/h: kmh kph; mph: miles_per_hour
am: a.m; pm: p.m
"""
UNITS = {
    spelling: name
    for name, spellings in (unit.split(":") for unit in re.split("[;\n] *", _UNITS.strip()))
    for spelling in (name, *spellings.split())
}
"""Spelling (lower case, `_` for a space) → unit."""

VALUE_WORDS = frozenset(
    """hundred thousand million billion trillion hundreds thousands millions billions trillions dozen dozens
    k bn half squared cubed plus minus times of""".split()
)
"""Words that change the value of the preceding number."""


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number and its unit: a value of `UNITS` or one of `CURRENCIES`, else empty."""

    value: Fraction
    unit: str


def unify(text: str) -> str:
    """NFKC with plain signs, slashes and spaces; `1½` is `1 1/2` and `5²` is `5^2` (NFKC alone: 11/2 and 52)."""
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKC", "".join(map(_spread, text)))
    return plain.translate({0x2044: "/", 0x2212: "-", 0x2013: "-", 0x2010: "-", 0x2011: "-"})


def _spread(character: str) -> str:
    kind = unicodedata.decomposition(character).partition(" ")[0]
    if kind == "<fraction>":
        return f" {character}"
    if kind == "<super>" and unicodedata.normalize("NFKC", character).isdigit():
        return f"^{character}"
    return character


def find_numerals(text: str) -> list[str]:
    """Every numeral in running text, in order, as written: sign, currency, value, percent sign.

    A `-` after a digit, a letter or `)` is an operator, so `10-4` holds 10 and 4.
    """
    return [match.group() for match in _IN_TEXT.finditer(unify(text))]


def read_numeral(text: str) -> Numeral | None:
    """The number in a text that is exactly one number, with or without a unit; else None."""
    plain = " ".join(unify(text).rsplit("=", 1)[-1].split()).rstrip(". ")
    match = _WHOLE.fullmatch(plain) if len(plain) <= LONGEST else None
    if match is None or (match["sign"] and match["inner"]):
        return None
    value, unit = value_of(match["value"]), _unit(match["currency"], match["unit"])
    if value is None or unit is None:
        return None
    value *= Fraction(10) ** int(match["power"] or 0)
    return Numeral(-value if "-" in (match["sign"], match["inner"]) else value, unit)


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


def _unit(currency: str, text: str) -> str | None:
    """The unit's name, empty if unknown or absent; None if the text cannot be a unit."""
    if not text:
        return currency
    words = text.casefold().split()
    name = UNITS.get("_".join(words), "")
    first = words[0]
    if not name and (not _UNIT.fullmatch(text) or first in VALUE_WORDS or (len(first) == 1 and first.isalpha())):
        return None
    return currency or name
