"""Estimates memory from shapes, checks whether it fits, and finds changes of settings that would make it fit.

Sizes are those of float32 weights, gradients and AdamW's two moments; activations come from `backends/memory.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tunix_rt.backends.memory import FLOAT, GenerationLoad, MemoryQuery, asked
from tunix_rt.config.load import check, compose
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import InputError
from tunix_rt.models.adapter import linear
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.quantize import size_of
from tunix_rt.plan.outline import Outline, outline
from tunix_rt.traces.prepared import PreparedData

Part = Literal["weights", "gradients", "optimizer", "activations", "kv_cache", "copies"]
Change = tuple[str, ...]
"""Overrides that are applied together."""


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """The memory of a device, in bytes."""

    limit: int
    overhead: int
    """Memory not derived from shapes: what is held after import, or (if measured) what a step took beyond shapes."""


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

    def fits(self, budget: MemoryBudget) -> bool:
        """Whether the largest phase and the overhead are within the limit."""
        return budget.overhead + self.peak <= budget.limit


def estimate(config: ExperimentConfig, prepared: PreparedData) -> Estimate:
    """The estimate of `config` on prepared data."""
    found = outline(config, prepared)
    if not config.training.trains:
        return Estimate(found, _phases(found.query, None), activations_known=True)
    activations = asked(config.backend.name, "activations")
    known = None if activations is None else activations(found.query)
    return Estimate(found, _phases(found.query, known or 0), known is not None)


def _phases(query: MemoryQuery, activations: int | None) -> dict[str, dict[Part, int]]:
    """`activations`: None if nothing is trained."""
    weights = _weights(query)
    phases: dict[str, dict[Part, int]] = {"load": {"weights": weights, "copies": _read(query)}}
    if activations is not None:
        trained = query.num_trained * FLOAT
        held: dict[Part, int] = {"weights": weights * (1 + query.keeps_reference), "optimizer": 2 * trained}
        if query.sampled is not None:
            phases["sample"] = held | _decoding(query, query.sampled)
        phases["train"] = held | {"gradients": trained, "activations": activations}
        phases["save"] = held | {"copies": 3 * trained}  # the snapshot that is written during training
    if query.predicted is not None:
        phases["predict"] = {"weights": weights, **_decoding(query, query.predicted)}
    return phases


def _decoding(query: MemoryQuery, load: GenerationLoad) -> dict[Part, int]:
    """Bytes that decoding takes beside the weights."""
    shape, size = query.architecture, _compute_size(query)
    longest = min(load.longest_prompt + load.max_new_tokens, shape.max_positions)
    cache = 2 * shape.num_layers * load.num_prompts * shape.num_kv_heads * longest * shape.head_dim * size
    small = () if query.quantize is None else linear(query.architecture)
    # Copied in the layout for decoding; quantised ones stay as they are.
    matrices = (_layer_matrices(query) - sum(math.prod(tensor.shape) for tensor in small)) * size
    return {"copies": matrices, "kv_cache": cache}


def _compute_size(query: MemoryQuery) -> int:
    return 2 if query.backend.precision == "bfloat16" else FLOAT


def _layer_matrices(query: MemoryQuery) -> int:
    """Elements of the matrices of all layers."""
    return sum(math.prod(tensor.shape) for tensor in tensors_of(query.architecture) if tensor.is_layer_matrix)


def _weights(query: MemoryQuery) -> int:
    """Bytes of the weights: float32, except the frozen matrices under an adapter: quantised, or as they multiply."""
    everything = query.num_parameters * FLOAT
    return everything if query.adapter is None else everything - _layer_matrices(query) * FLOAT + _frozen(query)


def _frozen(query: MemoryQuery) -> int:
    """Bytes of the matrices under an adapter; those that take none (of experts) are never quantised."""
    if query.quantize is None:
        return _layer_matrices(query) * _compute_size(query)
    small = linear(query.architecture)
    others = _layer_matrices(query) - sum(math.prod(tensor.shape) for tensor in small)
    return others * _compute_size(query) + sum(size_of(query.quantize, tensor.matrix_shape) for tensor in small)


def _read(query: MemoryQuery) -> int:
    """Bytes of the file's arrays while they are loaded: of quantised matrices the codes, and one in full."""
    everything = query.architecture.num_parameters * FLOAT
    if query.quantize is None:
        return everything
    matrices = [tensor.matrix_shape for tensor in linear(query.architecture)]
    full = [FLOAT * math.prod(shape) for shape in matrices]
    return everything - sum(full) + sum(size_of(query.quantize, shape) for shape in matrices) + max(full)


def advice(overrides: Sequence[str], found: Estimate, prepared: PreparedData, budget: MemoryBudget) -> list[Change]:
    """Changes that make the experiment fit, each by itself; if none does alone, one combination of them that does.

    Empty: nothing of this kind helps.
    """

    def fits(changes: Sequence[Change]) -> bool:
        """Whether the changed experiment fits; one with an invalid config does not."""
        change = _joined(changes)
        groups = {key for text in change if "/" in (key := text.partition("=")[0])}
        kept = [text for text in overrides if text.partition("=")[0] not in groups]
        try:
            return estimate(check(compose([*kept, *change])), prepared).fits(budget)
        except InputError:
            return False

    changes = list(_changes(found, budget))
    alone = [change for change in changes if fits([change])]
    if alone or not changes or not fits(changes):
        return alone
    for change in changes:  # drop what is not needed
        fewer = [other for other in changes if other is not change]
        changes = fewer if fits(fewer) else changes
    return [_joined(changes)]


def _joined(changes: Sequence[Change]) -> Change:
    """All changes as one; if several set the same key, the last wins."""
    return tuple({text.partition("=")[0]: text for change in changes for text in change}.values())


def _changes(found: Estimate, budget: MemoryBudget) -> Iterator[Change]:
    """Candidate changes, as overrides; the number of rows per update stays the same."""
    config = found.outline.config
    over = {name for name, total in found.totals.items() if budget.overhead + total > budget.limit}
    rows = min(config.training.global_batch_size, found.outline.query.rows_at_once or config.training.global_batch_size)
    if "train" in over and not config.backend.gradient_checkpointing:
        yield ("backend.gradient_checkpointing=true",)
    if "train" in over and rows > 1:
        fewer = max(size for size in range(1, rows) if rows % size == 0)
        for size in dict.fromkeys((fewer, 1)):
            yield (f"hardware.local_batch_size={size}",)
    if "predict" in over and config.generation.batch_size > 1:
        for size in dict.fromkeys((config.generation.batch_size // 2, 1)):
            yield (f"generation.batch_size={size}",)
    sampled = found.outline.query.sampled
    if "sample" in over and sampled is not None and sampled.num_prompts > 1:
        for size in dict.fromkeys((sampled.num_prompts // 2, 1)):
            yield (f"objective.rollout.batch_size={size}",)
    if config.backend.precision == "float32":
        yield ("backend.precision=bfloat16",)
    if config.model.adapter is None:
        yield ("model/adapter=lora",)
    elif config.model.adapter.quantize is None:
        yield ("model.adapter.quantize=nf4",)
