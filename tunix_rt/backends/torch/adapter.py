"""LoRA inside the decoder: what is added to the product with a frozen matrix.

Legend: B rows, T positions, A micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from tunix_rt.backends.sampling import Rows, dropout_keys
from tunix_rt.backends.torch.copies import on_device
from tunix_rt.models.adapter import Adapter, module_name, tensor_name
from tunix_rt.models.families.names import Tensor as Named


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter with its tensors."""

    adapter: Adapter
    tensors: dict[str, Tensor]
    """Maps PEFT's names to tensors, float32."""
    pairs: dict[str, tuple[Tensor, Tensor]]
    """Maps each matrix to its A and B."""
    scalings: dict[str, float]
    """Maps each matrix to the factor of B A."""
    keys: Mapping[str, Any] | None = None
    """Maps each matrix to the keys of its input's dropout masks in this micro-batch, uint32 [B, 2]; None: none."""

    @classmethod
    def of(cls, adapter: Adapter, arrays: Mapping[str, Any], device: torch.device, trainable: bool) -> Lora:
        """Put arrays by PEFT's names on the device."""
        tensors = {name: torch.tensor(value, device=device, requires_grad=trainable) for name, value in arrays.items()}
        pairs = {
            module.name: (tensors[tensor_name(module, "A")], tensors[tensor_name(module, "B")])
            for module in adapter.modules
        }
        return cls(adapter, tensors, pairs, {module.name: adapter.scaling_of(module) for module in adapter.modules})

    def add(self, place: Named, x: Tensor, y: Tensor) -> Tensor:
        """`y` [..., out], the product of `x` [..., in] with the matrix at `place`, plus its LoRA term, added in place.

        (A new tensor would leave holes between those kept for the backward pass: 0.25 of 1.4 GB, measured.)
        """
        pair = self.pairs.get(place.name)
        if pair is None:
            return y
        if self.keys is not None:
            x = dropped(x, self.keys[place.name], self.adapter.dropout)
        return y.add_(linear(linear(x, pair[0]), pair[1]), alpha=self.scalings[place.name])


def masked(lora: Lora | None, seed: int, step: int, rows: Rows) -> list[Lora | None]:
    """The adapter for each micro-batch of an update, with its dropout masks; `rows` [A, B]: their numbers."""
    if lora is None or lora.adapter.dropout == 0:
        return [lora] * len(rows)
    modules = lora.adapter.modules
    keys = dropout_keys(seed, step, rows, [module_name(module) for module in modules])
    names = [module.name for module in modules]
    return [replace(lora, keys=dict(zip(names, of_micro.swapaxes(0, 1), strict=True))) for of_micro in keys]


def dropped(x: Tensor, keys: Any, dropout: float) -> Tensor:
    """`x` [B, ...] with a share `dropout` of its elements 0 and the others scaled up; see `sampling.dropout_keys`.

    torch cannot shift uint32: int32 has the same bits and also wraps; masks clear the sign bits that its shifts insert.
    """
    halves = on_device(np.ascontiguousarray(keys).view(np.int32), x.device)
    first, second = halves[:, :1], halves[:, 1:]
    mixed = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device) ^ first
    mixed ^= (mixed >> 16) & 0xFFFF
    mixed.mul_(0x85EBCA6B - 2**32).bitwise_xor_(second)
    mixed ^= (mixed >> 13) & 0x7FFFF
    mixed.mul_(0xC2B2AE35 - 2**32)
    mixed ^= (mixed >> 16) & 0xFFFF
    least = round(dropout * 2**32) - 2**31  # unsigned order, obtained by flipping the sign
    kept = mixed.bitwise_xor_(-(2**31)) >= least
    return x * kept.view(x.shape) * (1 / (1 - dropout))
