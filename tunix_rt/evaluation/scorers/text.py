"""`text`: the same text but for its frame, and how many words are shared. `evaluation/texts.py` has the rules."""

from __future__ import annotations

from typing import Literal

from tunix_rt.config.section import section
from tunix_rt.evaluation.scorer import Match, Question, Scorer
from tunix_rt.evaluation.texts import same_text, word_f1


@section
class TextScorer(Scorer):
    """The same text without white space, case, quotes, Markdown and a full stop at its ends; gives the word F1 too."""

    kind: Literal["text"]

    def match(self, answer: str, question: Question) -> Match:
        """Compare texts."""
        equal = same_text(answer, question.reference)
        values = {"word_f1": word_f1(answer, question.reference)}
        return Match(equal, "same text" if equal else "other text", values)


SCORER = TextScorer
