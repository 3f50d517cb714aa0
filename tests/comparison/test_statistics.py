"""Intervals, tests and sample sizes against scipy, against published or hand-computed cases, and by simulation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from tunix_rt.comparison.bootstrap import bootstrap
from tunix_rt.comparison.scores import Scores
from tunix_rt.comparison.statistics import estimate, holm


def scores(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]], rate: bool = True) -> Scores:
    """Runs of one sample per prompt."""
    totals = np.array([*left, *right], dtype=float)
    return Scores(tuple(map(str, range(totals.shape[1]))), totals, np.ones(totals.shape[1]), len(left), rate)


def answers(more: int, less: int, both: int, neither: int) -> Scores:
    """One run a side: how many prompts only the right, only the left, both and neither answered."""
    left = [0] * more + [1] * less + [1] * both + [0] * neither
    right = [1] * more + [0] * less + [1] * both + [0] * neither
    return scores([left], [right])


def test_mcnemar_is_exact() -> None:
    """10 changed, 9 of them for the better: 2 · (1 + 10) / 2^10."""
    assert estimate(answers(9, 1, 50, 40)).p_value() == pytest.approx(22 / 1024)
    assert estimate(answers(0, 0, 50, 40)).p_value() == 1


def test_the_interval_of_one_run_a_side_is_that_of_bonett_and_price() -> None:
    """The table of Bentur et al. 2009 (1, 1, 7, 12), with which Fagerland, Lydersen and Laake 2014 compare intervals:
    (8 - 2) / 23 ± 1.96 · sqrt((10 / 23 - (6 / 23)²) / 23)."""
    low, high = estimate(answers(more=7, less=1, both=1, neither=12)).interval()
    assert high == pytest.approx(0.5084, abs=1e-4)
    assert low == 0, "0.0134, but the exact test does not reject (p = 0.07)"
    low, high = estimate(answers(more=70, less=10, both=10, neither=120)).interval()
    half = stats.norm.isf(0.025) * np.sqrt((82 / 212 - (60 / 212) ** 2) / 212)
    assert (low, high) == (pytest.approx(60 / 212 - half), pytest.approx(60 / 212 + half))


@pytest.mark.parametrize("n", [13, 400])
def test_the_interval_excludes_zero_only_if_the_exact_test_rejects(n: int) -> None:
    for more in range(min(n, 25)):
        for less in range(min(n - more, 9)):
            found = estimate(answers(more, less, 0, n - more - less))
            low, high = found.interval()
            assert low <= found.difference <= high
            assert (low > 0 or high < 0) <= (found.p_value() < 0.05), (more, less)


def test_thirteen_prompts_without_a_flip_are_no_proof_of_equality() -> None:
    """Prevents: an interval of width 0."""
    found = estimate(answers(0, 0, 13, 0))
    low, high = found.interval()
    assert (low, high) == (pytest.approx(-0.185, abs=1e-3), pytest.approx(0.185, abs=1e-3))
    assert not found.equivalent(0.1) and found.equivalent(0.2)
    assert bootstrap(answers(0, 0, 13, 0)) == (0, 0)


def test_other_numbers_have_the_paired_t_interval() -> None:
    generator = np.random.default_rng(0)
    left = generator.normal(30, 9, 40)
    right = left + generator.normal(2, 5, 40)
    found, theirs = estimate(scores([left], [right], rate=False)), stats.ttest_rel(right, left)
    assert found.p_value() == pytest.approx(theirs.pvalue, rel=1e-6)
    assert found.interval() == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_samples_of_a_prompt_are_a_cluster() -> None:
    """With equal numbers of samples, the clustered error is that of the prompts' means, not of the samples."""
    generator = np.random.default_rng(1)
    left, right = (generator.integers(0, 9, (30, 4)).astype(float) for _ in range(2))
    found = Scores(
        tuple(map(str, range(30))), np.array([left.sum(axis=1), right.sum(axis=1)]), np.full(30, 4.0), 1, False
    )
    theirs = stats.ttest_rel(right.mean(axis=1), left.mean(axis=1))
    assert estimate(found).p_value() == pytest.approx(theirs.pvalue, rel=1e-6)


def test_where_only_seeds_vary_it_is_welchs_t_interval_of_the_runs() -> None:
    prompts = np.arange(20.0)
    left, right = np.array([1.0, 2.0, 4.5]), np.array([5.0, 9.0, 6.0, 8.5])
    found = estimate(scores([prompts + a for a in left], [prompts + b for b in right], rate=False))
    theirs = stats.ttest_ind(right, left, equal_var=False)
    assert found.interval() == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.p_value() == pytest.approx(theirs.pvalue, rel=1e-6)
    assert found.degrees_of_seeds == pytest.approx(theirs.df)


def test_the_bootstrap_is_scipys_and_the_same_every_time() -> None:
    found = answers(20, 8, 50, 40)
    left, right = found.totals
    data, options = (right - left,), {"n_resamples": 10_000, "method": "percentile", "rng": np.random.default_rng(5)}
    theirs = stats.bootstrap(data, np.mean, vectorized=True, **options).confidence_interval
    assert bootstrap(found) == (pytest.approx(theirs.low, abs=0.005), pytest.approx(theirs.high, abs=0.005))
    assert bootstrap(found) == bootstrap(found)
    assert bootstrap(found, seed=1) != bootstrap(found, level=0.9)


def test_holm_is_rs_p_adjust() -> None:
    """p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")"""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])


def test_how_many_prompts_show_a_difference() -> None:
    """(1.960 + 0.842)² · 0.2 / 0.05² for 20 % of changed prompts, as in Connor 1987 for small differences."""
    found = estimate(answers(100, 100, 400, 400))
    assert found.prompts_for(0.05) == pytest.approx(628, rel=0.01)
    assert found.detectable() == pytest.approx(np.sqrt(0.2 * 7.849 / 1000), rel=0.01)
    several = estimate(drawn(np.random.default_rng(3), 3, 200, 0.1))
    assert several.prompts_for(several.detectable() * 1.0001) == pytest.approx(200, abs=2), "as many as there are"
    far = scores([[1] * 50, [0] * 50], [[1] * 50, [1] * 50])
    assert estimate(far).prompts_for(0.01) is None, "the seeds alone vary more than that"


def drawn(generator: np.random.Generator, runs: int, prompts: int, spread: float) -> Scores:
    """Two equal settings whose runs, prompts and answers vary by chance."""
    level = generator.normal(0.5, 1.5, prompts)
    logits = level + generator.normal(0, spread, (2 * runs, 1)) + generator.normal(0, 0.7, (2 * runs, prompts))
    totals = (generator.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    return scores(totals[:runs].tolist(), totals[runs:].tolist())


@pytest.mark.parametrize(("runs", "spread"), [(1, 0.0), (2, 0.5), (3, 0.5), (3, 0.0)])
def test_the_interval_covers_the_truth(runs: int, spread: float) -> None:
    """At most one in twenty is wrong, by 400 simulations (standard error 1.1 points)."""
    generator = np.random.default_rng(2)
    spans = [estimate(drawn(generator, runs, 60, spread)).interval() for _ in range(400)]
    assert sum(low <= 0 <= high for low, high in spans) >= 0.92 * len(spans)
    assert sum(low == high for low, high in spans) == 0
