"""What rollouts need of other parts: an objective that learns from them, and somebody who judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tunix_rt.config.rollout import RewardConfig, RolloutConfig
from tunix_rt.objectives.interface import Float64, Tokens, Value
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace


class RolloutObjective(Protocol):
    """An objective whose `data` is `rollouts`."""

    @property
    def rollout(self) -> RolloutConfig: ...
    @property
    def reward(self) -> RewardConfig: ...
    @property
    def needs_logprobs(self) -> bool: ...
    @property
    def needs_reference(self) -> bool: ...
    def advantages(self, rewards: Float64) -> Float64:
        """[G, n] rewards of n answers to each of G prompts → [G, n]."""

    def value(self, tokens: Tokens) -> Value:
        """The objective and its slope."""


class Reward(Protocol):
    """What one answer is worth."""

    @property
    def total(self) -> float: ...
    @property
    def components(self) -> dict[str, float]: ...


class Judge(Protocol):
    """Gives rewards; the same numbers in any process."""

    @property
    def failed(self) -> int:
        """Answers so far without a verdict: it took too long, or the process that judges died of it."""

    def rewards(self, predictions: Sequence[Prediction], traces: Mapping[str, Trace]) -> Sequence[Reward]:
        """The reward of each prediction, by the trace of its id."""
