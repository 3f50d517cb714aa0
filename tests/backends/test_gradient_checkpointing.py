"""Gradient checkpointing on both backends: the same gradients, from less memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.backends.conftest import Traces
from tests.families import CASES, write
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import AdapterSetup, Backend, TrainingSetup
from tunix_rt.backends.jax import step as jax_step
from tunix_rt.backends.registry import create
from tunix_rt.backends.torch.step import micro_batch
from tunix_rt.batches.batch import Batch
from tunix_rt.config.choices import Precision
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.model import LoraAdapter
from tunix_rt.models.adapter_folder import Base

LORA = LoraAdapter(kind="lora", rank=4, alpha=8.0, dropout=0.25, target="all-linear", rslora=False, path=None)
WAYS = ("llama", "gpt2", "gemma3", "qwen2_moe", "lora")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each family; what LoRA lies on is the llama."""
    made = {name: write(tmp_path_factory.mktemp("model"), CASES[name]) for name in WAYS if name != "lora"}
    return made | {"lora": made["llama"]}


@pytest.fixture(scope="module")
def batch(traces: Traces, batch_of: Any) -> Batch:
    """Two micro-batches of packed rows."""
    built: Batch = batch_of([traces[0:2], traces[2:4], traces[4:6], traces[6:8]], 40)
    return built


def backend_of(name: Any, checkpointing: bool, cache: Path, precision: Precision = "float32") -> Backend:
    config = BackendConfig(name=name, precision=precision, gradient_checkpointing=checkpointing)
    return create(config, HardwareConfig(platform="cpu", threads=1), cache)


@pytest.fixture(scope="module")
def setup_of(adamw: Callable[..., Any]) -> Callable[[str], TrainingSetup]:
    """What training is told, by the way; without clipping, so that first moments are a tenth of the gradients."""
    lora = AdapterSetup(LORA, Base(None, None, None))
    return lambda way: TrainingSetup(adamw(), None, 7, lora if way == "lora" else None)


def gradients(backend: Backend, folder: Path, setup: TrainingSetup, batch: Batch, place: Path) -> dict[str, Any]:
    """Gradients of the first update, by tensor."""
    state, _ = backend.train_step(backend.load(folder, setup), batch, 1e-2)
    place.mkdir(parents=True)
    backend.save(state, place).result()
    found = load_file(place / "optimizer.safetensors")
    return {name: array / (1 - setup.optimizer.beta1) for name, array in found.items() if name.startswith("m.")}


@pytest.mark.parametrize(("name", "way"), [("jax", "llama"), ("jax", "lora"), *(("torch", way) for way in WAYS)])
@pytest.mark.slow
def test_the_gradients_are_the_same(
    name: str, way: str, folders: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """Dropout that is drawn anew in the backward pass, or a tensor that is forgotten, would be far from 1e-6."""
    found = [
        gradients(backend_of(name, flag, tmp_path), folders[way], setup_of(way), batch, tmp_path / str(flag))
        for flag in (False, True)
    ]
    assert found[0].keys() == found[1].keys()
    for tensor, plain in found[0].items():
        size = np.linalg.norm(plain)
        if way != "lora" or "lora_B" in tensor:  # A's gradient is 0 while B is
            assert size > 0, f"{tensor}: no gradient, so nothing is compared"
        assert np.linalg.norm(found[1][tensor] - plain) <= 1e-6 * size, tensor


@pytest.mark.parametrize("name", ["jax", "torch"])
@pytest.mark.slow
def test_the_gradients_of_bfloat16_are_as_near(
    name: str, folders: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """Computed again in float32 they would be further off than one rounding of bfloat16 is wide (2^-8)."""
    exact = gradients(backend_of(name, False, tmp_path), folders["llama"], setup_of("llama"), batch, tmp_path / "exact")
    half, again = (
        gradients(
            backend_of(name, flag, tmp_path, "bfloat16"),
            folders["llama"],
            setup_of("llama"),
            batch,
            tmp_path / str(flag),
        )
        for flag in (False, True)
    )

    def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
        total = sum(np.linalg.norm(one[name] - other[name]) ** 2 for name in one)
        return float(np.sqrt(total / sum(np.linalg.norm(array) ** 2 for array in other.values())))

    assert apart(half, exact) > 1e-4, "void: nothing was computed in bfloat16"
    assert apart(again, half) < apart(half, exact) / 2


@pytest.fixture(scope="module")
def long_batch(batch_of: Any) -> Batch:
    """One row, long against the width of the models."""
    random = np.random.default_rng(1)
    built: Batch = batch_of([[random.integers(1, 50, 90).astype(np.int32) for _ in range(2)]] * 4, 192)
    return built


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of eight layers."""
    case = replace(
        CASES["llama"], changes=CASES["llama"].changes | {"num_hidden_layers": 8, "max_position_embeddings": 192}
    )
    return write(tmp_path_factory.mktemp("deep"), case)


@pytest.mark.parametrize("way", ["llama", "lora"])
def test_torch_keeps_less_for_the_way_back(
    way: str, deep: Path, setup_of: Any, long_batch: Batch, tmp_path: Path
) -> None:
    """Counted where autograd keeps it: of eight layers little more than their inputs is left."""
    kept = []
    for flag in (False, True):
        backend = backend_of("torch", flag, tmp_path)
        state = backend.load(deep, setup_of(way))
        held: dict[int, int] = {}

        def pack(tensor: torch.Tensor, held: dict[int, int] = held) -> Any:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            micro_batch(state.model, Fold.of(len(long_batch.tokens), None).local(long_batch), 0)
        weights = {tensor.untyped_storage().data_ptr() for tensor in state.model.weights.values()}
        kept.append(sum(size for place, size in held.items() if place not in weights))
    rows, length = long_batch.tokens.shape
    inputs = 8 * rows * length * 20 * 4
    assert inputs < kept[1] < 0.25 * kept[0]


@pytest.mark.slow
def test_jax_programs_need_less_scratch(deep: Path, setup_of: Any, long_batch: Batch, tmp_path: Path) -> None:
    """As the compiler says of the program that trains."""
    scratch = []
    for flag in (False, True):
        backend: Any = backend_of("jax", flag, tmp_path)
        state = backend.load(deep, setup_of("llama"))
        inputs = backend._inputs(state, long_batch, Fold.of(len(long_batch.tokens), None))
        divisor = np.float32(long_batch.divisor)
        lowered = jax_step.gradients.lower(state.training_graph, None, state.params, state.frozen, inputs, divisor)
        scratch.append(lowered.compile().memory_analysis().temp_size_in_bytes)
    assert scratch[1] < 0.5 * scratch[0]
