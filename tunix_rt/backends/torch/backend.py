"""The torch backend: the eight methods, by delegation. One process, one device.

In and out: see `backends/interface.py`. Independent of text, runs and schedules.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends import heap
from tunix_rt.backends.interface import Backend, Piece, Placement, TrainingSetup
from tunix_rt.backends.torch import devices, generate, step, weights
from tunix_rt.backends.torch.adapter import Lora, masked
from tunix_rt.backends.torch.decoder import Decoder, kinds_of
from tunix_rt.backends.torch.optimizer import AdamW
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.files import JsonObject
from tunix_rt.models import folder as model_folder
from tunix_rt.models.adapter import Adapter
from tunix_rt.models.adapter_folder import Base, check_base, read_adapter, read_base, start, write_adapter
from tunix_rt.models.folder import OPTIMIZER, Weights
from tunix_rt.models.tensor_file import write_weights

Measurements = dict[str, Tensor]


@dataclass(slots=True)
class State:
    """The weights and, in training, the optimizer. Steps change it in place."""

    model: Decoder
    config: JsonObject
    """config.json as `save` writes it: as it was read, with the dtype of the weights."""
    stop_ids: tuple[int, ...]
    training: TrainingSetup | None = None
    base: Base | None = None
    """The adapter's base, if there is one."""
    optimizer: AdamW | None = None
    step: int = 0
    """Number of updates done."""


def create(backend: BackendConfig, hardware: HardwareConfig, cache: Path) -> Backend:
    """Create the backend; `cache` is unused, since nothing is compiled. Raises DeviceError."""
    return TorchBackend(backend, devices.select(hardware))


class TorchBackend:
    """Implements `interface.Backend`; each method is documented there."""

    placement: Placement

    def __init__(self, config: BackendConfig, device: torch.device) -> None:
        self._precision = config.precision
        self._gradient_checkpointing = config.gradient_checkpointing
        self._device = device
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tunix_rt-save")
        self.placement = devices.placement(device, config.precision)

    def load(self, model_folder: Path, training: TrainingSetup | None, adapter: Path | None = None) -> State:
        state = self._read(model_folder, model_folder, training, frozen=adapter is not None)
        architecture = state.model.architecture
        if training is not None and training.adapter is not None:
            self._attach_adapter(
                state, start(training.adapter.config, architecture, training.seed), training.adapter.base
            )
        elif adapter is not None:
            self._attach_adapter(state, read_adapter(adapter, architecture), read_base(adapter))
        if training is not None:
            state.optimizer = AdamW.fresh(training.optimizer, kinds_of(state.model), state.model.trained)
        return state

    def restore(self, folder: Path, model_folder: Path, training: TrainingSetup) -> State:
        if training.adapter is None:
            state = self._read(folder, model_folder, training)
        else:
            base = training.adapter.base
            check_base(folder, model_folder, base.sha256)
            state = self._read(model_folder, model_folder, training)
            self._attach_adapter(state, read_adapter(folder, state.model.architecture), base)
        kinds = kinds_of(state.model)
        state.optimizer = weights.read_optimizer(folder, training.optimizer, kinds, state.model.trained)
        state.step = int(state.optimizer.count)
        return state

    def _read(self, folder: Path, origin: Path, training: TrainingSetup | None, frozen: bool = False) -> State:
        """Read the weights of `folder`, and the stop ids of `origin`, the model that training began with."""
        heap.trim_between_phases("load")
        frozen = frozen or (training is not None and training.adapter is not None)
        matrices = torch.bfloat16 if frozen and self._precision == "bfloat16" else torch.float32
        with devices.memory_guard("use a smaller model"):
            read = weights.read_decoder(folder, self._device, training is not None and not frozen, matrices)
        model = replace(read, gradient_checkpointing=self._gradient_checkpointing)
        return State(model, model_folder.config_to_save(folder), model_folder.read_stop_ids(origin), training)

    def _attach_adapter(self, state: State, found: tuple[Adapter, Weights], base: Base) -> None:
        """Attach an adapter to frozen weights."""
        lora = Lora.of(*found, self._device, trainable=state.training is not None)
        state.model, state.base = replace(state.model, adapter=lora), base

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        if state.optimizer is None or state.training is None:
            raise ValueError("this state was loaded without a TrainingSetup")
        heap.trim_between_phases("train_step")
        adapters = masked(state.model.adapter, state.training.seed, state.step, len(batch.tokens))
        with devices.memory_guard(_fewer_rows(batch)):
            measured = step.train_step(
                state.model,
                state.optimizer,
                batch,
                learning_rate,
                state.training.clip_norm,
                self._precision,
                adapters,
            )
        state.step += 1
        return state, measured

    def logprobs(self, state: State, batch: Batch) -> Measurements:
        heap.trim_between_phases("logprobs")
        with devices.memory_guard(_fewer_rows(batch)):
            return {"logprobs": step.logprobs(state.model, batch, self._precision)}

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        return {name: value.cpu().numpy() for name, value in measurements.items()}

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        heap.trim_between_phases("generate")
        with devices.memory_guard(f"lower generation.batch_size (now {generation.batch_size})"):
            yield from generate.generate(state.model, prompts, generation, seeds, state.stop_ids, self._precision)

    def save(self, state: State, folder: Path) -> Future[dict[str, str]]:
        heap.trim_between_phases("save")
        trained = weights.snapshot(state.model.trained)
        optimizer = None if state.optimizer is None else weights.optimizer_snapshot(state.optimizer)
        return self._writer.submit(_write, folder, state, trained, optimizer)

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


def _write(folder: Path, state: State, trained: weights.Arrays, optimizer: weights.Arrays | None) -> dict[str, str]:
    lora = state.model.adapter
    if lora is None or state.base is None:
        files = model_folder.write_model(folder, state.config, trained)
    else:
        files = write_adapter(folder, state.model.architecture, lora.adapter, trained, state.base)
    return files if optimizer is None else files | {OPTIMIZER: write_weights(folder / OPTIMIZER, optimizer)}


def _fewer_rows(batch: Batch) -> str:
    rows, length = batch.tokens.shape[1:]
    return f"lower training.per_device_batch_size (now {rows} rows of {length} tokens in a micro-batch)"
