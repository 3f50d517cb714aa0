"""Estimates the memory of one device from shapes, and whether it is enough.

Sizes are those of float32 weights and gradients, and of what the optimizer keeps; activations come from
`backends/memory.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from tunix_rt.backends import sizes
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.memory import FLOAT, GenerationLoad, MemoryQuery, asked, largest_batch
from tunix_rt.backends.mesh import ONE_DEVICE
from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.models.adapter import linear
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.quantize import size_of
from tunix_rt.plan.outline import Outline, outline
from tunix_rt.traces.prepared import PreparedData

Part = Literal["weights", "gradients", "optimizer", "activations", "gathered", "kv_cache", "copies"]


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """The memory of a device, in bytes."""

    limit: int
    overhead: int
    """Memory not derived from shapes: what is held after import, or (if measured) what a step took beyond shapes."""
    platform: str
    shared: int | None = None
    """Memory of the machine, if its devices share it; `limit` is the part of one of them."""

    def among(self, num_devices: int) -> MemoryBudget:
        """The budget of one of so many devices."""
        return self if self.shared is None else replace(self, limit=self.shared // num_devices)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The memory that a run needs, as far as it follows from shapes."""

    outline: Outline
    phases: dict[str, dict[Part, int]]
    """Bytes on one device by phase of a run and what takes them, on top of what the process holds anyway."""
    activations_known: bool
    """False: the backend does not estimate a step's activations, and `train` is a lower bound."""

    @property
    def totals(self) -> dict[str, int]:
        """Bytes by phase."""
        return {name: sum(parts.values()) for name, parts in self.phases.items()}

    @property
    def peak(self) -> int:
        """Bytes of the largest phase."""
        return max(self.totals.values())

    @property
    def fold(self) -> Fold:
        """How the rows of an update are laid out on the devices; where nothing is trained there are none."""
        query = self.outline.query
        if not query.batches:
            return Fold(0, 0, query.mesh.num_row_ranks, 0)
        return Fold.of(len(query.batches[0].tokens), query.rows_at_once, query.mesh.num_row_ranks)

    def fits(self, budget: MemoryBudget) -> bool:
        """Whether the largest phase and the overhead are within the limit."""
        return budget.overhead + self.peak <= budget.limit


def estimate(config: ExperimentConfig, prepared: PreparedData, num_devices: int, budget: MemoryBudget) -> Estimate:
    """The estimate of `config` on prepared data and so many devices.

    With `hardware.local_batch_size=auto` of as many rows at once as a run begins with, halved until they fit.
    """
    return _fitted(config, outline(config, prepared, num_devices), budget)


def _fitted(config: ExperimentConfig, found: Outline, budget: MemoryBudget) -> Estimate:
    if not config.training.trains:
        return Estimate(found, _phases(found.query, None), activations_known=True)
    if config.hardware.local_batch_size != "auto":
        return with_rows(found, config.hardware.local_batch_size)
    query, fillable = found.query, sizes.fillable(budget.limit, budget.platform)
    most = Fold.of(len(query.batches[0].tokens), None, query.mesh.num_row_ranks).local_rows
    at_once = with_rows(found, sizes.rows_that_fit(query, found.updates.row_length, most, fillable))
    while not at_once.fits(budget) and at_once.activations_known and at_once.fold.local_rows > 1:
        at_once = with_rows(found, at_once.fold.local_rows // 2)
    return at_once


def fits(config: ExperimentConfig, prepared: PreparedData, num_devices: int, budget: MemoryBudget) -> bool:
    """Whether `config` fits. What it holds besides activations, which take their time to find, is compared first."""
    found = outline(config, prepared, num_devices)
    least = Estimate(found, _phases(found.query, 0 if config.training.trains else None), activations_known=False)
    return least.fits(budget) and _fitted(config, found, budget).fits(budget)


def with_rows(found: Outline, rows: int | None) -> Estimate:
    """The estimate of so many rows of a device at once, at most."""
    query = replace(found.query, rows_at_once=rows)
    return Estimate(replace(found, query=query), *training_phases(query))


def training_phases(query: MemoryQuery) -> tuple[dict[str, dict[Part, int]], bool]:
    """Bytes on one device by phase of a run that trains, and whether the backend estimates a step's activations."""
    activations = asked(query.backend.name, "activations")
    known = None if activations is None else _parted(query, activations(query))
    return _phases(query, known or 0), known is not None


def _parted(query: MemoryQuery, activations: int) -> int:
    """Of `activations` of a device that multiplies whole matrices, those of one that has a part of each."""
    if query.mesh.tensor == 1:
        return activations
    rows, length = largest_batch(query).tokens.shape
    whole, part = (sizes.activations(replace(query, mesh=mesh), rows, length) for mesh in (ONE_DEVICE, query.mesh))
    return activations * part // whole


def _phases(query: MemoryQuery, activations: int | None) -> dict[str, dict[Part, int]]:
    """`activations`: None if nothing is trained."""
    weights = sizes.weights(query)
    phases: dict[str, dict[Part, int]] = {"load": {"weights": weights, "copies": _read(query)}}
    if activations is not None:
        trained, moments = sizes.trained(query), sizes.moments(query)
        held: dict[Part, int] = {"weights": weights * (1 + query.keeps_reference), "optimizer": moments}
        if query.sampled is not None:
            phases["sample"] = held | _decoding(query, query.sampled)
        work: dict[Part, int] = {"gradients": trained, "activations": activations, "gathered": sizes.gathered(query)}
        phases["train"] = held | work
        phases["save"] = held | {"copies": trained + moments}  # the snapshot that is written during training
    if query.predicted is not None:
        phases["predict"] = {"weights": weights, **_decoding(query, query.predicted)}
    return phases


def _decoding(query: MemoryQuery, load: GenerationLoad) -> dict[Part, int]:
    """Bytes that decoding takes beside a device's part of the weights: it has them whole, and some of the prompts."""
    shape, size, mesh = query.architecture, sizes.compute_size(query), query.mesh
    longest = min(load.longest_prompt + load.max_new_tokens, shape.max_positions)
    prompts = -(-load.num_prompts // mesh.num_row_ranks)
    cache = 2 * shape.num_layers * prompts * shape.num_kv_heads * longest * shape.head_dim * size
    small = () if query.quantize is None else linear(query.architecture)
    # Copied in the layout for decoding; quantised ones stay as they are.
    matrices = (_layer_matrices(query) - sum(math.prod(tensor.shape) for tensor in small)) * size
    head = shape.vocab_size * shape.hidden_size * size if BACKENDS[query.backend.name].copies_head else 0
    whole = sizes.weights(replace(query, mesh=replace(mesh, shard=1))) if mesh.shard > 1 else 0
    return {"copies": matrices // mesh.tensor + head, "kv_cache": cache // mesh.tensor, "gathered": whole}


def _layer_matrices(query: MemoryQuery) -> int:
    """Elements of the matrices of all layers."""
    return sum(math.prod(tensor.shape) for tensor in tensors_of(query.architecture) if tensor.is_layer_matrix)


def _read(query: MemoryQuery) -> int:
    """Bytes of the file's arrays while a device's part is loaded: of quantised matrices the codes, and one in full."""
    everything, parts = query.architecture.num_parameters * FLOAT, query.mesh.shard * query.mesh.tensor
    if query.quantize is None:
        return everything // parts
    matrices = [tensor.matrix_shape for tensor in linear(query.architecture)]
    full = [FLOAT * math.prod(shape) for shape in matrices]
    return (everything - sum(full) + sum(size_of(query.quantize, shape) for shape in matrices)) // parts + max(full)
