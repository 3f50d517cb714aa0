"""The outline of an experiment: shapes, batches and lengths, from its config and its data; no weights are read.

The data are prepared as for a run, but into a temporary folder whose model has a config.json and no weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from tunix_rt.backends.memory import Answers, Work
from tunix_rt.batches.batch import Batch, BatchOrder, sequential_batches
from tunix_rt.batches.encode import EncodedDataset
from tunix_rt.batches.reader import Reader
from tunix_rt.batches.schedule import batch_schedule, evaluation_length
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.inputs import write_prepared
from tunix_rt.models.adapter import declared
from tunix_rt.models.folder import read_architecture
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.tracking.registry import ModelStore
from tunix_rt.training.sample import Sampler

NUM_BATCHES = 16
"""Steps that are looked at: among so many nearly every kind of batch occurs."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What follows from config and data."""

    config: ExperimentConfig
    prepared: PreparedData
    work: Work
    order: BatchOrder
    row_length: int
    num_steps: int
    num_epochs: float
    num_tokens: int
    """Real tokens that an epoch reads."""

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which each trace comes once."""
        return self.order.steps_per_epoch


@contextmanager
def prepared_shapes(config: ExperimentConfig) -> Iterator[PreparedData]:
    """The prepared data with a model folder without weights, for a while. Raises what `prepare` raises."""
    with tempfile.TemporaryDirectory(prefix="tunix_rt-plan-") as place:
        folder = Path(place) / "data"
        write_prepared(config, folder, ModelStore(config.tracking.uri), weights=False)
        yield PreparedData(folder)


def outline(config: ExperimentConfig, prepared: PreparedData) -> Outline:
    """The outline of `config` on data that are prepared. Raises DataError, InputError, ModelError."""
    order, facts = batch_schedule(config.training, prepared)
    architecture = read_architecture(prepared.model_folder)
    num_steps, row_length = int(facts["num_steps"]), int(facts["row_length"])
    adapter = None if config.model.adapter is None else declared(config.model.adapter, architecture)
    evaluation, sampled = None, None
    if config.training.evaluate_every is not None:
        evaluation = _evaluation(config, prepared, row_length)
        sampled = _sampled(config, prepared)
    work = Work(
        architecture=architecture,
        adapter=adapter,
        backend=config.backend,
        optimizer=config.optimizer,
        batches=tuple(order.batch_at(step) for step in range(min(num_steps, NUM_BATCHES))),
        evaluation=evaluation,
        sampled=sampled,
        predicted=_predicted(config, prepared),
    )
    tokens = int(EncodedDataset.open(prepared.encoded("train")).lengths.sum())
    return Outline(config, prepared, work, order, row_length, num_steps, float(facts["num_epochs"]), tokens)


def _evaluation(config: ExperimentConfig, prepared: PreparedData, row_length: int) -> Batch | None:
    dataset = EncodedDataset.open(prepared.encoded("validation"))
    if len(dataset) == 0:
        return None
    training = config.training
    length = evaluation_length(dataset, row_length)
    return next(islice(sequential_batches(dataset, length, training.packing, training.per_device_batch_size), 1))


def _sampled(config: ExperimentConfig, prepared: PreparedData) -> Answers | None:
    traces = prepared.traces("validation")[: config.training.evaluate_samples]
    sampler = Sampler.of(prepared.model_folder, config.format, traces)
    if not sampler.prompts:
        return None
    return Answers(len(sampler.prompts), max(map(len, sampler.prompts)), sampler.generation)


def _predicted(config: ExperimentConfig, prepared: PreparedData) -> Answers | None:
    traces = prepared.traces(config.generation.split)
    if not traces:
        return None
    reader = Reader.of(prepared.model_folder, config.format)
    lengths = [len(reader.encode(trace.prompt, trace.history)[1]) for trace in traces]
    asked = len(traces) * config.generation.num_return_sequences
    return Answers(min(asked, config.generation.batch_size), int(np.max(lengths)), config.generation)
