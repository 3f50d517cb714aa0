"""Prompts → rollouts: sample answers, judge them, and ask further prompts where nothing can be learned.

Sums of rewards, verdicts and texts depend on (seed, step, prompt, sample) and the model alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunix_rt import faults
from tunix_rt.backends.interface import Backend, State
from tunix_rt.backends.sampling import row_seed
from tunix_rt.batches.reader import Question, Reader
from tunix_rt.errors import NonFiniteError
from tunix_rt.objectives.rollouts import RolloutObjective
from tunix_rt.rollouts.interface import Judge, Reward
from tunix_rt.rollouts.learning import Group, rewards_of
from tunix_rt.rollouts.sample import Sampled, decoding, sample
from tunix_rt.traces.rollout import Rollout, exact


@dataclass(frozen=True, slots=True)
class Asking:
    """Whom to ask what."""

    backend: Backend
    reader: Reader
    objective: RolloutObjective
    judge: Judge
    seed: int
    teacher: State | None = None
    """A model that answers in place of the trained one."""

    def ask(self, state: State, step: int, window: Sequence[Question], check: Callable[[], None]) -> list[Group]:
        """The groups of a step: of its first prompts, and for each that has nothing to teach of a further one of
        `window`, at most `resample` times. `check` may raise Interrupted.
        """
        return self._rounds(window, lambda asked: self._answered(state, step, asked, check))

    def is_whole(self, groups: list[Group], window: Sequence[Question]) -> bool:
        """Whether `groups` are all that `ask` would have asked for a step, and nothing else."""
        samples = range(self.objective.rollout.samples_per_prompt)
        keys = [[(question.trace.id, sample) for sample in samples] for question in window[: len(groups)]]
        if [[rollout.key for rollout in group] for group in groups] != keys:
            return False
        known = {group[0].id: group for group in groups}
        try:
            return self._rounds(window, lambda asked: [known[question.trace.id] for question in asked]) == groups
        except KeyError:  # one that was due
            return False

    def _rounds(self, window: Sequence[Question], answered: Callable[[Sequence[Question]], list[Group]]) -> list[Group]:
        rollout = self.objective.rollout
        groups: list[Group] = []
        missing = rollout.prompts_per_step
        for _ in range(1 + rollout.resample):
            asked = window[len(groups) : len(groups) + missing]
            if not asked:
                break
            groups += answered(asked)
            missing = rollout.prompts_per_step - sum(self.teaches(group) for group in groups)
        return groups

    def teaches(self, group: Group) -> bool:
        """Whether something can be learned from the rewards of a group."""
        return bool(np.any(self.objective.advantages(rewards_of([group]))))

    def _answered(self, state: State, step: int, asked: Sequence[Question], check: Callable[[], None]) -> list[Group]:
        rollout = self.objective.rollout
        number = rollout.samples_per_prompt
        questions = [Question(q.trace, k, q.prompt, q.ids, None) for q in asked for k in range(number)]
        seeds = [row_seed(self.seed, "rollout", step, *question.key) for question in questions]
        generation = decoding(rollout.max_new_tokens, number, rollout.batch_size)
        sampler = state if self.teacher is None else self.teacher
        sampled = sample(self.backend, sampler, self.reader, questions, generation, seeds, check)
        _refuse_if_not_finite(step, sampled)
        faults.point("sampled rollouts")
        traces = {question.trace.id: question.trace for question in asked}
        rewards = self.judge.rewards([one.prediction for one in sampled], traces)
        faults.point("judged rollouts")
        made = [_rollout(one, reward) for one, reward in zip(sampled, rewards, strict=True)]
        return [made[first : first + number] for first in range(0, len(made), number)]


def _refuse_if_not_finite(step: int, sampled: Sequence[Sampled]) -> None:
    if not all(bool(np.isfinite(one.logprobs).all()) for one in sampled):
        raise NonFiniteError(
            f"step {step}: log-probabilities of sampled tokens are not finite; the last checkpoint may be too late "
            "already; try a lower optimizer.learning_rate or a training.clip_norm"
        )


def _rollout(sampled: Sampled, reward: Reward) -> Rollout:
    """Its advantage is known only beside the others."""
    said = sampled.prediction
    assert said.finish_reason != "error"
    return Rollout(
        id=said.id,
        sample=said.sample,
        prompt=said.prompt,
        reference=said.reference,
        completion=said.completion,
        answer=said.answer,
        steps=said.steps,
        finish_reason=said.finish_reason,
        ids=tuple(sampled.ids.tolist()),
        logprobs=exact(sampled.logprobs),
        reward=reward.total,
        rewards=dict(reward.components),
        advantage=0.0,
    )
