"""The values of two sides on the same prompts, as arrays: what the statistics take."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunix_rt.comparison.metric import Metric
from tunix_rt.comparison.pairs import Aligned, Key
from tunix_rt.errors import InputError

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """The values of several runs on the same prompts; the first `num_left` runs are the left side."""

    ids: tuple[str, ...]
    """The prompts."""
    totals: Float64
    """[runs, prompts]: the sum over the samples of a prompt."""
    counts: Float64
    """[prompts]: the number of samples of a prompt that are counted, the same in every run."""
    num_left: int
    rate: bool
    """Values are in [0, 1]."""
    left_out: int = 0
    """Answers that are not counted, since some run has no value of them."""

    @property
    def means(self) -> Float64:
        """[runs]: the mean value of each run."""
        found: Float64 = self.totals.sum(axis=1) / self.counts.sum()
        return found

    @property
    def num_right(self) -> int:
        return len(self.totals) - self.num_left

    def side(self, right: bool) -> Float64:
        """[runs of the side, prompts]: its part of `totals`."""
        return self.totals[self.num_left :] if right else self.totals[: self.num_left]

    def means_of(self, right: bool) -> list[float]:
        """The mean value of each run of a side."""
        found: list[float] = (self.side(right).sum(axis=1) / self.counts.sum()).tolist()
        return found

    def among(self, ids: Collection[str]) -> Scores:
        """Those of some prompts."""
        kept = [place for place, name in enumerate(self.ids) if name in ids]
        names = tuple(self.ids[place] for place in kept)
        return Scores(names, self.totals[:, kept], self.counts[kept], self.num_left, self.rate)


def scores_of(found: Aligned, metric: Metric, num_left: int) -> Scores:
    """The values of `metric`. An answer is counted if every run has a value of it. Raises InputError: none has."""
    prompts: dict[str, list[list[float]]] = {}
    left_out = 0
    for key in found.keys:
        values = _values(found, metric, key)
        if values is None:
            left_out += 1
        else:
            prompts.setdefault(key[0], []).append(values)
    if len(prompts) < 2:
        raise InputError(f"{metric.name}: {len(prompts)} prompts have it in every run; two at least can be compared")
    samples = [np.asarray(some, dtype=np.float64) for some in prompts.values()]
    totals, counts = np.stack([part.sum(axis=0) for part in samples], axis=1), [float(len(part)) for part in samples]
    if (of_prompt := metric.of_prompt) is not None:
        totals = np.array([[of_prompt(run.tolist()) for run in part.T] for part in samples]).T
        counts = [1.0] * len(samples)
    return Scores(tuple(prompts), totals, np.array(counts), num_left, metric.rate, left_out)


def _values(found: Aligned, metric: Metric, key: Key) -> list[float] | None:
    values: Sequence[float | None] = [metric.value(items[key]) for items in found.items]
    return [float(value) for value in values if value is not None] if None not in values else None
