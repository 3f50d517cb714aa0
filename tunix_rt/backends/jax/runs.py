"""The tensors of a model folder within the decoder's stacked ones: those of one shape together, as arrays [N, *shape].

A part holds the rows of several tensors, for every layer (`weights`). An optimizer that needs a tensor whole takes it
from there; N are all layers, times the equal tensors that follow each other in a part, such as experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp

from tunix_rt.backends.jax.adapter import LoraLayout
from tunix_rt.backends.jax.weights import WeightMapping, placed
from tunix_rt.backends.optimizers.rule import Trained
from tunix_rt.models.families.architecture import Shape

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """Tensors of one shape that lie one behind the other, in each of some layers."""

    own: str
    """The part."""
    layers: tuple[int, ...] | None
    """None: the part is outside of the layers."""
    first: int
    """Their first row."""
    count: int
    """How many of them a layer has."""
    tensor: Trained
    """Any one of them."""
    transposed: bool
    """Files have the other orientation."""
    names: tuple[str, ...] = field(compare=False)
    """Of all N in files, layer by layer."""

    @property
    def key(self) -> str:
        """A name that no other run of the decoder has."""
        return f"{self.own} {self.first} {0 if self.layers is None else self.layers[0]}"

    @property
    def sides(self) -> Shape:
        """The shape of each within the part."""
        return self.tensor.shape[::-1] if self.transposed else self.tensor.shape

    def take(self, params: Params) -> jax.Array:
        """[N, *shape as in files]."""
        array = params["layers"][self.own] if self.layers is not None else params[self.own][None]
        found: jax.Array = array[self._place].reshape(-1, *self.sides)
        return found.mT if self.transposed else found

    def put(self, params: Params, values: jax.Array) -> None:
        """The inverse: replaces the part by one with these values in it."""
        inside = self.layers is not None
        array = params["layers"][self.own] if inside else params[self.own][None]
        values = values.mT if self.transposed else values
        place = self._place
        whole = array.at[place].set(values.reshape(len(self.names) // self.count, -1, *self.sides[1:]))
        if inside:
            params["layers"][self.own] = whole
        else:
            params[self.own] = whole[0]

    @property
    def _place(self) -> tuple[Any, ...]:
        layers: Any = jnp.array(self.layers) if self.layers is not None else slice(None)
        if self.layers is not None and self.layers == tuple(range(self.layers[-1] + 1)):
            layers = slice(self.layers[-1] + 1)
        rows = slice(self.first, self.first + self.count * self.sides[0])
        return layers, rows, *(slice(side) for side in self.sides[1:])


def runs_of(names: WeightMapping | LoraLayout, trained: Mapping[str, Trained]) -> tuple[Run, ...]:
    """All tensors that are trained, each in one run."""
    found: dict[Run, Run] = {}
    for run in _in_each_layer(names, trained):
        alike = replace(run, layers=None)
        known = found.get(alike)
        if known is None or known.layers is None or run.layers is None:
            found[alike] = run
        else:
            found[alike] = replace(known, layers=known.layers + run.layers, names=known.names + run.names)
    return tuple(found.values())


def _in_each_layer(names: WeightMapping | LoraLayout, trained: Mapping[str, Trained]) -> Iterator[Run]:
    """The runs of one layer each, and those outside of the layers."""
    singles = sorted(_singles(names, trained), key=lambda run: (run.own, run.layers or (), run.first))
    for _, equal in groupby(singles, lambda run: (run.own, run.layers, run.tensor, run.transposed)):
        several = tuple(equal)
        yield replace(several[0], count=len(several), names=tuple(name for run in several for name in run.names))


def _singles(names: WeightMapping | LoraLayout, trained: Mapping[str, Trained]) -> Iterator[Run]:
    """Each tensor as a run of its own."""
    if isinstance(names, LoraLayout):
        for name, key, layer in names.places():
            yield Run(key, (layer,), 0, 1, trained[name], False, (name,))
        return
    for tensor, _, rows in placed(names.architecture):
        layers = None if tensor.layer is None else (tensor.layer,)
        known = trained[tensor.name]
        yield Run(tensor.canonical_name, layers, rows.start, 1, known, tensor.transposed, (tensor.name,))
