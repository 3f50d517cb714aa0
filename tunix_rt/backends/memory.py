"""Queries to a backend about the memory of a training step, before anything is loaded. Independent of the framework.

A backend's folder may hold a file `memory.py` with three functions, each optional:

    activations(query: MemoryQuery) -> int    bytes that a step needs besides weights, gradients and moments, found
                                              from shapes alone by the compiler or by tracing the code
    device_memory(index: int) -> int          bytes of a device
    peak_memory(index: int) -> int            the most bytes that this process ever used there
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunix_rt.backends.mesh import ONE_DEVICE, MeshShape
from tunix_rt.batches.batch import Batch
from tunix_rt.config.choices import Quantization
from tunix_rt.config.execution import BackendConfig
from tunix_rt.config.optimizers import OptimizerConfig
from tunix_rt.models.adapter import Adapter
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import tensor_shapes

FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True, slots=True)
class GenerationLoad:
    """The largest batch of prompts that is answered together."""

    num_prompts: int
    longest_prompt: int
    """Length in tokens."""
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class MemoryQuery:
    """Everything that decides how much memory a run takes."""

    architecture: Architecture
    adapter: Adapter | None
    quantize: Quantization | None
    """How the matrices of the layers are held under the adapter."""
    backend: BackendConfig
    optimizer: OptimizerConfig
    batches: tuple[Batch, ...]
    """The batches of the first steps."""
    predicted: GenerationLoad | None
    rows_at_once: int | None = None
    """Rows that a device computes at once, at most; None: all."""
    sampled: GenerationLoad | None = None
    """The same while it trains, of an objective over the model's own answers."""
    keeps_reference: bool = False
    """A second model stays beside the one that is trained."""
    mesh: MeshShape = ONE_DEVICE

    @property
    def num_parameters(self) -> int:
        """Parameters of the model, including the adapter's."""
        return self.architecture.num_parameters + (self.num_trained if self.adapter else 0)

    @property
    def num_active(self) -> int:
        """How many of those a token is computed with; fewer only if there are experts."""
        return self.num_parameters - self.architecture.num_parameters + self.architecture.num_active_parameters

    @property
    def num_trained(self) -> int:
        """How many of those are trained."""
        shapes = tensor_shapes(self.architecture) if self.adapter is None else self.adapter.shapes
        return sum(math.prod(shape) for shape in shapes.values())


def largest_batch(query: MemoryQuery) -> Batch:
    """The batch with the most targets among the first: logits are what differs most between batches."""
    return max(query.batches, key=lambda batch: int((batch.weights > 0).sum()))


def asked(backend: str, function: str) -> Callable[[Any], int] | None:
    """A function of the backend's `memory.py`; None if it has none of that name."""
    module = f"tunix_rt.backends.{backend}.memory"
    try:
        found: Callable[[Any], int] | None = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    return found
