"""`rejection_sampling`: supervised fine-tuning on the model's own right answers.

Known as STaR (arXiv 2203.14465), RAFT (arXiv 2304.06767), ReST-EM (arXiv 2312.06585) and expert iteration.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from tunix_rt.config.rollout import RewardConfig, RolloutConfig
from tunix_rt.config.section import section
from tunix_rt.objectives.interface import Float64, Tokens, Value
from tunix_rt.objectives.rollouts import RolloutObjective
from tunix_rt.objectives.sums import mean_loss

ROUNDING = 1e-9
"""A weighted sum such as 0.7 + 0.2 + 0.1 may miss its threshold by less than this."""


@section
class RejectionSampling(RolloutObjective):
    """The mean negative log-likelihood of the tokens of those answers whose reward reaches the threshold."""

    kind: Literal["rejection_sampling"]
    rollout: RolloutConfig
    reward: RewardConfig
    threshold: Annotated[float, Gt(0)]
    """Least reward of an answer that is learned from."""

    @property
    def needs_logprobs(self) -> bool:
        """For the loss after the first update on a rollout; its slope does not depend on them."""
        return self.rollout.updates > 1

    def advantages(self, rewards: Float64) -> Float64:
        """Rewards of n answers to each of G prompts → 1 for those that are learned from, else 0; both [G, n]."""
        return (rewards >= self.threshold - ROUNDING).astype(np.float64)

    def value(self, tokens: Tokens) -> Value:
        """The mean over the tokens of the answers with advantage 1; 0 if there are none."""
        assert tokens.advantages is not None, "rollouts have advantages"
        kept = tokens.advantages[tokens.sequence]
        return Value(*mean_loss(tokens, kept / max(kept.sum(), 1.0)))


OBJECTIVE = RejectionSampling
