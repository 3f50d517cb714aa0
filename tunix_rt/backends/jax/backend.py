"""The eight methods on jax, by delegation: what a state is, and how it is saved and loaded.

In and out: numpy batches, model folders, checkpoints. The computation is in `step` and `generate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tunix_rt.backends import heap, xla
from tunix_rt.backends.interface import Int32, Measurements, Piece, TrainingSetup
from tunix_rt.backends.jax.adapter import LoraLayout, frozen_in, joined, keys, names_of, with_dropout
from tunix_rt.backends.jax.decoder import Decoder, Params
from tunix_rt.backends.jax.generate import generate
from tunix_rt.backends.jax.optimizer import UpdateRule, adam, moments_from_tensors
from tunix_rt.backends.jax.step import Graph, Inputs, score, select, train_step
from tunix_rt.backends.jax.weights import WeightMapping
from tunix_rt.batches.batch import Batch
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


class JaxBackend(xla.XlaBackend):
    """Implements `interface.Backend`; its methods are documented there."""

    def load(self, model_folder: Path, training: TrainingSetup | None, adapter: Path | None = None) -> State:
        if training is not None and training.adapter is not None:
            setup = training.adapter
            fresh = start(setup.config, read_architecture(model_folder), training.seed)
            return self._state(model_folder, model_folder, training, (*fresh, setup.base))
        if adapter is None:
            return self._state(model_folder, model_folder, training)
        found = read_adapter(adapter, read_architecture(model_folder))
        return self._state(model_folder, model_folder, training, (*found, read_base(adapter)))

    def restore(self, folder: Path, model_folder: Path, training: TrainingSetup) -> State:
        if training.adapter is None:
            return self._state(folder, model_folder, training, optimizer=folder / OPTIMIZER)
        base = training.adapter.base
        check_base(folder, model_folder, base.sha256)
        found = read_adapter(folder, read_architecture(model_folder))
        return self._state(model_folder, model_folder, training, (*found, base), folder / OPTIMIZER)

    def _state(
        self,
        folder: Path,
        model_folder: Path,
        training: TrainingSetup | None,
        attached: tuple[Adapter, Weights, Base] | None = None,
        optimizer: Path | None = None,
    ) -> State:
        """Weights of `folder` (frozen under `attached`), the rest from `model_folder`; moments of a file, or fresh."""
        heap.trim_between_phases("load")
        architecture = read_architecture(folder)
        names, lora, frozen = WeightMapping.of(architecture), None, Params()
        params = names.from_files(read_weights(folder))
        if attached is not None:
            adapter, tensors, base = attached
            lora = LoraState(adapter, LoraLayout.of(adapter, architecture), base)
            frozen, names = frozen_in(params, jnp.dtype(self._config.precision)), names_of(adapter, lora.plan)
            params = names.from_files(tensors)
        frozen, params = jax.device_put((frozen, params), self._device)
        moments, step = None, 0
        if optimizer is not None:
            read = moments_from_tensors(read_moments(optimizer, names.shapes), names)
            moments, step = jax.device_put(read, self._device), int(read.count)
        elif training is not None:
            moments = jax.device_put(adam(UpdateRule.of(training.optimizer)).init(params), self._device)
        graph, training_graph = self._graphs(architecture, joined(frozen, params), lora)
        return State(
            architecture=architecture,
            config=config_to_save(folder),
            stop_ids=read_stop_ids(model_folder),
            graph=graph,
            training_graph=training_graph,
            params=params,
            names=names,
            training=training,
            moments=moments,
            frozen=frozen,
            lora=lora,
            step=step,
        )

    def _graphs(self, architecture: Architecture, whole: Params, lora: LoraState | None) -> tuple[Graph, Graph]:
        """Graphs of the decoder, for inference and for training."""
        dtype, plan, training = jnp.dtype(self._config.precision), None, whole
        if lora is not None:
            plan, training = lora.plan, with_dropout(whole, lora.adapter)
        answering = Decoder(architecture, dtype, whole, plan)
        trained = Decoder(architecture, dtype, training, plan, self._config.gradient_checkpointing)
        return nnx.graphdef(answering), nnx.graphdef(trained)

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
    first, second = state.names.to_files(moments.mu), state.names.to_files(moments.nu)
    stored = xla.moments_to_tensors(first, second, moments.count)
    return files | {OPTIMIZER: write_weights(folder / OPTIMIZER, stored)}


create = JaxBackend
