"""A histogram of lengths as lines of text, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

BINS = 10
WIDTH = 40


def histogram(lengths: Sequence[int]) -> str:
    """Up to ten bins of equal width over integer lengths: range, count, bar."""
    low, high = min(lengths), max(lengths)
    width = max(-(-(high - low + 1) // BINS), 1)
    counts: dict[int, int] = {}
    for length in lengths:
        counts[(length - low) // width] = counts.get((length - low) // width, 0) + 1
    most = max(counts.values())
    lines = []
    for index in range((high - low) // width + 1):
        first, count = low + index * width, counts.get(index, 0)
        label = f"{first}" if width == 1 else f"{first}-{first + width - 1}"
        lines.append(f"{label:>12} {count:>8,} {'█' * round(WIDTH * count / most)}")
    return "\n".join(lines)
