"""The outline of an experiment: shapes, batches and lengths, from its config and its data; no weights are read.

The data are prepared as for a run, but into a temporary folder whose model folder has a config.json and no weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.backends.memory import GenerationLoad, MemoryQuery
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import EncodedDataset
from tunix_rt.batches.reader import Reader
from tunix_rt.batches.schedule import batch_schedule
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.inputs import write_prepared
from tunix_rt.models.adapter import declared
from tunix_rt.models.folder import read_architecture
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.tracking.registry import ModelStore

NUM_BATCHES = 16
"""Number of steps examined: enough for nearly every kind of batch to occur."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What follows from config and data."""

    config: ExperimentConfig
    prepared: PreparedData
    query: MemoryQuery
    row_length: int
    num_steps: int
    num_epochs: float
    num_tokens: int
    """Tokens of all traces, once: what `traces` and the manifest count."""
    steps_per_epoch: float
    """Steps in which each trace occurs once."""


@contextmanager
def prepared_shapes(config: ExperimentConfig) -> Iterator[PreparedData]:
    """Yields prepared data whose model folder has no weights, and deletes them after. Raises what `prepare` raises."""
    with tempfile.TemporaryDirectory(prefix="tunix_rt-plan-") as place:
        folder = Path(place) / "data"
        write_prepared(config, folder, ModelStore(config.tracking.uri), weights=False)
        yield PreparedData(folder)


def outline(config: ExperimentConfig, prepared: PreparedData) -> Outline:
    """The outline of `config` on prepared data. Raises DataError, InputError, ModelError."""
    if not config.training.trains:
        return Outline(config, prepared, _query(config, prepared, ()), 0, 0, 0.0, 0, 0.0)
    order, facts = batch_schedule(config.training, prepared)
    num_steps, row_length = int(facts["num_steps"]), int(facts["row_length"])
    batches = tuple(order.batch_at(step) for step in range(min(num_steps, NUM_BATCHES)))
    query = _query(config, prepared, batches)
    tokens = int((EncodedDataset.open(prepared.encoded("train")).lengths + 1).sum())
    epochs = float(facts["num_epochs"])
    return Outline(config, prepared, query, row_length, num_steps, epochs, tokens, order.steps_per_epoch)


def _query(config: ExperimentConfig, prepared: PreparedData, batches: tuple[Batch, ...]) -> MemoryQuery:
    architecture = read_architecture(prepared.model_folder)
    return MemoryQuery(
        architecture=architecture,
        adapter=None if config.model.adapter is None else declared(config.model.adapter, architecture),
        quantize=None if config.model.adapter is None else config.model.adapter.quantize,
        backend=config.backend,
        optimizer=config.optimizer,
        batches=batches,
        predicted=_predicted(config, prepared),
    )


def _predicted(config: ExperimentConfig, prepared: PreparedData) -> GenerationLoad | None:
    traces = prepared.traces(config.generation.split)
    if not traces:
        return None
    reader = Reader.of(prepared.model_folder, config.format)
    longest = max(len(reader.encode(trace.conversation, trace.tools)[1]) for trace in traces)
    rows = min(len(traces) * config.generation.num_return_sequences, config.generation.batch_size)
    return GenerationLoad(rows, longest, config.generation.max_new_tokens)
