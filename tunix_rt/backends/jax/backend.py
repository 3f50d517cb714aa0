"""The eight verbs on jax, by delegation: what a state is, and how it goes to and from disk.

In and out: numpy batches, model folders, checkpoints. Computation lives in `step` and `generate`.
"""

from __future__ import annotations

import sys
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

from tunix_rt.backends.interface import Int32, Measurements, Piece, Placement, TrainingSetup
from tunix_rt.backends.jax import devices
from tunix_rt.backends.jax.decoder import Decoder, Params
from tunix_rt.backends.jax.generate import generate
from tunix_rt.backends.jax.optimizer import UpdateRule, adam, moments_to_tensors, read_moments
from tunix_rt.backends.jax.step import Graph, score, select, train_step
from tunix_rt.backends.jax.weights import from_hugging_face, to_hugging_face
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.files import JsonObject
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.folder import (
    read_architecture,
    read_config,
    read_stop_ids,
    read_weights,
    write_model,
    write_weights,
)

OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True, slots=True)
class State:
    """A model on the device, and while it is trained the optimizer's moments."""

    architecture: Architecture
    config: JsonObject
    """config.json as it will be saved."""
    stop_ids: tuple[int, ...]
    graph: Graph
    params: Params
    training: TrainingSetup | None
    moments: optax.OptState | None


def create(backend: BackendConfig, hardware: HardwareConfig, cache: Path) -> JaxBackend:
    """Start jax on the device that `hardware` names; see `registry.create`."""
    device, threads = devices.start(hardware, cache)
    return JaxBackend(backend, device, threads)


class JaxBackend:
    """`Backend` of the interface; its methods are documented there."""

    def __init__(self, config: BackendConfig, device: jax.Device, threads: int) -> None:
        self._device = device
        self._dtype = jnp.dtype(config.precision)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="save")
        self.placement = Placement(
            process=0,
            num_processes=1,
            platform="gpu" if device.platform == "cuda" else device.platform,
            devices=(f"{device.device_kind} {device.id}",),
            precision=config.precision,
            threads=threads,
        )

    def load(self, model_folder: Path, training: TrainingSetup | None) -> State:
        return self._place(model_folder, model_folder, training, None)

    def restore(self, folder: Path, model_folder: Path, training: TrainingSetup) -> State:
        return self._place(folder, model_folder, training, folder / OPTIMIZER)

    def _place(self, folder: Path, model_folder: Path, training: TrainingSetup | None, optimizer: Path | None) -> State:
        """Weights of `folder`, the rest of `model_folder`; moments from a file, or fresh ones."""
        architecture = read_architecture(folder)
        config = {name: value for name, value in read_config(folder).items() if name != "torch_dtype"}
        params = jax.device_put(from_hugging_face(read_weights(folder), architecture), self._device)
        moments: optax.OptState | None = None
        if optimizer is not None:
            moments = jax.device_put(read_moments(optimizer, architecture), self._device)
        elif training is not None:
            rule = UpdateRule.of(training.optimizer)
            moments = jax.device_put(adam(rule).init(params), self._device)
        return State(
            architecture=architecture,
            config=config | {"dtype": "float32"},
            stop_ids=read_stop_ids(model_folder),
            graph=nnx.graphdef(Decoder(architecture, self._dtype, params)),
            params=params,
            training=training,
            moments=moments,
        )

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        if state.training is None:
            raise ValueError("this state was loaded without a TrainingSetup: it cannot be trained")
        with devices.memory_errors("training.per_device_batch_size (rows of a micro-batch)"):
            params, moments, measurements = train_step(
                state.graph,
                UpdateRule.of(state.training.optimizer),
                state.params,
                state.moments,
                self._inputs(state, batch),
                np.float32(learning_rate),
                np.float32(np.inf if state.training.clip_norm is None else state.training.clip_norm),
            )
        return replace(state, params=params, moments=moments), measurements

    def logprobs(self, state: State, batch: Batch) -> Measurements:
        with devices.memory_errors("training.per_device_batch_size (rows of a micro-batch)"):
            return {"logprobs": score(state.graph, state.params, self._inputs(state, batch))}

    def _inputs(self, state: State, batch: Batch) -> Any:
        return select(batch, state.architecture.vocab_size, state.architecture.hidden_size)

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        with devices.memory_errors("training.per_device_batch_size (rows of a micro-batch)"):
            return {name: np.array(value) for name, value in jax.device_get(measurements).items()}

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        with devices.memory_errors("generation.batch_size"):
            yield from generate(
                state.graph, state.params, state.architecture, state.stop_ids, prompts, generation, seeds
            )

    def save(self, state: State, folder: Path) -> Future[None]:
        params, moments = jax.tree.map(lambda array: np.array(array), (state.params, state.moments))
        return self._writer.submit(_write, folder, state, params, moments)

    def describe(self) -> dict[str, str]:
        versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax")}
        return versions | {
            "device": self.placement.devices[0],
            "processor": devices.processor_name(),
            "precision": self.placement.precision,
            "matmul_precision": "highest",
            "threads": str(self.placement.threads),
            "python": sys.version.split()[0],
        }


def _write(folder: Path, state: State, params: Params, moments: Any) -> None:
    write_model(folder, state.config, to_hugging_face(params, state.architecture))
    if moments is not None:
        write_weights(folder / OPTIMIZER, moments_to_tensors(moments, state.architecture))
