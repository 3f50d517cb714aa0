"""Who judges the answers: it is passed in, since training does not depend on the rules for answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace


class Reward(Protocol):
    """What one answer is worth."""

    @property
    def total(self) -> float: ...
    @property
    def components(self) -> dict[str, float]: ...


class Judge(Protocol):
    """Gives rewards; the same numbers in any process."""

    failed: int
    """Answers so far without a verdict: it took too long, or the process that judges died of it."""

    def rewards(self, predictions: Sequence[Prediction], traces: Mapping[str, Trace]) -> Sequence[Reward]:
        """The reward of each prediction, by the trace of its id."""
