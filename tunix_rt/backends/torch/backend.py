"""The torch backend: the eight verbs, by delegation. One process, one device.

In and out: what `backends/interface.py` says. Knows nothing of text, runs or schedules.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends.interface import Backend, Int32, Piece, Placement, TrainingSetup
from tunix_rt.backends.torch import devices, generate, step, weights
from tunix_rt.backends.torch.decoder import Decoder, kinds_of
from tunix_rt.backends.torch.optimizer import AdamW
from tunix_rt.batches.batch import Batch
from tunix_rt.config.choices import Precision
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.files import JsonObject
from tunix_rt.models import folder as model_folder

Measurements = dict[str, Tensor]


@dataclass(slots=True)
class State:
    """Weights, and while training the optimizer. Steps change it in place."""

    model: Decoder
    config: JsonObject
    """config.json as `save` writes it: what was read, with the dtype of the weights."""
    stop_ids: tuple[int, ...]
    optimizer: AdamW | None = None
    clip_norm: float | None = None


def create(backend: BackendConfig, hardware: HardwareConfig, cache: Path) -> Backend:
    """Make the backend; `cache` stays unused, nothing is compiled. Raises DeviceError."""
    return TorchBackend(backend.precision, devices.select(hardware))


class TorchBackend:
    """Implements `interface.Backend`; each verb is documented there."""

    placement: Placement

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self._precision = precision
        self._device = device
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tunix_rt-save")
        self.placement = devices.placement(device, precision)

    def load(self, model_folder: Path, training: TrainingSetup | None) -> State:
        state = self._read(model_folder, model_folder, training is not None)
        if training is not None:
            state.optimizer = AdamW.fresh(training.optimizer, kinds_of(state.model), state.model.weights)
            state.clip_norm = training.clip_norm
        return state

    def restore(self, folder: Path, model_folder: Path, training: TrainingSetup) -> State:
        state = self._read(folder, model_folder, trainable=True)
        state.optimizer = weights.read_optimizer(folder, training.optimizer, kinds_of(state.model), state.model.weights)
        state.clip_norm = training.clip_norm
        return state

    def _read(self, folder: Path, origin: Path, trainable: bool) -> State:
        """Weights of `folder`; when to stop is known to `origin`, where training began."""
        with devices.memory_guard("use a smaller model"):
            model = weights.read_decoder(folder, self._device, trainable)
        config = {name: value for name, value in model_folder.read_config(folder).items() if name != "torch_dtype"}
        return State(model, config | {"dtype": "float32"}, model_folder.read_stop_ids(origin))

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        if state.optimizer is None:
            raise ValueError("this state was loaded without a TrainingSetup")
        with devices.memory_guard(_fewer_rows(batch)):
            measured = step.train_step(
                state.model, state.optimizer, batch, learning_rate, state.clip_norm, self._precision
            )
        return state, measured

    def logprobs(self, state: State, batch: Batch) -> Measurements:
        with devices.memory_guard(_fewer_rows(batch)):
            return {"logprobs": step.logprobs(state.model, batch, self._precision)}

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        return {name: value.cpu().numpy() for name, value in measurements.items()}

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        with devices.memory_guard(f"lower generation.batch_size (now {generation.batch_size})"):
            yield from generate.generate(state.model, prompts, generation, seeds, state.stop_ids, self._precision)

    def save(self, state: State, folder: Path) -> Future[None]:
        model = weights.snapshot(state.model.weights)
        optimizer = None if state.optimizer is None else weights.optimizer_snapshot(state.optimizer)
        return self._writer.submit(_write, folder, state.config, model, optimizer)

    def describe(self) -> dict[str, str]:
        return {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": ", ".join(self.placement.devices),
            "threads": str(self.placement.threads),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cuda": str(torch.version.cuda),
            "precision": self._precision,
            "weights": "float32",
        }


def _write(folder: Path, config: JsonObject, model: weights.Arrays, optimizer: weights.Arrays | None) -> None:
    model_folder.write_model(folder, config, model)
    if optimizer is not None:
        model_folder.write_weights(folder / weights.OPTIMIZER, optimizer)


def _fewer_rows(batch: Batch) -> str:
    rows, length = batch.tokens.shape[1:]
    return f"lower training.per_device_batch_size (now {rows} rows of {length} tokens in a micro-batch)"
