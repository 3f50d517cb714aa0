"""When training ends early and which step is best, from the evaluations so far. Each is added once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tunix_rt.config.training import TrainingConfig


@dataclass(slots=True)
class Evaluations:
    """What the evaluations so far decide. The same evaluations in the same order give the same decision."""

    training: TrainingConfig
    best: int | None = field(default=None, init=False)
    """The step with the best value of the metric that `training.select` names, the earliest of equals; None for `last`,
    or before any evaluation."""
    _best: float = field(default=math.inf, init=False)
    _reference: float = field(default=math.inf, init=False)
    """The value that early stopping requires to improve."""
    _without_improvement: int = field(default=0, init=False)
    _reached: float | None = field(default=None, init=False)
    """The value of the last evaluation, if that is good enough to stop."""

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take one evaluation (`eval/…`) into account; steps come in ascending order."""
        select, rule = self.training.select, self.training.early_stopping
        value = None if select == "last" else _loss_of(metrics, select.removeprefix("best_"))
        if value is not None and (self.best is None or value < self._best):
            self.best, self._best = step, value
        end = self.training.stop_at
        found = None if end is None else metrics.get(f"eval/{end.metric}")
        self._reached = found if end is not None and found is not None and found >= end.value else None
        value = None if rule is None else _loss_of(metrics, rule.metric)
        if rule is not None and value is not None:
            improved = value < self._reference - rule.min_delta
            self._reference = value if improved else self._reference
            self._without_improvement = 0 if improved else self._without_improvement + 1

    def reason(self) -> str | None:
        """Why training ends now, in words; None if it goes on."""
        rule, end = self.training.early_stopping, self.training.stop_at
        if end is not None and self._reached is not None:
            return f"{end.metric} {self._reached:g}, at least {end.value:g} (training.stop_at)"
        if rule is None or self._without_improvement < rule.patience:
            return None
        return f"no better {rule.metric} in {rule.patience} evaluations"


def _loss_of(metrics: Mapping[str, float], metric: str) -> float | None:
    """The metric's value, negated if needed so that lower is better; None if it was not measured."""
    value = metrics.get(f"eval/{metric}")
    return None if value is None else value if metric == "loss" else -value
