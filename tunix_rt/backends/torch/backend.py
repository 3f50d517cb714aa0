"""The torch backend: the nine methods, by delegation. One process per device.

In and out: see `backends/interface.py`. Independent of text, runs and schedules.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends import heap
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import ContinuousBatch, Piece, TrainingSetup
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.backends.optimizers.rule import trained_tensors
from tunix_rt.backends.processes.world import ALONE, World
from tunix_rt.backends.shrinking import fewer_rows, shrinking
from tunix_rt.backends.storage import Moments, Stored, StoredBackend, check_adapter
from tunix_rt.backends.torch import devices, generate, mesh, step
from tunix_rt.backends.torch.adapter import Lora, masked
from tunix_rt.backends.torch.continuous import Continuous
from tunix_rt.backends.torch.decoder import Decoder
from tunix_rt.backends.torch.gather import filled, sharded
from tunix_rt.backends.torch.likeliest import likeliest
from tunix_rt.backends.torch.optimizer import Optimizer
from tunix_rt.backends.torch.optimizer import create as create_optimizer
from tunix_rt.backends.torch.prepared import Prepared
from tunix_rt.backends.torch.quantized import QuantizedMatrix
from tunix_rt.backends.torch.sharding import Sharding
from tunix_rt.backends.torch.tensor_parallel import TensorParallel
from tunix_rt.backends.waves import Waves
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.optimizers import NEEDS_WHOLE_TENSORS
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import DeviceError
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.folder import Weights
from tunix_rt.models.parts import PartOf, Shape, whole

Measurements = dict[str, Tensor]


@dataclass(slots=True)
class State:
    """The weights and, in training, the optimizer. Steps change it in place."""

    stored: Stored
    model: Decoder
    training: TrainingSetup | None
    optimizer: Optimizer | None
    step: int
    """Number of updates done."""
    prepared: Prepared | None = None
    """What generation reads, if no update can change it."""


class TorchBackend(StoredBackend):
    """Implements `interface.Backend`; each method is documented there."""

    def __init__(self, config: BackendConfig, hardware: HardwareConfig, cache: Path, world: World = ALONE) -> None:
        """`cache` is unused, since nothing is compiled. Raises DeviceError."""
        super().__init__(hardware, world.leads)
        self._config = config
        shape = MeshShape.of(hardware.mesh, world.size)
        self._device = devices.select(hardware, world)
        self._mesh = mesh.join(world, shape, self._device)
        self.placement = devices.placement(self._device, config.precision, shape, self._mesh.everyone)
        self._divided = self._mesh.shard.size * self._mesh.tensor.size > 1
        # Where processes need each other in a step, one cannot begin it anew alone.
        self.may_shrink = self.may_shrink and not self._divided

    def _state(self, stored: Stored, adapter: Weights | None, training: TrainingSetup | None) -> State:
        lora = None
        if stored.adapter is not None and adapter is not None:
            lora = Lora.of(stored.adapter, adapter, self._device, trainable=training is not None)
        tensor = TensorParallel.of(self._mesh.tensor, stored.architecture)
        if tensor is not None and (stored.adapter is not None or stored.quantize is not None):
            raise DeviceError(
                f"hardware.mesh.tensor={tensor.axis.size}: torch shares out matrices only where they are trained "
                "themselves, without adapter and quantisation; use these devices for data or shard"
            )
        architecture = stored.architecture if tensor is None else tensor.local
        with devices.memory_guard("use a smaller model"):
            weights, quantized = self._weights(stored, architecture, trainable=training is not None and lora is None)
        model = Decoder(
            architecture=architecture,
            weights=weights,
            adapter=lora,
            precision=self._config.precision,
            quantized=quantized,
            gradient_checkpointing=self._config.gradient_checkpointing,
            sharding=self._sharding(architecture, weights, quantized),
            tensor=tensor,
        )
        if training is None:
            return State(stored, model, None, None, 0)
        if tensor is not None and not training.optimizer.elementwise:
            where = f"hardware.mesh.tensor={tensor.axis.size}, optimizer={training.optimizer.kind}"
            raise DeviceError(f"{where}: {NEEDS_WHOLE_TENSORS}")
        trained = trained_tensors(stored.architecture, stored.adapter)
        parts = self._mesh.shard if model.trains_parts else mesh.ALONE.shard
        optimizer = create_optimizer(training.optimizer, trained, model.trained, parts)
        if stored.optimizer is not None:
            optimizer.load(stored.read_moments(self._part_of(stored) if lora is None else whole))
        return State(stored, model, training, optimizer, int(optimizer.count))

    def _part_of(self, stored: Stored) -> PartOf:
        """What this process holds of each tensor: of its share along `tensor` a part of the rows."""
        if not self._divided:
            return whole
        tensor = TensorParallel.of(self._mesh.tensor, stored.architecture)
        return sharded({} if tensor is None else tensor.parts(tensor.axis.rank), self._mesh.shard)

    def _weights(
        self, stored: Stored, architecture: Architecture, trainable: bool
    ) -> tuple[dict[str, Tensor], dict[str, QuantizedMatrix]]:
        """The weights on the device: float32, except the matrices that an adapter is on; and those quantised."""
        half = stored.adapter is not None and self._config.precision == "bfloat16"
        arrays, small = stored.read_weights(self._part_of(stored))
        weights = {}
        for tensor in (tensor for tensor in tensors_of(architecture) if tensor.name in arrays):
            dtype = torch.bfloat16 if half and tensor.is_layer_matrix else torch.float32
            # One by one: two complete copies are never in memory.
            part = filled(torch.from_numpy(arrays.pop(tensor.name)), tensor.shape[0], self._mesh.shard)
            weights[tensor.name] = part.to(self._device, dtype, copy=True).requires_grad_(trainable)
        return weights, {
            name: QuantizedMatrix.of(small.pop(name), self._device, self._mesh.shard) for name in list(small)
        }

    def _sharding(
        self, architecture: Architecture, weights: dict[str, Tensor], quantized: dict[str, QuantizedMatrix]
    ) -> Sharding | None:
        if self._mesh.shard.size == 1:
            return None
        half, recomputed = self._config.precision == "bfloat16", self._config.gradient_checkpointing
        return Sharding(self._mesh.shard, architecture, weights, quantized, half, recomputed)

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        if state.optimizer is None or state.training is None:
            raise ValueError("this state was loaded without a TrainingSetup")
        heap.trim_between_phases("train_step")
        loss_sum = self._attempted(batch, partial(self._accumulated, state, state.training.seed))
        clip_norm = state.training.clip_norm
        measured = step.update(
            state.model, state.optimizer, loss_sum, batch.divisor, learning_rate, clip_norm, self._mesh
        )
        state.step += 1
        return state, measured

    def _accumulated(self, state: State, seed: int, fold: Fold, local: Batch) -> Tensor:
        adapters = masked(state.model.adapter, seed, state.step, fold.rows(self._mesh.rows.rank))
        return step.accumulate(state.model, local, adapters)

    def _attempted(self, batch: Batch, compute: Callable[[Fold, Batch], Tensor]) -> Tensor:
        """What `compute` makes of the rows of this process, [A, L, T], with fewer at once if memory is short."""
        rows = self._mesh.rows

        def attempt(fold: Fold) -> Tensor:
            local = fold.local(batch, rows.rank)
            with devices.memory_guard(f"lower {fewer_rows(fold, batch.tokens.shape[1])}"):
                return compute(fold, local)

        return shrinking(self, len(batch.tokens), attempt, rows.size, self._any_failed)

    def _any_failed(self, failed: bool) -> bool:
        if self._mesh.is_alone:
            return failed
        return bool(self._mesh.everyone.sum(torch.tensor(float(failed))))

    def logprobs(self, state: State, batch: Batch, adapter: bool = True, top: int = 0) -> Measurements:
        check_adapter(state.stored, adapter)
        heap.trim_between_phases("logprobs")
        model = state.model if adapter else replace(state.model, adapter=None)
        found = {"logprobs": self._every_row(batch, lambda local: step.logprobs(model, local))}
        if top:
            ids, values = self._every_row(batch, lambda local: likeliest(model, local, top)).unbind(2)
            found |= {"top_ids": ids.int(), "top_logprobs": values.float()}
        return found

    def _every_row(self, batch: Batch, compute: Callable[[Batch], Tensor]) -> Tensor:
        """What `compute` makes of the rows of each process, [A, L, ...], as [R, ...]."""
        found = self._attempted(batch, lambda fold, local: compute(local))
        return self._mesh.rows.gather(found).swapaxes(0, 1).flatten(0, 2)[: len(batch.tokens)]

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        return {name: value.cpu().numpy() for name, value in measurements.items()}

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        heap.trim_between_phases("generate")
        prepared = _prepared(state)
        yield from generate.generate(prepared, prompts, generation, seeds, state.stored.stop_ids, self._mesh.everyone)

    def continuous(self, state: State, rows: int) -> ContinuousBatch:
        if not self._mesh.is_alone:
            return Waves(self, state, rows)
        heap.trim_between_phases("generate")
        return Continuous(_prepared(state), rows, state.stored.stop_ids, f"answer fewer prompts at once (now {rows})")

    def _parts(self, state: State) -> PartOf | None:
        return self._part_of(state.stored) if self._divided and state.model.adapter is None else None

    def _snapshot(self, state: State) -> tuple[Stored, Weights, Moments | None]:
        optimizer, tensor = state.optimizer, state.model.tensor
        # Of those that hold the same part one writes it.
        shapes = {
            name: shape
            for name, shape in state.stored.trained_shapes.items()
            if self._mesh.data.rank == 0 and (self._mesh.tensor.rank == 0 or tensor is None or name in tensor.split)
        }
        part_of = self._parts(state) or whole
        weights = _copies(shapes, part_of, state.model.trained)
        if optimizer is None:
            return state.stored, weights, None
        kept = {}
        for kind, specs in state.stored.kept.items():
            alike = {name: shape for name, shape in shapes.items() if name in specs and specs[name][1] == shape}
            other = {name: shape for name, (_, shape) in specs.items() if name not in alike and name in shapes}
            kept[kind] = _copies(alike, part_of, optimizer.kept[kind])
            kept[kind] |= _copies(other if self._leads else {}, whole, optimizer.kept[kind])
        return state.stored, weights, Moments(kept, int(optimizer.count))

    def describe(self) -> dict[str, str]:
        return {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": ", ".join(self.placement.devices),
            "threads": str(self.placement.threads),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cuda": str(torch.version.cuda),
            "precision": self._config.precision,
            "weights": "float32",
        }


def _prepared(state: State) -> Prepared:
    """Made once, unless updates change the weights, or a process alone holds only a part of them."""
    model = state.model
    with devices.memory_guard("use a smaller model"):
        prepared = state.prepared or Prepared.of(model)
    if state.training is None and model.sharding is None and model.tensor is None:
        state.prepared = prepared
    return prepared


def _copies(shapes: Mapping[str, Shape], part_of: PartOf, tensors: dict[str, Tensor]) -> Weights:
    """Copies on the host, so that later steps cannot change them; of parts without what fills them up."""
    found: Weights = {}
    for name, shape in shapes.items():
        num_rows = part_of(name, shape).shape(shape)[0]
        found[name] = np.array(tensors[name].detach()[:num_rows].cpu().numpy())
    return found


create = TorchBackend
num_devices = devices.num_devices
leave = mesh.leave
