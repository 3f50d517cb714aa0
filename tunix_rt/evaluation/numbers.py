"""One number in a text → its exact value, its unit, its digits. What is not exactly one number is none.

Sources of the rules, by what they read:

- Thousands separators, `$` and a full stop at the end do not matter: openai/grade-school-math at 2909d34
  (`grade_school_math/dataset.py`, `extract_answer`), EleutherAI/lm-evaluation-harness at 47f16bf
  (`lm_eval/tasks/gsm8k/gsm8k.yaml`, `regexes_to_ignore`).
- A comma that separates no groups of three is a decimal comma (`1000,99`, `0,111`, `1,5` is 1.5 and never 15);
  `1,234` is a thousand: huggingface/Math-Verify at 5d148cf (`tests/test_all.py`). Also `1.234,56`, `1 234`, `1'234`,
  `12,34,567`.
- Left of `=` or `≈` a variable, a function's value, a name or an arithmetic expression does not matter (Lewkowycz et
  al. 2022, Minerva, appendix D, drop anything: `a+3z = 0` would be 0).
- `a/b` is a fraction, `.5` is 0.5: hendrycks/math at 940d1bf (`modeling/math_equivalence.py`, `_strip_string`).
- `1 1/2` is 3/2, `-1 1/2` is -3/2, the fraction must be below one: huggingface/Math-Verify at 2123114
  (`tests/test_mixed_number_extraction.py`).
- `50%` equals 50 (hendrycks/math) and 0.5 (Math-Verify, microsoft/ToRA at 723a8f7 `src/eval/grader.py`), not 0.5 %; two
  numbers without a percent sign never differ by a factor of 100.
- A decimal of ten digits or more (a pocket calculator's) equals the fraction that rounds to it, one of sixteen or more
  (a float's) what a float cannot tell from it. `0.3333` is not 1/3.
- Ours: units that are known and differ make two numbers differ (`$50` is not `50%`, `5 km` is not `5 m`; units are not
  converted, so `120 minutes` is not `2 hours`), `5 m` may be minutes and `5 pounds` pounds sterling. Words of scale
  count (`5 million`, `5K`). Words that are no unit and not what is counted make a text no number (`units.py`).
- An expression that must be computed first (`47*86`, `(9+1)`) is no number, except a power: otherwise a repeated
  question would be its answer. The scorer `math` computes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from tunix_rt.evaluation.plain import LONGEST, bare, plain_text
from tunix_rt.evaluation.units import NOTHING, currency_of, units_of
from tunix_rt.evaluation.words import PARTS, read_words

MOST_DIGITS = 1_000
MOST_BITS = 20_000
"""Maximum size of a power."""
CALCULATOR, FLOAT = 10, 16
"""Significant digits from which a decimal stands for what it was rounded from."""

_GROUPED = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]{0,2}(?:[ '][0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"
_DOTTED = r"[1-9][0-9]{0,2}(?:\.[0-9]{3})+(?=,[0-9])|[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}"
_INTEGER = rf"(?:{_GROUPED}|{_DOTTED}|[0-9]+)"
_DECIMAL = (
    rf"(?:{_INTEGER}(?:\.(?=[ ]|$)|\.[0-9]+|(?<!\.),[0-9]+|(?<=[0-9]\.[0-9]{{3}}),[0-9]+)?(?:e[-+]?[0-9]{{1,3}})?"
    r"|[.,][0-9]+)"
)
_REPEATING = r"(?P<before>[0-9]*\.[0-9]*)(?:\((?P<period>[0-9]{1,20})\)|(?P<dots>[ ]?(?:\.\.+|…)))"
_CURRENCY = r"(?:(?:US|USD ?|A|C)?\$|[€£¥₹¢₩₽]|\b(?:USD|EUR|GBP|INR|JPY|CAD|AUD|CHF|Rs)\b\.?)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]|minus |negative )?[ ]?(?P<currency>{_CURRENCY})?[ ]?(?P<inner>[-+])?[ ]?"
    rf"(?:{_REPEATING}"
    rf"|(?:(?P<whole>[0-9]+)[ ]+(?:and[ ]+)?)?(?P<top>{_DECIMAL})[ ]?/[ ]?(?P<bottom>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL}))"
    rf"(?:[ ]?(?:\^|\*\*)[ ]?\(?(?P<power>[-+]?[0-9]{{1,6}})\)?"
    rf"|[ ]?[*×x·][ ]?10[ ]?(?:\^|\*\*)[ ]?\(?(?P<ten>[-+]?[0-9]{{1,3}})\)?)?"
    rf"(?![0-9])(?!(?<=[12][0-9][0-9]0)s(?!\w))(?P<after>.*)",  # `1990s` are ten years
    re.IGNORECASE | re.DOTALL,
)
_SCALE = re.compile(
    r"(?:k|m|b|bn|mn|tn|mln)(?![\w/^])|(?:hundred|thousand|million|billion|trillion|dozen|lakh|crore|grand)\b",
    re.IGNORECASE,
)
_SCALES = {
    name: 10**zeros
    for zeros, names in (
        (2, "hundred"), (3, "k thousand grand"), (5, "lakh"), (6, "m mn mln million"), (7, "crore"),
        (9, "b bn billion"), (12, "tn trillion"),
    )
    for name in names.split()
} | {"dozen": 12}  # fmt: skip
_OF_A_SCALE = re.compile(r"(?:of )?an? (hundred|thousand|million|billion|trillion|dozen)\b ?", re.IGNORECASE)
_ROUGHLY = re.compile(
    r"(?:≈|~(?!~)|about|approximately|approx\.?|around|roughly|exactly|only|just|a total of)[ ]*", re.IGNORECASE
)
_PAIR = re.compile(r".*[(\[{][^,]*,[^,]*[)\]}]")
"""A comma in brackets separates two values; `(1,000)` too may be a pair."""
_RELATION = re.compile(r"==?|≈")
_NAME = re.compile(
    r"(?:[^\W\d]\w{0,2}'?(?:_\{?\w{1,8}\}?)?|[^\W\d_][^\W\d_'-]*(?: [^\W\d_][^\W\d_'-]*){0,5} ?)(?:\([^()=]{0,30}\))?"
)
"""A variable, a function's value, or words: `x`, `V_1`, `f(3)`, `total cost`."""
_VARIABLE = re.compile(r"[a-zA-Z]")
_ARITHMETIC = re.compile(r"(?:[-+*/^×÷·().,%$€£ 0-9]|(?<=[0-9)] )x(?= [0-9(])|(?<=[0-9)])x(?=[0-9(]))*")
_DENYING = re.compile(
    r"\b(?:not?|never|none|nor|or|if|unless|half|twice|double|triple|than|less|fewer|between|except|without|neither|"
    r"wrong|incorrect|minus|negative|cannot|square|root|cube|factorial)\b|n't\b",
    re.IGNORECASE,
)
_SAID = re.compile(
    r"[^\W\d_][^\d=.;:?!]{0,200}\b(?:is|are|was|were|be|has|have|had|equals?|gives?|makes?|made|costs?|totals?|needs?|gets?"
    r"|earns?|earned|pays?|paid|spends?|spent|sold|sells?|saves?|saved)[ ]+",
    re.IGNORECASE,
)
"""How a sentence may begin that says one number."""


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value; the units it may have (empty: none known); its significant digits if it is a decimal, else 0."""

    value: Fraction
    units: frozenset[str] = NOTHING
    digits: int = 0
    places: int = 0


@lru_cache(maxsize=20_000)
def read_number(text: str) -> Number | None:
    """The number in a text that is exactly one number, with or without a unit; else None."""
    if len(text) > LONGEST:
        return None
    plain = plain_text(text)
    if _PAIR.fullmatch(plain):
        return None
    right = _right_side(bare(plain))
    return None if right is None else _one(right) or _said(right)


def _right_side(text: str) -> str | None:
    """What is right of the last `=`; None if what is left of it is more than a name or arithmetic."""
    exact, roughly, _ = text.partition("≈")
    if roughly and "=" in exact and (value := exact.rpartition("=")[2]) and _one(value) is not None:
        text = exact  # `x = 1/3 ≈ 0.33`
    *left, right = _RELATION.split(text)
    if len(left) == 1 and _VARIABLE.fullmatch(right.strip()) and _one(left[0].strip()):
        return bare(left[0])  # `5 = x`
    for part in left:
        name = part.strip()
        named = _NAME.fullmatch(name) and not _DENYING.search(name)
        if name and not named and not (len(name) < LONGEST and _ARITHMETIC.fullmatch(name)):
            return None
    return bare(right) if right.strip() else None


def _one(text: str) -> Number | None:
    """The number that the whole text is, in digits or words."""
    text = bare(_ROUGHLY.sub("", text, count=1) if _ROUGHLY.match(text) else text)
    return _in_words(text) or _in_digits(text)


def _said(text: str) -> Number | None:
    """The number that a sentence says: a verb, the number, and nothing behind it that could change it."""
    begun = _SAID.match(text)
    if begun is None or _DENYING.search(begun.group()) or len(text) > 400:
        return None
    return None if re.search(r"[0-9]", begun.group()) else _one(text[begun.end() :])


def _in_words(text: str) -> Number | None:
    found = read_words(text)
    if found is None or (re.match(r"[-+]?[0-9]", text) and not _has_part(text)):
        return None
    if scale := _OF_A_SCALE.match(found[1]):  # `half a dozen`
        found = found[0] * _SCALES[scale[1].casefold()], found[1][scale.end() :]
    units = units_of(found[1])
    return None if units is None or re.match(r"[-+*/^%,.]", found[1]) else Number(found[0], units)


def _has_part(text: str) -> bool:
    """Whether digits go on in words: `5 and a half`, `2 thirds`."""
    words = text.casefold().split()
    return len(words) > 1 and (
        words[1] in PARTS or (words[1] == "and" and words[-1] not in words[:2] and len(words) > 2)
    )


def _in_digits(text: str) -> Number | None:
    match = _NUMBER.fullmatch(text)
    if match is None or (match["sign"] and match["inner"]):
        return None
    number = _value(match)
    scale, after = _scaled(match["after"].strip(), bool(match["currency"]))
    units = _tail(after)
    if number is None or units is None:
        return None
    negative = (match["sign"] or match["inner"] or "+")[0] in "-mMnN"
    value = -number.value * scale if negative else number.value * scale
    return replace(number, value=value, units=currency_of(match["currency"] or "") or units)


def _scaled(after: str, currency: bool) -> tuple[int, str]:
    """The scale behind a number, and what follows it. `M`, and `m` of a currency, is a million; `5 m` is not."""
    found = _SCALE.match(after)
    if found is None or (found.group() in ("m", "b") and not currency):
        return 1, after
    return _SCALES[found.group().casefold()], after[found.end() :]


def _tail(after: str) -> frozenset[str] | None:
    """The units behind a number; None if what is there is no unit. `5x` and `3e` are no numbers with a unit."""
    text = after.strip()
    if text.startswith(("$", "€", "£", "¥", "₹", "¢")):
        return None if units_of(text[1:]) is None else currency_of(text[0])
    if text.startswith("%"):
        return frozenset("%") if units_of(text[1:]) is not None or text[1:].strip().startswith("of ") else None
    return units_of(text[1:].replace("-", " ") if re.match(r"-[a-z]{2}", text) else text)


def _value(match: re.Match[str]) -> Number | None:
    if match["before"] is not None:
        return _repeating(match)
    number = _fraction(match) if match["top"] is not None else _decimal(match["decimal"])
    if number is None:
        return None
    if match["power"]:
        return _power(number.value, int(match["power"]))
    return replace(number, value=number.value * Fraction(10) ** int(match["ten"] or 0))


def _fraction(match: re.Match[str]) -> Number | None:
    top, bottom = _decimal(match["top"]), _decimal(match["bottom"])
    whole = int(match["whole"] or 0) if len(match["whole"] or "") < MOST_DIGITS else None
    if top is None or bottom is None or whole is None or bottom.value == 0:
        return None
    if match["whole"] and top.value >= bottom.value:
        return None
    return Number(whole + top.value / bottom.value)


def _power(base: Fraction, exponent: int) -> Number | None:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > MOST_BITS or (base == 0 and exponent <= 0):
        return None
    return Number(base**exponent)


def _decimal(text: str) -> Number | None:
    """A decimal in one of the locales that `_DECIMAL` allows; None if it has too many digits."""
    if len(text) > MOST_DIGITS:
        return None
    number, _, exponent = text.casefold().partition("e")
    number = re.sub(r"[ ']", "", number).rstrip(".")
    if re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{3}){2,}", number) or re.search(r"\..*,", number):
        number = number.replace(".", "").replace(",", ".")
    elif re.fullmatch(_GROUPED + r"(?:\.[0-9]+)?", number) or re.fullmatch(rf"(?:{_GROUPED})\.[0-9]+", number):
        number = number.replace(",", "")
    if number.count(",") > 1:
        return None
    number = number.replace(",", ".")
    if re.match(r"0[0-9]+\.", number):
        return None
    places = len(number.partition(".")[2])
    digits = len(number.replace(".", "").lstrip("0")) if places else 0
    scale = Fraction(10) ** int(exponent or 0)
    return Number(Fraction(number) * scale, digits=digits, places=places - int(exponent or 0))


def _repeating(match: re.Match[str]) -> Number | None:
    """`0.(3)`; `0.333...` if what goes on is seen twice at least."""
    whole, _, fixed = match["before"].partition(".")
    period = match["period"]
    if period is None:
        found = re.search(r"([0-9]{1,10}?)\1+$", fixed)
        if found is None:
            return None
        period, fixed = found[1], fixed[: found.start()]
    if len(whole) + len(fixed) > MOST_DIGITS:
        return None
    tail = Fraction(int(period), 10 ** len(period) - 1)
    return Number(Fraction(int(whole + fixed or "0")) / 10 ** len(fixed) + tail / 10 ** len(fixed))


def units_clash(one: Number, other: Number) -> bool:
    """Whether both have known units and share none. A percentage stands beside any number without one."""
    return bool(one.units and other.units and not one.units & other.units)


def same_value(one: Number, other: Number) -> bool:
    """Whether two numbers, whose units do not clash, have the same value."""
    if one.value == other.value or _printed(one, other) or _printed(other, one):
        return True
    for share, bare_number in ((one, other), (other, one)):
        if "%" in share.units and not bare_number.units:
            hundredth = replace(share, value=share.value / 100, places=share.places + 2)
            return hundredth.value == bare_number.value or _printed(hundredth, bare_number)
    return False


def _printed(decimal: Number, exact: Number) -> bool:
    """Whether `decimal` is how `exact` is printed: by a calculator if it never ends, by a float otherwise."""
    gap = abs(decimal.value - exact.value)
    if decimal.digits >= FLOAT and gap <= abs(exact.value) / 2**51:
        return True
    endless = not _ends(exact.value.denominator)
    return endless and decimal.digits >= CALCULATOR and gap <= Fraction(1, 2) / Fraction(10) ** decimal.places


def _ends(denominator: int) -> bool:
    """Whether a fraction with this denominator is a finite decimal."""
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1
