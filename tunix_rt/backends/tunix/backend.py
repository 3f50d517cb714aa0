"""The eight methods on Tunix, by delegation: its models, the jitted step of its trainer and its Sampler.

In and out: numpy batches, model folders, checkpoints. Our loop, not Tunix, handles learning rates and checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx
from tunix.generate.sampler import Sampler
from tunix.sft.peft_trainer import PeftTrainer

from tunix_rt.backends import heap, xla
from tunix_rt.backends.interface import Int32, Measurements, Piece, TrainingSetup
from tunix_rt.backends.tunix import generate, optimizer, step
from tunix_rt.backends.tunix.decoder import arrays_of, build
from tunix_rt.backends.tunix.weights import WeightMapping
from tunix_rt.batches.batch import Batch
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import ConfigError
from tunix_rt.files import JsonObject
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.folder import (
    CONFIG,
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


@dataclass(slots=True)
class State:
    """Tunix's model on the device and, in training, its trainer. Steps change both in place."""

    architecture: Architecture
    config: JsonObject
    """config.json as it will be saved."""
    stop_ids: tuple[int, ...]
    model: Any
    layout: WeightMapping
    trainer: PeftTrainer | None = None
    sampler: Sampler | None = None
    """Kept for its compiled programs."""


class TunixBackend(xla.XlaBackend):
    """Implements `interface.Backend`; its methods are documented there."""

    packages = ("google-tunix", *xla.XlaBackend.packages)

    def load(self, model_folder: Path, training: TrainingSetup | None, adapter: Path | None = None) -> State:
        if adapter is not None or (training is not None and training.adapter is not None):
            raise ConfigError("backend=tunix does not support LoRA: use backend=jax or backend=torch")
        return self._read(model_folder, model_folder, training)

    def restore(self, folder: Path, model_folder: Path, training: TrainingSetup) -> State:
        state = self._read(folder, model_folder, training)
        assert state.trainer is not None
        moments = read_moments(folder / OPTIMIZER, state.layout.shapes)
        optimizer.from_tensors(moments, state.trainer.optimizer, state.layout, self._device)
        return state

    def _read(self, folder: Path, model_folder: Path, training: TrainingSetup | None) -> State:
        """Load weights from `folder` and the rest from `model_folder`."""
        heap.trim_between_phases("load")
        architecture = read_architecture(folder)
        weights = read_weights(folder)
        model, layout = build(architecture, weights, self._config, str(folder / CONFIG), self._device)
        state = State(architecture, config_to_save(folder), read_stop_ids(model_folder), model, layout)
        if training is not None:
            rule = optimizer.adamw(training.optimizer, training.clip_norm, layout.kinds)
            state.trainer = step.trainer(model, rule, self._device)
        return state

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        if state.trainer is None:
            raise ValueError("this state was loaded without a TrainingSetup: it cannot be trained")
        heap.trim_between_phases("train_step")
        before = xla.compilations()
        optimizer.set_rate(state.trainer.optimizer, learning_rate, self._device)
        train_step, _ = state.trainer.jit_train_and_eval_step(cache_nnx_graph=True)
        with xla.memory_errors(xla.ROWS):
            _, sums, norm = train_step(step.inputs(batch))
        finite = step.finite(sums["loss_sum"], norm)
        return state, sums | {"grad_norm": norm, "finite": finite, "compiled": xla.compilations() > before}

    def logprobs(self, state: State, batch: Batch) -> Measurements:
        heap.trim_between_phases("logprobs")
        with xla.memory_errors(xla.ROWS):
            return {"logprobs": step.score(state.model, step.inputs(batch))}

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        heap.trim_between_phases("generate")
        limits = generate.Limits(state.stop_ids, state.architecture.max_positions, generation.max_new_tokens)
        self._ready_sampler(state, generate.slots_of(prompts) + generation.max_new_tokens)
        with xla.memory_errors("generation.batch_size"):
            yield from generate.generate(state.sampler, state.model, limits, prompts, generation, seeds)

    def _ready_sampler(self, state: State, size: int) -> None:
        """Prepare the state's Sampler, with `size` slots and the current weights."""
        a = state.architecture
        if state.sampler is None or state.sampler.cache_config.cache_size != size:
            state.sampler = generate.sampler(state.model, a.num_layers, a.num_kv_heads, a.head_dim, size)
        else:
            state.sampler.transformer_state = nnx.variables(state.model)

    def save(self, state: State, folder: Path) -> Future[dict[str, str]]:
        heap.trim_between_phases("save")
        tensors = state.layout.to_files(arrays_of(nnx.state(state.model, nnx.Param)))
        trainer = state.trainer
        moments = None if trainer is None else optimizer.to_tensors(trainer.optimizer, state.layout)
        return self._writer.submit(_write, folder, state.config, tensors, moments)


def _write(folder: Path, config: JsonObject, tensors: Weights, moments: Any) -> dict[str, str]:
    files = write_model(folder, config, tensors)
    return files if moments is None else files | {OPTIMIZER: write_weights(folder / OPTIMIZER, moments)}


create = TunixBackend
