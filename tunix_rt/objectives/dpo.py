"""`dpo`: direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from tunix_rt.config.section import section
from tunix_rt.objectives.interface import Tokens, Value
from tunix_rt.objectives.preference import Preference, logistic, scores_of, value_of_pairs


@section
class Dpo(Preference):
    """-log σ(β·(log-ratio of the chosen answer - log-ratio of the rejected one)), against the reference model."""

    kind: Literal["dpo"]
    beta: Annotated[float, Gt(0)]
    """β: the larger, the closer to the reference model."""
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)]
    """Share of the pairs believed to be labelled the wrong way round (conservative DPO)."""
    length_normalised: bool
    """Log-ratios per token instead of their sums (arXiv 2411.15124)."""
    sft_weight: Annotated[float, Ge(0)]
    """Weight of the chosen answers' mean negative log-likelihood per token, which is added (arXiv 2404.19733)."""

    @property
    def needs_reference(self) -> bool:
        """Log-ratios are against it."""
        return True

    def value(self, tokens: Tokens) -> Value:
        """The mean over pairs."""
        scores = scores_of(tokens, self.length_normalised, against_reference=True)
        losses, slopes = logistic(self.beta * (scores.chosen - scores.rejected), self.label_smoothing)
        both = (self.beta * slopes, -self.beta * slopes)
        return value_of_pairs(tokens, scores, losses, both, self.beta, self.sft_weight)


OBJECTIVE = Dpo
