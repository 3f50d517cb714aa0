"""DPO on both backends: the same curve; all objectives over pairs: the gradients of an independent implementation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.conftest import config_of
from tests.preferences.conftest import WORDS, MakeToy, Toy, backend_of, relative
from tunix_rt.backends.interface import Backend


@pytest.mark.slow
def test_thirty_steps_are_the_same_on_both_backends(toy: Toy, torch: Backend) -> None:
    curves = {}
    for name, backend in (("torch", torch), ("jax", backend_of("jax"))):
        measured = [values for _, values in toy.steps(backend, 30, 3e-3)][:30]
        curves[name] = {key: [values[key] for values in measured] for key in measured[0]}
    for key in ("train/loss", "grad_norm"):
        assert relative(curves["jax"][key], curves["torch"][key]) < (1e-5 if key == "train/loss" else 1e-4)
    assert curves["torch"]["train/loss"][0] == pytest.approx(math.log(2), abs=1e-6), "the model is its own reference"
    assert curves["torch"]["train/loss"][-1] < 0.3
    assert curves["torch"]["preference/accuracy"][-1] == 1.0


def dpo(chosen: Any, rejected: Any) -> Any:
    return -logsigmoid(0.1 * (chosen.ratio - rejected.ratio)).mean()


def ipo(chosen: Any, rejected: Any) -> Any:
    return ((chosen.ratio / chosen.count - rejected.ratio / rejected.count - 1 / (2 * 0.1)) ** 2).mean()


def simpo(chosen: Any, rejected: Any) -> Any:
    return -logsigmoid(2.0 * (chosen.logprob / chosen.count - rejected.logprob / rejected.count) - 1.0).mean()


def orpo(chosen: Any, rejected: Any) -> Any:
    means = (answers.logprob / answers.count for answers in (chosen, rejected))
    better, worse = (mean - (1 - mean.exp()).log() for mean in means)
    return -chosen.logprob.sum() / chosen.count.sum() - 0.1 * logsigmoid(better - worse).mean()


def logsigmoid(x: Any) -> Any:
    return -(1 + (-x).exp()).log()


@pytest.mark.acceptance  # what TRL measured says the same of DPO in the default tier, without its imports
@pytest.mark.parametrize("formula", [dpo, ipo, simpo, orpo])
def test_the_loss_and_the_gradient_are_those_of_autograd_over_transformers(
    formula: Callable[[Any, Any], Any], toy: Toy, torch: Backend, tmp_path: Path
) -> None:
    """One answer after the other, unpacked, in float64, after some updates: then model and reference differ."""
    import torch as framework
    import transformers

    words = [word.replace("objective=dpo", f"objective={formula.__name__}") for word in WORDS]
    objective = config_of(words).objective
    toy = Toy(replace(toy.config, objective=objective), toy.data)
    *_, (state, _) = toy.steps(torch, 4, 3e-3)
    source = toy.source(torch)
    torch.save(state, tmp_path).result()
    model, reference = (
        transformers.AutoModelForCausalLM.from_pretrained(place, dtype=framework.float64)
        for place in (tmp_path, toy.data.model_folder)
    )
    update, batch = source.batch(5, state), source.order.batch_at(4)

    def logprob(of: Any, index: int) -> Any:
        tokens, targets, weights = (framework.tensor(np.array(x)) for x in source.order.dataset.example(index))
        found = of(tokens[None].long()).logits[0].log_softmax(-1).gather(-1, targets[:, None].long())[:, 0]
        return found[weights > 0].sum()

    def answers(member: int) -> SimpleNamespace:
        indices = [2 * pair + member for pair in batch.pairs]
        with framework.no_grad():
            before = framework.stack([logprob(reference, index) for index in indices])
        said = framework.stack([logprob(model, index) for index in indices])
        counts = [int((source.order.dataset.example(index)[2] > 0).sum()) for index in indices]
        return SimpleNamespace(logprob=said, ratio=said - before, count=framework.tensor(counts))

    loss = formula(answers(0), answers(1))
    loss.backward()
    norm = math.sqrt(sum(float((weight.grad**2).sum()) for weight in model.parameters()))
    assert update.metrics["train/loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert torch.fetch(torch.train_step(state, update.batch, 0.0)[1])["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_of_an_adapter_the_base_is_the_reference(make_toy: MakeToy, torch: Backend) -> None:
    toy = make_toy("model/adapter=lora", "model.adapter.rank=4")
    measured = [values for _, values in toy.steps(torch, 6, 3e-2)][:6]
    assert measured[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-7), "a new adapter adds nothing"
    assert measured[-1]["train/loss"] < 0.5
