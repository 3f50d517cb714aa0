"""`orpo`: odds ratio preference optimisation, without a reference (Hong et al. 2024, arXiv 2403.07691)."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from tunix_rt.config.section import section
from tunix_rt.objectives.interface import Float64, Tokens, Value
from tunix_rt.objectives.preference import Preference, logistic, scores_of, value_of_pairs

NEAREST_TO_CERTAIN = -1e-6
"""Mean log-probabilities above count as this: the odds of a certain answer are infinite."""


@section
class Orpo(Preference):
    """The chosen answers' mean negative log-likelihood + β·(-log σ(log of the odds ratio of chosen to rejected)).

    Odds are p / (1 - p) with p = exp(mean log-probability of an answer's tokens); equations 6 and 7.
    """

    kind: Literal["orpo"]
    beta: Annotated[float, Gt(0)]
    """λ of the paper: the weight of the odds ratio."""

    def value(self, tokens: Tokens) -> Value:
        """The mean over pairs, and over the chosen answers' tokens."""
        scores = scores_of(tokens, mean=True, against_reference=False)
        chosen, rejected = (np.minimum(part, NEAREST_TO_CERTAIN) for part in (scores.chosen, scores.rejected))
        losses, slopes = logistic(log_odds(chosen) - log_odds(rejected), label_smoothing=0.0)
        # The derivative of log_odds is 1 / (1 - p).
        both = (-self.beta * slopes / np.expm1(chosen), self.beta * slopes / np.expm1(rejected))
        return value_of_pairs(tokens, scores, self.beta * losses, both, self.beta, sft_weight=1.0)


def log_odds(logprobs: Float64) -> Float64:
    """log(p / (1 - p)) of log-probabilities below 0."""
    return np.asarray(logprobs - np.log(-np.expm1(logprobs)))


OBJECTIVE = Orpo
