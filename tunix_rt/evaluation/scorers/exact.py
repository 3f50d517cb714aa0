"""`exact`: the same text."""

from __future__ import annotations

from typing import Literal

from tunix_rt.config.section import section
from tunix_rt.evaluation.numerals import unify
from tunix_rt.evaluation.scorer import Match, Question, Scorer
from tunix_rt.traces.trace import normalise


@section
class ExactScorer(Scorer):
    """The same text after Unicode (NFKC), white-space and case normalisation, as `ignore_case` of
    EleutherAI/lm-evaluation-harness at 47f16bf (`lm_eval/tasks/gsm8k/gsm8k.yaml`)."""

    kind: Literal["exact"]

    def match(self, answer: str, question: Question) -> Match:
        """Equal if every character is; `5,600` is not `5600`."""
        equal = normalise(unify(answer)) == normalise(unify(question.reference))
        return Match(equal, "same text" if equal else "other text")


SCORER = ExactScorer
