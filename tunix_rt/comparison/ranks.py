"""Ranks of several settings, of which those that cannot be told apart share one.

The rule: settings in order of their values; the best one without a rank leads the next rank, which reaches down to the
last setting that cannot be told apart from its leader. So every setting of a lower rank is shown to be worse than the
leader of a higher one, and nothing is claimed about settings of one rank ('cannot be told apart' is not transitive).
The tests are corrected for all pairs of settings (Holm), since the leader was chosen by the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from tunix_rt.comparison.metric import metric_of
from tunix_rt.comparison.pairs import aligned
from tunix_rt.comparison.scores import Scores, scores_of
from tunix_rt.comparison.statistics import LEVEL, estimate, holm
from tunix_rt.runs.folder import RunFolder

Apart = list[list[bool]]
"""[settings, settings]: whether two settings differ by more than chance."""


def ranks(apart: Apart) -> list[int]:
    """The rank of each setting, from 1; the settings are in order of their values, the best first."""
    found: list[int] = []
    while (leader := len(found)) < len(apart):
        last = max(at for at in range(leader, len(apart)) if at == leader or not apart[leader][at])
        found += [leader + 1] * (last - leader + 1)
    return found


def told_apart(settings: Sequence[Sequence[RunFolder]], metric: str) -> Apart:
    """Compares every two settings (runs that differ in their seeds) on the test items.

    Raises InputError if they cannot be compared so: other questions, or a metric that items do not have.
    """
    runs = [run for setting in settings for run in setting]
    answers = aligned(runs, metric=metric)
    found = metric_of(metric, [items[key] for items in answers.items for key in answers.keys])
    scores = scores_of(answers, found, 1)
    return corrected(len(settings), _p_values(scores, [len(setting) for setting in settings]))


def corrected(number: int, p_values: list[float]) -> Apart:
    """Which of `number` settings differ, by the p-values of their `combinations`."""
    apart = [[False] * number for _ in range(number)]
    for (a, b), p in zip(combinations(range(number), 2), holm(p_values), strict=True):
        apart[a][b] = apart[b][a] = p < 1 - LEVEL
    return apart


def _p_values(scores: Scores, sizes: Sequence[int]) -> list[float]:
    """Of every two settings, in the order of `combinations`."""
    if max(sizes) == 1 and (scores.counts == 1).all() and np.isin(scores.totals, (0, 1)).all():
        return _mcnemars(scores)
    ends = np.cumsum(sizes)
    sides = [scores.totals[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    return [
        estimate(Scores(scores.ids, np.vstack([a, b]), scores.counts, len(a), scores.rate)).p_value()
        for a, b in combinations(sides, 2)
    ]


def _mcnemars(scores: Scores) -> list[float]:
    """McNemar's exact test of every two runs at once: a search may have hundreds."""
    from scipy.stats import binom

    more = scores.totals @ (1 - scores.totals).T
    changed, least = more + more.T, np.minimum(more, more.T)
    p = np.minimum(2 * binom.cdf(least, changed, 0.5), 1)
    return [float(p[a, b]) for a, b in combinations(range(len(p)), 2)]
