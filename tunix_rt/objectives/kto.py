"""`kto`: Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306)."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from tunix_rt.config.section import section
from tunix_rt.objectives.interface import Bool, Float64, Tokens, Value
from tunix_rt.objectives.preference import Preference, scores_of, sigmoid


@section
class Kto(Preference):
    """λ·(1 - σ(±β·(log-ratio - z))): + for a desirable answer, - for an undesirable one; each answer counts alone.

    z, the reference point, stands for KL(π‖π_ref). The paper estimates it on answers to other prompts, which costs
    another forward pass; here it comes from the answers themselves.
    """

    kind: Literal["kto"]
    beta: Annotated[float, Gt(0)]
    """β: the larger, the closer to the reference model."""
    desirable_weight: Annotated[float, Gt(0)]
    """λ of desirable answers. Where one kind is rarer, weight times number should be about the same for both."""
    undesirable_weight: Annotated[float, Gt(0)]
    """λ of undesirable answers."""
    reference_point: Literal["batch", "zero"]
    """z: `batch`, the mean log-ratio of the batch's answers, at least 0 and without a derivative; `zero`: 0."""

    @property
    def needs_reference(self) -> bool:
        """Log-ratios are against it."""
        return True

    def value(self, tokens: Tokens) -> Value:
        """The mean over answers."""
        scores, desirable = scores_of(tokens, mean=False, against_reference=True), desirable_of(tokens)
        point = max(float(scores.values.mean()), 0.0) if self.reference_point == "batch" else 0.0
        signs = np.where(desirable, 1.0, -1.0)
        each = np.where(desirable, self.desirable_weight, self.undesirable_weight) / tokens.num_sequences
        reached = sigmoid(signs * self.beta * (scores.values - point))
        slopes = -each * signs * self.beta * reached * (1.0 - reached)
        metrics = _metrics(tokens, self.beta * scores.values, desirable) | {"preference/kl": point}
        return Value(float(np.sum(each * (1.0 - reached))), -slopes[tokens.sequence] * scores.slopes, metrics)


def desirable_of(tokens: Tokens) -> Bool:
    """[S]: by the sign of `advantages`, if given; otherwise the chosen one of each pair."""
    if tokens.advantages is not None:
        return np.asarray(tokens.advantages > 0)
    return np.asarray(np.arange(tokens.num_sequences) % 2 == 0)


def _metrics(tokens: Tokens, rewards: Float64, desirable: Bool) -> dict[str, float]:
    """Means over the answers of each kind that there are, and the share of them on the right side of 0."""
    logprobs, found = (
        tokens.sums(tokens.logprobs),
        {"preference/accuracy": float(np.mean((rewards > 0) == desirable))},
    )
    for name, which in (("chosen", desirable), ("rejected", ~desirable)):
        if which.any():
            found[f"preference/{name}"] = float(rewards[which].mean())
            found[f"preference/{name}_logprob"] = float(logprobs[which].mean())
    if desirable.any() and not desirable.all():
        found["preference/margin"] = found["preference/chosen"] - found["preference/rejected"]
    return found


OBJECTIVE = Kto
