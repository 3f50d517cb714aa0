"""Small random models of every family in a shape that GGUF can hold, and a folder of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import read, tensor_shapes
from tunix_rt.models.folder import Weights, stream, write_model
from tunix_rt.models.tokenizer import train_bpe, train_char

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 7}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
GEMMA = {"query_pre_attn_scalar": 6, "sliding_window": 5, "tie_word_embeddings": True}
CASES: dict[str, dict[str, Any]] = {
    "gemma2": {"model_type": "gemma2", **GEMMA},
    "gemma3": {"model_type": "gemma3_text", **GEMMA, "sliding_window_pattern": 3, "rope_local_base_freq": 100.0},
    "gpt2": {"model_type": "gpt2", "n_embd": 24, "n_layer": 3, "n_head": 4, "n_inner": 36, "n_positions": 96},
    "llama": {"model_type": "llama", "head_dim": 10},
    "llama, biases, tied": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "llama 3": {"model_type": "llama", "rope_parameters": LLAMA3 | {"original_max_position_embeddings": 32}},
    "llama, linear": {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mixtral": {"model_type": "mixtral", "sliding_window": None, "num_local_experts": 3},
    "olmo2": {"model_type": "olmo2"},
    "olmoe": {"model_type": "olmoe", **EXPERTS, "num_key_value_heads": 4},
    "qwen2": {"model_type": "qwen2"},
    "qwen2_moe": {"model_type": "qwen2_moe", **EXPERTS, "shared_expert_intermediate_size": 9},
    "qwen3": {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "qwen3, yarn": {
        "model_type": "qwen3",
        "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    },
    "qwen3_moe": {"model_type": "qwen3_moe", **EXPERTS, "norm_topk_prob": True},
    "smollm3": {"model_type": "smollm3"},
}
BYTES = ("qwen2", "qwen2_moe", "qwen3", "qwen3, yarn", "qwen3_moe", "gpt2")
"""Families whose tokenizers are byte-level for transformers, whatever is written."""
TEXTS = ["a cat sat, a cat is at it", "12 and 345", "the end of the other theme"]


def config_of(case: str, **changes: Any) -> dict[str, Any]:
    """A whole config.json."""
    given = CASES[case]
    base = {} if given["model_type"] == "gpt2" else SIZES
    return base | {"vocab_size": 300} | given | changes


def random(architecture: Architecture) -> Weights:
    """Weights from a stream for each tensor."""
    shapes = tensor_shapes(architecture)
    return {name: stream(0, name).standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def make(folder: Path, case: str, **changes: Any) -> Path:
    """A model folder with random weights and a tokenizer."""
    config = config_of(case, **changes)
    write_model(folder, config, random(read(config, case)))
    if case in BYTES:
        train_bpe(TEXTS, 290, folder, model_type=config["model_type"])
    else:
        train_char([], "".join(map(chr, range(32, 127))) + "\né", folder)
    return folder
