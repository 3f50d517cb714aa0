"""A step is one function of numbers: in which order a mapping holds its tensors, fresh or restored, changes no bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.conftest import Traces
from tunix_rt.backends.interface import AdapterSetup, Backend, TrainingSetup
from tunix_rt.backends.optimizers.rule import trained_tensors
from tunix_rt.backends.registry import create
from tunix_rt.backends.torch.optimizer import create as create_optimizer
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.model import LoraAdapter
from tunix_rt.models.adapter_folder import Base
from tunix_rt.models.content import folder_digest

LORA = LoraAdapter(kind="lora", rank=4, alpha=8.0, dropout=0.2, target="all-linear", rslora=False, path=None)
CLIP_NORM = 0.1
"""Far below the gradients' norms, so that every bit of a norm reaches the weights."""


@pytest.fixture(scope="module", params=["jax", "torch"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    hardware = HardwareConfig(platform="cpu", threads=1)
    cache = tmp_path_factory.mktemp("compiled")
    return create(BackendConfig(name=request.param, precision="float32"), hardware, cache)


@pytest.fixture(scope="module", params=["all weights", "lora"])
def setup(request: pytest.FixtureRequest, small_llama: Path, adamw: Callable[..., Any]) -> TrainingSetup:
    adapter = AdapterSetup(LORA, Base.of(small_llama, folder_digest(small_llama)))
    return TrainingSetup(adamw(), CLIP_NORM, 7, adapter if request.param == "lora" else None)


@pytest.fixture(scope="module")
def batches(traces: Traces, batch_of: Any) -> list[Batch]:
    """Of two micro-batches each."""
    return [batch_of([traces[i : i + 2], traces[i + 2 : i + 4]], 40) for i in range(0, 12, 2)]


def trained(backend: Backend, state: Any, batches: list[Batch], folder: Path) -> list[bytes]:
    """The bits of norms and losses, and the files that are saved at the end."""
    found = []
    for batch in batches:
        state, measured = backend.train_step(state, batch, 1e-2)
        numbers = backend.fetch(measured)
        assert numbers["grad_norm"] > 2 * CLIP_NORM
        found += [numbers["grad_norm"].tobytes(), numbers["loss_sum"].tobytes()]
    folder.mkdir(parents=True)
    backend.save(state, folder).result()
    return [*found, *((folder / name).read_bytes() for name in sorted(file.name for file in folder.iterdir()))]


def shuffled(mapping: Any, order: np.random.Generator) -> Any:
    """The mapping, and every mapping in it, in another order."""
    if not isinstance(mapping, dict):
        return mapping
    keys = list(mapping)
    return {keys[at]: shuffled(mapping[keys[at]], order) for at in order.permutation(len(keys))}


def held_otherwise(state: Any, seed: int) -> Any:
    """The same state, whose mappings hold their tensors in another order."""
    order = np.random.default_rng(seed)
    if hasattr(state, "params"):
        moments = state.moments._replace(trees=shuffled(state.moments.trees, order))
        return replace(
            state, params=shuffled(state.params, order), frozen=shuffled(state.frozen, order), moments=moments
        )
    adapter = state.model.adapter
    if adapter is not None:
        adapter = replace(adapter, tensors=shuffled(adapter.tensors, order))
    state.model = replace(state.model, weights=shuffled(state.model.weights, order), adapter=adapter)
    optimizer = state.optimizer
    other = create_optimizer(
        state.training.optimizer, trained_tensors(state.stored.architecture, state.stored.adapter), state.model.trained
    )
    other.kept, other.count = shuffled(optimizer.kept, order), optimizer.count
    state.optimizer = other
    return state


@pytest.mark.slow
def test_the_order_of_a_mapping_changes_nothing(
    backend: Backend, setup: TrainingSetup, small_llama: Path, batches: list[Batch], tmp_path: Path
) -> None:
    """Prevents: a norm summed in the order of a dict."""
    expected = trained(backend, backend.load(small_llama, setup), batches, tmp_path / "as loaded")
    for seed in range(3):
        state = held_otherwise(backend.load(small_llama, setup), seed)
        assert trained(backend, state, batches, tmp_path / str(seed)) == expected


@pytest.mark.slow
def test_a_restored_state_goes_on_as_the_one_in_memory_would_have(
    backend: Backend, setup: TrainingSetup, small_llama: Path, batches: list[Batch], tmp_path: Path
) -> None:
    """Prevents: 'step 7 was done again and differs' for ever, or an adapter that differs by 10,753 bits in silence."""
    expected = trained(backend, backend.load(small_llama, setup), batches, tmp_path / "through")
    for done in (1, 3):
        before = trained(backend, backend.load(small_llama, setup), batches[:done], tmp_path / f"{done}")
        restored = backend.restore(tmp_path / f"{done}", small_llama, setup)
        after = trained(backend, restored, batches[done:], tmp_path / f"{done} on")
        assert before[: 2 * done] + after == expected
