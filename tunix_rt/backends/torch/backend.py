"""The torch backend: the eight methods, by delegation. One process per device.

In and out: see `backends/interface.py`. Independent of text, runs and schedules.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends import heap
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import Piece, TrainingSetup
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.backends.processes.world import ALONE, World
from tunix_rt.backends.storage import Moments, Stored, StoredBackend, check_adapter
from tunix_rt.backends.torch import devices, generate, mesh, step
from tunix_rt.backends.torch.adapter import Lora, masked
from tunix_rt.backends.torch.decoder import Decoder, kinds_of
from tunix_rt.backends.torch.gather import part_of
from tunix_rt.backends.torch.optimizer import AdamW
from tunix_rt.backends.torch.quantized import QuantizedMatrix
from tunix_rt.backends.torch.sharding import Sharding
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import tensor_shapes, tensors_of
from tunix_rt.models.folder import Weights

Measurements = dict[str, Tensor]


@dataclass(slots=True)
class State:
    """The weights and, in training, the optimizer. Steps change it in place."""

    stored: Stored
    model: Decoder
    training: TrainingSetup | None
    optimizer: AdamW | None
    step: int
    """Number of updates done."""


class TorchBackend(StoredBackend):
    """Implements `interface.Backend`; each method is documented there."""

    def __init__(self, config: BackendConfig, hardware: HardwareConfig, cache: Path, world: World = ALONE) -> None:
        """`cache` is unused, since nothing is compiled. Raises DeviceError."""
        super().__init__(hardware)
        self._config = config
        shape = MeshShape.of(hardware.mesh, world.size)
        self._device = devices.select(hardware, world)
        self._mesh = mesh.join(world, shape, self._device)
        self.placement = devices.placement(self._device, config.precision, shape, self._mesh.everyone)

    def _state(self, stored: Stored, adapter: Weights | None, training: TrainingSetup | None) -> State:
        lora = None
        if stored.adapter is not None and adapter is not None:
            lora = Lora.of(stored.adapter, adapter, self._device, trainable=training is not None)
        with devices.memory_guard("use a smaller model"):
            weights, quantized = self._weights(stored, trainable=training is not None and lora is None)
        model = Decoder(
            architecture=stored.architecture,
            weights=weights,
            adapter=lora,
            precision=self._config.precision,
            quantized=quantized,
            gradient_checkpointing=self._config.gradient_checkpointing,
            sharding=self._sharding(stored.architecture, weights, quantized),
        )
        if training is None:
            return State(stored, model, None, None, 0)
        optimizer = AdamW(training.optimizer, kinds_of(model), model.trained)
        if stored.optimizer is not None:
            axis = self._mesh.shard if model.trains_parts else mesh.ALONE.shard
            optimizer.load(stored.read_moments(), lambda moment: part_of(moment, axis))
        return State(stored, model, training, optimizer, int(optimizer.count))

    def _weights(self, stored: Stored, trainable: bool) -> tuple[dict[str, Tensor], dict[str, QuantizedMatrix]]:
        """The weights on the device: float32, except the matrices that an adapter is on; and those quantised."""
        half = stored.adapter is not None and self._config.precision == "bfloat16"
        arrays, small = stored.read_weights()
        weights = {}
        for tensor in (tensor for tensor in tensors_of(stored.architecture) if tensor.name in arrays):
            dtype = torch.bfloat16 if half and tensor.is_layer_matrix else torch.float32
            # One by one: two complete copies are never in memory.
            array = part_of(torch.from_numpy(arrays.pop(tensor.name)), self._mesh.shard)
            weights[tensor.name] = array.to(self._device, dtype, copy=True).requires_grad_(trainable)
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
        fold, folded = self._folded(batch)
        adapters = masked(state.model.adapter, state.training.seed, state.step, fold.rows(self._mesh.rows.rank))
        clip_norm = state.training.clip_norm
        with devices.memory_guard(_fewer_rows(folded)):
            measured = step.train_step(
                state.model, state.optimizer, folded, learning_rate, clip_norm, adapters, self._mesh
            )
        state.step += 1
        return state, measured

    def logprobs(self, state: State, batch: Batch, adapter: bool = True) -> Measurements:
        check_adapter(state.stored, adapter)
        heap.trim_between_phases("logprobs")
        (fold, folded), model = self._folded(batch), state.model
        with devices.memory_guard(_fewer_rows(folded)):
            found = step.logprobs(model if adapter else replace(model, adapter=None), folded)
        return {"logprobs": self._mesh.rows.gather(found).swapaxes(0, 1).flatten(0, 2)[: fold.num_rows]}

    def _folded(self, batch: Batch) -> tuple[Fold, Batch]:
        """How the rows are shared out, and those of this process, [A, L, T]."""
        rows = self._mesh.rows
        fold = Fold.of(len(batch.tokens), self.rows_at_once, rows.size)
        return fold, fold.local(batch, rows.rank)

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        return {name: value.cpu().numpy() for name, value in measurements.items()}

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        heap.trim_between_phases("generate")
        with devices.memory_guard(f"lower generation.batch_size (now {generation.batch_size})"):
            yield from generate.generate(
                state.model, prompts, generation, seeds, state.stored.stop_ids, self._mesh.rows
            )

    def save(self, state: State, folder: Path) -> Future[dict[str, str]]:
        if self._mesh.everyone.rank == 0:
            return super().save(state, folder)
        self._snapshot(state)  # its parts are gathered
        nothing: Future[dict[str, str]] = Future()
        nothing.set_result({})
        return nothing

    def _snapshot(self, state: State) -> tuple[Stored, Weights, Moments | None]:
        trained, optimizer = self._copies(state, state.model.trained), state.optimizer
        if optimizer is None:
            return state.stored, trained, None
        first, second = (self._copies(state, moments) for moments in (optimizer.first, optimizer.second))
        moments = Moments(first, second, int(optimizer.count))
        return state.stored, trained, moments

    def _copies(self, state: State, tensors: dict[str, Tensor]) -> Weights:
        """Copies on the host, so that later steps cannot change them; parts are gathered, one tensor at a time."""
        found: Weights = {}
        for name, value in tensors.items():
            value = value.detach()
            if state.model.trains_parts:
                num_rows = tensor_shapes(state.stored.architecture)[name][0]
                value = self._mesh.shard.gather(value).flatten(0, 1)[:num_rows]
            found[name] = np.array(value.cpu().numpy())
        return found

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


def _fewer_rows(batch: Batch) -> str:
    rows, length = batch.tokens.shape[1:]
    return f"lower hardware.local_batch_size (now {rows} rows of {length} tokens at once)"


create = TorchBackend
