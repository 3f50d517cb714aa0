"""What of a difference between two sides is beyond chance. Prompts and seeds are chance; samples of a prompt belong
together.

The right side's mean minus the left side's varies for two reasons, which are estimated apart:

- **prompts**: another test set. The prompt is the unit (its samples and both sides' answers to it belong together), as
  in Miller 2024, arXiv 2411.00640. For values in [0, 1] two imaginary prompts are added, of which each side wins one:
  with one yes or no per prompt this is the interval of Bonett and Price 2012 (doi 10.3102/1076998611411915), which
  Fagerland, Lydersen and Laake 2014 (doi 10.1002/sim.6148) recommend, and which is honest where a normal approximation
  is not (Bowyer, Aitchison and Ivanova 2025, arXiv 2503.01747): 13 prompts without a flip do not give an interval of
  width 0. Other values: the paired t interval of the prompts.
- **seeds**: another training, seen only with several runs a side. Runs and prompts are crossed, so the variance that
  both see (run by prompt) is counted once (Cameron, Gelbach and Miller 2011, doi 10.1198/jbes.2010.07136). A side of
  one run is taken to vary as the other does. Each reason has its own quantile, the seeds' that of t with Welch's
  degrees of freedom, and the half widths are added as squares (Zou and Donner 2008, doi 10.1002/sim.3095), so that
  two or three seeds give the wide interval that they deserve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunix_rt.comparison.scores import Float64, Scores

Span = tuple[float, float]
"""Both ends of an interval."""
POWER = 0.8
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference (right minus left) and how it varies."""

    left: float
    right: float
    """Means of the sides."""
    centre: float
    """Centre of the interval: the difference, for rates with the two imaginary prompts."""
    prompts: int
    of_prompts: float
    """Variance of the difference from one choice of prompts to another."""
    degrees_of_prompts: float
    of_seeds: float
    """Variance from one choice of seeds to another; 0 if each side is one run, of which it cannot be known."""
    degrees_of_seeds: float
    of_both: float
    """What both have: it becomes less with more prompts and with more seeds."""
    exact: float | None
    """The p-value of McNemar's exact test, if there is one yes or no per prompt and one run a side."""
    rate: bool

    @property
    def difference(self) -> float:
        return self.right - self.left

    @property
    def seeds_known(self) -> bool:
        return math.isfinite(self.degrees_of_seeds)

    def interval(self, level: float = LEVEL) -> Span:
        """The confidence interval of the difference. It reaches 0 wherever the exact test does not reject."""
        half = self._half_width((1 - level) / 2)
        low, high = min(self.centre - half, self.difference), max(self.centre + half, self.difference)
        if self.exact is not None and self.exact >= 1 - level:
            low, high = min(low, 0.0), max(high, 0.0)
        return (max(low, -1.0), min(high, 1.0)) if self.rate else (low, high)

    def p_value(self) -> float:
        """Two-sided: McNemar's exact one, else the level at which the interval touches 0."""
        if self.exact is not None:
            return self.exact
        from scipy.optimize import brentq

        far = abs(self.centre)
        if far == 0 or self.of_prompts + self.of_seeds == 0:
            return 1.0 if far == 0 else 0.0
        if self._half_width(1e-16) <= far:
            return 2e-16
        tail = brentq(lambda logarithm: self._half_width(math.exp(logarithm)) - far, math.log(1e-16), math.log(0.5))
        return 2 * math.exp(float(tail))

    def differs(self, level: float = LEVEL) -> bool:
        """Whether there is a difference beyond chance."""
        low, high = self.interval(level)
        return (low > 0 or high < 0) and self.p_value() < 1 - level

    def equivalent(self, margin: float, level: float = LEVEL) -> bool:
        """Two one-sided tests (Schuirmann 1987): the difference is within ±`margin`."""
        low, high = self.interval(2 * level - 1)
        return -margin < low and high < margin

    def detectable(self, power: float = POWER) -> float:
        """The smallest true difference that such a comparison shows with this probability (Miller 2024)."""
        return self._half_width((1 - LEVEL) / 2, 1 - power)

    def prompts_for(self, difference: float, power: float = POWER, level: float = LEVEL) -> int | None:
        """How many prompts show a true `difference` with this probability; None: no number, it takes more seeds."""
        tail = (1 - level) / 2, 1 - power
        of_prompts = self._quantile(*tail, self.degrees_of_prompts) ** 2
        of_seeds = self._quantile(*tail, self.degrees_of_seeds) ** 2
        left = difference**2 - of_seeds * (self.of_seeds - self.of_both)
        now = self.prompts * (of_prompts * self.of_prompts + of_seeds * self.of_both)
        return math.ceil(now / left) if left > 0 else None

    def _half_width(self, tail: float, other: float = 0.5) -> float:
        """Of the interval with probability `tail` on each side; `other`: of missing a difference of that size."""
        prompts = self._quantile(tail, other, self.degrees_of_prompts) ** 2 * self.of_prompts
        seeds = self._quantile(tail, other, self.degrees_of_seeds) ** 2 * self.of_seeds
        return math.sqrt(prompts + seeds)

    @staticmethod
    def _quantile(tail: float, other: float, degrees: float) -> float:
        from scipy.special import ndtri, stdtrit

        if math.isfinite(degrees):
            return -float(stdtrit(degrees, tail) + stdtrit(degrees, other))
        return -float(ndtri(tail) + ndtri(other))


