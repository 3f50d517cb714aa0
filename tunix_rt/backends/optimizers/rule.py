"""What an optimizer is to the backends: what it keeps of each tensor, and in which direction a tensor is updated.

A rule computes with the functions that jax.numpy and torch share, on arrays [..., *shape]: whole tensors, along the
first axes several of one shape. Memory, files, parts of devices and restoring follow from what it says it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tunix_rt.models.adapter import Adapter
from tunix_rt.models.families.architecture import Architecture, Shape, kind_of
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.moments import Kept
from tunix_rt.models.tensor_file import Specs

Array = Any
"""float32 of jax or torch."""


@dataclass(frozen=True, slots=True)
class Framework:
    """What a rule computes with."""

    np: Any
    """jax.numpy or torch."""
    constant: Callable[[Any, Array], Array]
    """(numpy array, an array of the framework): the first, where the second is."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a rule knows of a tensor."""

    shape: Shape
    """The shape in the file."""
    kind: str
    """As in `optimizer.no_decay`."""
    inside: bool
    """Whether it is a layer's, or an adapter's; else it is of the embeddings, the last norm or the head."""

    @property
    def is_matrix(self) -> bool:
        """Whether it has rows and columns."""
        return len(self.shape) == 2


class Rule(Protocol):
    """An optimizer as the backends use it: made from its section of the config, whose fields they need not know."""

    def kept(self, tensor: Trained) -> Specs:
        """Dtype and shape of what is kept of a tensor, by name; all of it begins with zeros."""

    def direction(
        self, on: Framework, tensor: Trained, weight: Array, gradient: Array, kept: Mapping[str, Array], count: Array
    ) -> tuple[Array, Mapping[str, Array]]:
        """What is subtracted from `weight`, times the learning rate and without decay; and what is kept from now on.

        `count`: the number of this update, float32, from 1. What is kept as uint8 is passed as integers that index.
        """


def trained_tensors(architecture: Architecture, adapter: Adapter | None) -> dict[str, Trained]:
    """The tensors that are trained, by their names in files: the adapter's, or without one all."""
    if adapter is not None:
        return {name: Trained(shape, "matrices", True) for name, shape in adapter.shapes.items()}
    return {
        tensor.name: Trained(tensor.shape, kind_of(tensor.canonical_name), tensor.layer is not None)
        for tensor in tensors_of(architecture)
    }


def kept_of(rule: Rule, trained: Mapping[str, Trained]) -> Kept:
    """Everything that is kept, by its name, then by that of the tensor."""
    found: dict[str, dict[str, tuple[str, Shape]]] = {}
    for name, tensor in trained.items():
        for called, spec in rule.kept(tensor).items():
            found.setdefault(called, {})[name] = spec
    return found
