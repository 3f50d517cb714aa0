"""What the objectives over pairs share: the score of each answer, and the loss of a pair as a function of both.

A score is linear in the log-probabilities of its answer's tokens, so the derivative of a loss with respect to each
token is that with respect to the score times a constant. Each token counts equally, the stop token too, in the sum as
in the length (PaddlePaddle/PaddleFormers issue 4908).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from tunix_rt.objectives.interface import Float64, Objective, Tokens, Value
from tunix_rt.objectives.sums import mean_loss, token_shares


class Preference(Objective):
    """An objective over pairs of a chosen and a rejected answer to one prompt."""

    __slots__ = ()
    data: ClassVar[Literal["pairs"]] = "pairs"

    @property
    def needs_logprobs(self) -> bool:
        """The loss is not linear in them."""
        return True


@dataclass(frozen=True, slots=True)
class Scores:
    """One number for each of S answers: the sum or the mean of its tokens' log-probabilities or log-ratios."""

    values: Float64
    """[S]"""
    slopes: Float64
    """[N], ∂(score of its answer)/∂(log-probability) of each token."""

    @property
    def chosen(self) -> Float64:
        """[P], the scores of the chosen answers."""
        return self.values[0::2]

    @property
    def rejected(self) -> Float64:
        """[P], the scores of the rejected answers."""
        return self.values[1::2]


def scores_of(tokens: Tokens, mean: bool, against_reference: bool) -> Scores:
    """`mean`: per token; `against_reference`: of log π - log π_ref instead of log π."""
    values = tokens.logprobs
    if against_reference:
        assert tokens.reference is not None, "needs_reference"
        values = values - tokens.reference
    lengths = tokens.lengths if mean else np.ones(tokens.num_sequences)
    return Scores(tokens.sums(values) / lengths, 1.0 / lengths[tokens.sequence])


def value_of_pairs(
    tokens: Tokens, scores: Scores, losses: Float64, slopes: tuple[Float64, Float64], beta: float, sft_weight: float
) -> Value:
    """The mean of the pairs' `losses` [P], with `slopes`: ∂loss/∂score of the chosen and of the rejected answer [P].

    `sft_weight` times the mean negative log-likelihood of the chosen answers' tokens is added (RPO, arXiv 2404.19733;
    CPO, arXiv 2401.08417): DPO alone may lower the probability of both answers (eric-mitchell/direct-preference-
    optimization issue 36). `beta` turns scores into the rewards of the metrics.
    """
    of_sequence = np.stack(slopes, axis=1).reshape(-1) / len(losses)
    weights = -of_sequence[tokens.sequence] * scores.slopes
    sft_loss, sft_weights = chosen_loss(tokens)
    metrics = preference_metrics(tokens, beta * scores.chosen, beta * scores.rejected) | {"preference/sft": sft_loss}
    return Value(float(losses.mean()) + sft_weight * sft_loss, weights + sft_weight * sft_weights, metrics)


def chosen_loss(tokens: Tokens) -> tuple[float, Float64]:
    """The mean negative log-likelihood of the chosen answers' tokens, and the weights [N] of that loss."""
    return mean_loss(tokens, token_shares(tokens, tokens.sequence % 2 == 0, "tokens"))


def preference_metrics(tokens: Tokens, chosen: Float64, rejected: Float64) -> dict[str, float]:
    """The implicit rewards [P] of both answers, and their log-probabilities, which show whether both fall."""
    logprobs = tokens.sums(tokens.logprobs)
    return {
        "preference/accuracy": float(np.mean(chosen > rejected)),
        "preference/margin": float(np.mean(chosen - rejected)),
        "preference/chosen": float(chosen.mean()),
        "preference/rejected": float(rejected.mean()),
        "preference/chosen_logprob": float(logprobs[0::2].mean()),
        "preference/rejected_logprob": float(logprobs[1::2].mean()),
    }


def sigmoid(x: Float64) -> Float64:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


def logistic(margin: Float64, label_smoothing: float) -> tuple[Float64, Float64]:
    """-(1-ε)·log σ(m) - ε·log σ(-m) of each margin [P], and its derivative [P].

    ε is the share of pairs believed to be labelled the wrong way round (conservative DPO, ericmitchell.ai/cdpo.pdf).
    """
    losses = np.logaddexp(0.0, -margin) + label_smoothing * margin
    return losses, sigmoid(margin) - (1.0 - label_smoothing)
