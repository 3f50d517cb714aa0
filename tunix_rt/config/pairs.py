"""Preference pairs that are made of a run's own answers: where they go, and how answers are ranked."""

from __future__ import annotations

from tunix_rt.config.choices import RankedBy
from tunix_rt.config.section import Count, Execution, Text, section


@section
class PairsConfig:
    """A data set of preference pairs, of each prompt the best answer against the worst."""

    to: Execution[Text]
    """The folder that gets `pairs.jsonl` and its card."""
    by: Execution[RankedBy] = "confidence"
    """Which of several answers of one verdict is better: the likelier, the shorter, or the first one."""
    most: Execution[Count] = 1
    """Pairs of each prompt."""
