"""Every objective's loss and slope against torch's autograd of the formulas of huggingface/trl, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.objectives import formulas
from tests.objectives.made import Padded, objective, padded
from tunix_rt.objectives.interface import Objective

Formula = Callable[[torch.Tensor, Any], torch.Tensor]
"""(log-probabilities [B, T], the made answers as tensors) → loss."""


class Tensors:
    """The made answers in torch."""

    def __init__(self, made: Padded) -> None:
        self.ref, self.old, self.advantages = map(torch.tensor, (made.reference, made.old, made.advantages))
        self.mask = torch.tensor(made.mask).double()


def assert_equal(asked: Objective, formula: Formula, made: Padded) -> None:
    """Loss and slope are those of the formula: to 1e-10, relative to the largest."""
    logprobs = torch.tensor(made.logprobs, requires_grad=True)
    loss = formula(logprobs, Tensors(made))
    loss.backward()
    assert logprobs.grad is not None
    slopes = logprobs.grad.numpy()[made.mask]
    value = asked.value(made.pairs if asked.data == "pairs" else made.sampled)
    assert value.loss == pytest.approx(loss.item(), rel=1e-10)
    np.testing.assert_allclose(value.weights, -slopes, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("sft", [0.0, 0.7])
def test_dpo(smoothing: float, norm: bool, sft: float) -> None:
    asked = objective("dpo", beta=0.3, label_smoothing=smoothing, length_normalised=norm, sft_weight=sft)
    assert_equal(
        asked,
        lambda x, made: (
            formulas.dpo(x, made.ref, made.mask, 0.3, smoothing, norm) + sft * formulas.nll_of_chosen(x, made.mask)
        ),
        padded(),
    )


def test_ipo() -> None:
    asked = objective("ipo", beta=0.4)
    assert_equal(asked, lambda x, made: formulas.ipo(x, made.ref, made.mask, 0.4), padded())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_simpo(smoothing: float) -> None:
    asked = objective("simpo", beta=2.5, gamma=0.8, label_smoothing=smoothing)
    assert_equal(asked, lambda x, made: formulas.simpo(x, made.mask, 2.5, 0.8, smoothing), padded())


def test_orpo() -> None:
    asked = objective("orpo", beta=0.25)
    assert_equal(asked, lambda x, made: formulas.orpo(x, made.mask, 0.25), padded())


@pytest.mark.parametrize("seed", [0, 1])  # the mean log-ratio is below 0, and above
@pytest.mark.parametrize("point", ["batch", "zero"])
def test_kto(point: str, seed: int) -> None:
    made = padded(seed=seed)
    middle = float(np.sum((made.logprobs - made.reference)[made.mask])) / len(made.mask)
    assert (middle > 0) == (seed == 1)
    kl = torch.tensor(max(middle, 0.0) if point == "batch" else 0.0, dtype=torch.float64)
    asked = objective("kto", beta=0.2, desirable_weight=1.5, undesirable_weight=0.5, reference_point=point)
    assert_equal(asked, lambda x, m: formulas.kto(x, m.ref, m.mask, 0.2, (1.5, 0.5), kl), made)


@pytest.mark.parametrize(("name", "clip"), [("grpo", (0.2, 0.2)), ("dr_grpo", (0.2, 0.2)), ("dapo", (0.2, 0.28))])
def test_the_losses_of_clipped_ratios(name: str, clip: tuple[float, float]) -> None:
    made = padded()
    ratio = np.exp(made.logprobs - made.old)[made.mask]
    assert np.sum(ratio > 1.3) > 2
    assert np.sum(ratio < 0.8) > 2
    asked = objective(name)
    assert_equal(asked, lambda x, m: formulas.grpo(x, m.old, m.advantages, m.mask, name, 9, clip), made)


def test_rloo_on_fresh_samples() -> None:
    made = padded()
    fresh = Padded(made.logprobs, made.reference, made.logprobs, made.mask, made.advantages)
    asked = objective("rloo")
    logprobs = torch.tensor(made.logprobs, requires_grad=True)
    formulas.rloo(logprobs, torch.tensor(made.advantages), torch.tensor(made.mask).double()).backward()
    assert logprobs.grad is not None
    np.testing.assert_allclose(asked.value(fresh.sampled).weights, -logprobs.grad.numpy()[made.mask], rtol=1e-10)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_divergence_as_a_loss_term(estimator: str) -> None:
    """With the ratio of older samples as a constant factor; on fresh ones it is trl's and the book's."""
    made = padded()
    asked = objective("dapo", kl_coefficient=0.05, kl_estimator=estimator, mask_truncated=False)

    def formula(x: torch.Tensor, m: Any) -> torch.Tensor:
        ratio = torch.exp(x - m.old).detach()
        divergence = 0.05 * ratio * getattr(formulas, estimator)(x, m.ref)
        return formulas.grpo(x, m.old, m.advantages, m.mask, "dapo", 9, (0.2, 0.28), divergence)

    assert_equal(asked, formula, made)


def test_rejection_sampling_is_supervised_on_what_is_kept() -> None:
    made = padded()
    kept = Padded(made.logprobs, made.reference, made.old, made.mask, (made.advantages > 0).astype(float))
    assert 1 < kept.advantages.sum() < len(kept.mask)

    def formula(x: torch.Tensor, m: Any) -> torch.Tensor:
        chosen = m.mask * m.advantages[:, None]
        return -(x * chosen).sum() / chosen.sum()

    assert_equal(objective("rejection_sampling"), formula, kept)


def test_distillation_on_the_teachers_answers() -> None:
    asked = objective("distill", samples="teacher")
    assert_equal(asked, lambda x, m: -(x * m.mask).sum() / m.mask.sum(), padded())
