"""What a run sampled while it learned: which steps are worth showing, and the groups of one, best answer first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunix_rt.errors import InputError
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.rollout import Rollout, read_rollouts, rollout_steps, rollouts_file


@dataclass(frozen=True, slots=True)
class Group:
    """The answers to one prompt at one step, in order of reward, the best first."""

    rollouts: tuple[Rollout, ...]

    @property
    def best(self) -> Rollout:
        """The earliest sample among those with the largest reward."""
        return self.rollouts[0]

    @property
    def worst(self) -> Rollout:
        """The last sample among those with the smallest reward."""
        return self.rollouts[-1]

    @property
    def spread(self) -> float:
        """How far the rewards are apart; 0: under most objectives there is nothing to learn."""
        return self.best.reward - self.worst.reward


def groups_at(run: RunFolder, step: int) -> list[Group]:
    """The groups of a step, those with most to compare first, then as they were sampled.

    Raises InputError if there are none of this step, DataError if a file is damaged.
    """
    there = rollout_steps(run.rollouts)
    if step not in there:
        raise InputError(f"{run.name}: no rollouts of step {step}; {_there(there)}")
    found: dict[str, list[Rollout]] = {}
    for rollout in read_rollouts(rollouts_file(run.rollouts, step)):
        found.setdefault(rollout.id, []).append(rollout)
    groups = [Group(tuple(sorted(group, key=lambda rollout: -rollout.reward))) for group in found.values()]
    return sorted(groups, key=lambda group: -group.spread)


def _there(steps: Sequence[int]) -> str:
    if not steps:
        return "it has no rollouts (only objectives that learn from the model's own answers have some)"
    shown = ", ".join(map(str, spaced(steps, 8)))
    return f"there are {len(steps):,}: {shown}" if len(steps) <= 8 else f"there are {len(steps):,}, such as {shown}"


def spaced(steps: Sequence[int], most: int) -> list[int]:
    """At most `most` of the steps, evenly spaced, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[place * (len(steps) - 1) // (most - 1)] for place in range(most)]
