"""Learning rates against hand-computed values, and the cadence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tunix_rt.config.training import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    WsdSchedule,
    schedule_mistake,
)
from tunix_rt.training.schedule import due, learning_rate

COSINE = CosineSchedule(kind="cosine", warmup_steps=10, final_fraction=0.1)
LINEAR = LinearSchedule(kind="linear", warmup_steps=0, final_fraction=0.0)
WSD = WsdSchedule(kind="wsd", warmup_steps=2, decay_fraction=0.25, final_fraction=0.0)
CONSTANT = ConstantSchedule(kind="constant", warmup_steps=4)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        (COSINE, 1, 0.1),
        (COSINE, 10, 1.0),
        (COSINE, 60, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 50 / 90))),
        (COSINE, 100, 0.1),
        (LINEAR, 1, 0.99),
        (LINEAR, 50, 0.5),
        (LINEAR, 100, 0.0),
        (CONSTANT, 2, 0.5),
        (CONSTANT, 100, 1.0),
        (WSD, 75, 1.0),
        (WSD, 88, 1 - 13 / 25),
        (WSD, 100, 0.0),
    ],
)
def test_the_rate_of_a_step(schedule: CosineSchedule, step: int, expected: float) -> None:
    assert learning_rate(schedule, 2.0, step, 100) == pytest.approx(2.0 * expected, abs=1e-12)


@pytest.mark.parametrize(
    ("share", "num_steps", "warmup"),
    [(0.1, 3, 1), (0.1, 1, 0), (0.1, 45, 5), (0.08, 60, 5), (0.08, 56, 5), (0.12, 36, 5), (0.99, 10, 9)],
)
def test_a_warm_up_that_is_a_share_of_the_steps(share: float, num_steps: int, warmup: int) -> None:
    """Rounded up, and always before the last step. 45 to 36: those of `conf/experiment/`, which had five steps."""
    of_steps, of_share = (LinearSchedule(kind="linear", warmup_steps=n, final_fraction=0.1) for n in (warmup, share))
    assert schedule_mistake(of_share, num_steps) is None
    for step in range(1, num_steps + 1):
        assert learning_rate(of_share, 1.0, step, num_steps) == learning_rate(of_steps, 1.0, step, num_steps)


def test_a_decay_that_begins_inside_the_warm_up_is_a_mistake() -> None:
    """Prevents: rates of 0.98, 1.0, 0.613 around the last step of the warm-up."""
    schedule = WsdSchedule(kind="wsd", warmup_steps=50, decay_fraction=0.6, final_fraction=0.0)
    mistake = schedule_mistake(schedule, 100)
    assert mistake is not None
    assert mistake[0] == "schedule.warmup_steps"
    assert schedule_mistake(replace(schedule, warmup_steps=40), 100) is None


def test_the_last_step_is_always_due_and_never_means_never() -> None:
    assert [step for step in range(1, 8) if due(step, 3, 7)] == [3, 6, 7]
    assert not any(due(step, None, 7) for step in range(1, 8))
