"""Quantised matrices: the codes, scales and values of `bitsandbytes`, and one matrix at a time in memory."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.quantized import values_of
from tunix_rt.backends.jax.quantized import dequantized
from tunix_rt.backends.torch.quantized import QuantizedMatrix
from tunix_rt.config.choices import Quantization
from tunix_rt.files import write_json
from tunix_rt.models.families.registry import read, tensor_shapes
from tunix_rt.models.quantize import quantized, read_quantized, size_of

KINDS: tuple[Quantization, ...] = get_args(Quantization)
NUMBERS = np.arange(7 * 19)
MATRIX = (((NUMBERS**2 * 41 + NUMBERS * 11) % 2001 - 1000) / 997).astype(np.float32).reshape(7, 19)
"""133 values: two blocks of nf4, and a third that is not full."""
BLOCKS = bytes.fromhex(
    "001248d04c18081b40c7310ffff125ae17e3d2d40b41eca86679be039e2b191b3fa41fdba9abde139e2a07091d61fc96433469cf"
    "16d19080a2ea41fdcbabcef15bf4c7"
)
BLOCK_SCALES = (1.0030090808868408, 0.9799398183822632, 0.9869608879089355)
CHANNELS = bytes.fromhex(
    "818899b4da0a458cdb359b0a85099931d6853c00cea6897870727f96b8e41b5da8ff60cb41c14ce1812be09f693d1c05f9f70013"
    "31598cc91071b52c88178b32bf7e22d3907f5435221b2031466b94cf1463b81d87028111a64cf6ab713c11f0dacfcfdbf214417a"
    "abfa54a71881098826bd6a1cd9a074503728242b3c587eade82e7fd83e"
)
CHANNEL_SCALES = (1.003009, 0.9919759, 0.995988, 0.8655968, 0.9729187, 0.9267803, 0.9869609)
"""What bitsandbytes 0.50.2 makes of MATRIX on the CPU: functional.quantize_4bit(MATRIX, blocksize=64,
quant_type="nf4"), and functional.int8_vectorwise_quant(MATRIX), whose scale is the largest absolute value itself."""


def test_the_integers_and_scales_are_those_of_bitsandbytes() -> None:
    blocks, channels = quantized(MATRIX, "nf4"), quantized(MATRIX, "int8")
    assert blocks.codes.tobytes()[: len(BLOCKS)] == BLOCKS
    assert tuple(blocks.scales.tolist()) == BLOCK_SCALES
    assert channels.codes.tobytes() == CHANNELS
    np.testing.assert_allclose(channels.scales * 127, CHANNEL_SCALES, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_both_backends_compute_the_same_values_which_are_near(kind: Quantization) -> None:
    """Half the widest step between levels, times the scale: 0.152 of nf4, 1 / 254 of int8."""
    matrix, below = quantized(MATRIX, kind), quantized(MATRIX[:3] * 2, kind)
    expected = values_of(matrix)
    scale = np.abs(MATRIX).max()
    assert np.abs(expected - MATRIX).max() <= scale * (0.1521 if kind == "nf4" else 1 / 253)
    found = QuantizedMatrix.of(matrix, torch.device("cpu")).dequantized().numpy()
    np.testing.assert_array_equal(found, expected)
    codes, scales = (np.concatenate(pair) for pair in ((matrix.codes, below.codes), (matrix.scales, below.scales)))
    both = np.asarray(dequantized(jnp.asarray(codes), jnp.asarray(scales), (matrix.shape, below.shape)))
    np.testing.assert_array_equal(both, np.concatenate([expected, values_of(below)]))


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_and_one_large_value(kind: Quantization) -> None:
    matrix = np.zeros((3, 64), np.float32)
    matrix[1, 5], matrix[2, 7] = -3e38, 1e-38
    found = values_of(quantized(matrix, kind))
    assert not found[0].any() and found[1, 5] == pytest.approx(-3e38) and np.count_nonzero(found) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_quantised_matrix_by_matrix(kind: Quantization, tmp_path: Path) -> None:
    """Prevents: a base that fits into memory when it is held, and not while it is loaded."""
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 16, "num_attention_heads": 2}
    config = {"model_type": "llama", "vocab_size": 32, "tie_word_embeddings": True, "rms_norm_eps": 1e-5} | sizes
    write_json(tmp_path / "config.json", config)
    shapes = tensor_shapes(read(config, "here"))
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "model.safetensors")
    tracemalloc.start()
    whole, small = read_quantized(tmp_path, kind)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert whole.keys() | small.keys() == shapes.keys() and all("proj" in name for name in small)
    held = sum(matrix.codes.nbytes + matrix.scales.nbytes for matrix in small.values())
    assert held == sum(size_of(kind, matrix.shape) for matrix in small.values())
    full = 4 * sum(math.prod(shape) for shape in shapes.values())
    assert held < full * (0.15 if kind == "nf4" else 0.27)
    assert peak < held + 0.25 * full
