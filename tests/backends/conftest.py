"""Tiny Llama folders that transformers itself wrote, in awkward shapes, and batches of random traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunix_rt.backends.torch  # noqa: F401 (before any test module loads torch: it says how torch's threads wait)
from tunix_rt.batches.batch import Batch
from tunix_rt.config.optimizers import AdamWConfig
from tunix_rt.config.results import GenerationConfig

SHAPES: dict[str, dict[str, Any]] = {
    "tied, grouped": {"vocab_size": 53, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "untied, wide heads": {"vocab_size": 61, "num_key_value_heads": 6, "tie_word_embeddings": False, "head_dim": 10},
}


def write_llama(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A random model with its config and generation config, written by transformers."""
    import torch
    import transformers

    torch.manual_seed(seed)
    numbers = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "max_position_embeddings": 96,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.3,
        "eos_token_id": [1, 3],
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    config = transformers.LlamaConfig(**(numbers | changes))
    model = transformers.LlamaForCausalLM(config)
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.normal_(weight, 1.0, 0.3)
    model.generation_config.eos_token_id = config.eos_token_id
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each of SHAPES."""
    return {name: write_llama(tmp_path_factory.mktemp("llama"), **shape) for name, shape in SHAPES.items()}


@pytest.fixture(params=SHAPES)
def llama(request: pytest.FixtureRequest, llamas: dict[str, Path]) -> Path:
    """Each model folder in turn."""
    return llamas[request.param]


@pytest.fixture(scope="session")
def small_llama(llamas: dict[str, Path]) -> Path:
    """The tied model with grouped heads."""
    return llamas["tied, grouped"]


@pytest.fixture(scope="session")
def tame_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of ordinary size, for what is promised only of ordinary logits."""
    shape = SHAPES["tied, grouped"] | {"initializer_range": 0.1}
    return write_llama(tmp_path_factory.mktemp("tame"), **shape)


Traces = list[np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def traces() -> Traces:
    """16 random sequences of 4 to 20 ids from 1 to 52 (transformers gives the padding id 0 no gradient)."""
    random = np.random.default_rng(7)
    return [random.integers(1, 53, random.integers(4, 21)).astype(np.int32) for _ in range(16)]


PROMPT = 2
"""Ids of each trace that are no targets."""


@pytest.fixture(scope="session")
def batch_of() -> Callable[[Sequence[Sequence[Any]], int], Batch]:
    """(traces of each row, T) → Batch, one trace behind the other."""

    def build(rows: Sequence[Sequence[Any]], length: int) -> Batch:
        shape = (len(rows), length)
        tokens, targets, positions, segments = (np.zeros(shape, np.int32) for _ in range(4))
        weights = np.zeros(shape, np.float32)
        for index, row in enumerate(rows):
            start = 0
            for number, ids in enumerate(row, start=1):
                part = (index, slice(start, start + len(ids) - 1))
                tokens[part], targets[part] = ids[:-1], ids[1:]
                positions[part], segments[part] = np.arange(len(ids) - 1), number
                weights[part] = np.where(np.arange(1, len(ids)) < PROMPT, 0, 1 + 0.5 * (number % 2))
                start += len(ids) - 1
        return Batch.supervised(tokens, targets, positions, segments, weights)

    return build


@pytest.fixture(scope="session")
def adamw() -> Callable[..., AdamWConfig]:
    """AdamWConfig with changes."""

    def build(**changes: Any) -> AdamWConfig:
        values = {
            "kind": "adamw",
            "learning_rate": 1e-2,
            "beta1": 0.9,
            "beta2": 0.99,
            "eps": 1e-8,
            "weight_decay": 0.1,
            "no_decay": ("norms", "biases"),
        }
        return AdamWConfig(**(values | changes))

    return build


@pytest.fixture(scope="session")
def decoding() -> Callable[..., GenerationConfig]:
    """GenerationConfig with changes; greedy."""

    def build(**changes: Any) -> GenerationConfig:
        values = {
            "split": "test",
            "max_new_tokens": 24,
            "temperature": 0.0,
            "top_k": None,
            "top_p": None,
            "num_return_sequences": 1,
            "batch_size": 8,
            "baseline": False,
            "max_error_rate": 0.0,
        }
        return GenerationConfig(**(values | changes))

    return build
