"""LoRA inside the decoder: what is added to the product with a frozen matrix, and its tensors by PEFT's names.

Tensors of all layers are stacked next to the layer's weights: `qkv_0_lora_a` [L, rank, in] and `qkv_0_lora_b`
[L, out, rank] belong to the first tensor of the part `qkv`. Where a matrix has a smaller rank than in another layer, or
no adapter, both are filled up with zeros: these get no gradient, and stay zero.
Legend: L layers, A micro-batches, M matrices of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from tunix_rt.backends.jax.products import linear, rounded
from tunix_rt.backends.jax.weights import placed
from tunix_rt.backends.sampling import Rows, UInt32, dropout_keys
from tunix_rt.models.adapter import Adapter, Side, module_name, tensor_name
from tunix_rt.models.families.architecture import ROUTER, Architecture, kind_of
from tunix_rt.models.families.names import Tensor
from tunix_rt.models.folder import Float32, Weights

Params = dict[str, Any]
KEYS = "dropout_keys"
"""Name of the dropout keys among the tensors of a layer: uint32 [L, M, B, 2]; absent without dropout."""
SCALINGS = "lora_scalings"
"""Name of the factors of B A among the tensors of a layer: float32 [L, M]; absent if there is only one."""


@dataclass(frozen=True, slots=True)
class LoraSlice:
    """One matrix within a layer's part."""

    canonical_name: str
    index: int
    """Its number among the tensors of the part."""
    first: int
    """Its first row in the part."""
    rows: int

    def key(self, side: Side) -> str:
        """Name of its A or B among the tensors of a layer."""
        return f"{self.canonical_name}_{self.index}_lora_{side.lower()}"


@dataclass(frozen=True, slots=True)
class LoraLayout:
    """An adapter among the parts of the decoder; its tensors in PEFT's names, as `weights.WeightMapping`."""

    adapter: Adapter
    pieces: tuple[LoraSlice, ...]
    """Those that have an adapter in any layer."""
    matrices: tuple[tuple[Tensor, ...], ...]
    """The matrix of each piece in each layer, [L][M], with an adapter or without."""

    @classmethod
    def of(cls, adapter: Adapter, architecture: Architecture) -> LoraLayout:
        """Takes the pieces that have an adapter in any layer; all layers have the same matrices."""
        layers: dict[int, dict[LoraSlice, Tensor]] = {}
        for tensor, index, rows in placed(architecture):
            if tensor.layer is not None:
                piece = LoraSlice(tensor.canonical_name, index, rows.start, rows.stop - rows.start)
                layers.setdefault(tensor.layer, {})[piece] = tensor
        modules = set(adapter.modules)
        pieces = tuple(piece for piece in layers[0] if any(layer[piece] in modules for layer in layers.values()))
        return cls(adapter, pieces, tuple(tuple(layer[piece] for piece in pieces) for layer in layers.values()))

    def from_files(self, tensors: Mapping[str, Float32]) -> Params:
        """Tensors by PEFT's names → stacked tensors by `LoraSlice.key`."""
        stacks = {key: np.zeros((len(self.matrices), *shape), np.float32) for key, shape in self.shapes().items()}
        for name, key, layer in self.places():
            rows, columns = tensors[name].shape
            stacks[key][layer, :rows, :columns] = tensors[name]
        return {"layers": stacks}

    def to_files(self, params: Params) -> Weights:
        """The inverse: views into the arrays of `params`."""
        shapes, found = self.adapter.shapes, Weights()
        for name, key, layer in self.places():
            rows, columns = shapes[name]
            found[name] = params["layers"][key][layer, :rows, :columns]
        return found

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor of a layer."""
        shapes, found = self.adapter.shapes, dict[str, tuple[int, ...]]()
        for name, key, _ in self.places():
            found[key] = max(shapes[name], found.get(key, shapes[name]))
        return found

    def constants(self) -> Params:
        """What a layer needs besides weights and trained tensors: SCALINGS, or nothing."""
        modules = set(self.adapter.modules)
        if len({self.adapter.scaling_of(module) for module in modules}) < 2:
            return {}
        rows = [[self.adapter.scaling_of(module) for module in layer] for layer in self.matrices]
        return {SCALINGS: np.array(rows, np.float32)}

    def places(self) -> Iterator[tuple[str, str, int]]:
        """PEFT's name, key and layer of each tensor."""
        modules = set(self.adapter.modules)
        for layer, matrices in enumerate(self.matrices):
            for piece, module in zip(self.pieces, matrices, strict=True):
                for side in get_args(Side) if module in modules else ():
                    yield tensor_name(module, side), piece.key(side), layer

    def dropout_keys(self, seed: int, step: int, rows: Rows) -> UInt32 | None:
        """Keys of an update's dropout masks, uint32 [A, L, M, B, 2]; None without. `rows` [A, B]: their numbers."""
        if self.adapter.dropout == 0:
            return None
        names = [module_name(module) for layer in self.matrices for module in layer]
        found = np.moveaxis(dropout_keys(seed, step, rows, names), 2, 1)
        return found.reshape(len(rows), -1, len(self.pieces), rows.shape[1], 2)

    def add(
        self, own: str, part: Callable[[str], jax.Array], keys: jax.Array | None, x: jax.Array, y: jax.Array
    ) -> jax.Array:
        """`y` [..., rows of the part], the product of `x` [..., in] with the part `own`, plus its LoRA terms.

        `part`: returns a tensor of the layer by name; `keys`: keys of the dropout masks, uint32 [M, B, 2].
        """
        ends, parts, scalings = 0, [], self._scalings(part)
        for number, piece in enumerate(self.pieces):
            if piece.canonical_name != own:
                continue
            taken = x if keys is None else dropped(x, keys[number], self.adapter.dropout)
            low = linear(taken, part(piece.key("A")), y.dtype)
            added = linear(low, part(piece.key("B")), y.dtype).astype(jnp.float32) * scalings[number]
            to = y[..., piece.first : piece.first + piece.rows]
            parts += [y[..., ends : piece.first], rounded(to + added, y.dtype)]
            ends = piece.first + piece.rows
        return y if ends == 0 else jnp.concatenate([*parts, y[..., ends:]], axis=-1)

    def _scalings(self, part: Callable[[str], jax.Array]) -> Sequence[float] | jax.Array:
        """The factor of B A of each piece; plain numbers if all are alike."""
        found = {self.adapter.scaling_of(module) for module in self.adapter.modules}
        return part(SCALINGS) if len(found) > 1 else [*found] * len(self.pieces)


