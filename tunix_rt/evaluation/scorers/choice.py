"""`choice`: the letter of one of several options."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from tunix_rt.config.section import section
from tunix_rt.evaluation.plain import LONGEST, bare, plain_text
from tunix_rt.evaluation.scorer import Match, Question, Scorer
from tunix_rt.evaluation.texts import same_text

_DENIED = (
    r"(?:(?-i:never)|eliminated|excluded|rejected|ruled out|disproved|refuted|"
    r"(?:can't|cannot|can not|couldn't|could not)(?: be)?(?: (?:it|true|right|correct|the answer))?|"
    r"(?:does not|doesn't|did not|didn't) (?:hold|work|fit|apply|follow|count))"
)
"""What hardly is an option's text, but denies the letter before it."""
_ONE = re.compile(
    r"(?:(?:(?:the|my) )?(?:final )?(?:correct )?(?:option|choice|letter|answer)(?: is)?:? ?"
    r"|i (?:choose|pick|select) )?"
    r"[(\[]?([a-z])[)\]]?"
    r"(?: is (?:the )?(?:correct|right)(?: (?:option|choice|letter|answer|one))?"
    r"|(?:[.:]|(?<=[)\]])[.:]?)"
    rf"(?! ?(?:(?:or|and|not|is|isn't)\b|[(\[]?[a-z][)\]]?$|{_DENIED}(?:[.,;:].*)?$)).*)?",
    re.IGNORECASE | re.DOTALL,
)
"""A letter, that it is right, or the option that it names: not another letter, nor what denies it."""
_OTHER = (
    re.compile(r"(?<!\w)[(\[]?([A-J])[)\]](?!\w)"),
    re.compile(r"(?<!\w)([A-J])[.:](?= ?\w)"),
    re.compile(r"(?:\b(?i:is|no|actually|rather|wait|so|thus|hence|therefore),? |[,/] ?)([A-J])[.)]?$", re.MULTILINE),
)
"""Another option that is marked as one: `(A) red (B) blue`; `A. red B. blue`; `A. No, B`, `A. Wrong, it is B.`"""
_SEVERAL = re.compile(r"[(\[]?[a-z][)\]]?(?:(?:, ?(?:and )?| and | ?& ?)[(\[]?[a-z][)\]]?)+", re.IGNORECASE)


@section
class ChoiceScorer(Scorer):
    """The same letter, alone or before its option: `A`, `(a)`, `option A`, `C. x = 42`; several letters (`A, C`) are a
    set. If the reference has none, as `text`."""

    kind: Literal["choice"]

    def match(self, answer: str, question: Question) -> Match:
        """Compare letters; `A or B` names none."""
        right = letters(question.reference)
        if not right:
            equal = same_text(answer, question.reference)
            return Match(equal, "same text" if equal else "other text")
        given = letters(answer)
        if not given:
            return Match(False, "not one choice")
        return Match(given == right, "same choice" if given == right else "other choice")


@lru_cache(maxsize=20_000)
def letters(text: str) -> frozenset[str]:
    """The letters that a text chooses, as capitals; empty if it chooses none, or wavers."""
    text = bare(plain_text(text), brackets=False).replace("**", "") if len(text) <= LONGEST else ""
    if _SEVERAL.fullmatch(text):
        return frozenset(letter.upper() for letter in re.findall(r"\b[a-z]\b", text, re.IGNORECASE))
    found = _ONE.fullmatch(text)
    if found is None or {other for mark in _OTHER for other in mark.findall(text, found.end(1))} - {found[1].upper()}:
        return frozenset()
    return frozenset(found[1].upper())


SCORER = ChoiceScorer
