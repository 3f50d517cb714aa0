"""A curve as lines of text, for the terminal: block characters over steps, with its ends written at the sides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log
from statistics import fmean

BLOCKS = " ▁▂▃▄▅▆▇█"
STEEP = 20
"""Ratio of the largest to the smallest value above which the height is logarithmic, as in the figure."""


def curve(points: Sequence[tuple[int, float]], width: int, height: int = 6) -> list[str]:
    """`height` lines, at most `width` columns wide, and one with the first and the last step.

    `points` are (step, value) in order of step. A column is the mean of its values.
    """
    if not points:
        return []
    values = _columns([value for _, value in points], max(width - 10, 1))
    low, high = min(values), max(values)
    steep = low > 0 and high > STEEP * low
    levels = [_level(value, low, high, steep) * (len(BLOCKS) - 1) * height for value in values]
    lines = []
    for row in range(height - 1, -1, -1):
        label = f"{high:.3g}" if row == height - 1 else f"{low:.3g}" if row == 0 else ""
        cells = (BLOCKS[round(min(max(level - row * 8, row == 0), 8))] for level in levels)
        lines.append(f"{label:>8} {''.join(cells)}".rstrip())
    first, last = f"step {points[0][0]}", f"{points[-1][0]}"
    return [*lines, f"{'':9}{first}{last:>{max(len(values) - len(first), len(last) + 1)}}"]


def _columns(values: Sequence[float], width: int) -> list[float]:
    """Means of `width` neighbouring groups of the values; the values themselves if they are fewer."""
    if len(values) <= width:
        return list(values)
    cuts = [len(values) * at // width for at in range(width + 1)]
    return [fmean(values[begin:end]) for begin, end in pairwise(cuts)]


def _level(value: float, low: float, high: float, steep: bool) -> float:
    """Height in [0, 1]."""
    if high == low:
        return 0.0
    return log(value / low) / log(high / low) if steep else (value - low) / (high - low)
