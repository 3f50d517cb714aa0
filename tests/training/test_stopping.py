"""Early stopping and the best step, as they follow from the evaluations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import config_of
from tunix_rt.config.training import EarlyStopping, StopAt
from tunix_rt.errors import ConfigError
from tunix_rt.training.stopping import Evaluations


def after(values: list[float], metric: str, **settings: Any) -> Evaluations:
    training = replace(config_of().training, evaluate_every=1, evaluate_samples=1, early_stopping=None)
    evaluations = Evaluations(replace(training, **settings))
    for step, value in enumerate(values, start=1):
        evaluations.add(10 * step, {f"eval/{metric}": value})
    return evaluations


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
    values: list[float], metric: Any, min_delta: float, stops: bool
) -> None:
    rule = EarlyStopping(metric=metric, patience=2, min_delta=min_delta)
    reason = after(values, metric, early_stopping=rule).reason()
    assert reason == (f"no better {metric} in 2 evaluations" if stops else None)


def test_the_best_step_is_the_earliest_of_equals() -> None:
    values = [0.5, 0.2, 0.2, 0.9]
    assert after(values, "loss", select="best_loss").best == 20
    assert after(values, "accuracy", select="best_accuracy").best == 40
    assert after(values, "accuracy", select="best_loss").best is None
    assert after(values, "loss", select="last").best is None
    assert after([], "loss", select="best_loss").best is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0.5, 0.97], None),
        ([0.5, 0.98], "reward 0.98, at least 0.98 (training.stop_at)"),
        ([1.0, 0.5], None),
        ([], None),
    ],
)
def test_it_stops_at_the_evaluation_that_is_good_enough(values: list[float], reason: str | None) -> None:
    """The loop asks after each evaluation: one that was good enough before has ended it."""
    end = StopAt(metric="reward", value=0.98)
    found = after(values, "reward", stop_at=end, select="best_reward")
    assert found.reason() == reason
    assert found.best == (None if not values else 10 * (1 + values.index(max(values))))
    assert after(values, "accuracy", stop_at=end).reason() is None


TRAINED = ("model=from_path", "model.source.path=base", "tokenizer=pretrained")


def test_what_decides_has_to_be_measured() -> None:
    with pytest.raises(ConfigError, match=r"stop_at and select=best_… need evaluate_every"):
        config_of(["training.stop_at={metric: accuracy, value: 1}", "training.evaluate_every=null"])
    with pytest.raises(ConfigError, match=r"stopping by accuracy needs evaluate_samples > 0"):
        config_of(["training.stop_at={metric: accuracy, value: 1}", "training.evaluate_samples=0"])
    for words in ("training.stop_at={metric: reward, value: 1}", "training.select=best_reward"):
        with pytest.raises(ConfigError, match=r"objective 'sft' has no reward that could decide"):
            config_of([words])
        assert config_of([words, "objective=dr_grpo", *TRAINED]).training.deciding == {"reward"}
