"""The torch backend: the eight methods, by delegation. One process, one device.

In and out: see `backends/interface.py`. Independent of text, runs and schedules.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends import heap
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import Piece, TrainingSetup
from tunix_rt.backends.processes.world import ALONE, World
from tunix_rt.backends.shrinking import shrinking
from tunix_rt.backends.storage import Moments, Stored, StoredBackend, check_adapter
from tunix_rt.backends.torch import devices, generate, step
from tunix_rt.backends.torch.adapter import Lora, masked
from tunix_rt.backends.torch.decoder import Decoder, kinds_of
from tunix_rt.backends.torch.optimizer import AdamW
from tunix_rt.backends.torch.quantized import QuantizedMatrix
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.families.registry import tensors_of
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
        self._device = devices.select(hardware, world)
        self.placement = devices.placement(self._device, config.precision)

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
        )
        if training is None:
            return State(stored, model, None, None, 0)
        optimizer = AdamW(training.optimizer, kinds_of(model), model.trained)
        if stored.optimizer is not None:
            optimizer.load(stored.read_moments())
        return State(stored, model, training, optimizer, int(optimizer.count))

    def _weights(self, stored: Stored, trainable: bool) -> tuple[dict[str, Tensor], dict[str, QuantizedMatrix]]:
        """The weights on the device: float32, except the matrices that an adapter is on; and those quantised."""
        half = stored.adapter is not None and self._config.precision == "bfloat16"
        arrays, small = stored.read_weights()
        weights = {}
        for tensor in (tensor for tensor in tensors_of(stored.architecture) if tensor.name in arrays):
            dtype = torch.bfloat16 if half and tensor.is_layer_matrix else torch.float32
            array = arrays.pop(tensor.name)  # one by one: two complete copies are never in memory
            weights[tensor.name] = torch.tensor(array, dtype=dtype, device=self._device, requires_grad=trainable)
        return weights, {name: QuantizedMatrix.of(small.pop(name), self._device) for name in list(small)}

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        if state.optimizer is None or state.training is None:
            raise ValueError("this state was loaded without a TrainingSetup")
        heap.trim_between_phases("train_step")
        measured = shrinking(self, len(batch.tokens), partial(self._update, state, batch, learning_rate))
        state.step += 1
        return state, measured

    def _update(self, state: State, batch: Batch, learning_rate: float, fold: Fold) -> Measurements:
        assert state.optimizer is not None
        assert state.training is not None
        adapters = masked(state.model.adapter, state.training.seed, state.step, fold.rows())
        folded, clip_norm = fold.local(batch), state.training.clip_norm
        with devices.memory_guard(_fewer_rows(folded)):
            return step.train_step(state.model, state.optimizer, folded, learning_rate, clip_norm, adapters)

    def logprobs(self, state: State, batch: Batch, adapter: bool = True) -> Measurements:
        check_adapter(state.stored, adapter)
        heap.trim_between_phases("logprobs")
        model = state.model if adapter else replace(state.model, adapter=None)

        def score(fold: Fold) -> Tensor:
            folded = fold.local(batch)
            with devices.memory_guard(_fewer_rows(folded)):
                return step.logprobs(model, folded).flatten(0, 1)[: fold.num_rows]

        return {"logprobs": shrinking(self, len(batch.tokens), score)}

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        return {name: value.cpu().numpy() for name, value in measurements.items()}

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        heap.trim_between_phases("generate")
        with devices.memory_guard(f"lower generation.batch_size (now {generation.batch_size})"):
            yield from generate.generate(state.model, prompts, generation, seeds, state.stored.stop_ids)

    def _snapshot(self, state: State) -> tuple[Stored, Weights, Moments | None]:
        trained, optimizer = _copies(state.model.trained), state.optimizer
        if optimizer is None:
            return state.stored, trained, None
        moments = Moments(_copies(optimizer.first), _copies(optimizer.second), int(optimizer.count))
        return state.stored, trained, moments

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


def _copies(tensors: dict[str, Tensor]) -> Weights:
    """Copies on the host, so that later steps cannot change them."""
    return {name: np.array(value.detach().cpu().numpy()) for name, value in tensors.items()}


def _fewer_rows(batch: Batch) -> str:
    rows, length = batch.tokens.shape[1:]
    return f"lower hardware.local_batch_size (now {rows} rows of {length} tokens at once)"


create = TorchBackend
num_devices = devices.count
