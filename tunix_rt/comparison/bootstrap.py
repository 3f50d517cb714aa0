"""The bootstrap of a difference, as a second opinion that assumes no distribution."""

from __future__ import annotations

import numpy as np

from tunix_rt.comparison.scores import Scores
from tunix_rt.comparison.statistics import LEVEL, Span

DRAWS = 10_000
SEED = 0
AT_ONCE = 4_000_000
"""Numbers drawn at once: 32 MB."""


def bootstrap(scores: Scores, level: float = LEVEL, draws: int = DRAWS, seed: int = SEED) -> Span:
    """The percentile interval of the difference over `draws` resamples, the same for the same `seed`.

    Prompts are drawn with all answers to them (the paired bootstrap, with a prompt's samples as a cluster; Dror et al.
    2018, doi 10.18653/v1/P18-1128). With several runs a side, runs and prompts are drawn independently
    (the pigeonhole bootstrap, Owen 2007, doi 10.1214/07-AOAS122). Prompts with equal values are drawn together, which
    has the same distribution and takes a fraction of the time.
    """
    generator = np.random.default_rng(seed)
    kinds, sizes = np.unique(np.vstack([scores.totals, scores.counts]), axis=1, return_counts=True)
    means = np.empty((draws, len(scores.totals)))
    at_once = max(AT_ONCE // len(sizes), 1)
    for start in range(0, draws, at_once):
        some = min(at_once, draws - start)
        drawn = generator.multinomial(sizes.sum(), sizes / sizes.sum(), size=some).astype(np.float64)
        means[start : start + some] = drawn @ kinds[:-1].T / (drawn @ kinds[-1])[:, None]
    sides = []
    for side in (means[:, : scores.num_left], means[:, scores.num_left :]):
        runs = side.shape[1]
        weights = generator.multinomial(runs, [1 / runs] * runs, size=draws) if runs > 1 else 1
        sides.append((side * weights).sum(axis=1) / runs)
    low, high = np.quantile(sides[1] - sides[0], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
