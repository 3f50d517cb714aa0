"""What is learned from sampled tokens, in expectation, against the exact gradient of what it is meant to be.

A vocabulary of 6 tokens is small enough to sum over.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.objectives.made import objective
from tunix_rt.objectives.interface import Objective, Tokens

SIZE = 6
RANDOM = np.random.default_rng(3)
LOGITS, REFERENCE, MOVED, REWARDS = (RANDOM.normal(0.0, 1.0, SIZE) for _ in range(4))


def probabilities(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - np.logaddexp.reduce(logits))


def tokens_of(sampler: np.ndarray, advantages: np.ndarray) -> Tokens:
    """Every token of the vocabulary, each an answer of its own."""
    model = np.log(probabilities(LOGITS))
    return Tokens(model, np.arange(SIZE), SIZE, np.log(probabilities(REFERENCE)), np.log(sampler), advantages)


def expected_slope(asked: Objective, sampler: np.ndarray, advantages: np.ndarray) -> np.ndarray:
    """The expectation of slope times ∇log π over what is sampled: the mean of all tokens gives each 1 / SIZE."""
    slopes = -SIZE * asked.value(tokens_of(sampler, advantages)).weights
    return (sampler * slopes) @ (np.eye(SIZE) - probabilities(LOGITS))


def expected_divergence(asked: Objective, sampler: np.ndarray) -> float:
    """The expectation of `rollout/kl` of one token over the model's own distribution."""
    every, found = tokens_of(sampler, np.ones(SIZE)), np.zeros(SIZE)
    for token in range(SIZE):
        given = {name: getattr(every, name)[[token]] for name in ("logprobs", "reference", "old", "advantages")}
        found[token] = asked.value(Tokens(sequence=np.zeros(1, int), num_sequences=1, **given)).metrics["rollout/kl"]
    return float(probabilities(LOGITS) @ found)


def gradient(forward: bool) -> tuple[float, np.ndarray]:
    """KL(π‖π_ref), and the gradient of it, or of KL(π_ref‖π), by autograd."""
    logits, reference = torch.tensor(LOGITS, requires_grad=True), torch.tensor(REFERENCE).log_softmax(0)
    model = logits.log_softmax(0)
    reverse = (model.exp() * (model - reference)).sum()
    ((reference.exp() * (reference - model)).sum() if forward else reverse).backward()
    assert logits.grad is not None
    return reverse.item(), logits.grad.numpy()


SAMPLERS = {"fresh": probabilities(LOGITS), "older": probabilities(LOGITS + 0.5 * MOVED)}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_what_each_estimator_of_the_divergence_learns(estimator: str, sampler: str) -> None:
    """`k1` backpropagated as a loss would give 0; `k3` gives the other divergence's gradient, as GRPO was published."""
    asked = objective("dapo", kl_coefficient=1.0, kl_estimator=estimator, clip_low=None, clip_high=None)
    divergence, exact = gradient(forward=estimator == "k3")
    np.testing.assert_allclose(expected_slope(asked, SAMPLERS[sampler], np.zeros(SIZE)), exact, atol=1e-12)
    assert (expected_divergence(asked, SAMPLERS[sampler]) == pytest.approx(divergence, abs=1e-12)) == (
        estimator != "k2"
    )  # x² / 2 is biased


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_on_policy_distillation_makes_the_divergence_from_the_teacher_small(sampler: str) -> None:
    asked, (divergence, exact) = objective("distill"), gradient(forward=False)
    np.testing.assert_allclose(expected_slope(asked, SAMPLERS[sampler], np.ones(SIZE)), exact, atol=1e-12)
    assert expected_divergence(asked, SAMPLERS[sampler]) == pytest.approx(divergence, abs=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_policy_gradient_is_that_of_the_expected_reward(sampler: str) -> None:
    """Whatever the baseline: here 0.7 is subtracted from every reward."""
    asked = objective("dapo", clip_low=None, clip_high=None)
    slope = expected_slope(asked, SAMPLERS[sampler], REWARDS - 0.7)
    logits = torch.tensor(LOGITS, requires_grad=True)
    (-(logits.softmax(0) * torch.tensor(REWARDS)).sum()).backward()
    assert logits.grad is not None
    np.testing.assert_allclose(slope, logits.grad.numpy(), atol=1e-12)
