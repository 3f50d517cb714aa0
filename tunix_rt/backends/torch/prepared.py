"""A model's weights as decoding reads them at every token: cast, merged, joined and turned once."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from tunix_rt.backends.torch.decoder import Decoder
from tunix_rt.backends.torch.linear import packed, packs
from tunix_rt.backends.torch.products import DTYPES, matmul, rounded
from tunix_rt.backends.torch.step import capped
from tunix_rt.models.families.architecture import EXPERT
from tunix_rt.models.families.names import Tensor as Named
from tunix_rt.models.families.registry import tensors_of


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoder for generation, and its head."""

    model: Decoder
    head: Tensor
    """The matrix [V, E], rounded to the precision; packed where there is a layout for it."""

    @classmethod
    def of(cls, model: Decoder) -> Prepared:
        """In whole, whatever is shared out."""
        model = model.in_whole()
        head = rounded(model.head.detach(), DTYPES[model.precision])
        return cls(_for_decoding(model), packed(head) if packs(head) else head)

    def logits(self, hidden: Tensor) -> Tensor:
        """Of the tokens that follow: hidden states [R, E] → float32 [R, V]."""
        model = self.model
        return capped(matmul(rounded(hidden, DTYPES[model.precision]), self.head), model.architecture.logit_cap)


def _for_decoding(model: Decoder) -> Decoder:
    """The same model with its layers' matrices cast to `precision` once, not at every token.

    They are in the layout of oneDNN where it has one (`linear`), else transposed in memory, in the same shape: up to a
    fifth faster on the CPU for a few rows. Those that read the same input are one. An adapter is merged into them once,
    where that changes nothing but rounding: not in bfloat16, whose steps are larger than what an adapter adds, and not
    into quantised ones, which stay as they are.
    """
    dtype, adapter = DTYPES[model.precision], model.adapter
    held = {p.name for p in tensors_of(model.architecture) if p.is_layer_matrix and p.name in model.weights}
    merges = adapter is not None and dtype == torch.float32 and adapter.pairs.keys() <= held
    matrix = partial(_merged, model) if merges else partial(_frozen, model)
    apart = set() if adapter is None or merges else adapter.pairs.keys()
    weights, places = dict(model.weights), {}
    for (own, layer), parts in model.places.items():
        here = [place for place, _ in parts if place.name in held]
        if layer is None or not _joins(own, here, len(parts), apart):
            weights |= {place.name: _cast(matrix(place).to(dtype), place.transposed) for place in here}
            continue
        joined = _one(own, layer, here)
        weights[joined.name] = _for_few_rows(torch.cat([matrix(place).to(dtype) for place in here]))
        biases = [model.weights[bias].detach() for _, bias in parts if bias is not None]
        bias = f"{joined.name}.bias" if biases else None
        if bias is not None:
            weights[bias] = torch.cat(biases)
        weights = {name: weight for name, weight in weights.items() if name not in {place.name for place in here}}
        places[own, layer] = ((joined, bias),)
    found = replace(model, weights=weights, adapter=None if merges else adapter)
    object.__setattr__(found, "places", model.places | places)
    return found


def _joins(own: str, here: list[Named], num_parts: int, apart: Set[str]) -> bool:
    """Whether the tensors of a part can be one: not if it is experts, nor if one is quantised or has an adapter."""
    whole = len(here) == num_parts > 1 and own not in EXPERT
    return whole and not any(place.transposed or place.name in apart for place in here)


def _one(own: str, layer: int, parts: list[Named]) -> Named:
    """What holds the pieces of all of them."""
    pieces = tuple(piece for part in parts for piece in part.pieces)
    shape = (sum(rows for rows, _ in pieces), pieces[0][1])
    return Named(f"{own}.{layer}", shape, own, layer, pieces, transposed=False)


def _frozen(model: Decoder, place: Named) -> Tensor:
    return model.weights[place.name].detach()


def _merged(model: Decoder, place: Named) -> Tensor:
    """A matrix with what its adapter adds, if it has one."""
    assert model.adapter is not None
    matrix = _frozen(model, place)
    if place.name not in model.adapter.pairs:
        return matrix
    a, b = (side.detach() for side in model.adapter.pairs[place.name])
    added = b @ a * model.adapter.scalings[place.name]
    return matrix + (added.t() if place.transposed else added)


def _cast(matrix: Tensor, transposed: bool) -> Tensor:
    """A copy for `Decoder.project`, which turns what is `transposed`."""
    return matrix.contiguous() if transposed else _for_few_rows(matrix)


def _for_few_rows(matrix: Tensor) -> Tensor:
    """A copy of the same shape, in the memory layout that is fastest for products with few rows."""
    return packed(matrix) if packs(matrix) else matrix.t().contiguous().t()
