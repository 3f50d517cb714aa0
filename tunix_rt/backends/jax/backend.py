"""The eight methods on jax, by delegation: what a state is, and how it is saved and loaded.

In and out: numpy batches, model folders, checkpoints. The computation is in `step` and `generate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tunix_rt.backends import heap, xla
from tunix_rt.backends.interface import Int32, Measurements, Piece, TrainingSetup
from tunix_rt.backends.jax.adapter import KEYS, LoraLayout, frozen_in, joined, keys, names_of
from tunix_rt.backends.jax.decoder import Decoder, Params
from tunix_rt.backends.jax.generate import generate
from tunix_rt.backends.jax.optimizer import UpdateRule, adam, moments_from_tensors, moments_to_tensors
from tunix_rt.backends.jax.step import Graph, Inputs, score, select, train_step
from tunix_rt.backends.jax.weights import WeightMapping, from_hugging_face
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.files import JsonObject
from tunix_rt.models.adapter import Adapter
from tunix_rt.models.adapter_folder import Base, check_base, read_adapter, read_base, start, write_adapter
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.folder import (
    OPTIMIZER,
    Weights,
    config_to_save,
    read_architecture,
    read_moments,
    read_stop_ids,
    read_weights,
    write_model,
)
from tunix_rt.models.tensor_file import write_weights


@dataclass(frozen=True, slots=True)
class LoraState:
    """An adapter on frozen weights."""

    adapter: Adapter
    plan: LoraLayout
    base: Base


@dataclass(frozen=True, slots=True)
class State:
    """A model on the device and, in training, the optimizer's moments."""

    architecture: Architecture
    config: JsonObject
    """config.json as it will be saved."""
    stop_ids: tuple[int, ...]
    graph: Graph
    training_graph: Graph
    """Graph of the decoder in training: with dropout and gradient checkpointing, if declared."""
    params: Params
    """The trained tensors; without an adapter, all of them."""
    names: WeightMapping
    """Maps `params` to checkpoint names."""
    training: TrainingSetup | None
    moments: optax.OptState | None
    frozen: Params
    """The base weights under an adapter; otherwise empty."""
    lora: LoraState | None
    step: int
    """Number of updates done."""

    @property
    def whole(self) -> Params:
        """All tensors of the decoder."""
        return joined(self.frozen, self.params)


def create(backend: BackendConfig, hardware: HardwareConfig, cache: Path) -> JaxBackend:
    """Start jax on the device that `hardware` names; see `registry.create`."""
    device, threads = xla.start(hardware, cache)
    return JaxBackend(backend, device, threads)


