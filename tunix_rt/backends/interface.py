"""The only interface between the product and a framework: nine methods and the records they exchange.

`State` and `Measurements` are opaque outside a backend; everything else is numpy and plain Python.
Legend: R rows of an update on all devices, T positions, N tokens. Text does not appear here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from tunix_rt.backends.mesh import ONE_DEVICE, MeshShape
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.choices import Precision, Quantization
from tunix_rt.config.model import LoraAdapter
from tunix_rt.config.optimizers import OptimizerConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.adapter_folder import Base
from tunix_rt.models.folder import Float32
from tunix_rt.models.shards import MAX_SHARD_SIZE

State = Any
Measurements = Any
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Placement:
    """The devices found at start, with every `auto` resolved."""

    platform: str
    """`cpu`, `gpu` or `tpu`."""
    devices: tuple[str, ...]
    """Of all processes."""
    precision: Precision
    threads: int
    """CPU threads of one process."""
    mesh: MeshShape = ONE_DEVICE


@dataclass(frozen=True, slots=True)
class AdapterSetup:
    """The adapter that is trained instead of the weights."""

    config: LoraAdapter
    base: Base
    """The model folder."""

    @property
    def recorded(self) -> Base:
        """What `save` records of the base."""
        return replace(self.base, quantize=self.config.quantize)


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """What a backend needs for training besides the weights. The learning rate comes with each step."""

    optimizer: OptimizerConfig
    clip_norm: float | None
    seed: int
    adapter: AdapterSetup | None = None
    """None if every weight is trained."""


@dataclass(frozen=True, slots=True)
class Top:
    """The likeliest tokens at each of n positions, the likeliest first."""

    ids: Int32
    """[n, k]"""
    logprobs: Float32
    """[n, k] natural log-probabilities at temperature 1, before any top-k or top-p."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A portion of one prompt's completion."""

    index: int
    """Position of the prompt in the call."""
    ids: Int32
    """[n] new tokens, stop token excluded."""
    logprobs: Float32
    """[n] natural log-probabilities under the model at temperature 1, before any top-k or top-p."""
    finish_reason: FinishReason | None
    """None if more follows."""
    stop_id: int | None = None
    """The token that ended the completion; None if more follows, it ended at its limit, or a backend cannot tell."""
    stop_logprob: float | None = None
    """Its log-probability, as `logprobs`; None as `stop_id`."""
    top: Top | None = None
    """What else was likely at each token of `ids`, if the request asked for it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt that joins a `ContinuousBatch`."""

    index: int
    """Tells it from the others in the batch."""
    prompt: Int32
    """[N] token ids, N ≥ 1."""
    generation: GenerationConfig
    """Read: `max_new_tokens`, `temperature`, `top_k`, `top_p`."""
    seed: int
    """64 bits."""
    top_logprobs: int = 0
    """How many of the likeliest tokens are named at each new one."""


class ContinuousBatch(Protocol):
    """Prompts that are answered together; one joins when a row is free, and leaves when it has ended."""

    @property
    def free(self) -> int:
        """How many requests can be added now."""

    def add(self, request: Request) -> None:
        """Let a request join at the next step. Raises ValueError if no row is free."""

    def abort(self, index: int) -> None:
        """Let a request leave; nothing more is said of it. One that is not there is passed over.

        Its row is free at the next step; in `Waves`, which cannot stop an answer, once those beside it have ended.
        """

    def step(self) -> list[Piece]:
        """Read the prompts that have joined, and make one or several tokens of every row; their pieces, as `generate`.

        Without requests: none. Raises OutOfMemory.
        """


class Backend(Protocol):
    """One framework, created by `registry.create(BackendConfig, HardwareConfig, cache)`."""

    placement: Placement
    rows_at_once: int | None
    """Rows that a device computes at once, at most; None: all. It may be lowered, and changes no result but by
    rounding."""

    def load(
        self,
        model_folder: Path,
        training: TrainingSetup | None,
        adapter: Path | None = None,
        quantize: Quantization | None = None,
    ) -> State:
        """Load the weights of a Hugging Face folder, with a fresh optimizer state if `training` is given.

        With `training.adapter` the weights are frozen and only the adapter is trained. `adapter`: a folder in PEFT's
        layout whose adapter is applied (without `training`). `quantize`: how the matrices of the layers are held
        without `training`; None: as the adapter's folder records.

        Raises ModelError if the folder does not fit, DeviceError if the device is gone.
        """

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        """One update from arrays [R, T]: the loss is summed over all devices, and divided once by the batch's divisor.

        Consumes `state` (do not use it again). Applies no non-finite update. Leaves the scalars `loss_sum` (not
        divided), `grad_norm` (before clipping) and `finite` on the device, and reports in `compiled` whether the call
        compiled a program (absent if it never does). Sums over tensors are in the order of their names.
        Raises OutOfMemory.
        """

    def logprobs(self, state: State, batch: Batch, adapter: bool = True, top: int = 0) -> Measurements:
        """Returns `logprobs`: float32 [R, T], of each target; 0 where its weight is 0. Left on the device.

        `adapter` false: those of the base, without the adapter that is trained. Raises ValueError if there is none.
        `top` k > 0: also, at every place, the k likeliest tokens (fewer in a smaller vocabulary), the likeliest first,
        as `top_ids` int32 [R, T, k], and their log-probabilities as `top_logprobs` float32 [R, T, k].
        """

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        """Device → host: the only synchronisation in the loop."""

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        """Answer prompts (int32 [N] each, N ≥ 1), one seed (64 bits) per prompt, in batches of `generation.batch_size`.

        Stops at the stop ids of the model folder's `generation_config.json`, after `max_new_tokens`, or at the
        model's last position. Yields pieces as they are made; the last one of each index has a
        `finish_reason`. What a row yields depends on its prompt and seed only. Raises OutOfMemory.
        """

    def continuous(self, state: State, rows: int) -> ContinuousBatch:
        """An empty batch for answering at most `rows` prompts at once. `state` stays in use until it is dropped."""

    def save(self, state: State, folder: Path, max_shard_size: int = MAX_SHARD_SIZE) -> Future[dict[str, str]]:
        """Save to an existing folder `model.safetensors` and `config.json` (Hugging Face names and layout, float32), or
        with an adapter what `models/adapter_folder.py` names instead; and `optimizer.safetensors`
        (`models/moments.py`). Tensors of more than `max_shard_size` bytes are in several files with an
        index (`models/shards.py`). The snapshot is taken on return; the future is done when all files are complete on
        disk, and holds the hex SHA-256 of each by name.

        In a job of several processes each writes what it holds, at the same time as the others; when all have done so,
        `models.shards.finish` completes those files, and has their hashes.
        """

    def restore(self, folder: Path, model_folder: Path, training: TrainingSetup) -> State:
        """Load what `save` wrote, here or in another backend, to continue exactly.

        `model_folder` is the model that training began with: with an adapter, its base. Raises ModelError if it is
        another one, CheckpointError if the optimizer's file does not fit.
        """

    def describe(self) -> dict[str, str]:
        """Versions and numerics for `environment.json`."""
