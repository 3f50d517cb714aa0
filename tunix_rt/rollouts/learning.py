"""Rollouts → what an objective takes: which groups are learned from, their advantages, their tokens as flat arrays.

Legend: S sequences, N sampled tokens of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from tunix_rt.batches.encoded import Int32
from tunix_rt.objectives.interface import Bool, Float64, Tokens
from tunix_rt.traces.rollout import Rollout

Group = list[Rollout]
"""The samples of one prompt."""


def rewards_of(groups: Sequence[Group]) -> Float64:
    """[G, n]"""
    return np.array([[rollout.reward for rollout in group] for group in groups], np.float64)


def chosen(groups: Sequence[Group], teaches: Callable[[Group], bool], number: int) -> list[int]:
    """Places of the `number` groups that are learned from: those that teach something, and if they are too few others,
    in the order in which they were asked.
    """
    return sorted(sorted(range(len(groups)), key=lambda place: not teaches(groups[place]))[:number])


def with_advantages(
    groups: Sequence[Group], places: Sequence[int], advantages: Callable[[Float64], Float64]
) -> list[Group]:
    """The groups with the advantages of those at `places`; the others keep 0."""
    learned = [groups[place] for place in places]
    found = dict(zip(places, advantages(rewards_of(learned)).tolist(), strict=True))
    return [
        [replace(r, advantage=a) for r, a in zip(group, found.get(place, [0.0] * len(group)), strict=True)]
        for place, group in enumerate(groups)
    ]


@dataclass(frozen=True, slots=True)
class Learned:
    """The sequences that one update learns from."""

    rollouts: list[Rollout]
    prompts: list[Int32]
    """Token ids of the prompt of each."""
    tokens: Tokens
    """With the sampler's log-probabilities as those of the trained model: so they are, until the first update."""

    @classmethod
    def of(cls, rollouts: list[Rollout], prompts: Mapping[str, Int32]) -> Learned:
        """`prompts`: token ids of each prompt, by the id of its trace."""
        lengths = [len(rollout.ids) for rollout in rollouts]
        # What was read of the file are decimals that stand for float32.
        old = np.array([value for r in rollouts for value in r.logprobs], np.float32).astype(np.float64)
        tokens = Tokens(
            logprobs=old,
            sequence=np.repeat(np.arange(len(rollouts)), lengths),
            num_sequences=len(rollouts),
            old=old,
            advantages=np.array([rollout.advantage for rollout in rollouts], np.float64),
            truncated=np.array([rollout.finish_reason == "length" for rollout in rollouts], np.bool_),
        )
        return cls(rollouts, [prompts[rollout.id] for rollout in rollouts], tokens)

    def only(self, kept: Bool) -> tuple[list[Int32], list[Int32]]:
        """Token ids of prompts and of what was sampled, of the sequences `kept` ([S])."""
        sampled = [np.array(rollout.ids, np.int32) for rollout in self.rollouts]
        return list(compress(self.prompts, kept)), list(compress(sampled, kept))

    def holding(self, weights: Float64) -> Bool:
        """[S] the sequences of which a token has a weight ([N])."""
        found: Bool = np.bincount(self.tokens.sequence, weights != 0, len(self.rollouts)) > 0
        return found

    def largest(self, values: Float64) -> list[float | None]:
        """The largest value ([N]) of each sequence; None where all are negative."""
        found = np.full(len(self.rollouts), -1.0)
        np.maximum.at(found, self.tokens.sequence, values)
        return [None if value < 0 else float(value) for value in found]
