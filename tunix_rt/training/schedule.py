"""The learning rate of a step, and when something with a cadence is due."""

from __future__ import annotations

import math

from tunix_rt.config.training import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    ScheduleConfig,
    decay_of,
    warmup_of,
)


def learning_rate(schedule: ScheduleConfig, peak: float, step: int, num_steps: int) -> float:
    """Rate of update `step` (1 … num_steps). Warm-up reaches the peak at its last step; the decay
    reaches `final_fraction * peak` at step `num_steps`.
    """
    warmup = warmup_of(schedule, num_steps)
    if step <= warmup:
        return peak * step / warmup
    if isinstance(schedule, ConstantSchedule):
        return peak
    final = schedule.final_fraction
    if isinstance(schedule, CosineSchedule):
        share = (step - warmup) / (num_steps - warmup)
        return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share)))
    if isinstance(schedule, LinearSchedule):
        return peak * (1 - (1 - final) * (step - warmup) / (num_steps - warmup))
    decay = decay_of(schedule, num_steps)
    into = max(step - (num_steps - decay), 0)
    return peak * (1 - (1 - final) * into / decay)


def due(step: int, every: int | None, last: int) -> bool:
    """Whether something with cadence `every` (None: never) happens after `step`; it also does after the last step."""
    return every is not None and (step % every == 0 or step == last)
