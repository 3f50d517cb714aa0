"""Small cases worked out by hand, and what must hold at the edges."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log, log1p

import numpy as np
import pytest
import torch

from tests.objectives.made import objective
from tunix_rt.objectives.interface import Tokens


def tokens(logprobs: list[float], lengths: list[int], **others: list[float] | None) -> Tokens:
    """Answers of some lengths, one after the other."""
    given = {name: None if values is None else np.array(values) for name, values in others.items()}
    return Tokens(np.array(logprobs), np.repeat(np.arange(len(lengths)), lengths), len(lengths), **given)


PAIR = tokens([-1.0, -2.0, -3.0], [2, 1], reference=[-1.5, -2.0, -2.5])
"""Log-ratios 0.5 of the chosen answer, -0.5 of the rejected one."""


def test_dpo_of_one_pair() -> None:
    """h = 0.5·(0.5 + 0.5): the loss is log(1 + exp(-0.5)), each slope 0.5·σ(-0.5)."""
    value = objective("dpo", beta=0.5).value(PAIR)
    step = 0.5 / (1 + exp(0.5))
    assert value.loss == pytest.approx(log1p(exp(-0.5)))
    np.testing.assert_allclose(value.weights, [step, step, -step])
    assert value.metrics == pytest.approx({
        "preference/accuracy": 1.0, "preference/margin": 0.5, "preference/chosen": 0.25, "preference/rejected": -0.25,
        "preference/chosen_logprob": -3.0, "preference/rejected_logprob": -3.0, "preference/sft": 1.5,
    })  # fmt: skip


def test_dpo_begins_at_log_2() -> None:
    """The model is its own reference."""
    value = objective("dpo").value(replace(PAIR, reference=PAIR.logprobs))
    assert value.loss == pytest.approx(log(2))
    assert value.metrics["preference/margin"] == 0.0
    assert value.metrics["preference/accuracy"] == 0.0  # equal is not better


def test_ipo_of_one_pair_aims_at_its_margin() -> None:
    """Means 0.25 and -0.5; at β = 2/3 the target 0.75 is reached, and nothing is learned."""
    value = objective("ipo", beta=2 / 3).value(PAIR)
    assert value.loss == pytest.approx(0.0, abs=1e-20)
    np.testing.assert_allclose(value.weights, 0.0, atol=1e-12)


def test_orpo_of_equal_odds() -> None:
    """Means of -log 2: the odds are 1, the ratio 1, the loss log 2 + β·log 2; the slope of log odds is 2."""
    value = objective("orpo", beta=0.5).value(tokens([-log(2), -log(2)], [1, 1]))
    assert value.loss == pytest.approx(1.5 * log(2))
    np.testing.assert_allclose(value.weights, [1.5, -0.5])


def test_kto_takes_answers_that_are_no_pairs() -> None:
    """Three answers, one desirable; at the reference point each loss is half its weight."""
    answers = tokens([-1.0, -2.0, -3.0], [1, 1, 1], reference=[-1.0, -2.0, -3.0], advantages=[-1.0, 1.0, -1.0])
    value = objective("kto", beta=1.0, desirable_weight=2.0).value(answers)
    assert value.loss == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    np.testing.assert_allclose(value.weights, np.array([-0.25, 0.5, -0.25]) / 3)
    assert value.metrics["preference/kl"] == 0.0
    only = objective("kto").value(replace(answers, advantages=np.ones(3)))
    assert "preference/rejected" not in only.metrics


SAMPLED = tokens([log(0.5), log(0.5), log(0.5)], [1, 2], old=[log(0.4), log(0.5), log(0.8)], advantages=[1.0, -2.0])
"""Ratios 1.25, 1 and 0.625."""


def test_grpo_clips_what_has_moved_far_enough() -> None:
    """1.25 with a good answer and 0.625 with a bad one are beyond 1 ± 0.2: no slope, and the loss of the limit."""
    value = objective("dapo", clip_high=0.2).value(SAMPLED)
    assert value.loss == pytest.approx((-1.2 + 2.0 + 1.6) / 3)
    np.testing.assert_allclose(value.weights, [0.0, -2 / 3, 0.0])
    assert value.metrics["rollout/clip_fraction"] == pytest.approx(2 / 3)
    assert value.metrics["rollout/ratio_max"] == pytest.approx(1.25)


def test_a_higher_limit_upwards_alone() -> None:
    """Clip-higher of DAPO: 1.25 is within 1.28."""
    np.testing.assert_allclose(objective("dapo").value(SAMPLED).weights, [1.25 / 3, -2 / 3, 0.0])


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("grpo", [1 / 2, -2 / 4, -2 / 4]),  # the mean of the means
        ("dapo", [1 / 3, -2 / 3, -2 / 3]),  # three tokens
        ("dr_grpo", [1 / 18, -2 / 18, -2 / 18]),  # two answers of at most 9 tokens
        ("rloo", [1 / 2, -2 / 2, -2 / 2]),  # two answers
    ],
)
def test_the_divisors(name: str, weights: list[float]) -> None:
    fresh = replace(SAMPLED, old=SAMPLED.logprobs)
    np.testing.assert_allclose(objective(name).value(fresh).weights, weights)
    np.testing.assert_allclose(objective(name).value(replace(fresh, old=None)).weights, weights)


@pytest.mark.parametrize(("name", "first"), [("grpo", 1.0), ("dapo", 1.0), ("dr_grpo", 1 / 18)])
def test_truncated_answers_are_neither_above_nor_below_the_line(name: str, first: float) -> None:
    """But in a constant divisor (huggingface/trl issue 6369)."""
    cut = replace(SAMPLED, old=None, truncated=np.array([False, True]))
    value = objective(name, mask_truncated=True).value(cut)
    np.testing.assert_allclose(value.weights, [first, 0.0, 0.0])
    assert value.loss == pytest.approx(-first)
    assert objective(name, mask_truncated=False).value(cut).weights[1] != 0


def test_all_answers_truncated_is_nothing_to_learn() -> None:
    for name in ("grpo", "dapo", "dr_grpo"):
        asked = objective(name, mask_truncated=True, kl_coefficient=0.1)
        value = asked.value(replace(SAMPLED, reference=SAMPLED.old, truncated=np.array([True, True])))
        assert value.loss == 0
        assert not value.weights.any()
        assert value.metrics["rollout/ratio_max"] == 0


def test_advantages_of_a_group() -> None:
    rewards = np.array([[1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(objective("dr_grpo").advantages(rewards), [[0.75, -0.25, -0.25, -0.25]])
    np.testing.assert_allclose(objective("rloo").advantages(rewards), [[1.0, -1 / 3, -1 / 3, -1 / 3]])
    np.testing.assert_allclose(objective("grpo").advantages(rewards), [[1.5, -0.5, -0.5, -0.5]])  # std 0.5


def test_the_standard_deviation_is_that_of_trl() -> None:
    """trl grpo_trainer.py divides by torch.std + 1e-4; here a floor takes the place of the 1e-4."""
    rewards = np.random.default_rng(0).random((5, 4))
    grouped = torch.tensor(rewards)
    theirs = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    scale = (grouped.std(1, keepdim=True) + 1e-4) / grouped.std(1, keepdim=True)
    np.testing.assert_allclose(objective("grpo").advantages(rewards), (theirs * scale).numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_equal_rewards_are_exactly_nothing(name: str) -> None:
    """0.1 + 0.1 + 0.1 is not 0.3: without care, a residue is left and a dead group looks alive."""
    rewards = np.full((1, 3), 0.1)
    assert (rewards - rewards.mean(axis=1, keepdims=True)).any()
    assert not objective(name).advantages(rewards).any()


def test_all_but_equal_rewards_are_not_amplified() -> None:
    """Divided by their own deviation they would be about 1 (NVIDIA-NeMo/RL pull request 4158)."""
    rewards = np.array([[0.95, 0.95, 0.95, 0.95 + 1e-6]])
    assert np.abs(objective("grpo").advantages(rewards)).max() < 1e-3


def test_only_right_answers_are_kept() -> None:
    """0.7 + 0.2 + 0.1 is all that could be had, and just below 1."""
    rewards = np.array([[1.0, 0.0, 0.7 + 0.2 + 0.1, 0.9]])
    assert rewards[0, 2] < 1
    np.testing.assert_array_equal(objective("rejection_sampling").advantages(rewards), [[1, 0, 1, 0]])
    none = replace(SAMPLED, advantages=np.zeros(2))
    value = objective("rejection_sampling").value(none)
    assert value.loss == 0
    assert not value.weights.any()


def test_nothing_overflows() -> None:
    """A token that one model deems impossible; an answer that is certain."""
    far = tokens([-2000.0, 0.0], [1, 1], reference=[0.0, -2000.0], old=[0.0, -2000.0], advantages=[-1.0, 1.0])
    pairs = replace(far, advantages=None)
    for name in ("dpo", "ipo", "simpo", "orpo", "kto"):
        value = objective(name).value(pairs)
        assert np.isfinite(value.loss)
        assert np.isfinite(value.weights).all()
    for estimator in ("k1", "k2", "k3"):
        value = objective("rloo", kl_coefficient=0.1, kl_estimator=estimator).value(far)
        assert np.isfinite(value.loss)
        assert np.abs(value.weights).max() < 1e9


@pytest.mark.parametrize(
    ("name", "values", "logprobs", "reference"),
    [
        ("dpo", {}, True, True),
        ("ipo", {}, True, True),
        ("kto", {}, True, True),
        ("simpo", {}, True, False),
        ("orpo", {}, True, False),
        ("grpo", {}, False, False),
        ("grpo", {"kl_coefficient": 0.1}, True, True),
        ("rejection_sampling", {}, False, False),
        ("distill", {}, True, True),
        ("distill", {"samples": "teacher"}, True, False),
    ],
)
def test_what_is_computed_before_a_step(name: str, values: dict[str, object], logprobs: bool, reference: bool) -> None:
    asked = objective(name, **values)
    assert (asked.needs_logprobs, asked.needs_reference) == (logprobs, reference)
    if asked.data == "rollouts":
        twice = replace(asked, rollout=replace(asked.rollout, updates=2))
        assert twice.needs_logprobs
