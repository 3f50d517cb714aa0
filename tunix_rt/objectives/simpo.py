"""`simpo`: simple preference optimisation, without a reference (Meng et al. 2024, arXiv 2405.14734, equation 6)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from tunix_rt.config.section import section
from tunix_rt.objectives.interface import Tokens, Value
from tunix_rt.objectives.preference import Preference, logistic, scores_of, value_of_pairs


@section
class Simpo(Preference):
    """-log σ(β·(mean log-probability of the chosen answer - that of the rejected one) - γ)."""

    kind: Literal["simpo"]
    beta: Annotated[float, Gt(0)]
    """β: scales mean log-probabilities to rewards."""
    gamma: Annotated[float, Ge(0)]
    """γ: the margin between the rewards that is aimed at; the authors' code divides it by β."""
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)]
    """Share of the pairs believed to be labelled the wrong way round."""
    sft_weight: Annotated[float, Ge(0)]
    """Weight of the chosen answers' mean negative log-likelihood per token, which is added (CPO-SimPO)."""

    def value(self, tokens: Tokens) -> Value:
        """The mean over pairs."""
        scores = scores_of(tokens, mean=True, against_reference=False)
        margins = self.beta * (scores.chosen - scores.rejected) - self.gamma
        losses, slopes = logistic(margins, self.label_smoothing)
        both = (self.beta * slopes, -self.beta * slopes)
        return value_of_pairs(tokens, scores, losses, both, self.beta, self.sft_weight)


OBJECTIVE = Simpo
