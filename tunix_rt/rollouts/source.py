"""The updates of training on rollouts: sampled at the first of them, on disk before anything is learned.

A rollout that is on disk is not sampled again: after a crash training goes on with the very same answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tunix_rt.backends.interface import State
from tunix_rt.batches.reader import Question
from tunix_rt.errors import DataError
from tunix_rt.objectives.interface import Bool, Float64, Tokens
from tunix_rt.objectives.rollouts import RolloutObjective
from tunix_rt.rollouts.asking import Asking
from tunix_rt.rollouts.layout import Layout, RowShape, lay_out
from tunix_rt.rollouts.learning import Group, Learned, chosen, with_advantages
from tunix_rt.rollouts.metrics import possible_rewards, rollout_metrics
from tunix_rt.rollouts.prompts import AskedPrompts
from tunix_rt.rollouts.reference import FrozenModel
from tunix_rt.rollouts.watch import Watch
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.terminal import warn
from tunix_rt.traces.rollout import check_seal, read_rollouts, rollouts_file, write_rollouts
from tunix_rt.training.source import Update

COMPARED_ROWS = 16
"""Rows whose log-probabilities are computed again to compare the sampler with the trainer."""


@dataclass(slots=True)
class RolloutSource:
    """Implements `training.source.BatchSource`."""

    asking: Asking
    prompts: AskedPrompts
    questions: Mapping[int, Question]
    """Of each place that is asked in this training."""
    shape: RowShape
    interrupt: Interrupt
    watch: Watch
    reference: FrozenModel | None = None
    fetched_ahead: bool = False
    _asked: tuple[int, list[Group]] | None = field(default=None, init=False)
    """The last rollout: its first step, and all groups."""

    @property
    def objective(self) -> RolloutObjective:
        """What is made small."""
        return self.asking.objective

    def batch(self, step: int, state: State) -> Update:
        """The update of a step, from the state before it.

        Raises Interrupted, DataError (a damaged rollout), and what sampling and judging raise.
        """
        first = self.prompts.first_step(step)
        asked, fresh = self._rollout(first, step, state)
        learned = self._learned(first, asked)
        tokens = self._scored(state, learned)
        value = self.objective.value(tokens)
        taught = learned.holding(value.weights)
        layout, inside = lay_out(*learned.only(taught), self.shape), taught[tokens.sequence]
        if fresh:
            asked = self._record(first, asked, learned, self._gaps(state, tokens, layout, inside))
        self._asked = first, asked
        metrics = {"train/loss": value.loss, **(self._measured(step, asked) if step == first else {}), **value.metrics}
        return Update(layout.weighted(value.weights[inside]), metrics)

    def ids(self, step: int) -> list[str]:
        return self.prompts.ids(step)

    def _window(self, first: int) -> list[Question]:
        return [self.questions[place] for place in self.prompts.places(first)]

    def _rollout(self, first: int, step: int, state: State) -> tuple[list[Group], bool]:
        """The groups of a rollout, and whether they are new: not on disk yet."""
        if self._asked is not None and self._asked[0] == first:
            return self._asked[1], False
        recorded = self._recorded(first, needed=step != first)
        if recorded is not None:
            return recorded, False
        saved = f"after step {step - 1}, which is saved" if step > 1 else "before the first step"
        asked = self.asking.ask(state, step, self._window(first), lambda: self.interrupt.check(saved))
        return with_advantages(asked, self._places(asked), self.objective.advantages), True

    def _recorded(self, first: int, needed: bool) -> list[Group] | None:
        """The groups on disk; None if they are not there, or damaged: they are sampled again, unless that model is gone
        and later updates need them.
        """
        file, number = rollouts_file(self.prompts.folder, first), self.objective.rollout.samples_per_prompt
        if not needed and not file.exists():
            return None
        try:
            check_seal(file)
            rollouts = read_rollouts(file)
            groups = [rollouts[start : start + number] for start in range(0, len(rollouts), number)]
            if not self.asking.is_whole(groups, self._window(first)):
                raise DataError(f"{file}: not the rollouts of this step")
        except DataError as error:
            if needed:
                raise DataError(f"{error}; the model that sampled them is gone: start anew with run.new=true") from None
            warn(f"{error}; they are sampled again")
            return None
        return groups

    def _places(self, asked: Sequence[Group]) -> list[int]:
        return chosen(asked, self.asking.teaches, self.prompts.order.per_step)

    def _learned(self, first: int, asked: Sequence[Group]) -> Learned:
        prompts = {question.trace.id: question.ids for question in self._window(first)}
        return Learned.of([rollout for place in self._places(asked) for rollout in asked[place]], prompts)

    def _scored(self, state: State, learned: Learned) -> Tokens:
        """The tokens with what the objective needs of models, which costs a forward pass of each."""
        tokens, objective = learned.tokens, self.objective
        if not (objective.needs_logprobs or objective.needs_reference):
            return tokens
        layout = lay_out(*learned.only(np.ones(len(learned.rollouts), np.bool_)), self.shape)
        tokens = replace(tokens, logprobs=self._logprobs(state, layout))
        if self.reference is None:
            return tokens
        return replace(tokens, reference=layout.of_sampled(self.reference.logprobs(state, layout.mask())))

    def _logprobs(self, state: State, layout: Layout) -> Float64:
        backend = self.asking.backend
        return layout.of_sampled(backend.fetch(backend.logprobs(state, layout.mask()))["logprobs"])

    def _gaps(self, state: State, tokens: Tokens, layout: Layout, inside: Bool) -> Float64:
        """[N] |sampler − trainer|, -1 where not compared.

        Where the trainer's log-probabilities are needed anyway all are compared, otherwise the first rows of what is
        learned from (`inside`, [N], laid out in `layout`): those with the longest answers, always of the same shape.
        """
        assert tokens.old is not None
        gaps = np.full(len(tokens.old), -1.0)
        if self.asking.teacher is not None:
            return gaps
        if self.objective.needs_logprobs:
            return np.abs(tokens.logprobs - tokens.old)
        some, shown = layout.first_rows(COMPARED_ROWS)
        places = np.flatnonzero(inside)[shown]
        if places.size:
            gaps[places] = np.abs(self._logprobs(state, some) - tokens.old[places])
        return gaps

    def _record(self, first: int, asked: Sequence[Group], learned: Learned, gaps: Float64) -> list[Group]:
        """Write the rollouts, with the largest gap of each."""
        keys = [rollout.key for rollout in learned.rollouts]
        found = dict(zip(keys, learned.largest(gaps), strict=True))
        groups = [[replace(rollout, mismatch=found.get(rollout.key)) for rollout in group] for group in asked]
        write_rollouts(rollouts_file(self.prompts.folder, first), [rollout for group in groups for rollout in group])
        return groups

    def _measured(self, step: int, asked: Sequence[Group]) -> dict[str, float]:
        self.watch.look(step, asked, self.asking.judge.failed)
        return rollout_metrics(asked, self.prompts.order.per_step, possible_rewards(self.objective.reward.weights))
