"""Recomputes every equation in the steps of a completion with exact fractions.

It never raises, whatever a model wrote. Text without a single reading is not checked rather than called wrong: a
variable (`2x + 3 = 7`), a word that changes a value (`half of 6 = 3`), converted units (`3 * 20 minutes = 1 hour`).

A text is cut at `,` `;` `:` `.`, line breaks, `and`, `so`, `<<`, `->` and the like; a segment with a `=` is a
chain `side = side = …`. Prose may precede the first side and follow the last
(`Mary has 3 large stickers + 42 stickers = 45 stickers in all`). Neighbouring sides that can be read must be
equal, and one of them must compute something.

A side that is a numeral with d > 0 decimals may be rounded to d places if the other side divides
(`100 / 3 = 33.33`), and a percentage may stand for itself or its hundredth (`20 / 80 * 100 = 25%`, `1/4 = 25%`, but not
`1/4 = 0.25%`). What a float cannot tell apart is equal, unless both sides are whole
(`0.1 + 0.2 = 0.30000000000000004`). A fraction with a unit is an amount and nothing computed (`1/2 cup = 4 ounces`).

Markdown's emphasis and LaTeX's `\\frac`, `\\times`, `\\div`, `\\boxed` are read. An annotation must compute what the
text says (`6*2.5 = <<6*3=18>>18` does not).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from boltons import iterutils

from tunix_rt.evaluation.expressions import (
    VERBS,
    Token,
    UnclearError,
    Value,
    can_be_unit,
    evaluate,
    is_variable,
    tokenise,
    units_clash,
)
from tunix_rt.evaluation.numerals import unify, value_of
from tunix_rt.evaluation.readings import other_readings, with_remainder

LONGEST_SIDE = 200
"""Maximum tokens of a side; longer ones are not checked."""
LONGEST_REREAD = 2_000
"""Most characters of a step that is read in other ways."""
_SIDES = r"[-+(]?[$€£]?[0-9][-+*/^×÷·x()0-9., $%]{0,100}=[ ]?[-$]?[0-9](?:[0-9.,]*[0-9])?"
_NOT_SAID = re.compile(
    rf"\b(?:not|wrong|incorrect|false|if|suppose):? {_SIDES}"
    rf"|{_SIDES}(?= (?:is|was|would be) (?:wrong|incorrect|false|not)\b| ?\(mod\b)",
    re.IGNORECASE,
)
"""An equation that is denied, supposed, or holds of remainders only: it is not checked."""
_BULLET = re.compile(r"^[ \t]*(?:[-*•+]|[0-9]+[.)])[ \t]+", re.MULTILINE)
_ANNOTATED = re.compile(
    r"((?:[^=\n<>;:,]|(?<=[0-9]),(?=[0-9])){1,100})=[ ]?[$€£]?[ ]?<<([^=<>\n]{1,100})=[^<>\n]{1,100}>>"
)
"""An expression, and the one that a calculator computed in its place."""
_LATEX = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[dt]?frac\s?\{([^{}]{1,40})\}\s?\{([^{}]{1,40})\}", r"(\1)/(\2)"),
        (r"\\(?:times|cdot)(?![a-z])", "×"),
        (r"\\div(?![a-z])", "÷"),
        (r"\\(?:boxed|text|mathrm|textbf|mathbf)\s?\{([^{}]{0,40})\}", r" \1 "),
        (r"\\([$%])", r"\1"),
        (r"\\(?:left|right)(?![a-z])|\\[()\[\]!,;:]", ""),
    )
]
_WORDS_BEFORE = frozenset("of from than half twice double triple average root sqrt log negative".split())
"""A number after one of these words is only part of what is computed."""


def check_step(text: str) -> bool | None:
    """Whether all equations in `text` hold; None if none can be checked. A division by zero does not hold."""
    if any(map(_other_than_said, _ANNOTATED.finditer(text))):
        return False
    plain = _plain(text)
    verdict = _holds(plain)
    if verdict is False and len(plain) <= LONGEST_REREAD:
        return any(map(_holds, other_readings(plain))) or _holds(with_remainder(plain))
    return verdict


def _plain(text: str) -> str:
    """A step's arithmetic in plain signs."""
    return _NOT_SAID.sub(" ; ", _BULLET.sub("", _unmarked(unify(text))))


