"""`set`: several values. `evaluation/lists.py` says how they are told apart and compared."""

from __future__ import annotations

from typing import Literal

from tunix_rt.config.section import section
from tunix_rt.evaluation.lists import read_list, same_list
from tunix_rt.evaluation.plain import LONGEST
from tunix_rt.evaluation.scorer import TOO_LONG, Match, Question, Scorer


@section
class SetScorer(Scorer):
    """The same values: in any order, or in round or square brackets in theirs; numbers as by `number`, others as by
    `text`."""

    kind: Literal["set"]

    def match(self, answer: str, question: Question) -> Match:
        """Compare value by value."""
        if len(answer) > LONGEST:
            return Match(False, TOO_LONG)
        given, right = read_list(answer), read_list(question.reference)
        if given is None or right is None:
            return Match(False, "not a list of values")
        equal = same_list(given, right)
        return Match(equal, "same values" if equal else "other values")


SCORER = SetScorer
