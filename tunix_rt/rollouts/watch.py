"""What is said of rollouts while training goes on: each thing once, when it is first seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tunix_rt.config.choices import Precision
from tunix_rt.rollouts.learning import Group
from tunix_rt.rollouts.metrics import is_dead
from tunix_rt.terminal import warn

GAPS: Mapping[Precision, float] = {"float32": 1e-4, "bfloat16": 2e-2}
"""The largest difference of log-probabilities between sampler and trainer that rounding explains."""
PATIENCE = 5
"""Rollouts in a row in which no answer taught anything, after which that is said."""

MOST_CUT = 0.5
"""Share of answers that were cut off, above which that is said."""


@dataclass(slots=True)
class Watch:
    """Looks at each rollout once."""

    precision: Precision
    _dead: int = field(default=0, init=False)
    """Rollouts in a row in which nothing was learned."""
    _said: set[str] = field(default_factory=set, init=False)

    def look(self, step: int, asked: Sequence[Group], failed: int) -> None:
        """`failed`: answers so far that got no verdict."""
        rollouts = [rollout for group in asked for rollout in group]
        cut = sum(rollout.finish_reason == "length" for rollout in rollouts)
        self._dead = self._dead + 1 if all(map(is_dead, asked)) else 0
        if self._dead == PATIENCE and len({rollout.reward for rollout in rollouts}) == 1:
            self._say(
                "same",
                f"step {step}: in {PATIENCE} rollouts every answer got one reward ({rollouts[0].reward:g}), so nothing "
                f"is learned; {cut} of the last {len(rollouts)} answers were cut at objective.rollout.max_new_tokens; "
                f"the last one was {rollouts[-1].completion[:100]!r}, the reference {rollouts[-1].reference[:50]!r}",
            )
        if cut > MOST_CUT * len(rollouts):
            self._say(
                "cut",
                f"step {step}: {cut} of {len(rollouts)} answers were cut at objective.rollout.max_new_tokens, "
                "before an answer that could be right: raise it, or begin from a model that has learned to stop",
            )
        gap = max((r.mismatch for r in rollouts if r.mismatch is not None), default=0.0)
        if gap > GAPS[self.precision]:
            self._say(
                "gap",
                f"step {step}: sampler and trainer differ by up to {gap:.2g} in a log-probability, more than the "
                f"{GAPS[self.precision]:g} that rounding explains in {self.precision} (rollout/mismatch)",
            )
        if failed:
            why = "it took too long, or a scorer failed on them"
            self._say("failed", f"step {step}: {failed} answers have no verdict ({why}); it counts as 0")

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            warn(text)
