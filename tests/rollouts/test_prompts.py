"""Which prompts a rollout asks: from seed and number alone, each once per epoch, and never one twice in a step."""

from __future__ import annotations

import pytest

from tunix_rt.errors import DataError
from tunix_rt.rollouts.prompts import PromptOrder


def test_each_prompt_comes_once_per_epoch() -> None:
    order = PromptOrder(num_prompts=23, per_step=4, rounds=0, seed=7)
    epochs = [[order.at(rollout) for rollout in range(5 * epoch, 5 * epoch + 5)] for epoch in range(3)]
    for epoch in epochs:
        asked = [prompt for rollout in epoch for prompt in rollout]
        assert len(set(asked)) == len(asked) == 20 and set(asked) <= set(range(23))
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_next_rollout_does_not_depend_on_how_many_prompts_were_needed() -> None:
    order = PromptOrder(num_prompts=30, per_step=4, rounds=2, seed=7)
    first, second = order.at(0), order.at(1)
    assert len(first) == len(second) == 12 and not set(first) & set(second)
    assert PromptOrder(num_prompts=30, per_step=4, rounds=2, seed=7).at(1) == second
    assert PromptOrder(num_prompts=30, per_step=4, rounds=2, seed=8).at(1) != second


def test_a_small_set_limits_the_further_rounds_but_not_the_step() -> None:
    order = PromptOrder(num_prompts=5, per_step=4, rounds=3, seed=0)
    assert [sorted(order.at(rollout)) for rollout in (0, 9)] == [[0, 1, 2, 3, 4]] * 2
    with pytest.raises(DataError, match=r"prompts_per_step: 6, but the training split has 5 prompts"):
        PromptOrder(num_prompts=5, per_step=6, rounds=0, seed=0)
