"""Weights split over the processes of the axis `shard`: whole only while they are used, and the next ones under way.

What is used together is gathered together: the embeddings, each layer, the last norm, the head. In the forward pass
that is their order, in the backward pass the layers are gathered again in the opposite one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tunix_rt.backends.torch.gather import Gathering, Share, whole
from tunix_rt.backends.torch.mesh import Axis
from tunix_rt.backends.torch.quantized import QuantizedMatrix
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.names import Tensor as Named
from tunix_rt.models.families.registry import tensors_of

EMBEDDING, FIRST_LAYER, NORM, HEAD = 0, 1, -2, -1
"""The uses: embeddings, layer i as FIRST_LAYER + i, last norm, head."""
Wholes = tuple[dict[str, Tensor], dict[str, QuantizedMatrix]]
"""Weights and quantised matrices by name."""


class Sharding:
    """Gathers the weights of a decoder, of which `weights` and `quantized` hold parts (see `gather.py`)."""

    def __init__(
        self,
        axis: Axis,
        architecture: Architecture,
        weights: Mapping[str, Tensor],
        quantized: Mapping[str, QuantizedMatrix],
        half: bool,
        recomputed: bool,
    ) -> None:
        """`half`: the matrices of layers are gathered in bfloat16. `recomputed`: layers are, in the backward pass."""
        self.axis = axis
        self._tensors = _uses(architecture)
        self._weights, self._quantized, self._half, self._recomputed = weights, quantized, half, recomputed
        self._under_way: tuple[int, Gathering] | None = None

    @contextmanager
    def whole(self, use: int) -> Iterator[Wholes]:
        """The whole tensors of a use. Of a layer, autograd keeps the parts alone, unless it is being recomputed."""
        use %= len(self._tensors)
        is_layer, training = self._is_layer(use), torch.is_grad_enabled()
        found = whole(self._take(use, self._after(use, backward=is_layer and training and self._recomputed)))
        if not (is_layer and training) or self._recomputed:
            yield self._named(use, found)
            return
        kept = _Released(found, lambda: self._take(use, self._after(use, backward=True)).wait())
        with saved_tensors_hooks(kept.pack, _unpack):
            yield self._named(use, found)
        kept.release()

    def gather_all(self) -> Wholes:
        """Every tensor, whole."""
        weights: dict[str, Tensor] = {}
        quantized: dict[str, QuantizedMatrix] = {}
        for use in range(len(self._tensors)):
            with torch.no_grad(), self.whole(use) as (some, matrices):
                weights, quantized = weights | some, quantized | matrices
        return weights, quantized

    def settle(self) -> None:
        """Forget what is under way: the weights change now."""
        if self._under_way is not None:
            self._under_way[1].wait()
        self._under_way = None

    def _take(self, use: int, following: int | None) -> Gathering:
        """The gathering of a use, after that of the following one has begun."""
        if self._under_way is not None and self._under_way[0] == use:
            found = self._under_way[1]
        else:
            self.settle()
            found = Gathering(self.axis, self._parts(use))
        self._under_way = None if following is None else (following, Gathering(self.axis, self._parts(following)))
        return found

    def _is_layer(self, use: int) -> bool:
        return EMBEDDING < use < len(self._tensors) + NORM

    def _after(self, use: int, backward: bool) -> int | None:
        """The use that follows; after the head that of the last layer, in the backward pass."""
        if backward:
            return use - 1 if self._is_layer(use - 1) else None
        if use + 1 < len(self._tensors):
            return use + 1
        return use - 2 if torch.is_grad_enabled() else None

    def _parts(self, use: int) -> list[Share]:
        parts = []
        for tensor in self._tensors[use]:
            if tensor.name in self._quantized:
                matrix = self._quantized[tensor.name]
                parts += [Share(x, matrix.num_rows, x.dtype) for x in (matrix.codes, matrix.scales)]
            else:
                rows = self._weights[tensor.name]
                dtype = torch.bfloat16 if self._half and tensor.is_layer_matrix else rows.dtype
                parts.append(Share(rows, tensor.shape[0], dtype))
        return parts

    def _named(self, use: int, found: tuple[Tensor, ...]) -> Wholes:
        weights: dict[str, Tensor] = {}
        quantized: dict[str, QuantizedMatrix] = {}
        tensors = iter(found)
        for tensor in self._tensors[use]:
            if tensor.name in self._quantized:
                matrix = self._quantized[tensor.name]
                quantized[tensor.name] = replace(matrix, codes=next(tensors), scales=next(tensors))
            else:
                weights[tensor.name] = next(tensors)
        return weights, quantized


def _uses(architecture: Architecture) -> list[list[Named]]:
    """The tensors in the order in which they are used; tied embeddings are used twice."""
    tensors = tensors_of(architecture)
    head = "embedding" if architecture.tie_embeddings else "head"
    layers = [[tensor for tensor in tensors if tensor.layer == layer] for layer in range(architecture.num_layers)]
    outside = [
        [tensor for tensor in tensors if tensor.canonical_name in names]
        for names in (("embedding", "positions"), ("norm", "norm_bias"), (head,))
    ]
    return [outside[0], *layers, *outside[1:]]


class _Released:
    """Whole tensors that autograd would keep; it gets them anew when the backward pass asks for the first of them.

    They go when the last thing that was saved of them has been used, since nothing else refers to this.
    """

    def __init__(self, tensors: tuple[Tensor, ...], gather: Callable[[], tuple[Tensor, ...]]) -> None:
        self._tensors: tuple[Tensor, ...] | None = tensors
        self._places = {tensor.untyped_storage().data_ptr(): place for place, tensor in enumerate(tensors)}
        self._gather = gather

    def release(self) -> None:
        self._tensors = None

    def pack(self, tensor: Tensor) -> Tensor | _View:
        place = self._places.get(tensor.untyped_storage().data_ptr())
        if place is None:
            return tensor
        return _View(self, place, tensor.shape, tensor.stride(), tensor.storage_offset())

    def tensor(self, place: int) -> Tensor:
        if self._tensors is None:
            self._tensors = self._gather()
        return self._tensors[place]


@dataclass(frozen=True, slots=True)
class _View:
    """What is saved instead of a whole tensor, or a view of it."""

    released: _Released
    place: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: Any


def _unpack(saved: Tensor | _View) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    return saved.released.tensor(saved.place).as_strided(saved.shape, saved.strides, saved.offset)
