"""The quickstart as it is declared: its data, its model, its order of batches, its rates; and both backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tunix_rt.backends.interface import Backend, TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.batches.batch import Batch, BatchOrder
from tunix_rt.batches.encoded import EncodedDataset
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.load import check, compose
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.inputs import write_prepared
from tunix_rt.machine import cache_folder
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.training.schedule import learning_rate


@dataclass(frozen=True)
class Recipe:
    """What `experiment/quickstart.yaml` declares, ready to be trained by hand."""

    config: ExperimentConfig
    data: PreparedData

    @property
    def model(self) -> Path:
        return self.data.model_folder

    def setup(self, clip: bool = True) -> TrainingSetup:
        """`clip=False`: the first update's moments are then the gradients themselves."""
        return TrainingSetup(self.config.optimizer, self.config.training.clip_norm if clip else None, seed=0)

    def batch_at(self, row_length: int | None = None) -> Callable[[int], Batch]:
        """The batches of steps 0, 1, … at the declared row length, or the same traces laid out otherwise."""
        training = self.config.training
        assert training.row_length is not None
        order = BatchOrder(
            EncodedDataset.open(self.data.encoded("train")),
            training.row_length,
            training.packing,
            training.global_batch_size,
            self.config.training.seed,
            None,
        )
        if row_length is None:
            return order.batch_at
        return lambda step: repacked(order.batch_at(step), row_length)

    def rate_at(self, step: int, peak: float | None = None) -> float:
        """The rate of update 1, 2, …"""
        steps = self.config.training.max_steps
        assert steps is not None
        return learning_rate(self.config.schedule, peak or self.config.optimizer.learning_rate, step, steps)


def repacked(batch: Batch, row_length: int) -> Batch:
    """The same traces in longer rows: as many old rows behind each other as fit."""

    def laid(values: Any) -> Any:
        return np.ascontiguousarray(values.reshape(-1, row_length))

    together = row_length // batch.tokens.shape[1]
    number = (np.arange(len(batch.tokens)) % together)[:, None].astype(np.int32)
    segments = np.where(batch.segments > 0, batch.segments + number, 0).astype(np.int32)
    return Batch.supervised(*(laid(x) for x in (batch.tokens, batch.targets, batch.positions, segments, batch.weights)))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    config = check(compose(["+experiment=quickstart"]))
    folder = tmp_path_factory.mktemp("prepared")
    write_prepared(config, folder, None)
    return Recipe(config, PreparedData(folder))


@pytest.fixture(scope="session")
def both() -> dict[str, Backend]:
    """Both backends in float32 on the CPU."""
    threads: dict[str, Any] = {"jax": "auto", "torch": 1}  # at this size a second thread only costs
    return {
        name: create(
            BackendConfig(name=name, precision="float32"),
            HardwareConfig(platform="cpu", threads=threads[name]),
            cache_folder(),
        )
        for name in ("jax", "torch")
    }


Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def read_state() -> Callable[[Path], Arrays]:
    """Weights and optimizer state of a saved folder."""
    return lambda folder: load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")
