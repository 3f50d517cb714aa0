"""What share each token has of a loss: the divisors of the field."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tunix_rt.objectives.interface import Bool, Float64, Tokens

Divisor = Literal["tokens", "sequences", "constant"]


def token_shares(tokens: Tokens, counted: Bool, divisor: Divisor, constant: int = 1) -> Float64:
    """The factor of each token's loss in the whole, [N]; 0 for a token that is not `counted` [N].

    `tokens`: one over the number of all counted tokens (DAPO, arXiv 2503.14476). `sequences`: the mean over each
    sequence, then over the sequences that have any (GRPO, arXiv 2402.03300). `constant`: one over `constant` tokens for
    each of the S sequences (Dr. GRPO, arXiv 2503.20783). But in the constant, a token that adds nothing above the line
    is not counted below it (huggingface/trl issue 6369).
    """
    ones: Float64 = counted.astype(np.float64)
    if divisor == "constant":
        return ones / (constant * tokens.num_sequences)
    if divisor == "tokens":
        return ones / max(float(ones.sum()), 1.0)
    lengths = tokens.sums(ones)
    sequences = max(int(np.count_nonzero(lengths)), 1)
    return np.asarray(ones / (sequences * np.maximum(lengths, 1.0)[tokens.sequence]))


def mean_loss(tokens: Tokens, shares: Float64) -> tuple[float, Float64]:
    """The negative log-likelihood, each token by its share [N], and its weights [N], which are those shares."""
    return 0.0 - float(np.sum(shares * tokens.logprobs)), shares
