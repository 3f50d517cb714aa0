"""What the objectives over answers that are sampled in each step share."""

from __future__ import annotations

from typing import ClassVar, Literal

from tunix_rt.config.rollout import RewardConfig, RolloutConfig
from tunix_rt.objectives.interface import Float64, Objective


class RolloutObjective(Objective):
    """An objective over answers that are sampled in each step; a section of it declares both fields."""

    __slots__ = ()
    data: ClassVar[Literal["rollouts"]] = "rollouts"
    rollout: RolloutConfig
    reward: RewardConfig

    def advantages(self, rewards: Float64) -> Float64:
        """Rewards of n answers to each of G prompts → advantages, both [G, n].

        A row of zeros, exactly, is a group from which nothing is learned.
        """
        raise NotImplementedError
