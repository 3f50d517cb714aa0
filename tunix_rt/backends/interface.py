"""The one narrow door between the product and a framework: eight methods and the records they exchange.

`State` and `Measurements` are opaque outside a backend; everything else is numpy and plain Python.
Legend: A micro-batches, B rows of this process, T positions, N tokens. Nothing here knows text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from tunix_rt.batches.batch import Batch
from tunix_rt.config.model import LoraAdapter
from tunix_rt.config.results import GenerationConfig
from tunix_rt.config.training import OptimizerConfig
from tunix_rt.models.adapter_folder import Base

State = Any
Measurements = Any
FinishReason = Literal["stop", "length"]
Int32 = np.ndarray[Any, np.dtype[np.int32]]
Float32 = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Placement:
    """What was found at start, with no `auto` in it."""

    process: int
    num_processes: int
    platform: str
    """`cpu`, `gpu` or `tpu`."""
    devices: tuple[str, ...]
    precision: str
    threads: int


@dataclass(frozen=True, slots=True)
class AdapterSetup:
    """What is trained in the place of the weights."""

    config: LoraAdapter
    base: Base
    """What `save` says of the model folder."""


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """What training needs of a backend beside the weights. The rate comes with each step."""

    optimizer: OptimizerConfig
    clip_norm: float | None
    seed: int
    adapter: AdapterSetup | None = None
    """None: every weight is trained."""


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
    """None: more follows."""


class Backend(Protocol):
    """One framework, made by `registry.create(BackendConfig, HardwareConfig, cache)`."""

    placement: Placement

    def load(self, model_folder: Path, training: TrainingSetup | None, adapter: Path | None = None) -> State:
        """Weights of a Hugging Face folder, with a fresh optimizer state where `training` is given.

        `training.adapter`: the weights are frozen and only the adapter is trained. `adapter`: a folder in PEFT's
        layout, whose additions are computed with (without `training`).

        Raises ModelError where the folder does not fit, DeviceError where the device is gone.
        """

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        """One update from arrays [A, B, T]: loss summed over micro-batches and processes, divided once.

        Consumes `state` (do not use it again). Applies no non-finite update. Leaves the scalars `loss_sum`,
        `weight_sum`, `grad_norm` (before clipping) and `finite` on the device, and says in `compiled` whether the
        call compiled a program (absent: it never does). Sums over tensors go in the order of their names.
        Raises OutOfMemory.
        """

    def logprobs(self, state: State, batch: Batch) -> Measurements:
        """`logprobs`: float32 [A, B, T], of each target; 0 where its weight is 0. Left on the device."""

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        """Device → host: the only synchronisation in the loop."""

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        """Answer prompts (int32 [N] each, N ≥ 1), one seed (64 bits) a prompt, in batches of `generation.batch_size`.

        Stops at the stop ids of the model folder's `generation_config.json`, after `max_new_tokens`, or where
        the model's positions end. Yields pieces as they are made; each index ends with one that has a
        `finish_reason`. What a row yields depends on its prompt and seed only. Raises OutOfMemory.
        """

    def save(self, state: State, folder: Path) -> Future[dict[str, str]]:
        """Into an existing folder: `model.safetensors` and `config.json` (Hugging Face names and layout, float32), or
        with an adapter what `models/adapter_folder.py` names instead; and
        `optimizer.safetensors` (`m.<name>`, `v.<name>` float32, `count` int64). The snapshot is taken on return;
        the future is done when the files are on disk, each whole, and holds the hex SHA-256 of each by its name."""

    def restore(self, folder: Path, model_folder: Path, training: TrainingSetup) -> State:
        """Exact continuation of what `save` wrote, also when the other backend wrote it.

        `model_folder` is where training began: with an adapter its base. Raises ModelError where that is another one,
        CheckpointError where the file of the moments does not fit.
        """

    def describe(self) -> dict[str, str]:
        """Versions and numerics for `environment.json`."""