def estimate(scores: Scores) -> Estimate:
    """The difference of two sides, and how it varies."""
    left, right = (float(some.mean()) for some in (scores.means[: scores.num_left], scores.means[scores.num_left :]))
    centre, of_prompts = _of_prompts(scores)
    of_both = _of_sides([_interaction(scores.side(right), scores.counts) for right in (False, True)], scores)
    of_seeds, degrees = _of_seeds(scores)
    several = math.isfinite(degrees)
    return Estimate(
        left=left,
        right=right,
        centre=centre,
        prompts=len(scores.ids),
        of_prompts=max(of_prompts - of_both, 0.0) if several else of_prompts,
        degrees_of_prompts=math.inf if scores.rate else len(scores.ids) - 1.0,
        of_seeds=max(of_seeds, of_both) if several else 0.0,
        degrees_of_seeds=degrees,
        of_both=of_both if several else 0.0,
        exact=_mcnemar(scores),
        rate=scores.rate,
    )


def _of_prompts(scores: Scores) -> tuple[float, float]:
    """Centre of the interval, and the variance of the mean of the prompts' differences as a ratio of sums."""
    differences, counts = scores.side(True).mean(axis=0) - scores.side(False).mean(axis=0), scores.counts
    correction = 1.0
    if scores.rate:
        size = counts.mean()
        differences, counts = np.append(differences, [size, -size]), np.append(counts, [size, size])
    else:
        correction = len(counts) / (len(counts) - 1)
    centre = differences.sum() / counts.sum()
    residuals = differences - centre * counts
    return float(centre), float(correction * (residuals**2).sum() / counts.sum() ** 2)


def _interaction(totals: Float64, counts: Float64) -> float | None:
    """Variance that a run's mean has from answering its prompts by chance, beside its own and the prompts' level."""
    runs, prompts = totals.shape
    if runs < 2:
        return None
    means = totals.sum(axis=1, keepdims=True) / counts.sum()
    residuals = totals - means * counts - (totals.mean(axis=0) - means.mean() * counts)
    return float((residuals**2).sum() / (runs - 1) * prompts / (prompts - 1) / counts.sum() ** 2)


def _of_sides(variances: list[float | None], scores: Scores) -> float:
    """Variance of the difference from those of single runs; a side without one has the other's."""
    known = [variance for variance in variances if variance is not None]
    if not known:
        return 0.0
    filled = [known[0] if variance is None else variance for variance in variances]
    return filled[0] / scores.num_left + filled[1] / scores.num_right


def _of_seeds(scores: Scores) -> tuple[float, float]:
    """Variance of the difference between the sides' mean runs, and Welch's degrees of freedom (inf: unknown)."""
    sides = [scores.means[: scores.num_left], scores.means[scores.num_left :]]
    variances = [float(side.var(ddof=1)) if len(side) > 1 else None for side in sides]
    total = _of_sides(variances, scores)
    parts = [
        (variance / len(side), len(side) - 1)
        for variance, side in zip(variances, sides, strict=True)
        if variance is not None
    ]
    if not parts:
        return 0.0, math.inf
    if len(parts) == 1:
        return total, float(parts[0][1])
    squares = sum(part**2 / degrees for part, degrees in parts)
    pooled = float(sum(degrees for _, degrees in parts))
    return total, sum(part for part, _ in parts) ** 2 / squares if squares > 0 else pooled


def _mcnemar(scores: Scores) -> float | None:
    """The exact test on the prompts that only one side answered (`discordant`)."""
    if len(scores.totals) != 2 or (scores.counts != 1).any() or not np.isin(scores.totals, (0, 1)).all():
        return None
    from scipy.stats import binomtest

    less, more = discordant(scores)
    return float(binomtest(more, less + more).pvalue) if less + more else 1.0


def discordant(scores: Scores) -> tuple[int, int]:
    """Number of prompts with a lower, and with a higher mean value on the right side."""
    change = scores.side(True).mean(axis=0) - scores.side(False).mean(axis=0)
    return int((change < -1e-12).sum()), int((change > 1e-12).sum())


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), the smallest times n, the next times n - 1, …, increasing."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for done, place in enumerate(order):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - done)))
        corrected[place] = largest
    return corrected
