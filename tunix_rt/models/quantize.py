"""Frozen matrices of few bits, as the base of an adapter (QLoRA, arXiv 2305.14314).

Done in numpy, so that every backend holds the same integers and the same scales. A matrix [out, in] becomes rows of
codes with a scale each, and its values are level(code) * scale:

    int8    a row is an output channel; level: the code itself, -127 to 127; scale: the largest |value| / 127
    nf4     a row is a block of 64 values of the flattened matrix, two codes to a byte, the first in the high half;
            level: one of NF4; scale: the largest |value|. The last block is filled up with zeros.

These are the codes of `bitsandbytes` (0.50): functional.int8_vectorwise_quant and quantize_4bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunix_rt.config.choices import Quantization
from tunix_rt.models.adapter import linear
from tunix_rt.models.folder import Float32, Weights, each_weight, read_architecture
from tunix_rt.models.parts import WHOLE, Part, PartOf, Shape, whole

NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
"""The levels of NormalFloat4 (appendix E): quantiles of the normal distribution, and an exact zero."""
NF4_PAIRS = np.stack([np.repeat(NF4, 16), np.tile(NF4, 16)], axis=1)
"""The two levels of each byte, float32 [256, 2]."""
BLOCK = 64
"""Values of nf4 that share a scale."""
SMALLEST = np.float32(1e-35)
"""Below this, 127 / value is not a float32."""
PORTION = 1 << 14
"""Blocks that are coded at once: what this takes stays small beside a matrix."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix [out, in]."""

    codes: np.ndarray[Any, Any]
    """int8 [out, in], or uint8 [blocks, BLOCK / 2]."""
    scales: Float32
    """Of each row of `codes`."""
    shape: tuple[int, int]

    def part(self, part: Part) -> Quantized:
        """Some rows of the codes, with their scales; `shape` stays that of the whole matrix."""
        if part == WHOLE:
            return self
        rows = Part(part.rows)
        return replace(self, codes=rows.of(self.codes).copy(), scales=rows.of(self.scales).copy())


def codes_shape(kind: Quantization, shape: tuple[int, int]) -> tuple[int, int]:
    """Shape of the codes of a matrix [out, in]; they take a byte each."""
    return shape if kind == "int8" else (-(-math.prod(shape) // BLOCK), BLOCK // 2)


def codes_dtype(kind: Quantization) -> np.dtype[Any]:
    """The dtype of the codes."""
    return np.dtype(np.int8 if kind == "int8" else np.uint8)


def size_of(kind: Quantization, shape: tuple[int, int]) -> int:
    """Bytes that a matrix [out, in] takes: codes, and scales in float32."""
    rows, width = codes_shape(kind, shape)
    return rows * (width + 4)


def quantized(matrix: Float32, kind: Quantization) -> Quantized:
    """The matrix [out, in] of finite values, rounded to the nearest levels."""
    out, width = matrix.shape
    codes, scales = _int8(matrix) if kind == "int8" else _nf4(matrix)
    return Quantized(codes, scales, (out, width))


def read_quantized(folder: Path, kind: Quantization, part_of: PartOf = whole) -> tuple[Weights, dict[str, Quantized]]:
    """The weights of a model folder: as they are, and quantised the matrices of its layers, as [out, in].

    `part_of`: which part of each; of a matrix, by the shape of its codes, which of their rows. A matrix is quantised
    whole, so that the codes do not depend on the part, but one after the other: the whole model is never in memory in
    full precision. Raises as `read_weights`.
    """
    matrices = {tensor.name: tensor for tensor in linear(read_architecture(folder))}
    full, small = Weights(), dict[str, Quantized]()

    def read(name: str, shape: Shape) -> Part:
        return WHOLE if name in matrices else part_of(name, shape)

    for name, array in each_weight(folder, read):
        if name in matrices:
            matrix = quantized(array.T if matrices[name].transposed else array, kind)
            small[name] = matrix.part(part_of(name, matrix.codes.shape))
        else:
            full[name] = array
    return full, small


def _int8(matrix: Float32) -> tuple[np.ndarray[Any, Any], Float32]:
    largest = _largest(matrix)
    codes = np.rint(matrix * (np.float32(127) / largest)[:, None]).astype(np.int8)
    return codes, largest / np.float32(127)


def _nf4(matrix: Float32) -> tuple[np.ndarray[Any, Any], Float32]:
    blocks, width = codes_shape("nf4", (matrix.shape[0], matrix.shape[1]))
    values = np.zeros((blocks, BLOCK), np.float32)
    values.reshape(-1)[: matrix.size] = matrix.reshape(-1)
    largest = _largest(values)
    codes = np.empty((blocks, width), np.uint8)
    for start in range(0, blocks, PORTION):
        part = slice(start, start + PORTION)
        nearest = _nearest(values[part] * (np.float32(1) / largest[part])[:, None])
        codes[part] = nearest[:, ::2] << 4 | nearest[:, 1::2]
    return codes, largest


def _nearest(scaled: Float32) -> np.ndarray[Any, Any]:
    """Number of the level nearest to each value, uint8."""
    found = np.zeros(scaled.shape, np.uint8)
    for bound in (NF4[:-1] + NF4[1:]) / 2:
        found += scaled > bound
    return found


def _largest(rows: Float32) -> Float32:
    """The largest |value| of each row; 1 where all are 0 (or next to it), which makes them 0."""
    found: Float32 = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    return np.where(found > SMALLEST, found, np.float32(1))
