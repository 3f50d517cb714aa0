"""`ipo`: identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, equation 17)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt

from tunix_rt.config.section import section
from tunix_rt.objectives.interface import Tokens, Value
from tunix_rt.objectives.preference import Preference, scores_of, value_of_pairs


@section
class Ipo(Preference):
    """(log-ratio of the chosen answer - log-ratio of the rejected one - 1 / (2·β))², each the mean over its tokens.

    The mean is what the paper's results are of, as its authors told huggingface/trl (trl/trainer/dpo_trainer.py); a
    sum would make the target margin depend on the length.
    """

    kind: Literal["ipo"]
    beta: Annotated[float, Gt(0)]
    """τ of the paper: the larger, the smaller the margin that is aimed at."""
    sft_weight: Annotated[float, Ge(0)]
    """Weight of the chosen answers' mean negative log-likelihood per token, which is added (arXiv 2404.19733)."""

    @property
    def needs_reference(self) -> bool:
        """Log-ratios are against it."""
        return True

    def value(self, tokens: Tokens) -> Value:
        """The mean over pairs."""
        scores = scores_of(tokens, mean=True, against_reference=True)
        gaps = scores.chosen - scores.rejected - 1 / (2 * self.beta)
        return value_of_pairs(tokens, scores, gaps**2, (2 * gaps, -2 * gaps), self.beta, self.sft_weight)


OBJECTIVE = Ipo
