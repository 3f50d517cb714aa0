"""`distill`: learning from a teacher, on the student's own answers or on the teacher's.

On-policy distillation (arXiv 2306.13649; MiniLLM, arXiv 2306.08543) and sequence-level distillation (arXiv 1606.07947).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from tunix_rt.config.model import TrainedModel
from tunix_rt.config.rollout import RewardConfig, RolloutConfig
from tunix_rt.config.section import section
from tunix_rt.objectives.interface import Float64, Tokens, Value
from tunix_rt.objectives.ratio import kl, log_ratios, ratio_metrics, ratios
from tunix_rt.objectives.rollouts import RolloutObjective
from tunix_rt.objectives.sums import mean_loss


@section
class Distill(RolloutObjective):
    """KL(student‖teacher) at the tokens that the student sampled, or the likelihood of what the teacher sampled."""

    kind: Literal["distill"]
    teacher: TrainedModel
    """The model to learn from, with the tokenizer of the trained one: as `model.source`, of any kind but those that are
    drawn. An experiment (`{kind: run, experiment: NAME}`) runs first where it is not finished (docs/stages.md)."""
    rollout: RolloutConfig
    reward: RewardConfig
    samples: Literal["student", "teacher"]
    """Who answers the prompts. `student`: each of its tokens is judged by the teacher's log-probability; `teacher`: its
    answers are learned, as supervised fine-tuning would."""

    @property
    def needs_logprobs(self) -> bool:
        """They are what is compared; who samples may be another model."""
        return True

    @property
    def needs_reference(self) -> bool:
        """The teacher is the reference of what the student samples."""
        return self.samples == "student"

    def advantages(self, rewards: Float64) -> Float64:
        """Rewards of n answers to each of G prompts → 1, both [G, n]: every answer is learned from."""
        return np.ones_like(rewards)

    def value(self, tokens: Tokens) -> Value:
        """The mean over all tokens, with the estimator `k1` of `ratio.py`."""
        shares = np.full(len(tokens.logprobs), 1 / max(len(tokens.logprobs), 1))
        if self.samples == "teacher":
            return Value(*mean_loss(tokens, shares))
        ratio, (divergence, direction) = ratios(tokens), kl("k1", log_ratios(tokens))
        metrics = ratio_metrics(ratio) | {"rollout/kl": float(np.sum(shares * divergence))}
        return Value(float(np.sum(shares * ratio * divergence)), -shares * ratio * direction, metrics)


OBJECTIVE = Distill
