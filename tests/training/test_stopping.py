"""Early stopping and the best step, as functions of the evaluations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conftest import config_of
from tunix_rt.config.training import EarlyStopping
from tunix_rt.training.stopping import best_step, metric_of, should_stop, stop_reason


def rule(metric: str, patience: int = 2, min_delta: float = 0.0) -> EarlyStopping:
    return EarlyStopping(metric=metric, patience=patience, min_delta=min_delta)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "metric", "min_delta", "stops"),
    [
        ([3.0, 2.0, 1.0], "loss", 0.0, False),
        ([1.0, 2.0, 2.0], "loss", 0.0, True),
        ([1.0, 2.0, 0.5], "loss", 0.0, False),
        ([1.0, 0.99, 0.98], "loss", 0.1, True),
        ([0.5, 0.4, 0.4], "accuracy", 0.0, True),
        ([0.5, 0.4, 0.6], "accuracy", 0.0, False),
        ([], "loss", 0.0, False),
    ],
)
def test_it_stops_after_patience_evaluations_without_improvement(
    values: list[float], metric: str, min_delta: float, stops: bool
) -> None:
    series = list(enumerate(values, start=1))
    assert should_stop(series, rule(metric, min_delta=min_delta)) is stops


def test_the_best_step_is_the_earliest_of_equals() -> None:
    series = [(10, 0.5), (20, 0.2), (30, 0.2), (40, 0.9)]
    assert best_step(series, "eval/loss") == 20
    assert best_step(series, "eval/accuracy") == 40
    assert best_step([], "eval/loss") is None


def test_the_time_budget_ends_training_and_says_so() -> None:
    training = replace(config_of().training, max_seconds=5.0)
    assert stop_reason(training, [], 4.9) is None
    assert "5 s" in (stop_reason(training, [], 5.0) or "")


def test_the_metric_behind_select() -> None:
    assert [metric_of(s) for s in ("last", "best_loss", "best_accuracy")] == [None, "eval/loss", "eval/accuracy"]
