"""The loss as algebra that works in jax and torch alike.

Every objective comes down to it: what `tunix_rt/objectives/` computes arrives as weights. The caller divides once, by
the divisor of the whole global batch (accumulation and devices included).
"""

from __future__ import annotations

from typing import Any


def weighted_loss(logprobs: Any, weights: Any) -> Any:
    """Sum of -weight * log-probability. `logprobs`, `weights`: float32 of the same shape; returns a scalar."""
    return -(logprobs * weights).sum()
