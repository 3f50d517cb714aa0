"""The eight methods on jax, by delegation: what a state is, and how it is saved and loaded.

In and out: numpy batches, model folders, checkpoints. The computation is in `step` and `generate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tunix_rt.backends import heap, xla
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import Measurements, Piece, TrainingSetup
from tunix_rt.backends.jax.adapter import LoraLayout, frozen_in, joined, with_dropout
from tunix_rt.backends.jax.decoder import Decoder, Params
from tunix_rt.backends.jax.generate import generate
from tunix_rt.backends.jax.optimizer import adam, adam_state, compiled
from tunix_rt.backends.jax.quantized import stacked
from tunix_rt.backends.jax.step import Graph, Inputs, score, select, train_step
from tunix_rt.backends.jax.weights import WeightMapping
from tunix_rt.backends.storage import Moments, Stored, check_adapter
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.folder import Weights


@dataclass(frozen=True, slots=True)
class State:
    """A model on the device and, in training, the optimizer's moments."""

    stored: Stored
    graph: Graph
    training_graph: Graph
    """Graph of the decoder in training: with dropout and gradient checkpointing, if declared."""
    params: Params
    """The trained tensors; without an adapter, all of them."""
    frozen: Params
    """The base weights under an adapter; otherwise empty."""
    lora: LoraLayout | None
    training: TrainingSetup | None
    moments: optax.OptState | None
    step: int
    """Number of updates done."""

    @property
    def whole(self) -> Params:
        """All tensors of the decoder."""
        return joined(self.frozen, self.params)


class JaxBackend(xla.XlaBackend):
    """Implements `interface.Backend`; its methods are documented there."""

    def _state(self, stored: Stored, adapter: Weights | None, training: TrainingSetup | None) -> State:
        names, lora, frozen = WeightMapping(stored.architecture), None, Params()
        weights, quantized = stored.read_weights()
        params = names.from_files(weights)
        params["layers"] |= stacked(stored.architecture, quantized)
        if stored.adapter is not None and adapter is not None:
            lora = LoraLayout.of(stored.adapter, stored.architecture)
            frozen = frozen_in(params, jnp.dtype(self._config.precision), lora.constants())
            params = lora.from_files(adapter)
        frozen, params = jax.device_put((frozen, params), self._device)
        moments, step = None, 0
        if stored.optimizer is not None:
            read = adam_state(stored.read_moments(), lora or names)
            moments, step = jax.device_put(read, self._device), int(read.count)
        elif training is not None:
            moments = jax.device_put(adam(training.optimizer).init(params), self._device)
        graphs = self._graphs(stored.architecture, joined(frozen, params), lora)
        return State(stored, *graphs, params, frozen, lora, training, moments, step)

    def _graphs(self, architecture: Architecture, whole: Params, lora: LoraLayout | None) -> tuple[Graph, Graph]:
        """Graphs of the decoder, for inference and for training."""
        dtype, training = jnp.dtype(self._config.precision), with_dropout(whole, lora)
        answering = Decoder(architecture, dtype, whole, lora)
        trained = Decoder(architecture, dtype, training, lora, self._config.gradient_checkpointing)
        return nnx.graphdef(answering), nnx.graphdef(trained)

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        if state.training is None:
            raise ValueError("this state was loaded without a TrainingSetup: it cannot be trained")
        heap.trim_between_phases("train_step")
        before, dropout, fold = xla.compilations(), None, Fold.of(len(batch.tokens), self.rows_at_once)
        if state.lora is not None:
            dropout = state.lora.dropout_keys(state.training.seed, state.step, fold.rows())
        with xla.memory_errors(xla.ROWS):
            params, moments, measurements = train_step(
                state.training_graph,
                compiled(state.training.optimizer),
                state.params,
                state.moments,
                state.frozen,
                self._inputs(state, fold.local(batch))._replace(dropout=dropout),
                np.float32(batch.divisor),
                np.float32(learning_rate),
                np.float32(np.inf if state.training.clip_norm is None else state.training.clip_norm),
            )
        return replace(state, params=params, moments=moments, step=state.step + 1), measurements | {
            "compiled": xla.compilations() > before
        }

    def logprobs(self, state: State, batch: Batch, adapter: bool = True) -> Measurements:
        check_adapter(state.stored, adapter)
        heap.trim_between_phases("logprobs")
        # Without it: its matrices are 0, so that nothing is added and no other program is compiled.
        whole = state.whole if adapter else joined(state.frozen, jax.tree.map(jnp.zeros_like, state.params))
        fold = Fold.of(len(batch.tokens), self.rows_at_once)
        with xla.memory_errors(xla.ROWS):
            found = score(state.graph, whole, self._inputs(state, fold.local(batch)))
        return {"logprobs": found.reshape(-1, found.shape[-1])[: fold.num_rows]}

    def _inputs(self, state: State, batch: Batch) -> Inputs:
        architecture = state.stored.architecture
        return select(batch, architecture.vocab_size, architecture.hidden_size)

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        heap.trim_between_phases("generate")
        with xla.memory_errors("generation.batch_size"):
            stored = state.stored
            yield from generate(
                state.graph, state.whole, stored.architecture, stored.stop_ids, prompts, generation, seeds
            )

    def _snapshot(self, state: State) -> tuple[Stored, Weights, Moments | None]:
        params, moments = jax.tree.map(lambda array: np.array(array), (state.params, state.moments))
        to_files = (state.lora or WeightMapping(state.stored.architecture)).to_files
        if moments is None:
            return state.stored, to_files(params), None
        return state.stored, to_files(params), Moments(to_files(moments.mu), to_files(moments.nu), int(moments.count))


create = JaxBackend
