"""Learning rates against hand-computed values, and the cadence."""

from __future__ import annotations

import math

import pytest

from tunix_rt.config.training import ConstantSchedule, CosineSchedule, LinearSchedule, WsdSchedule
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


def test_the_last_step_is_always_due_and_never_means_never() -> None:
    assert [step for step in range(1, 8) if due(step, 3, 7)] == [3, 6, 7]
    assert not any(due(step, None, 7) for step in range(1, 8))