def _holds(plain: str) -> bool | None:
    return _all(map(_check_chain, _chains(plain)))


def _chains(plain: str) -> list[list[list[Token]]]:
    """The chains of equations in a text, each as its sides."""
    runs = _split(tokenise(plain), "break")
    return [sides for run in runs if len(sides := _split(run, "equals")) > 1]


def _other_than_said(annotated: re.Match[str]) -> bool:
    """Whether an annotation computes something else than the expression before it: `6*2.5 = <<6*3=18>>18`.

    Its numbers must not all be in the text: `10 pages on day 1 * 2 = <<10*2=20>>20`, `14, 400 / 80 = <<14400/80=…`.
    """
    before, inside = annotated.groups()
    numbers = re.findall(r"[0-9.]+", annotated.string[: annotated.end(1)].replace(", ", ",").replace(",", ""))
    if set(re.findall(r"[0-9.]+", inside)) <= set(numbers):
        return False
    said = _read(tokenise(unify(before)), before=True, after=False)
    computed = _read(tokenise(unify(inside)), before=False, after=False)
    if said is None or computed is None or said.places is not None or computed.places is not None:
        return False
    return not _equal(computed, said) and not _equal(said, computed)


def _unmarked(text: str) -> str:
    """`text` without Markdown's emphasis and with LaTeX's ordinary notation for arithmetic as plain signs."""
    text = re.sub(r"(?<![0-9)])\*\*(?=\S)|(?<=[^\s*])\*\*(?![0-9(])", "", text)
    if "\\" not in text:
        return text
    text = re.sub(r"\$(?=\S)([^$\n]*?\S)\$(?![0-9])", r"\1", text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    """Whether all verdicts hold; None if there is none. Those that are None do not count."""
    checked = [verdict for verdict in verdicts if verdict is not None]
    return all(checked) if checked else None


def _split(tokens: Sequence[Token], kind: str) -> list[list[Token]]:
    parts: list[list[Token]] = iterutils.split(tokens, lambda token: token.kind == kind)
    return parts


def _check_chain(sides: Sequence[Sequence[Token]]) -> bool | None:
    """Check a chain; a middle side that is not one expression ends it and begins the next."""
    verdicts: list[bool | None] = []
    values: list[Value | None] = []
    try:
        for place, side in enumerate(sides):
            whole = _read(side, before=place == 0, after=place == len(sides) - 1)
            if whole is None:
                values.append(_read(side, before=False, after=True) if place else None)
                verdicts.append(_all_equal(values))
                whole, values = _read(side, before=True, after=False), []
            values.append(whole)
    except ZeroDivisionError:
        return False
    return _all([*verdicts, _all_equal(values)])


def _read(side: Sequence[Token], before: bool, after: bool) -> Value | None:
    """The side's value, with prose allowed `before` or `after` it; None if unclear."""
    if len(side) > LONGEST_SIDE:
        return None
    for start in range(len(side) if before else min(1, len(side))):
        if start and _operates(side, start - 1):
            return None
        if start and side[start - 1].kind != "word" and side[start - 1].text != ")":
            continue
        try:
            value, length = evaluate(side[start:])
        except UnclearError:
            continue
        end = start + length
        if end == len(side) or (after and _prose_follows(side[end:])):
            return None if _ambiguous(side, start, end, value, before, after) else value
    return None


def _operates(side: Sequence[Token], place: int) -> bool:
    """Whether there is an operator at `place`: `20 + 10 balls to the 29 + 24`; the dash of `20-pound` is none."""
    kinds = [token.kind for token in side[max(0, place - 1) : place + 2]]
    return side[place].text in ("+", "*") or (side[place].text == "-" and kinds == ["number", "operator", "number"])


def _ambiguous(side: Sequence[Token], start: int, end: int, value: Value, before: bool, after: bool) -> bool:
    """Whether the expression that was read may not be the one that was meant."""
    # Words and a single number at the left end name what is computed: `8 batches = 5.5 * 8 = 44 cups`.
    names = before and value.places is not None and any(token.kind == "word" for token in side[:end])
    # The result 1/3, or a third of 150: `3/3 - 2/3 = 1/3 of $150`.
    share = after and any(token.text == "of" for token in side[start:end])
    return names or share or _is_amount(side[start:end]) or _continues(side, start)


def _is_amount(tokens: Sequence[Token]) -> bool:
    """Whether a fraction with a unit is an amount, which may be converted, and nothing computed: `1/2 cup = 4 oz`."""
    kinds = [token.kind for token in tokens]
    if kinds[:1] == ["number"] and "/" in tokens[0].text:
        return len(kinds) > 1 and set(kinds[1:]) == {"word"}
    proper = kinds[:3] == ["number", "operator", "number"] and tokens[1].text == "/"
    if not proper or len(kinds) < 4 or set(kinds[3:]) != {"word"}:
        return False
    top, bottom = (value_of(tokens[place].text) for place in (0, 2))
    return top is not None and bottom is not None and top < bottom


def _continues(side: Sequence[Token], start: int) -> bool:
    """Whether the expression from `start` is only the end of something longer."""
    if start == 0:
        return False
    first, words = side[start], [token.text.casefold() for token in side[max(0, start - 2) : start]]
    if words == ["total", "of"]:
        return False
    if is_variable(side[start - 1]) or words[-1] in _WORDS_BEFORE or (first.text == "-" and words[-1] not in VERBS):
        return True
    called = first.text == "(" and not first.spaced
    return called or (start > 1 and side[start - 2].kind in ("number", "percent", "currency"))


def _prose_follows(rest: Sequence[Token]) -> bool:
    """Whether text after an expression leaves its value unchanged: `42 stickers to the 6 pages`, `6 times a day`."""
    first, second = rest[0], rest[1] if len(rest) > 1 else None
    if first.text == "(":
        return first.spaced
    if second is not None and second.kind in ("number", "operator", "other"):
        return False
    if any(token.text.casefold() == "remainder" for token in rest):
        return False
    adverb = first.text in ("of", "times") and (second is None or second.text == "a" or can_be_unit(second))
    return adverb or can_be_unit(first) or first.text.casefold() in VERBS


def _all_equal(found: Sequence[Value | None]) -> bool | None:
    """Whether all values equal the first computed one; None if there is none, or nothing to compare it with.

    A value whose unit differs from those before it was converted: `4 - 2 = 2 hours = 120 minutes`.
    """
    values = [value for value in found if value is not None]
    anchor = next((value for value in values if value.places is None), None)
    if anchor is None:
        return None
    unit, verdicts = anchor, []
    for value in values:
        if value is not anchor and not units_clash(value, unit):
            verdicts.append(_equal(anchor, value))
            unit = unit if unit.unit else value
    return _all(verdicts)


def _float_error(computed: Value, other: Value) -> Fraction:
    """What a float may differ by from the exact value, unless both are whole: `0.1 + 0.2 = 0.30000000000000004`."""
    whole = computed.number.denominator == other.number.denominator == 1
    return Fraction(0) if whole else abs(computed.number) / 2**50


def _equal(computed: Value, other: Value) -> bool:
    half = Fraction(1, 2 * 10**other.places) if computed.divides and other.places else Fraction(0)
    if abs(computed.number - other.number) <= max(half, _float_error(computed, other)):
        return True
    if computed.percent == other.percent or (other.percent and computed.divides and abs(computed.number) < 1):
        return False  # `1/4 = 0.25%` is an error by a factor of 100
    scale, other_scale = (100, 1) if computed.percent else (1, 100)
    return abs(computed.number * scale - other.number * other_scale) <= half * other_scale


def results(text: str) -> list[Fraction]:
    """What the chains of equations in a step come to: the value that stands at the end of each one that is checked."""
    chains = [sides for sides in _chains(_plain(text)) if _check_chain(sides) is not None]
    values = [_last(sides[-1]) for sides in chains]
    return [value.number for value in values if value is not None]


def _last(side: Sequence[Token]) -> Value | None:
    try:
        return _read(side, before=False, after=True)
    except ZeroDivisionError:
        return None
