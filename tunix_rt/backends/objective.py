"""The loss as algebra that numpy, jax and torch run alike. A new objective is one more function here.

Sum and count, divided once by the caller over the whole global batch (accumulation and devices included).
"""

from __future__ import annotations

from typing import Any


def cross_entropy(logprobs: Any, weights: Any) -> tuple[Any, Any]:
    """Weighted negative log-likelihood. `logprobs`, `weights`: float32 of one shape; returns (sum, weight sum)."""
    return -(logprobs * weights).sum(), weights.sum()
