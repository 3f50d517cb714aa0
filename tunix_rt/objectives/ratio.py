"""How far a model has moved from the one that sampled, and from a reference, at the sampled tokens.

Three estimators of KL(π‖π_ref) from x = log π - log π_ref (Schulman 2020, joschu.net/blog/kl-approx.html). Each has a
value, which is reported and part of the loss, and a slope with respect to log π, which is what is learned:

- `k1`: x, unbiased. Its own derivative is 1, in expectation no direction at all (NVIDIA-NeMo/RL pull request 2506), so
  the slope is x, that of the score function: in expectation ∇KL(π‖π_ref) (arXiv 2512.21852).
- `k2`: x² / 2, biased and never negative. Its own derivative is x: it learns what `k1` learns.
- `k3`: exp(-x) - 1 + x, unbiased and never negative. Its own derivative is 1 - exp(-x), as GRPO was published
  (arXiv 2402.03300, equation 4): in expectation ∇KL(π_ref‖π), with spikes where π is far below π_ref.

Tokens of an earlier model count by the ratio π / π_old, without its derivative (huggingface/trl issue 3025); with it,
`k3` too would learn what `k1` learns (DeepSeek-V3.2, arXiv 2512.02556).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from tunix_rt.objectives.interface import Float64, Tokens

KlEstimator = Literal["k1", "k2", "k3"]
FARTHEST = 10.0
"""Log-ratios beyond are held here, so that no token overflows (pytorch/torchtitan, experiments/rl/losses)."""


def ratios(tokens: Tokens) -> Float64:
    """π / π_old of each token, [N]; 1 if none is given."""
    if tokens.old is None:
        return np.ones(len(tokens.logprobs))
    return np.asarray(np.exp(np.clip(tokens.logprobs - tokens.old, -FARTHEST, FARTHEST)))


def ratio_metrics(ratio: Float64) -> dict[str, float]:
    """The largest ratio of the tokens that count."""
    return {"rollout/ratio_max": float(ratio.max(initial=0.0))}


def log_ratios(tokens: Tokens) -> Float64:
    """log π - log π_ref of each token, [N]."""
    assert tokens.reference is not None, "needs_reference"
    return tokens.logprobs - tokens.reference


def kl(estimator: KlEstimator, x: Float64) -> tuple[Float64, Float64]:
    """The values and the slopes at log-ratios `x`, all [N]."""
    if estimator == "k1":
        return x, x
    if estimator == "k2":
        return x**2 / 2, x
    inverse = np.exp(np.minimum(-x, FARTHEST))
    return inverse - 1 + x, 1 - inverse
