"""Which prompts are asked when: a pure function of (seed, rollout), so resuming replays nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tunix_rt.errors import DataError
from tunix_rt.traces.rollout import read_rollouts, rollouts_file

STREAM = 2
"""Tells the order of prompts from the two of `BatchOrder`, which draws from the same seed."""


@dataclass(frozen=True, slots=True)
class PromptOrder:
    """Every prompt comes once per epoch, in an order drawn for each epoch; what is left of one is not asked in it.

    A rollout has a window of `per_step * (1 + rounds)` prompts, all different: the first `per_step` are asked, the
    others wait to be asked in addition (`rounds` times at most). So which prompts the next rollout has does not depend
    on how many were needed.
    """

    num_prompts: int
    per_step: int
    rounds: int
    """Further rounds in one rollout."""
    seed: int

    def __post_init__(self) -> None:
        if self.per_step > self.num_prompts:
            raise DataError(
                f"objective.rollout.prompts_per_step: {self.per_step}, but the training split has {self.num_prompts} "
                "prompts, and one step asks each at most once: lower it, or raise dataset.limit.train"
            )

    @property
    def window(self) -> int:
        """Prompts that one rollout may ask."""
        return min(self.per_step * (1 + self.rounds), self.num_prompts)

    def at(self, rollout: int) -> list[int]:
        """The prompts that rollout 0, 1, … may ask, in that order."""
        epoch, place = divmod(rollout, self.rollouts_per_epoch)
        first = place * self.window
        return list(_shuffled(self.num_prompts, self.seed, epoch)[first : first + self.window])

    @property
    def rollouts_per_epoch(self) -> int:
        """Rollouts in which no prompt comes twice."""
        return self.num_prompts // self.window


@dataclass(frozen=True, slots=True)
class AskedPrompts:
    """The prompts of each step of a training."""

    order: PromptOrder
    updates: int
    """Steps that learn from one rollout."""
    names: Mapping[int, str]
    """The trace at each place of `order`."""
    folder: Path
    """Where the rollouts are."""

    def first_step(self, step: int) -> int:
        """The first step, from 1, that learns from the same rollout."""
        return step - (step - 1) % self.updates

    def places(self, step: int) -> list[int]:
        """The places of the prompts that may be asked for a step, from 1."""
        return self.order.at((step - 1) // self.updates)

    def ids(self, step: int) -> list[str]:
        """The traces whose prompts were asked; before that, of those that will be asked whatever the answers are."""
        file = rollouts_file(self.folder, self.first_step(step))
        if file.exists():
            return list(dict.fromkeys(rollout.id for rollout in read_rollouts(file)))
        return [self.names[place] for place in self.places(step)[: self.order.per_step]]


@lru_cache(maxsize=2)
def _shuffled(num_prompts: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng([seed, epoch, STREAM]).permutation(num_prompts).tolist())
