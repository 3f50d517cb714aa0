"""`number`: the same number, with its unit. `evaluation/numbers.py` says what is read as one, and why."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Literal

from annotated_types import Ge, Le

from tunix_rt.config.section import section
from tunix_rt.evaluation.lists import names_clash
from tunix_rt.evaluation.numbers import Number, read_number, same_value, units_clash
from tunix_rt.evaluation.numerals import numerals_in
from tunix_rt.evaluation.plain import LONGEST
from tunix_rt.evaluation.scorer import TOO_LONG, Match, Question, Scorer
from tunix_rt.evaluation.texts import same_text

NEAR = 1e-6
"""Relative difference of floats from which two numbers cannot be equal exactly."""


@section
class NumberScorer(Scorer):
    """The same number, compared as exact fractions, in any usual notation; known units must not differ. If the
    reference is no number, as `text`."""

    kind: Literal["number"]
    relative_tolerance: Annotated[float, Ge(0), Le(1)] = 0.0
    """Largest difference, as a share of the reference; 0: equal as exact fractions."""

    def match(self, answer: str, question: Question) -> Match:
        """Compare as numbers; if the reference is none, as texts."""
        if len(answer) > LONGEST:
            return Match(False, TOO_LONG)
        right = read_number(question.reference)
        if right is None:
            equal = same_text(answer, question.reference)
            return Match(equal, "same text" if equal else "other text")
        number = read_number(answer)
        if number is not None and names_clash(answer, question.reference):
            return Match(False, "of another name")
        return Match(False, "not one number") if number is None else self.compare(number, right)

    def compare(self, number: Number, right: Number) -> Match:
        """The verdict on a number."""
        if units_clash(number, right):
            return Match(False, f"unit {_listed(number)}, expected {_listed(right)}")
        if same_value(number, right):
            return Match(True, "same number")
        # The tolerance as declared; Fraction(0.3) would be the binary number just below it.
        if abs(number.value - right.value) <= Fraction(str(self.relative_tolerance)) * abs(right.value):
            return Match(True, f"within the relative tolerance {self.relative_tolerance}")
        return Match(False, "other number")

    def contains(self, completion: str, question: Question) -> bool:
        """Whether some number of the completion equals the reference; if that is none, its words."""
        right = read_number(question.reference)
        if right is None:
            return Scorer.contains(self, completion, question)
        return any(self.compare(number, right).equal for number in self._near(completion, right))

    def _near(self, completion: str, right: Number) -> Iterator[Number]:
        """The numbers of a completion that may equal the reference; floats, which are fast, tell the others apart."""
        wanted = [_float(right.value * scale) for scale in (Fraction(1, 100), 1, 100)]
        slack = max(NEAR, 2 * self.relative_tolerance)
        for text in dict.fromkeys(numerals_in(completion)):
            near = _as_float(text)
            if near is None or any(abs(near - value) <= slack * abs(value) for value in wanted):
                number = read_number(text)
                if number is not None:
                    yield number


def _as_float(text: str) -> float | None:
    try:
        return float(text.replace(",", "").strip("$€£¥₹¢% "))
    except ValueError:
        return None


def _float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _listed(number: Number) -> str:
    return " or ".join(sorted(number.units))


SCORER = NumberScorer
