"""A histogram of lengths as lines of text, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 10
WIDTH = 40


def histogram(lengths: Sequence[int]) -> str:
    """Up to ten bins of equal width over integer lengths: range, count, bar."""
    low, high = min(lengths), max(lengths)
    width = max(-(-(high - low + 1) // BINS), 1)
    counts = np.bincount((np.asarray(lengths) - low) // width)
    lines = []
    for index, count in enumerate(counts):
        first = low + index * width
        label = f"{first}" if width == 1 else f"{first}-{first + width - 1}"
        lines.append(f"{label:>12} {count:>8,} {'█' * round(WIDTH * count / counts.max())}")
    return "\n".join(lines)
