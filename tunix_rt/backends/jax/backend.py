"""The nine methods on jax, by delegation: what a state is, and how it is saved and loaded.

In and out: numpy batches, model folders, checkpoints. The computation is in `step` and `generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tunix_rt.backends import heap, xla
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import ContinuousBatch, Measurements, Piece, TrainingSetup
from tunix_rt.backends.jax.adapter import LoraLayout, frozen_in, joined, with_dropout
from tunix_rt.backends.jax.decoder import Decoder, Params
from tunix_rt.backends.jax.generate import Call, Pieces, answering_order, generate, together
from tunix_rt.backends.jax.likeliest import likeliest
from tunix_rt.backends.jax.mesh import DeviceMesh, build
from tunix_rt.backends.jax.optimizer import Kept, Runs, compiled, fresh, from_files, to_files
from tunix_rt.backends.jax.parts import part_of, written
from tunix_rt.backends.jax.quantized import stacked
from tunix_rt.backends.jax.runs import runs_of
from tunix_rt.backends.jax.step import Graph, Inputs, apply_gradients, gradients, score, select
from tunix_rt.backends.jax.weights import WeightMapping
from tunix_rt.backends.optimizers.rule import trained_tensors
from tunix_rt.backends.processes.world import ALONE, World
from tunix_rt.backends.sampling import UInt32
from tunix_rt.backends.shrinking import fewer_rows, shrinking
from tunix_rt.backends.storage import Moments, Stored, check_adapter
from tunix_rt.backends.tensor_parallel import check_tensor
from tunix_rt.backends.waves import Waves
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.folder import Weights
from tunix_rt.models.parts import PartOf, whole

T = TypeVar("T")


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
    moments: Kept | None
    runs: Runs
    mesh: DeviceMesh | None
    """None: all of it is on one device."""
    step: int
    """Number of updates done."""

    @property
    def whole(self) -> Params:
        """All tensors of the decoder."""
        return joined(self.frozen, self.params)


class JaxBackend(xla.XlaBackend):
    """Implements `interface.Backend`; its methods are documented there."""

    def __init__(self, config: BackendConfig, hardware: HardwareConfig, cache: Path, world: World = ALONE) -> None:
        super().__init__(config, hardware, cache, world)
        self.may_shrink &= world.size == 1  # of several processes one alone could be short of memory
        self._mesh = build(self._devices, self.placement.mesh) if len(self._devices) > 1 else None

    def _state(self, stored: Stored, adapter: Weights | None, training: TrainingSetup | None) -> State:
        names, lora, frozen = WeightMapping(stored.architecture), None, Params()
        mesh = self._mesh_of(stored)
        parts = whole if mesh is None else part_of(mesh, mesh.local_shards)
        weights, quantized = stored.read_weights(parts)
        params = names.from_files(weights)
        params["layers"] |= stacked(stored.architecture, quantized)
        if stored.adapter is not None and adapter is not None:
            lora = LoraLayout.of(stored.adapter, stored.architecture)
            frozen = frozen_in(params, jnp.dtype(self._config.precision), lora.constants())
            params = lora.from_files(adapter)
        frozen, params = self._place((frozen, params), mesh)
        moments, step, runs = None, 0, Runs()
        if training is not None and not training.optimizer.elementwise:
            runs = runs_of(lora or names, trained_tensors(stored.architecture, stored.adapter))
        if stored.optimizer is not None:
            read = from_files(stored.read_moments(whole if runs or lora else parts), runs, lora or names)
            moments, step = self._place(read, mesh), int(read.count)
        elif training is not None:
            moments = self._fresh_moments(partial(fresh, training.optimizer, runs), params, mesh)
        graphs = self._graphs(stored.architecture, joined(frozen, params), lora)
        return State(stored, *graphs, params, frozen, lora, training, moments, runs, mesh, step)

    def _mesh_of(self, stored: Stored) -> DeviceMesh | None:
        if self._mesh is None:
            return None
        check_tensor(stored.architecture, self._mesh.shape["tensor"])
        return DeviceMesh(self._mesh, stored.architecture, stored.quantize)

    def _place(self, tree: Any, mesh: DeviceMesh | None) -> Any:
        return jax.device_put(tree, self._device) if mesh is None else mesh.place(tree)

    def _fresh_moments(self, start: Callable[[Params], Kept], params: Params, mesh: DeviceMesh | None) -> Kept:
        if mesh is None:
            found: Kept = jax.device_put(start(params), self._device)
        else:
            found = jax.jit(start, out_shardings=mesh.shardings(jax.eval_shape(start, params)))(params)
        return found

    def _graphs(self, architecture: Architecture, whole: Params, lora: LoraLayout | None) -> tuple[Graph, Graph]:
        """Graphs of the decoder, for inference and for training."""
        dtype, training = jnp.dtype(self._config.precision), with_dropout(whole, lora)
        divided = self.placement.mesh.tensor > 1
        answering = Decoder(architecture, dtype, whole, lora, divided=divided)
        trained = Decoder(architecture, dtype, training, lora, self._config.gradient_checkpointing, divided)
        return nnx.graphdef(answering), nnx.graphdef(trained)

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        if state.training is None:
            raise ValueError("this state was loaded without a TrainingSetup: it cannot be trained")
        heap.trim_between_phases("train_step")
        before = xla.compilations()
        found = self._fitting(state, batch, partial(self._gradients, state, batch))
        clip_norm = np.inf if state.training.clip_norm is None else state.training.clip_norm
        with xla.memory_errors(xla.ROWS):
            params, moments, measurements = apply_gradients(
                compiled(state.training.optimizer),
                state.runs,
                state.mesh,
                state.params,
                state.moments,
                *found,
                np.float32(learning_rate),
                np.float32(clip_norm),
            )
        return replace(state, params=params, moments=moments, step=state.step + 1), measurements | {
            "compiled": xla.compilations() > before
        }

    def _gradients(self, state: State, batch: Batch, fold: Fold) -> tuple[jax.Array, Params]:
        inputs = self._inputs(state, batch, fold, _dropout(state, fold))
        divisor = np.float32(batch.divisor)
        found: tuple[jax.Array, Params] = gradients(
            state.training_graph, state.mesh, state.params, state.frozen, inputs, divisor
        )
        return found

    def logprobs(self, state: State, batch: Batch, adapter: bool = True, top: int = 0) -> Measurements:
        check_adapter(state.stored, adapter)
        heap.trim_between_phases("logprobs")
        # Without it: its matrices are 0, so that nothing is added and no other program is compiled.
        tensors = state.whole if adapter else joined(state.frozen, jax.tree.map(jnp.zeros_like, state.params))

        def compute(fold: Fold) -> Measurements:
            call = state.graph, state.mesh, tensors, self._inputs(state, batch, fold)
            found = {"logprobs": score(*call)[..., None]}
            if top:
                found |= dict(zip(("top_ids", "top_logprobs"), likeliest(*call, top), strict=True))
            return {name: array.reshape(-1, *array.shape[-2:])[: fold.num_rows] for name, array in found.items()}

        found: Measurements = self._fitting(state, batch, compute)
        return found | {"logprobs": found["logprobs"][..., 0]}

    def _fitting(self, state: State, batch: Batch, compute: Callable[[Fold], T]) -> T:
        """What `compute` makes of the rows of a batch, with fewer at once if memory is short."""

        def attempt(fold: Fold) -> T:
            before = xla.compilations()
            with xla.memory_errors(fewer_rows(fold, batch.tokens.shape[1])):
                found = compute(fold)
                # Whatever memory a new program lacks, it lacks now, and not when its result is used.
                if xla.compilations() > before:
                    jax.block_until_ready(found)  # type: ignore[no-untyped-call]
                return found

        return shrinking(self, len(batch.tokens), attempt, 1 if state.mesh is None else state.mesh.num_row_ranks)

    def _inputs(self, state: State, batch: Batch, fold: Fold, dropout: UInt32 | None = None) -> Inputs:
        """Arrays [A, ...], or on a mesh [A, D, ...] placed; `dropout` [A * D, ...]."""
        architecture = state.stored.architecture
        folded = batch.with_arrays(lambda array: fold.every(array).reshape(-1, fold.local_rows, *array.shape[1:]))
        inputs = select(folded, architecture.vocab_size, architecture.hidden_size)._replace(dropout=dropout)
        if state.mesh is None:
            return inputs
        sizes = fold.micro_batches, fold.num_row_ranks
        placed: Inputs = state.mesh.put_rows(
            jax.tree.map(lambda array: array.reshape(*sizes, *array.shape[1:]), inputs)
        )
        return placed

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        heap.trim_between_phases("generate")
        stored = state.stored
        call = Call(state.graph, stored.architecture, stored.stop_ids, prompts, generation, seeds)
        with xla.memory_errors("generation.batch_size"):
            yield from together(_answering(state, call))

    def continuous(self, state: State, rows: int) -> ContinuousBatch:
        return Waves(self, state, rows)

    def _parts(self, state: State) -> PartOf | None:
        """None in one process, which has every part; and with an adapter, which every process has."""
        several = state.mesh is not None and jax.process_count() > 1 and state.lora is None
        return part_of(state.mesh, state.mesh.written_shards) if state.mesh is not None and several else None

    def _snapshot(self, state: State) -> tuple[Stored, Weights, Moments | None]:
        mesh, trained = state.mesh, (state.params, state.moments)
        copied = jax.tree.map(lambda array: np.array(array), trained) if mesh is None else mesh.fetched(trained)

        def named(params: Params) -> Weights:
            if state.lora is not None or mesh is None:
                return (state.lora or WeightMapping(state.stored.architecture)).to_files(params)
            return written(mesh, params, self._leads)

        params, moments = copied
        if moments is None:
            return state.stored, named(params), None
        return state.stored, named(params), to_files(moments, state.runs, named)


def _answering(state: State, call: Call) -> list[Pieces]:
    """Each group of devices with its prompts: prompt i, in the order of answering, belongs to row rank i mod D.

    The weights are gathered once, by all processes together.
    """
    order, mesh = answering_order(call), state.mesh
    if mesh is None:
        return [generate(call, state.whole, order)]
    whole = mesh.gathered(state.whole)
    return [generate(call, mesh.on_group(whole, one), order[rank :: mesh.num_row_ranks]) for rank, one in mesh.groups()]


def _dropout(state: State, fold: Fold) -> UInt32 | None:
    """Keys of the dropout masks of all rows, uint32 [A * D, L, M, B, 2]."""
    if state.lora is None or state.training is None:
        return None
    rows = np.arange(fold.num_rows + fold.empty_rows, dtype=np.int64).reshape(-1, fold.local_rows)
    return state.lora.dropout_keys(state.training.seed, state.step, rows)


create = JaxBackend
num_devices = xla.num_devices
leave = xla.leave
