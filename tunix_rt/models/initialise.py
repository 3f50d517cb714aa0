"""Seed → fresh weights, written once as a model folder, so that every backend starts from the same numbers.

Each tensor has its own random stream, named by the seed and the tensor: neither order nor number of the
others matters. Knows shapes and names, no framework.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np

from tunix_rt.config.model import FreshModel
from tunix_rt.models.families import llama
from tunix_rt.models.families.architecture import Architecture, Rope, kind_of
from tunix_rt.models.families.fields import alike
from tunix_rt.models.families.names import Tensor
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.folder import Float32, write_generation_config, write_model

RESIDUAL = ("out", "down")
"""Own names of the matrices that write into the residual stream."""


def write_fresh(folder: Path, source: FreshModel, vocab_size: int, seed: int, pad_id: int, end_id: int) -> None:
    """Write config.json, generation_config.json and model.safetensors of an untrained model.

    Matrices are normal(0, `initializer_range`); with `scale_residual_init` those that write into the residual
    stream are divided by sqrt(2 * layers) (GPT-2, Radford et al. 2019, section 2.3); norms are one.
    """
    architecture = architecture_of(source, vocab_size)
    weights = {tensor.name: _draw(tensor, source, seed) for tensor in tensors_of(architecture)}
    config = llama.to_config(architecture, end_ids=(end_id,), pad_id=pad_id, initializer_range=source.initializer_range)
    write_model(folder, config, weights)
    write_generation_config(folder, (end_id,), pad_id)


def architecture_of(source: FreshModel, vocab_size: int) -> Architecture:
    """The declared architecture with the tokenizer's vocabulary."""
    width = source.hidden_size // source.num_attention_heads
    return Architecture(
        family=source.family,
        vocab_size=vocab_size,
        hidden_size=source.hidden_size,
        intermediate_size=source.intermediate_size,
        num_heads=source.num_attention_heads,
        num_kv_heads=source.num_key_value_heads,
        head_dim=width,
        max_positions=source.max_position_embeddings,
        layers=alike(source.num_hidden_layers, Rope(source.rope_theta)),
        norm_eps=source.rms_norm_eps,
        tie_embeddings=source.tie_word_embeddings,
        attention_scale=width**-0.5,
    )


def _draw(tensor: Tensor, source: FreshModel, seed: int) -> Float32:
    if kind_of(tensor.own) == "norms":
        return np.ones(tensor.shape, dtype=np.float32)
    scale = source.initializer_range
    if source.scale_residual_init and tensor.own in RESIDUAL:
        scale /= math.sqrt(2 * source.num_hidden_layers)
    stream = int.from_bytes(hashlib.sha256(tensor.name.encode()).digest()[:16], "little")
    generator = np.random.default_rng([seed, stream])
    return generator.standard_normal(tensor.shape, dtype=np.float32) * np.float32(scale)
