"""Counts → intervals and estimates, against hand-computed values and brute force."""

from __future__ import annotations

from itertools import combinations
from math import sqrt

import pytest

from tunix_rt.evaluation.statistics import majority, pass_at_k, wilson


def test_wilson_by_hand() -> None:
    """8 of 10: centre (0.8 + z²/20)/(1 + z²/10), half width z/(1 + z²/10) · sqrt(0.8·0.2/10 + z²/400)."""
    z = 1.959963984540054
    centre = (0.8 + z * z / 20) / (1 + z * z / 10)
    half = z / (1 + z * z / 10) * sqrt(0.8 * 0.2 / 10 + z * z / 400)
    assert wilson(8, 10).low == pytest.approx(centre - half, abs=1e-12)
    assert wilson(8, 10).high == pytest.approx(centre + half, abs=1e-12)
    assert (round(wilson(8, 10).low, 4), round(wilson(8, 10).high, 4)) == (0.4902, 0.9433)


def test_wilson_at_the_ends() -> None:
    """At 0 of n the upper end is z²/(n + z²): 3.8415 / 503.8415. Prevents: an interval of no width at 100 %."""
    assert wilson(0, 500).low == 0 and wilson(500, 500).high == 1
    assert wilson(0, 500).high == pytest.approx(0.0076243, abs=1e-7)
    assert wilson(500, 500).low == pytest.approx(1 - 0.0076243, abs=1e-7)


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(5, 1, 1) == pytest.approx(0.2)
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert pass_at_k(10, 0, 10) == 0 and pass_at_k(10, 1, 10) == 1


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one() -> None:
    """Prevents: the biased estimate 1 - (1 - c/n)^k."""
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(combinations([True] * c + [False] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_beyond_the_samples_is_undefined() -> None:
    with pytest.raises(ValueError, match="pass@3 of 2"):
        pass_at_k(2, 1, 3)


def test_majority_ties_go_to_the_earlier_sample() -> None:
    """Prevents: an order of a set or a hash deciding a vote."""
    assert majority(["b", "a", "a", "b"]) == 0
    assert majority(["c", "b", "a", "a"]) == 2
    assert majority([None, None, "a"]) == 2
    assert majority([None, None]) is None and majority([]) is None
