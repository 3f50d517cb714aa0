"""What a backend is asked about memory before anything is loaded, and what it answers: bytes by phase and by part.

In: shapes, batches and lengths. Out: `Phase`s. A backend has a memory model where its folder has a file `memory.py`
with the functions `phases` and `device_memory`. Knows no framework.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.config.training import OptimizerConfig
from tunix_rt.errors import InputError
from tunix_rt.models.adapter import Adapter
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import tensor_shapes

FLOAT = 4
"""Bytes of a float32."""
Part = Literal["weights", "gradients", "optimizer", "activations", "kv_cache", "copies", "framework"]
Parts = dict[Part, int]
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Answers:
    """One batch of answers: the largest that is asked for."""

    num_prompts: int
    longest_prompt: int
    """In tokens."""
    generation: GenerationConfig


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that decides how much memory a run takes."""

    architecture: Architecture
    adapter: Adapter | None
    backend: BackendConfig
    optimizer: OptimizerConfig
    batches: tuple[Batch, ...]
    """The first steps' batches."""
    evaluation: Batch | None
    """A batch of the validation split, where its loss is taken."""
    sampled: Answers | None
    """What is answered at an evaluation, with the state of training in memory."""
    predicted: Answers | None
    """What is answered when the model is there."""

    @property
    def num_parameters(self) -> int:
        """Of the model, with the adapter's."""
        return self.architecture.num_parameters + (self.num_trained if self.adapter else 0)

    @property
    def num_trained(self) -> int:
        """Of those, how many training changes."""
        shapes = tensor_shapes(self.architecture) if self.adapter is None else self.adapter.shapes
        return sum(math.prod(shape) for shape in shapes.values())


@dataclass(frozen=True, slots=True)
class Phase:
    """A moment of a run, with what is in memory then."""

    name: Literal["load", "train", "evaluate", "sample", "save", "predict"]
    parts: Parts
    """On one device."""

    @property
    def total(self) -> int:
        """Bytes above what is resident after import."""
        return sum(self.parts.values())


def model_of(name: str) -> Callable[[Work], list[Phase]]:
    """The memory model of a backend. Raises InputError where it has none."""
    found: Callable[[Work], list[Phase]] = _module(name).phases
    return found


def device_memory(name: str) -> Callable[[int], int]:
    """Bytes of the device with an index, of a backend that is started. Raises InputError, as `model_of`."""
    found: Callable[[int], int] = _module(name).device_memory
    return found


def _module(name: str) -> ModuleType:
    module = f"tunix_rt.backends.{name}.memory"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise InputError(
            f"backend {name!r} has no memory model ({module}): plan cannot say what it would take"
        ) from None
