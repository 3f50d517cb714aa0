"""Intervals and estimates from counts. Plain numbers in and out; independent of predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import comb

from tunix_rt.runs.rates import Interval


@lru_cache(maxsize=10_000)
def wilson(k: int, n: int) -> Interval:
    """The 95 % score interval of k successes in n trials, n > 0 (Wilson 1927, doi 10.2307/2276774)."""
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right, from c right ones of n >= k.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021, arXiv 2107.03374, equation 1; in integers, so exact.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} samples with {c} right is not defined")
    return 1 - comb(n - c, k) / comb(n, k)


def majority(answers: Sequence[Hashable | None]) -> int | None:
    """Index of the first answer with the most common value; None does not vote.

    Wang et al. 2022 (self-consistency), arXiv 2203.11171. Ties go to the value given first.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return None
    return answers.index(max(votes, key=votes.__getitem__))  # Counter keeps the order of first occurrence