def dropped(x: jax.Array, keys: jax.Array, dropout: float) -> jax.Array:
    """`x` [B, ...] with a share `dropout` of its elements set to 0 and the others scaled up; see
    `sampling.dropout_keys`."""
    first, second = (half.reshape(-1, *[1] * (x.ndim - 1)) for half in keys.T)
    mixed = jax.lax.iota(jnp.uint32, x[0].size).reshape(x.shape[1:]) ^ first
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B) ^ second
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
    mixed = mixed ^ (mixed >> 16)
    return jnp.where(mixed >= jnp.uint32(round(dropout * 2**32)), x * (1 / (1 - dropout)), 0)


def joined(frozen: Params, trained: Params) -> Params:
    """The complete state of a decoder, from its frozen and trained tensors."""
    layers = {**frozen.get("layers", {}), **trained.get("layers", {})}
    return {**frozen, **trained, "layers": layers}


def with_dropout(whole: Params, lora: LoraLayout | None) -> Params:
    """The tensors of a decoder in training: with a place for the dropout keys, if there is dropout."""
    return whole if lora is None or lora.adapter.dropout == 0 else joined(whole, {"layers": {KEYS: jnp.zeros(0)}})


def frozen_in(params: Params, dtype: Any, constants: Params) -> Params:
    """Host arrays of a model with the layers' matrices cast to `dtype`, in which all but a router's are multiplied.

    Quantised ones stay as they are. `constants`: further tensors of the layers (`LoraLayout.constants`).
    """
    layers = params["layers"]
    full = {own for own in layers if kind_of(own) == "matrices" and not own.endswith(("_codes", "_scales"))} - {ROUTER}
    return params | {"layers": layers | {own: layers[own].astype(dtype) for own in sorted(full)} | constants}
