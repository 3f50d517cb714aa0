"""`grpo`: policy gradients, with the rewards of a group of answers to one prompt as the baseline.

GRPO (arXiv 2402.03300), Dr. GRPO (arXiv 2503.20783), DAPO (arXiv 2503.14476) and RLOO (arXiv 2402.14740) differ in the
values below: they are files of `conf/objective/`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from tunix_rt.config.rollout import RewardConfig, RolloutConfig
from tunix_rt.config.section import Count, Unit, section
from tunix_rt.objectives.interface import Bool, Float64, Tokens, Value
from tunix_rt.objectives.ratio import KlEstimator, kl, log_ratios, ratio_metrics, ratios
from tunix_rt.objectives.rollouts import RolloutObjective
from tunix_rt.objectives.sums import Divisor, token_shares


@section
class Grpo(RolloutObjective):
    """-min(ρ·A, clip(ρ)·A) of each token, + `kl_coefficient`·KL: ρ = π / π_old, A the advantage of its answer."""

    kind: Literal["grpo"]
    rollout: RolloutConfig
    reward: RewardConfig
    advantage: Literal["mean", "std", "leave_one_out"]
    """`mean`: the reward minus the mean of its group (Dr. GRPO); `std`: that divided by the standard deviation of the
    group (GRPO); `leave_one_out`: the reward minus the mean of the others of its group (RLOO)."""
    std_floor: Annotated[float, Gt(0)]
    """Least standard deviation that is divided by, so that all but equal rewards are not amplified."""
    divisor: Divisor
    """`tokens`: the mean over all tokens (DAPO); `sequences`: over the tokens of each answer, then over the answers
    (GRPO), which favours short right and long wrong ones; `constant`: the sum over all tokens, divided by the number of
    answers times `constant` (Dr. GRPO)."""
    constant: Annotated[Count, Unit("tokens")] | None
    """What each answer counts for with divisor=constant; null: `rollout.max_new_tokens`; 1: an answer's tokens are
    summed, and the mean is over answers (RLOO)."""
    clip_low: Annotated[float, Gt(0), Lt(1)] | None
    """Nothing is learned from a token with a negative advantage once ρ is below 1 - this; null: no limit."""
    clip_high: Annotated[float, Gt(0)] | None
    """Nothing is learned from a token with a positive advantage once ρ is above 1 + this; null: no limit."""
    kl_coefficient: Annotated[float, Ge(0)]
    """Weight of the divergence from the reference, the model that training began with; 0: none, and no reference."""
    kl_estimator: KlEstimator
    """How the divergence is estimated from the sampled tokens: `k1` and `k2` make KL(π‖π_ref) small, `k3` is GRPO's as
    published (docs/objectives.md)."""
    mask_truncated: bool
    """Nothing is learned from answers that were cut at `rollout.max_new_tokens`, nor are they counted but in a constant
    divisor; false: they are learned from as any other."""

    @property
    def needs_logprobs(self) -> bool:
        """On-policy and without a reference, the ratio is 1."""
        return self.rollout.updates > 1 or self.needs_reference

    @property
    def needs_reference(self) -> bool:
        """For the divergence from it."""
        return self.kl_coefficient > 0

    def advantages(self, rewards: Float64) -> Float64:
        """Rewards of n answers to each of G prompts → advantages, both [G, n]; exactly 0 in a group of equal rewards.

        The standard deviation is the unbiased one, as in huggingface/trl and verl.
        """
        centred: Float64 = rewards - rewards.mean(axis=1, keepdims=True)
        centred[np.ptp(rewards, axis=1) == 0] = 0.0
        if self.advantage == "std":
            centred /= np.maximum(rewards.std(axis=1, ddof=1, keepdims=True), self.std_floor)
        elif self.advantage == "leave_one_out":
            centred *= rewards.shape[1] / (rewards.shape[1] - 1)
        return centred

    def value(self, tokens: Tokens) -> Value:
        """The sum over the tokens that count, by the divisor."""
        assert tokens.advantages is not None, "rollouts have advantages"
        counted, ratio = self._counted(tokens), ratios(tokens)
        losses, slopes, clipped = self._surrogate(ratio, tokens.advantages[tokens.sequence])
        mean = token_shares(tokens, counted, "tokens")
        metrics = {"rollout/clip_fraction": float(np.sum(mean * clipped))} | ratio_metrics(ratio[counted])
        if self.needs_reference:
            divergence, direction = kl(self.kl_estimator, log_ratios(tokens))
            losses = losses + self.kl_coefficient * ratio * divergence
            slopes = slopes + self.kl_coefficient * ratio * direction
            metrics["rollout/kl"] = float(np.sum(mean * divergence))
        shares = token_shares(tokens, counted, self.divisor, self.constant or self.rollout.max_new_tokens)
        return Value(0.0 + float(np.sum(shares * losses)), -shares * slopes, metrics)

    def _counted(self, tokens: Tokens) -> Bool:
        """Whether something is learned from each token, [N]."""
        if not self.mask_truncated or tokens.truncated is None:
            return np.ones(len(tokens.logprobs), dtype=np.bool_)
        return np.logical_not(tokens.truncated)[tokens.sequence]

    def _surrogate(self, ratio: Float64, advantage: Float64) -> tuple[Float64, Float64, Bool]:
        """The loss of each token (PPO, arXiv 1707.06347, equation 7), its slope, and whether it is clipped; all [N]."""
        low = -np.inf if self.clip_low is None else 1 - self.clip_low
        high = np.inf if self.clip_high is None else 1 + self.clip_high
        clipped = ((ratio > high) & (advantage > 0)) | ((ratio < low) & (advantage < 0))
        losses = -np.minimum(ratio * advantage, np.clip(ratio, low, high) * advantage)
        return losses, np.where(clipped, 0.0, -ratio * advantage), clipped


OBJECTIVE = Grpo
