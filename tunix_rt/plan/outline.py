"""The outline of an experiment: shapes, batches and lengths, from its config and its data; no weights are read.

Data that a run has prepared are taken as they are. Others are prepared as for a run, but into a temporary folder whose
model folder has a config.json and no weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.backends.memory import GenerationLoad, MemoryQuery
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.batches.reader import Reader
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import ModelError
from tunix_rt.inputs import declared_folder, write_prepared
from tunix_rt.models.adapter import declared
from tunix_rt.models.folder import read_architecture
from tunix_rt.models.sources import Store
from tunix_rt.plan.updates import Updates, updates_of
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.tracking.registry import ModelStore


@dataclass(frozen=True, slots=True)
class Outline:
    """What follows from config and data."""

    config: ExperimentConfig
    prepared: PreparedData
    query: MemoryQuery
    updates: Updates


@contextmanager
def prepared_shapes(config: ExperimentConfig) -> Iterator[PreparedData]:
    """Yields prepared data; those made for it have a model folder without weights, and are deleted after.

    Raises what `prepare` raises.
    """
    store = ModelStore(config.tracking.uri)
    found = _found(config, store)
    if found is not None:
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="tunix_rt-plan-") as place:
        folder = Path(place) / "data"
        write_prepared(config, folder, store, weights=False)
        yield PreparedData(folder)


def _found(config: ExperimentConfig, store: Store) -> PreparedData | None:
    """What a run has prepared, if it is whole. None as well where the run begins from what is not trained yet."""
    try:
        found = PreparedData(declared_folder(config, store))
    except ModelError:
        return None
    return found if found.is_whole and not found.damage() else None


def outline(config: ExperimentConfig, prepared: PreparedData, num_devices: int = 1) -> Outline:
    """The outline of `config` on prepared data and devices. Raises DataError, InputError, ModelError, DeviceError."""
    updates = updates_of(config, prepared)
    return Outline(config, prepared, _query(config, prepared, updates, num_devices), updates)


def _query(config: ExperimentConfig, prepared: PreparedData, updates: Updates, num_devices: int) -> MemoryQuery:
    architecture = read_architecture(prepared.model_folder)
    return MemoryQuery(
        architecture=architecture,
        adapter=None if config.model.adapter is None else declared(config.model.adapter, architecture),
        quantize=None if config.model.adapter is None else config.model.adapter.quantize,
        backend=config.backend,
        optimizer=config.optimizer,
        batches=updates.batches,
        sampled=updates.sampled,
        keeps_reference=updates.keeps_reference,
        predicted=_predicted(config, prepared),
        mesh=MeshShape.of(config.hardware.mesh, num_devices),
    )


def _predicted(config: ExperimentConfig, prepared: PreparedData) -> GenerationLoad | None:
    traces = prepared.traces(config.generation.split)
    if not traces:
        return None
    reader = Reader.of(prepared.model_folder, config.format)
    longest = max(len(reader.encode(trace.conversation, trace.tools)[1]) for trace in traces)
    rows = min(len(traces) * config.generation.num_return_sequences, config.generation.batch_size)
    return GenerationLoad(rows, longest, config.generation.max_new_tokens)
