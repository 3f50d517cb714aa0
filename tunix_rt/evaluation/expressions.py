"""A line of arithmetic with units → its exact value. No `eval`; independent of steps and equations.

sum       = product (("+" | "-") product)*
product   = power (("*" | "/" | "of") power)*      also × · ÷, `5 x 3`, `5 times 3`, `2(3 + 4)`; `of` after 3/4 or 75%
power     = "-"* atom ("^" "-"? numeral)?
atom      = "$"? numeral "%"? unit? | "(" sum ")" unit?
unit      = up to three words, `km/h`, `cm^2`, `$`

Text after a number that makes its value uncertain (`12 x 1 and 1/4`, `0.333...`) is a token of kind `other`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from tunix_rt.evaluation.numerals import DECIMAL, MIXED, value_of
from tunix_rt.evaluation.units import UNITS

Kind = Literal["number", "operator", "currency", "percent", "word", "equals", "break", "other", "end"]
DEEPEST = 40
"""Maximum depth of nested parentheses."""
MOST_BITS = 20_000
"""Maximum size of a power's numerator and denominator."""


class UnclearError(Exception):
    """The text is not one expression with a single reading."""


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of a line, and whether white space precedes it."""

    kind: Kind
    text: str
    spaced: bool = True


@dataclass(frozen=True, slots=True)
class Value:
    """The value of an expression."""

    number: Fraction
    """For a percentage, the hundredth."""
    unit: str = ""
    """A value of `units.UNITS` or `RATE`; empty if no known unit is given."""
    percent: bool = False
    """The expression is a percentage or a sum of percentages."""
    places: int | None = None
    """Decimals of a single decimal numeral; None: computed."""
    divides: bool = False
    """The expression divides, so that a decimal result may be rounded."""


VALUE_WORDS = frozenset(
    """hundred thousand million billion trillion hundreds thousands millions billions trillions dozen dozens
    k bn half squared cubed plus minus times of""".split()
)
"""Words that change the value of the preceding number."""
VERBS = frozenset("is are was were be equals equal has have had gives makes".split())
"""Words that end what a number counts: `3 numbers is -30/3`."""
RATE = "/"
"""Unit of a rate (`1000 ml/liter`): multiplied by a unit, it may become any other."""
END = Token("end", "")
_HUNDRED_PERCENT = Value(Fraction(1), percent=True, places=2)
_TOKEN = re.compile(
    rf"""
    (?P<number>(?:{MIXED}|{DECIMAL})(?![0-9]|\.[0-9]))
    |(?P<percent>%|(?:percent|per[ ]cent|pct)\b)
    |(?P<other>\.\.+|…|(?<=[0-9][ ])and(?=[ ]+[$(]?[0-9]+/[0-9]))
    |(?P<break><<|>>|=>|->|<=|>=|!=|===+|[<>≠≈~→;\n•]|(?<![0-9])[,:]|[,:](?![0-9])|\.(?![0-9])
        |\b(?:and|or|so|then|because)\b)
    |(?P<equals>==?|equals\b)
    |(?P<operator>\*\*|[-+*/^×·÷()]|(?:x|times|plus|minus)(?=[ ]*[$€£¥₹]?[ ]*\.?[0-9(]))
    |(?P<currency>[$€£¥₹])
    |(?P<word>[^\W\d][\w']*)
    |\S
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CLOCK = re.compile(r"0[0-9]{3}")
"""A time of day (`0900 - 0130 = 0730`), which is not decimal."""
_OPERATORS = {"×": "*", "·": "*", "÷": "/", "**": "^", "x": "*", "times": "*", "plus": "+", "minus": "-"}


def tokenise(text: str) -> list[Token]:
    """The tokens of `text` (already `numerals.unify`d), remarks in parentheses (`(ones)`) left out."""
    tokens: list[Token] = []
    end = -1
    for match in _TOKEN.finditer(text):
        kind, piece = match.lastgroup or "other", match.group()
        if kind == "operator" and piece.isalpha() and not (tokens and _ends_operand(tokens[-1])):
            kind = "word"
        if kind == "operator":
            piece = _OPERATORS.get(piece.casefold(), piece)
        tokens.append(Token(kind, piece, match.start() > end))  # type: ignore[arg-type]
        end = match.end()
        if piece == ")":
            _drop_remark(tokens)
    return tokens


def _ends_operand(token: Token) -> bool:
    return token.kind in ("number", "word", "percent", "currency") or token.text == ")"


def _drop_remark(tokens: list[Token]) -> None:
    start = len(tokens) - 2
    while start >= 0 and tokens[start].kind == "word" and not is_variable(tokens[start]):
        start -= 1
    if 0 <= start < len(tokens) - 2 and tokens[start].text == "(" and tokens[start].spaced:
        del tokens[start:]


def is_variable(token: Token) -> bool:
    """Whether a word may stand for a number: one letter, or letters and digits."""
    return token.kind == "word" and (len(token.text) == 1 or any(map(str.isdigit, token.text)))


def can_be_unit(token: Token) -> bool:
    """Whether a word may name what is counted: not a variable, no verb, no word that changes the preceding number."""
    return token.kind == "word" and not is_variable(token) and token.text.casefold() not in VALUE_WORDS | VERBS


def evaluate(tokens: Sequence[Token]) -> tuple[Value, int]:
    """Value of the longest expression at the start of `tokens`, and the number of tokens it takes.

    Raises UnclearError if there is none or it has more than one reading, ZeroDivisionError if it has no value.
    """
    reader = _Reader(tokens)
    return reader.sum(0), reader.place


class _Reader:
    """A position in a list of tokens; each method parses one rule of the grammar from there."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.place = 0

    def at(self, offset: int = 0) -> Token:
        index = self.place + offset
        return self.tokens[index] if index < len(self.tokens) else END

    def take(self, kind: Kind, texts: str = "") -> Token | None:
        token = self.at()
        if token.kind != kind or (texts and token.text not in texts):
            return None
        self.place += 1
        return token

    def sum(self, depth: int) -> Value:
        left = self.product(depth)
        while operator := self.take("operator", "+-"):
            right = self.product(depth)
            if left.percent != right.percent or units_clash(left, right):
                raise UnclearError
            number = left.number + right.number if operator.text == "+" else left.number - right.number
            unit = left.unit or right.unit
            left = Value(number, unit, left.percent, divides=left.divides or right.divides)
        return left

    def product(self, depth: int) -> Value:
        left = self.power(depth)
        spacing: bool | None = None
        while True:
            if operator := self.take("operator", "*/"):
                spacing = self.spacing(operator, spacing)
                right = self.power(depth)
            elif self.at().text == "of" and (left.percent or left.divides) and self.at(1).kind != "word":
                self.place += 1
                right = self.power(depth)
            elif self.at().text == "(" and not self.at().spaced:
                right = self.power(depth)
            else:
                return left
            divided = operator is not None and operator.text == "/"
            number = left.number / right.number if divided else left.number * right.number
            unit = "" if left.unit and right.unit else left.unit or right.unit
            divides = divided or left.divides or right.divides or left.percent or right.percent
            left = Value(number, unit, percent=right == _HUNDRED_PERCENT, divides=divides)

    def spacing(self, operator: Token, before: bool | None) -> bool | None:
        """Whether a `/` has spaces around it. `2 / 1/5` means 10 to its writer and 2/5 to a calculator."""
        if operator.text != "/":
            return None
        apart = operator.spaced or self.at().spaced
        if before not in (None, apart):
            raise UnclearError
        return apart

    def power(self, depth: int) -> Value:
        negative = False
        while self.take("operator", "-"):
            negative = not negative
        value = self.atom(depth)
        if self.take("operator", "^"):
            value = replace(value, number=self.exponent(value.number), places=None, unit="")
        return replace(value, number=-value.number) if negative else value

    def exponent(self, base: Fraction) -> Fraction:
        sign = -1 if self.take("operator", "-") else 1
        token = self.take("number")
        exponent = value_of(token.text) if token else None
        if exponent is None or exponent.denominator != 1:
            raise UnclearError
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent * bits > MOST_BITS:
            raise UnclearError
        return base ** (sign * int(exponent))

    def atom(self, depth: int) -> Value:
        currency = self.take("currency")
        if token := self.take("number"):
            return self.numeral(token, currency.text if currency else "")
        if currency or depth == DEEPEST or not self.take("operator", "("):
            raise UnclearError
        value = replace(self.sum(depth + 1), places=None)
        if not self.take("operator", ")"):
            raise UnclearError
        return replace(value, unit=self.unit() or value.unit)

    def numeral(self, token: Token, currency: str) -> Value:
        number = value_of(token.text)
        if number is None or _CLOCK.fullmatch(token.text):
            raise UnclearError
        plain = token.text.replace(",", "").replace(".", "").isdigit()
        places = len(token.text.partition(".")[2]) if plain else None
        percent = self.take("percent") is not None
        if percent:
            number, places = number / 100, None if places is None else places + 2
        unit = self.unit()
        return Value(number, currency or unit, percent, places, divides="/" in token.text)

    def unit(self) -> str:
        """Take the following words if the expression continues or ends after them; else leave them as prose.

        The first word may still be a known unit: `26 cents more than Dawn`, `120 minutes left`.
        """
        length = 0
        first = UNITS.get(self.at().text.casefold(), "") if can_be_unit(self.at()) else ""
        for _ in range(3):
            token, following = self.at(length), self.at(length + 1)
            per = token.text == "/" and (can_be_unit(following) or (length and following.kind == "word"))
            power = token.text == "^" and length and following.kind == "number"
            if per or power:
                length += 2
            elif token.kind == "currency" or can_be_unit(token):
                length += 1
            else:
                break
        if self.at(length).kind not in ("operator", "end") or self.at(length).text == "(":
            return first
        words = self.tokens[self.place : self.place + length]
        self.place += length
        name = "_".join(word.text for word in words).casefold().replace("_/_", "/")
        return UNITS.get(name, RATE if "/" in name or "_per_" in name else first)


def units_clash(one: Value, other: Value) -> bool:
    """Whether both units are known and differ, so that the numbers cannot be added or compared."""
    return len({one.unit, other.unit} - {"", RATE}) == 2
