"""Tiny random models of each family that Tunix computes, the two backends to compare, and batches of random traces.

Collected only when asked for by name, in the environment that `.ci/tunix` makes: elsewhere Tunix is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tunix_rt.backends.interface import Backend, TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.batches.batch import Batch, assemble
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.optimizers import AdamWConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.files import JsonObject
from tunix_rt.machine import cache_folder
from tunix_rt.models.families.registry import read, tensors_of
from tunix_rt.models.folder import write_generation_config, write_model

COMMON: JsonObject = {
    "vocab_size": 53,
    "hidden_size": 20,
    "intermediate_size": 36,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
"""Heads that do not divide the width; 53 is no multiple of 8."""
GEMMA3 = {
    "model_type": "gemma3_text",
    "rms_norm_eps": 1e-6,
    "sliding_window": 5,
    "query_pre_attn_scalar": 6,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
}
CONFIGS: dict[str, JsonObject] = {
    "llama": {"model_type": "llama", "rope_theta": 100.0, "tie_word_embeddings": False, "num_hidden_layers": 2},
    "qwen2": {"model_type": "qwen2", "rope_theta": 1000.0},
    "qwen3": {"model_type": "qwen3", "rope_theta": 1_000_000.0, "attention_bias": False, "tie_word_embeddings": False},
    "gemma3, one key and value head": GEMMA3 | {"num_key_value_heads": 1},
    "gemma3, heads alike": GEMMA3 | {"num_key_value_heads": 4},
}
STOP = (1, 3)


def write(folder: Path, **changes: Any) -> Path:
    """A model folder with random weights, norms and biases too."""
    config = COMMON | changes
    random = np.random.default_rng(0)

    def drawn(shape: tuple[int, ...]) -> Any:
        return (random.standard_normal(shape) * 0.3).astype(np.float32)

    tensors = tensors_of(read(config, "the test"))
    offset = 0.0 if config["model_type"] == "gemma3_text" else 1.0
    norms = {tensor.name for tensor in tensors if tensor.canonical_name.endswith("norm")}
    weights = {tensor.name: drawn(tensor.shape) + offset * (tensor.name in norms) for tensor in tensors}
    write_model(folder, config, weights)
    write_generation_config(folder, STOP, 0)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each of CONFIGS."""
    return {name: write(tmp_path_factory.mktemp("model"), **config) for name, config in CONFIGS.items()}


@pytest.fixture(scope="session")
def llama(models: dict[str, Path]) -> Path:
    """The Llama."""
    return models["llama"]


@pytest.fixture(scope="session", autouse=True)
def _quick_compilation() -> Iterator[None]:
    """Programs here run once or twice: nearly all their time is compilation."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def make() -> Callable[..., Backend]:
    """(name, precision) → a backend on the CPU."""

    def made(name: Any, precision: Any = "float32", **changes: bool) -> Backend:
        config = BackendConfig(name=name, precision=precision, **changes)
        return create(config, HardwareConfig(**CPU), cache_folder())

    return made


CPU: dict[str, Any] = {"platform": "cpu", "threads": "auto"}


@pytest.fixture(scope="session")
def both(make: Callable[..., Backend]) -> dict[str, Backend]:
    """Ours on jax, and Tunix."""
    return {name: make(name) for name in ("jax", "tunix")}


class Traces:
    """Random sequences of 4 to 20 ids, of which all but the first two are targets."""

    def __init__(self, count: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._sequences = [random.integers(1, 53, random.integers(4, 21)).astype(np.int32) for _ in range(count)]
        self.ids = [str(index) for index in range(count)]
        self.lengths = np.array([len(sequence) - 1 for sequence in self._sequences], np.int64)

    def example(self, index: int) -> tuple[Any, Any, Any]:
        """(tokens, targets, weights)."""
        sequence = self._sequences[index]
        weights = np.where(np.arange(1, len(sequence)) < 2, 0, 1 + 0.5 * (index % 2)).astype(np.float32)
        return sequence[:-1], sequence[1:], weights


@pytest.fixture(scope="session")
def batch_at() -> Callable[..., Batch]:
    """(step, pairs of rows) → two traces to a row, the last row with one."""

    def built(step: int, pairs: int = 1) -> Batch:
        count = 4 * pairs
        rows = [[first, first + 1] for first in range(0, count, 2)]
        rows[-1].pop()
        return assemble(Traces(count, step), rows, (2 * pairs, 40))

    return built


@pytest.fixture(scope="session")
def setup() -> TrainingSetup:
    """AdamW that decays matrices only, and clips hard."""
    optimizer = AdamWConfig(
        kind="adamw",
        learning_rate=1e-2,
        beta1=0.9,
        beta2=0.99,
        eps=1e-8,
        weight_decay=0.1,
        no_decay=("norms", "biases", "embeddings"),
    )
    return TrainingSetup(optimizer, clip_norm=0.5, seed=0)


@pytest.fixture(scope="session")
def decoding() -> Callable[..., GenerationConfig]:
    """GenerationConfig with changes; greedy."""

    def build(**changes: Any) -> GenerationConfig:
        values = {
            "split": "test",
            "max_new_tokens": 12,
            "temperature": 0.0,
            "top_k": None,
            "top_p": None,
            "num_return_sequences": 1,
            "batch_size": 16,
            "baseline": False,
            "max_error_rate": 0.0,
        }
        return GenerationConfig(**(values | changes))

    return build
