"""What Math-Verify drops or reads away in a formula, though it means something: marks, bases, units behind it.

`f'(x)` is `f(x)` to it, `A^T` is `A`, `12_8` is `12_{16}`, `5\\pi\\text{ cm}` is `5\\pi\\text{ m}`.
"""

from __future__ import annotations

import re

from tunix_rt.evaluation.numerals import unify
from tunix_rt.evaluation.plain import bare, plain_text
from tunix_rt.evaluation.units import NOTHING, units_of

_SAME = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\not\s*(=|\\in(?![a-z]))", r"\\no\1"),
        (r"’|′", "'"),
        (r"\^\s*\{?\s*((?:\\prime\s*)+)\}?", lambda found: "'" * found[1].count("prime")),
        (r"\\approx(?![a-z])", "≈"),
        (r"(?<![\^{])\\(?:text(?:rm|normal)?|mathrm|mbox)\s?\{[^{}]*\}", " "),
    )
]
"""Other ways to write one mark; `\\not=` and `\\not\\in` are read, words are not."""
_MARKS = [
    re.compile(pattern)
    for pattern in (
        r"\\nmid(?![a-z])|∤",
        r"\\not(?![a-z])",
        r"\\(?:neg|lnot)(?![a-z])|¬",
        r"(?<=[A-Za-z)}'])(?<![0-9]')'",
        r"\^\s*\{?\s*(?:T|\\top|\\intercal|\\(?:text|mathrm|mathsf)\{T\})(?![a-z])",
        r"\^\s*\{?\s*(?:\*|\\ast|\\star)",
        r"\^\s*\{?\s*(?:\\dagger|†)",
        r"\\[lcd]?dots[bcmoi]?(?![a-z])|\.\.\.|…|⋯",
        r"≈(?=.*(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z]))",
        r"(?<=[\w)}\]])\s*[-+−]$",
    )
]
"""A denial, a prime on a letter (`5'` are feet), a transpose, a conjugate, an adjoint, dots, nearly equal variables, a
sign at the end."""
_BASE = re.compile(r"[-+]?[0-9A-Fa-f]+_\{?([0-9]+)\}?")
_IN_TEXT = re.compile(
    r"\\(?:text(?:rm|normal)?|mathrm|mbox)\s?\{[\s~]*(?:\\[ ,;])?\s*([A-Za-z][A-Za-z/. ]*?)\s*\}"
    r"\s*(?:\^\s?\{?([23])\}?)?[$.\s]*$"
)
_IN_PLAIN = re.compile(r"(?<=[\w)}\]π])(?<![A-Za-z\\]) ?(?<![A-Za-z\\_^{(])([a-z]{2,}(?:\^[23])?(?:/[a-z]+)?)$")


def same_marks(one: str, other: str) -> bool:
    """Whether two formulas have every mark equally often; a name that only one of them gives (`y = …`) is left out."""
    one, other = _normal(one), _normal(other)
    if ("=" in one) != ("=" in other):
        one, other = (text.rpartition("=")[2] for text in (one, other))
    return all(len(mark.findall(one)) == len(mark.findall(other)) for mark in _MARKS)


def bases_clash(one: str, other: str) -> bool:
    """Whether both are numerals with a base, and with another one: `1011_2`, `1011_3`."""
    bases = [found[1] for text in (one, other) if (found := _BASE.fullmatch(bare(plain_text(text))))]
    return len(set(bases)) > 1


def formulas_units_clash(one: str, other: str) -> bool:
    """Whether both formulas end with a known unit, and share none: `5\\pi\\text{ cm}`, `5\\pi\\text{ m}`."""
    left, right = _units(one), _units(other)
    return bool(left and right and not left & right)


def _normal(text: str) -> str:
    text = unify(text).strip("$ ")
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    return text


def _units(text: str) -> frozenset[str]:
    """The units behind a formula. A single letter is one only as text: `5m` is five times a variable."""
    if found := _IN_TEXT.search(text):
        return units_of(found[1] + (f"^{found[2]}" if found[2] else "")) or NOTHING
    found = _IN_PLAIN.search(bare(plain_text(text), brackets=False))
    return units_of(found[1]) or NOTHING if found else NOTHING
