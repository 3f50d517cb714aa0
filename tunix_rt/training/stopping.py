"""When training ends early and which step is best: functions of the evaluations so far, without state."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.config.training import EarlyStopping, TrainingConfig

Series = Sequence[tuple[int, float]]
"""(step, value) of an evaluation metric, in order of step."""


def metric_of(select: str) -> str | None:
    """The metric behind `training.select`; None for `last`."""
    return None if select == "last" else f"eval/{select.removeprefix('best_')}"


def best_step(series: Series, metric: str) -> int | None:
    """The step with the best value, the earliest of equals; lower is better for a loss, higher else."""
    if not series:
        return None
    sign = 1.0 if metric.endswith("loss") else -1.0
    return min(series, key=lambda point: (sign * point[1], point[0]))[0]


def should_stop(series: Series, rule: EarlyStopping) -> bool:
    """Whether the last `patience` evaluations brought no improvement of more than `min_delta`."""
    sign = 1.0 if rule.metric == "loss" else -1.0
    best, waited = float("inf"), 0
    for _, value in series:
        if sign * value < best - rule.min_delta:
            best, waited = sign * value, 0
        else:
            waited += 1
    return waited >= rule.patience


def stop_reason(training: TrainingConfig, series: Series, seconds: float) -> str | None:
    """Why training ends now, in words; None: it goes on. `series` is of the early-stopping metric."""
    rule = training.early_stopping
    if rule is not None and should_stop(series, rule):
        return f"no better {rule.metric} in {rule.patience} evaluations"
    if training.max_seconds is not None and seconds >= training.max_seconds:
        return f"time budget of {training.max_seconds:g} s used"
    return None