class JaxBackend:
    """Implements `interface.Backend`; its methods are documented there."""

    def __init__(self, config: BackendConfig, device: jax.Device, threads: int) -> None:
        self._device = device
        self._dtype = jnp.dtype(config.precision)
        self._gradient_checkpointing = config.gradient_checkpointing
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="save")
        self.placement = xla.placement(device, config.precision, threads)

    def load(self, model_folder: Path, training: TrainingSetup | None, adapter: Path | None = None) -> State:
        heap.trim_between_phases("load")
        architecture = read_architecture(model_folder)
        if training is not None and training.adapter is not None:
            found, base = start(training.adapter.config, architecture, training.seed), training.adapter.base
            return self._attach_adapter(model_folder, found, base, training, None)
        if adapter is not None:
            return self._attach_adapter(
                model_folder, read_adapter(adapter, architecture), read_base(adapter), training, None
            )
        return self._place(model_folder, model_folder, training, None)

    def restore(self, folder: Path, model_folder: Path, training: TrainingSetup) -> State:
        heap.trim_between_phases("load")
        if training.adapter is None:
            return self._place(folder, model_folder, training, folder / OPTIMIZER)
        base = training.adapter.base
        check_base(folder, model_folder, base.sha256)
        found = read_adapter(folder, read_architecture(model_folder))
        return self._attach_adapter(model_folder, found, base, training, folder / OPTIMIZER)

    def _place(self, folder: Path, model_folder: Path, training: TrainingSetup | None, optimizer: Path | None) -> State:
        """Load weights from `folder` and the rest from `model_folder`; moments from a file, or fresh ones."""
        architecture = read_architecture(folder)
        names = WeightMapping.of(architecture)
        params = jax.device_put(names.from_files(read_weights(folder)), self._device)
        graphs = self._graphs(architecture, params, params, None)
        return self._state(folder, model_folder, graphs, params, names, training, optimizer)

    def _attach_adapter(
        self,
        model_folder: Path,
        found: tuple[Adapter, Weights],
        base: Base,
        training: TrainingSetup | None,
        optimizer: Path | None,
    ) -> State:
        """Attach an adapter to the frozen weights of `model_folder`."""
        architecture, (adapter, tensors) = read_architecture(model_folder), found
        plan = LoraLayout.of(adapter, architecture)
        names = names_of(adapter, plan)
        frozen = frozen_in(from_hugging_face(read_weights(model_folder), architecture), self._dtype)
        frozen, params = jax.device_put((frozen, names.from_files(tensors)), self._device)
        whole = joined(frozen, params)
        leaving_out = joined(whole, {"layers": {KEYS: jnp.zeros(0)}}) if adapter.dropout > 0 else whole
        graphs = self._graphs(architecture, whole, leaving_out, plan)
        made = self._state(model_folder, model_folder, graphs, params, names, training, optimizer)
        return replace(made, frozen=frozen, lora=LoraState(adapter, plan, base))

    def _graphs(
        self, architecture: Architecture, whole: Params, training: Params, plan: LoraLayout | None
    ) -> tuple[Graph, Graph]:
        """Graphs of the decoder for inference, with the tensors `whole`, and for training, with `training`."""
        answering = Decoder(architecture, self._dtype, whole, plan)
        trained = Decoder(architecture, self._dtype, training, plan, self._gradient_checkpointing)
        return nnx.graphdef(answering), nnx.graphdef(trained)

    def _state(
        self,
        folder: Path,
        model_folder: Path,
        graphs: tuple[Graph, Graph],
        params: Params,
        names: WeightMapping,
        training: TrainingSetup | None,
        optimizer: Path | None,
    ) -> State:
        moments: optax.OptState | None = None
        step = 0
        if optimizer is not None:
            read = moments_from_tensors(read_moments(optimizer, names.shapes), names)
            moments, step = jax.device_put(read, self._device), int(read.count)
        elif training is not None:
            moments = jax.device_put(adam(UpdateRule.of(training.optimizer)).init(params), self._device)
        return State(
            architecture=read_architecture(folder),
            config=config_to_save(folder),
            stop_ids=read_stop_ids(model_folder),
            graph=graphs[0],
            training_graph=graphs[1],
            params=params,
            names=names,
            training=training,
            moments=moments,
            frozen={},
            lora=None,
            step=step,
        )

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        if state.training is None:
            raise ValueError("this state was loaded without a TrainingSetup: it cannot be trained")
        heap.trim_between_phases("train_step")
        before = xla.compilations()
        with xla.memory_errors(xla.ROWS):
            params, moments, measurements = train_step(
                state.training_graph,
                UpdateRule.of(state.training.optimizer),
                state.params,
                state.moments,
                state.frozen,
                self._inputs(state, batch)._replace(dropout=_dropout(state, len(batch.tokens))),
                np.float32(learning_rate),
                np.float32(np.inf if state.training.clip_norm is None else state.training.clip_norm),
            )
        return replace(state, params=params, moments=moments, step=state.step + 1), measurements | {
            "compiled": xla.compilations() > before
        }

    def logprobs(self, state: State, batch: Batch) -> Measurements:
        heap.trim_between_phases("logprobs")
        with xla.memory_errors(xla.ROWS):
            return {"logprobs": score(state.graph, state.whole, self._inputs(state, batch))}

    def _inputs(self, state: State, batch: Batch) -> Inputs:
        return select(batch, state.architecture.vocab_size, state.architecture.hidden_size)

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        return xla.fetch(measurements)

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        heap.trim_between_phases("generate")
        with xla.memory_errors("generation.batch_size"):
            yield from generate(
                state.graph, state.whole, state.architecture, state.stop_ids, prompts, generation, seeds
            )

    def save(self, state: State, folder: Path) -> Future[dict[str, str]]:
        heap.trim_between_phases("save")
        params, moments = jax.tree.map(lambda array: np.array(array), (state.params, state.moments))
        return self._writer.submit(_write, folder, state, params, moments)

    def describe(self) -> dict[str, str]:
        versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax")}
        return versions | xla.description(self.placement)


def _dropout(state: State, num_micro_batches: int) -> Any:
    if state.lora is None or state.training is None:
        return None
    return keys(state.lora.adapter, state.lora.plan, state.training.seed, state.step, num_micro_batches)


def _write(folder: Path, state: State, params: Params, moments: Any) -> dict[str, str]:
    tensors = state.names.to_files(params)
    if state.lora is None:
        files = write_model(folder, state.config, tensors)
    else:
        files = write_adapter(folder, state.architecture, state.lora.adapter, tensors, state.lora.base)
    if moments is None:
        return files
    return files | {OPTIMIZER: write_weights(folder / OPTIMIZER, moments_to_tensors(moments, state.names))}
