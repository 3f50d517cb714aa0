"""Each optimizer against an implementation of others, over several updates with decay; and what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tunix_rt.backends.optimizers.muon import orthogonalised
from tunix_rt.backends.optimizers.rule import Trained
from tunix_rt.backends.torch.optimizer import TORCH, Optimizer, create
from tunix_rt.config.optimizers import AdafactorConfig, AdamW8bitConfig, AdamWConfig, LionConfig, MuonConfig

RATES = (1e-2, 3e-2, 2e-2, 1e-2)
DECAY = 0.1
LION = LionConfig(kind="lion", learning_rate=1, beta1=0.9, beta2=0.98, weight_decay=DECAY, no_decay=("norms",))
ADAFACTOR = AdafactorConfig(
    kind="adafactor",
    learning_rate=1,
    decay_rate=0.8,
    clip_threshold=1.0,
    scale_parameter=True,
    eps=1e-30,
    weight_decay=DECAY,
    no_decay=(),
)
ADAM = {"learning_rate": 1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": DECAY, "no_decay": ()}
ADAMW = AdamWConfig(kind="adamw", **ADAM)
MUON = MuonConfig(kind="muon", momentum=0.95, newton_schulz_steps=5, **ADAM)
EIGHT_BIT = AdamW8bitConfig(kind="adamw_8bit", block_size=256, **ADAM)
SHAPES = {"wide": (24, 40), "tall": (64, 16), "norm": (40,)}
KINDS = {"wide": "matrices", "tall": "matrices", "norm": "norms"}


def trained(shapes: dict[str, tuple[int, ...]]) -> dict[str, Trained]:
    return {name: Trained(shape, KINDS.get(name, "matrices"), True) for name, shape in shapes.items()}


def drawn(seed: int, shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def updated(config: Any, shapes: dict[str, tuple[int, ...]] = SHAPES) -> tuple[dict[str, torch.Tensor], Optimizer]:
    """Weights after one update for each of RATES; of each second one the gradients are scaled down by 2."""
    weights = drawn(0, shapes)
    optimizer = create(config, trained(shapes), weights)
    for step, rate in enumerate(RATES, start=1):
        scale = torch.tensor(1.0 + step % 2)
        optimizer.update(weights, drawn(step, shapes), rate, scale, skip=torch.tensor(0.0))
    return weights, optimizer


def by_torch(optimizer_of: Callable[[list[torch.Tensor]], Any], name: str) -> torch.Tensor:
    """The same by an optimizer of torch's interface."""
    weight = torch.nn.Parameter(drawn(0)[name])
    optimizer = optimizer_of([weight])
    for step, rate in enumerate(RATES, start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        weight.grad = drawn(step)[name] / (1 + step % 2)
        optimizer.step()
    return weight.detach()


def test_lion_is_that_of_optax() -> None:
    import jax.numpy as jnp
    import optax

    found, _ = updated(LION)
    for name in SHAPES:
        weight, state = jnp.asarray(drawn(0)[name].numpy()), None
        for step, rate in enumerate(RATES, start=1):
            rule = optax.lion(rate, 0.9, 0.98, weight_decay=0.0 if name == "norm" else DECAY)
            state = rule.init(weight) if state is None else state
            updates, state = rule.update(jnp.asarray(drawn(step)[name].numpy() / (1 + step % 2)), state, weight)
            weight = optax.apply_updates(weight, updates)
        np.testing.assert_allclose(found[name].numpy(), weight, rtol=1e-6, atol=1e-6)


def test_orthogonalised_is_that_of_optax() -> None:
    """Singular vectors stay; singular values end where the iteration brings them."""
    import jax.numpy as jnp
    from optax.contrib._muon import orthogonalize_via_newton_schulz

    for name in ("wide", "tall"):
        matrix = drawn(3)[name]
        found = orthogonalised(TORCH, matrix, 5)
        theirs = orthogonalize_via_newton_schulz(jnp.asarray(matrix.numpy()), jnp.array((3.4445, -4.7750, 2.0315)), 5)
        np.testing.assert_allclose(found.numpy(), theirs, rtol=1e-4, atol=2e-6)
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.6 and values.max() < 1.3


def test_muon_is_that_of_torch() -> None:
    """Which iterates in bfloat16: an update of 1 differs by a hundredth."""
    found, _ = updated(MUON)
    for name in ("wide", "tall"):
        expected = by_torch(
            lambda weights: torch.optim.Muon(weights, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"), name
        )
        moved = torch.linalg.norm(expected - drawn(0)[name])
        assert torch.linalg.norm(found[name] - expected) < 0.015 * moved
        halved = drawn(0)[name] + (expected - drawn(0)[name]) * 0.95
        assert torch.linalg.norm(found[name] - halved) > 0.03 * moved, "the comparison would not see a wrong scale"


def test_adafactor_is_that_of_torch() -> None:
    found, _ = updated(ADAFACTOR)
    for name in SHAPES:
        expected = by_torch(lambda weights: torch.optim.Adafactor(weights, weight_decay=DECAY, eps=(1e-30, 1e-3)), name)
        torch.testing.assert_close(found[name], expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("config", [MUON, EIGHT_BIT], ids=["muon", "8 bit"])
def test_what_is_no_matrix_or_small_is_updated_by_adamw(config: Any) -> None:
    found, expected = updated(config)[0], updated(ADAMW)[0]
    torch.testing.assert_close(found["norm"], expected["norm"], rtol=1e-5, atol=1e-6)
    assert (config is EIGHT_BIT) == torch.allclose(found["wide"], expected["wide"], rtol=1e-5, atol=1e-6)


LARGE = {"large": (70, 71)}
"""4,970 numbers: nineteen blocks of 256 and a part of one."""


def test_8_bits_follow_adamw() -> None:
    """Updates are those of float32 moments, which are kept to within a code of each: 2 % of the way, not 0."""
    found, optimizer = updated(EIGHT_BIT, LARGE)
    expected, _ = updated(ADAMW, LARGE)
    difference = torch.linalg.norm(found["large"] - expected["large"])
    moved = torch.linalg.norm(expected["large"] - drawn(0, LARGE)["large"])
    assert 1e-5 * moved < difference < 0.05 * moved
    kept = {kind: (tensors["large"].dtype, tuple(tensors["large"].shape)) for kind, tensors in optimizer.kept.items()}
    codes, scales = (torch.uint8, (70, 71)), (torch.float32, (20,))
    assert kept == {"m_codes": codes, "m_scales": scales, "v_codes": codes, "v_scales": scales}


@pytest.mark.parametrize("config", [LION, MUON, ADAFACTOR, EIGHT_BIT], ids=lambda config: config.kind)
def test_an_update_that_is_skipped_changes_nothing(config: Any) -> None:
    weights = drawn(0)
    optimizer = create(config, trained(SHAPES), weights)
    broken = {name: torch.full(shape, torch.nan) for name, shape in SHAPES.items()}
    optimizer.update(weights, broken, 1.0, torch.tensor(1.0), skip=torch.tensor(1.0))
    assert all(torch.equal(weights[name], tensor) for name, tensor in drawn(0).items())
    assert optimizer.count == 0
    assert not any(tensor.any() for tensors in optimizer.kept.values() for tensor in tensors.values())
