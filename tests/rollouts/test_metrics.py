"""What is logged of rollouts: hand-computed, and an interval that is honest where all are right."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from tests.traces.test_rollout import ROLLOUT
from tunix_rt.rollouts.metrics import interval, possible_rewards, rollout_metrics
from tunix_rt.traces.rollout import Rollout


def group(*rewards: float, **changes: Any) -> list[Rollout]:
    mean = sum(rewards) / len(rewards)
    return [
        replace(ROLLOUT, reward=reward, rewards={"answer": reward}, advantage=reward - mean, **changes)
        for reward in rewards
    ]


def test_by_hand() -> None:
    cut: dict[str, Any] = {"finish_reason": "length", "ids": (5, 6), "logprobs": (-1.0, -3.0)}
    groups = [group(1, 0, ids=(5, 4), logprobs=(-0.5, -0.5), mismatch=3e-6), group(0, 0, **cut, mismatch=2e-6)]
    found = rollout_metrics([*groups, group(1, 1, mismatch=5e-6)], first=2, possible=(0, 1))
    low, high = found.pop("rollout/reward_low"), found.pop("rollout/reward_high")
    assert found == {
        "rollout/reward": 0.25,
        "rollout/reward_answer": 0.25,
        "rollout/dead_groups": 0.5,
        "rollout/length": 1.5,
        "rollout/truncated": 0.5,
        "rollout/entropy": 1.25,
        "rollout/resampled": 1.0,
        "rollout/mismatch": 5e-6,
    }
    assert (low, high) == (0, 1), "two prompts say nearly nothing"


def test_the_interval_is_that_of_the_mean_over_prompts() -> None:
    """Against scipy's, of the values with the two imaginary prompts."""
    values = [0.5, 0.625, 0.75, 0.5] * 4
    added = [*values, 0.0, 1.0]
    expected = stats.t.interval(0.95, len(added) - 1, loc=statistics.fmean(added), scale=stats.sem(added))
    assert interval(values, (0.0, 1.0)) == pytest.approx(expected, abs=1e-12)
    assert expected[0] < statistics.fmean(values) < expected[1]


def test_where_all_are_right_the_interval_has_a_width() -> None:
    low, high = interval([1.0] * 13, (0.0, 1.0))
    assert 0.7 < low < 0.9 and high == 1.0
    assert interval([1.0], (0.0, 1.0))[1] == 1.0, "one prompt"


def test_the_range_of_a_reward_follows_from_its_weights() -> None:
    assert possible_rewards({"answer": 1.0, "format": 0.2, "length": 0.5}) == (-0.5, 1.2)
    assert possible_rewards({"answer": 1.0, "steps": -0.5, "length": -0.25}) == (-0.5, 1.25)
