"""A scorer that another package brings, in thirty lines: how near a number is. Some answers are hostile."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from annotated_types import Gt

from tunix_rt.config.section import section
from tunix_rt.evaluation.scorer import Match, Question, Scorer


@section
class NearScorer(Scorer):
    """The nearer the better."""

    kind: Literal["near"]
    within: Annotated[float, Gt(0)] = 10.0
    """Where nearness becomes 0."""

    def match(self, answer: str, question: Question) -> Match:
        """Right at a distance of at most 1."""
        if answer == "sleep":
            time.sleep(60)
        if answer == "forget":
            return None  # type: ignore[return-value]
        if answer == "leave":
            raise SystemExit
        if answer == "eat":
            bytearray(2**40)
        far = abs(float(answer) - float(question.reference))
        return Match(far <= 1, f"{far:g} away", {"nearness": max(1 - far / self.within, 0.0)})


@section
class MuteScorer(Scorer):
    """Has forgotten to judge."""

    kind: Literal["mute"]
