"""The nine methods on Tunix, by delegation: its models, the jitted step of its trainer and its Sampler.

In and out: numpy batches, model folders, checkpoints. Our loop, not Tunix, handles learning rates and checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.sft.peft_trainer import PeftTrainer

from tunix_rt.backends import heap, xla
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import ContinuousBatch, Measurements, Piece, TrainingSetup
from tunix_rt.backends.storage import Moments, Stored, check_adapter
from tunix_rt.backends.tunix import generate, optimizer, step
from tunix_rt.backends.tunix.decoder import arrays_of, build
from tunix_rt.backends.tunix.weights import WeightMapping
from tunix_rt.backends.waves import Waves
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.choices import Quantization
from tunix_rt.config.optimizers import AdamWConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import ConfigError
from tunix_rt.models.folder import CONFIG, Weights, read_weights


@dataclass(slots=True)
class State:
    """Tunix's model on the device and, in training, its trainer. Steps change both in place."""

    stored: Stored
    model: Any
    layout: WeightMapping
    trainer: PeftTrainer | None = None
    sampler: Sampler | None = None
    """Kept for its compiled programs."""


class TunixBackend(xla.XlaBackend):
    """Implements `interface.Backend`; its methods are documented there."""

    packages = ("google-tunix", *xla.XlaBackend.packages)

    def load(
        self,
        model_folder: Path,
        training: TrainingSetup | None,
        adapter: Path | None = None,
        quantize: Quantization | None = None,
    ) -> State:
        if adapter is not None or quantize is not None or (training is not None and training.adapter is not None):
            raise ConfigError("backend=tunix does not support LoRA: use backend=jax or backend=torch")
        state: State = super().load(model_folder, training)
        return state

    def _state(self, stored: Stored, adapter: Weights | None, training: TrainingSetup | None) -> State:
        where, weights = str(stored.folder / CONFIG), read_weights(stored.folder)
        model, layout = build(stored.architecture, weights, self._config, where, self._device)
        state = State(stored, model, layout)
        if training is not None:
            if not isinstance(training.optimizer, AdamWConfig):
                raise ConfigError("backend=tunix trains with optimizer=adamw alone: use backend=jax or backend=torch")
            rule = optimizer.adamw(training.optimizer, training.clip_norm, layout.kinds)
            state.trainer = step.trainer(model, rule, self._device)
            if stored.optimizer is not None:
                optimizer.set_moments(state.trainer.optimizer, stored.read_moments(), layout, self._device)
        return state

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        if state.trainer is None:
            raise ValueError("this state was loaded without a TrainingSetup: it cannot be trained")
        heap.trim_between_phases("train_step")
        before = xla.compilations()
        optimizer.set_rate(state.trainer.optimizer, learning_rate, self._device)
        train_step, _ = state.trainer.jit_train_and_eval_step(cache_nnx_graph=True)
        with xla.memory_errors(xla.ROWS):
            _, sums, norm = train_step(step.divided(Fold.of(len(batch.tokens), self.rows_at_once).local(batch)))
        finite = step.finite(sums["loss_sum"], norm)
        return state, sums | {"grad_norm": norm, "finite": finite, "compiled": xla.compilations() > before}

    def logprobs(self, state: State, batch: Batch, adapter: bool = True, top: int = 0) -> Measurements:
        check_adapter(state.stored, adapter)
        heap.trim_between_phases("logprobs")
        fold = Fold.of(len(batch.tokens), self.rows_at_once)
        with xla.memory_errors(xla.ROWS):
            found = step.score(state.model, step.inputs(fold.local(batch)), top=top)
        return {name: array.reshape(-1, *array.shape[2:])[: fold.num_rows] for name, array in found.items()}

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        heap.trim_between_phases("generate")
        a = state.stored.architecture
        limits = generate.Limits(state.stored.stop_ids, a.max_positions, generation.max_new_tokens)
        size = generate.slots_of(prompts) + generation.max_new_tokens
        if state.sampler is None or state.sampler.cache_config.cache_size != size:
            cache = CacheConfig(size, a.num_layers, a.num_kv_heads, a.head_dim)
            state.sampler = Sampler(state.model, generate.Ids(), cache)
        else:
            state.sampler.transformer_state = nnx.variables(state.model)
        with xla.memory_errors("generation.batch_size"):
            yield from generate.generate(state.sampler, state.model, limits, prompts, generation, seeds)

    def continuous(self, state: State, rows: int) -> ContinuousBatch:
        return Waves(self, state, rows)

    def _snapshot(self, state: State) -> tuple[Stored, Weights, Moments | None]:
        tensors, trainer = state.layout.to_files(arrays_of(nnx.state(state.model, nnx.Param))), state.trainer
        moments = None if trainer is None else optimizer.moments_of(trainer.optimizer, state.layout)
        return state.stored, tensors, moments


create = TunixBackend
num_devices = xla.num_devices
