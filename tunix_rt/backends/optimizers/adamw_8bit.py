"""AdamW with moments of 8 bits (Dettmers et al. 2021, arXiv 2110.02861): codes of a dynamic tree, scaled in blocks.

Blocks are those of the tensor in the file, row after row, as in `bitsandbytes`; an update is computed from float32
moments, whose nearest codes are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tunix_rt.backends.optimizers.adam import Adam
from tunix_rt.backends.optimizers.rule import Array, Framework, Trained
from tunix_rt.config.optimizers import AdamW8bitConfig
from tunix_rt.models.tensor_file import Specs

LEAST_SIZE = 4096
"""Numbers of a tensor from which on its moments are kept as codes."""
DIGITS = 7
"""Powers of ten that codes tell apart."""


@dataclass(frozen=True, slots=True)
class AdamW8bit:
    """Of each moment codes, shaped as the tensor, and a scale for each block; of small tensors and embeddings (3.3 of
    the paper) AdamW's moments."""

    config: AdamW8bitConfig

    def kept(self, tensor: Trained) -> Specs:
        if not _is_coded(tensor):
            return self._adam.kept(tensor)
        blocks = (-(-math.prod(tensor.shape) // self.config.block_size),)
        codes, scales = ("uint8", tensor.shape), ("float32", blocks)
        return {"m_codes": codes, "m_scales": scales, "v_codes": codes, "v_scales": scales}

    def direction(
        self, on: Framework, tensor: Trained, weight: Array, gradient: Array, kept: Mapping[str, Array], count: Array
    ) -> tuple[Array, Mapping[str, Array]]:
        if not _is_coded(tensor):
            return self._adam.direction(on, tensor, weight, gradient, kept, count)
        size = self.config.block_size
        moments: Mapping[str, Array] = {
            name: decoded(on, kept[f"{name}_codes"], kept[f"{name}_scales"], tensor, signed, size)
            for name, signed in (("m", True), ("v", False))
        }
        direction, moments = self._adam.direction(on, tensor, weight, gradient, moments, count)
        m_codes, m_scales = encoded(on, moments["m"], tensor, True, size)
        v_codes, v_scales = encoded(on, moments["v"], tensor, False, size)
        return direction, {"m_codes": m_codes, "m_scales": m_scales, "v_codes": v_codes, "v_scales": v_scales}

    @property
    def _adam(self) -> Adam:
        return Adam(self.config.beta1, self.config.beta2, self.config.eps)


def _is_coded(tensor: Trained) -> bool:
    return math.prod(tensor.shape) >= LEAST_SIZE and tensor.kind != "embeddings"


def encoded(on: Framework, x: Array, tensor: Trained, signed: bool, size: int) -> tuple[Array, Array]:
    """Codes, integers shaped as `x` [..., *shape], and scales float32 [..., blocks] of `size` numbers each."""
    blocks, values = _in_blocks(on, x, tensor, size), code_values(signed)
    scales = on.np.amax(on.np.abs(blocks), axis=-1)
    middles = on.constant((values[1:] + values[:-1]) / 2, x)
    codes = on.np.searchsorted(middles, blocks / on.np.where(scales > 0, scales, 1.0)[..., None])
    return _whole(codes, x, tensor), scales


def decoded(on: Framework, codes: Array, scales: Array, tensor: Trained, signed: bool, size: int) -> Array:
    """The numbers float32 that `encoded` codes stand for."""
    values = on.constant(code_values(signed), scales)[_in_blocks(on, codes, tensor, size)]
    return _whole(values * scales[..., None], codes, tensor)


def _in_blocks(on: Framework, x: Array, tensor: Trained, size: int) -> Array:
    """[..., *shape] → [..., blocks, size], the last block filled up with zeros."""
    number = math.prod(tensor.shape)
    flat = x.reshape(*x.shape[: x.ndim - len(tensor.shape)], number)
    if missing := -number % size:
        flat = on.np.concatenate((flat, on.np.zeros_like(flat[..., :missing])), axis=-1)
    return flat.reshape(*flat.shape[:-1], -1, size)


def _whole(blocks: Array, like: Array, tensor: Trained) -> Array:
    """The inverse, shaped as `like`."""
    flat = blocks.reshape(*blocks.shape[:-2], -1)
    return flat[..., : math.prod(tensor.shape)].reshape(like.shape)


@cache
def code_values(signed: bool) -> Any:
    """What the 256 codes stand for, float32, ascending, within [-1, 1] or [0, 1]: a dynamic tree (2.2 of the paper).

    For each power of ten below 1, the smaller the fewer, the middles of equal intervals between 0.1 and 1; 0 and 1.
    """
    found = [0.0, 1.0]
    for digit in range(DIGITS):
        ends = np.linspace(0.1, 1, 2 ** (digit if signed else digit + 1) + 1)
        middles = (ends[1:] + ends[:-1]) / 2 * 10.0 ** (digit + 1 - DIGITS)
        found += [*middles, *(-middles if signed else ())]
    return np.sort(np.array(found, np.float32))
