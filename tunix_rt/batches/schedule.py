"""Which data comes when: rows, steps and epochs from the section `training` and the lengths of the traces."""

from __future__ import annotations

from tunix_rt.batches.batch import BatchOrder
from tunix_rt.batches.encoded import EncodedDataset
from tunix_rt.batches.pack import Int64, choose_row_length, round_up
from tunix_rt.batches.pairs import EncodedPairs, PairOrder
from tunix_rt.config.training import TrainingConfig
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.models.folder import read_architecture
from tunix_rt.traces.prepared import PreparedData

LOOKED_AT = 16
"""Steps whose packing is looked at."""


def batch_schedule(training: TrainingConfig, prepared: PreparedData) -> tuple[BatchOrder, JsonObject]:
    """The order of batches, and what follows from the data: row length, steps, epochs, packing efficiency.

    Raises DataError (no training traces), ConfigError (a trace longer than the declared row).
    """
    dataset = EncodedDataset.open(prepared.encoded("train"))
    if len(dataset) == 0:
        raise DataError(f"{prepared.folder}: no training traces")
    row_length = row_length_of(training, prepared, dataset.lengths)
    order = BatchOrder(
        dataset,
        row_length=row_length,
        packing=training.packing,
        rows=training.global_batch_size,
        seed=training.seed,
        num_epochs=training.num_epochs,
    )
    num_steps = training.max_steps if training.max_steps is not None else order.num_steps
    assert num_steps is not None
    facts: JsonObject = {
        "row_length": row_length,
        "num_steps": num_steps,
        "num_epochs": round(num_steps / order.steps_per_epoch, 4),
        "packing_efficiency": round(float(dataset.lengths.sum()) / (order.num_rows * row_length), 4),
    }
    return order, facts


def pair_schedule(training: TrainingConfig, prepared: PreparedData) -> tuple[PairOrder, JsonObject]:
    """The same for pairs, of which a step has `global_batch_size`.

    The efficiency of packing is that of the first steps.
    """
    dataset = EncodedPairs.open(prepared.encoded("train"))
    if len(dataset) == 0:
        raise DataError(f"{prepared.folder}: no pairs to train on")
    row_length = row_length_of(training, prepared, dataset.lengths)
    size = training.global_batch_size
    order = PairOrder(dataset, row_length, training.packing, size, training.seed, training.num_epochs)
    num_steps = training.max_steps if training.max_steps is not None else order.num_steps
    assert num_steps is not None
    segments = [order.batch_at(step).batch.segments for step in range(min(num_steps, LOOKED_AT))]
    facts: JsonObject = {
        "row_length": row_length,
        "num_steps": num_steps,
        "num_epochs": round(num_steps / order.steps_per_epoch, 4),
        "packing_efficiency": round(sum(int((x > 0).sum()) for x in segments) / sum(x.size for x in segments), 4),
    }
    return order, facts


def schedule_of(
    data: str, training: TrainingConfig, prepared: PreparedData
) -> tuple[BatchOrder | PairOrder, JsonObject]:
    """The schedule of an objective that learns from `data`."""
    return pair_schedule(training, prepared) if data == "pairs" else batch_schedule(training, prepared)


def row_length_of(training: TrainingConfig, prepared: PreparedData, lengths: Int64) -> int:
    """The declared row length, or the one that suits sequences of these lengths."""
    if training.row_length is not None:
        return training.row_length
    if training.packing:
        return choose_row_length(lengths, read_architecture(prepared.model_folder).hidden_size)
    return round_up(int(lengths.max()))


def evaluation_length(dataset: EncodedDataset | EncodedPairs, row_length: int) -> int:
    """Row length for the loss of `dataset`: as in training, or longer if its longest trace needs it."""
    return max(row_length, round_up(int(dataset.lengths.max())))
