"""How much of what grows with a batch is in memory at once, in every backend; `sizes` estimates by it."""

from __future__ import annotations

LOGITS_AT_ONCE = 1 << 25
"""Most logits; more are computed in portions."""
LONGEST_WHOLE = 1024
"""T of the longest rows whose attention scores [T, T] may be in memory; those of longer ones are never all there."""
MOST_KEYS = 512
"""Keys per position, on average, whose scores jax keeps of longer rows: in pairs of blocks that share a trace."""
