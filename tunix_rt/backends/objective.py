"""The loss as algebra that works in numpy, jax and torch alike. A new objective is one more function here.

Returns sum and count, divided once by the caller over the whole global batch (accumulation and devices included).
"""

from __future__ import annotations

from typing import Any


def cross_entropy(logprobs: Any, weights: Any) -> tuple[Any, Any]:
    """Weighted negative log-likelihood. `logprobs`, `weights`: float32 of the same shape; returns (sum, weight sum)."""
    return -(logprobs * weights).sum(), weights.sum()
