"""Scorers as a config declares them."""

from __future__ import annotations

from typing import Any

from tunix_rt.config.load import check_section
from tunix_rt.config.scorers import ScorerConfig
from tunix_rt.evaluation.scorer import Match, Question, Scorer


def scorer(kind: str, **values: Any) -> Scorer:
    """The scorer of a kind."""
    made: Scorer = check_section("scorer", ScorerConfig, {"kind": kind, **values})
    return made


def judged(kind: str, answer: str, reference: str, **values: Any) -> Match:
    """Its verdict on an answer."""
    return scorer(kind, **values).match(answer, Question(reference))
