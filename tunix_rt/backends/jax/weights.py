"""The decoder's parameters ↔ tensors under Hugging Face names. Numpy on both sides, independent of devices.

Layout of the parameters: see `decoder`. Both directions serve the weights and the optimizer's moments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import tensor_shapes, tensors_of

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class WeightMapping:
    """Maps trained tensors to their names in files, and back: all of a model, or those of an adapter."""

    shapes: Mapping[str, tuple[int, ...]]
    """Shapes by name, as in a file."""
    to_files: Callable[[Any], dict[str, Array]]
    """Converts parameters on the host to tensors by file name."""
    from_files: Callable[[Mapping[str, Array]], dict[str, Any]]

    @classmethod
    def of(cls, architecture: Architecture) -> WeightMapping:
        """Maps every weight."""
        return cls(
            tensor_shapes(architecture),
            lambda params: to_hugging_face(params, architecture),
            lambda tensors: from_hugging_face(tensors, architecture),
        )


def from_hugging_face(tensors: Mapping[str, Array], architecture: Architecture) -> dict[str, Any]:
    """Tensors by Hugging Face name, float32 → the pure state of a `Decoder`."""
    whole: dict[str, Any] = {}
    layers: dict[str, list[list[Array]]] = {}
    for tensor in tensors_of(architecture):
        array = tensors[tensor.name]
        if tensor.layer is None:
            whole[tensor.canonical_name] = array
        else:
            stack = layers.setdefault(tensor.canonical_name, [[] for _ in range(architecture.num_layers)])
            stack[tensor.layer].append(array.T if tensor.transposed else array)
    return whole | {"layers": {own: np.stack([np.concatenate(one) for one in stack]) for own, stack in layers.items()}}


def to_hugging_face(params: Mapping[str, Any], architecture: Architecture) -> dict[str, Array]:
    """The inverse: views into the arrays of `params`, by Hugging Face name."""
    tensors: dict[str, Array] = {}
    read: dict[tuple[str, int], int] = {}
    for tensor in tensors_of(architecture):
        if tensor.layer is None:
            tensors[tensor.name] = params[tensor.canonical_name]
            continue
        first = read.get((tensor.canonical_name, tensor.layer), 0)
        rows = first + sum(piece[0] for piece in tensor.pieces)
        read[tensor.canonical_name, tensor.layer] = rows
        array = params["layers"][tensor.canonical_name][tensor.layer][first:rows]
        tensors[tensor.name] = array.T if tensor.transposed else array
    return tensors
