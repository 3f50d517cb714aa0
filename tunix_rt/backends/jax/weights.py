"""The decoder's parameters ↔ tensors under Hugging Face names. Numpy on both sides, independent of devices.

Layout of the parameters: see `decoder`. Both directions serve the weights and the optimizer's moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.names import Tensor
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.folder import Float32, Weights


@dataclass(frozen=True, slots=True)
class WeightMapping:
    """Maps every weight of a model."""

    architecture: Architecture

    def from_files(self, tensors: Mapping[str, Float32]) -> dict[str, Any]:
        """Tensors by Hugging Face name, float32 → the pure state of a `Decoder`, without parts that have none."""
        whole: dict[str, Any] = {}
        layers: dict[str, list[list[Float32]]] = {}
        for tensor in (tensor for tensor in tensors_of(self.architecture) if tensor.name in tensors):
            array = tensors[tensor.name]
            if tensor.layer is None:
                whole[tensor.canonical_name] = array
            else:
                stack = layers.setdefault(tensor.canonical_name, [[] for _ in self.architecture.layers])
                stack[tensor.layer].append(array.T if tensor.transposed else array)
        stacked = {own: np.stack([np.concatenate(one) for one in stack]) for own, stack in layers.items()}
        return whole | {"layers": stacked}

    def to_files(self, params: Mapping[str, Any], place: Callable[[str, int], int] = lambda own, row: row) -> Weights:
        """The inverse: views into the arrays of `params`, by Hugging Face name.

        `place(name, row)`: where a row of a tensor of the decoder lies in its array, if that holds a part of its rows.
        """
        tensors: Weights = {}
        for tensor, _, rows in placed(self.architecture):
            own, layer = tensor.canonical_name, tensor.layer
            held = slice(place(own, rows.start), place(own, rows.stop))
            array = params[own] if layer is None else params["layers"][own][layer][held]
            tensors[tensor.name] = array.T if tensor.transposed else array
        return tensors


def placed(architecture: Architecture) -> Iterator[tuple[Tensor, int, slice]]:
    """Each tensor of a model folder, with its number and its rows among the tensors of the same part and layer."""
    taken: dict[tuple[str, int | None], tuple[int, int]] = {}
    for tensor in tensors_of(architecture):
        index, first = taken.get((tensor.canonical_name, tensor.layer), (0, 0))
        end = first + sum(piece[0] for piece in tensor.pieces)
        taken[tensor.canonical_name, tensor.layer] = (index + 1, end)
        yield tensor, index, slice(first, end)
