"""The batch of DESIGN section 5, and the order of batches as a function of (seed, step)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.batches.batch import Batch, BatchOrder, assemble, sequential_batches
from tunix_rt.batches.encoded import Encoded, EncodedDataset, write_encoded
from tunix_rt.errors import ConfigError, DataError

MakeDataset = Callable[[Sequence[int]], EncodedDataset]
LENGTHS = [5, 3, 3, 8, 1, 5, 2, 7, 3, 5]


def fields(batch: Batch) -> dict[str, np.ndarray]:
    return {name: getattr(batch, name) for name in Batch.__slots__ if name != "divisor"}


@pytest.mark.parametrize("divisor", [0.0, -1.0, float("inf"), float("nan")])
def test_what_nothing_can_be_divided_by_is_refused(divisor: float) -> None:
    """Prevents: advantages, whose sum is about 0, divided by that."""
    row = np.ones((1, 1, 2), np.int32)
    with pytest.raises(ValueError, match="divisor"):
        Batch(row, row, row, row, row.astype(np.float32), divisor)


def test_two_traces_in_a_row_of_twelve(tmp_path: Path) -> None:
    """The example of the contract, digit by digit."""
    first = Encoded(np.array([5, 6, 7, 8, 9, 2], np.int32), np.array([0, 0, 0, 1, 1, 1], np.float32))
    second = Encoded(np.array([5, 4, 3, 2], np.int32), np.array([0, 0, 1, 1], np.float32))
    write_encoded(tmp_path, [("a", first), ("b", second)])
    batch = assemble(EncodedDataset.open(tmp_path), [[0, 1]], (1, 12))
    assert {name: value[0].tolist() for name, value in fields(batch).items()} == {
        "tokens": [5, 6, 7, 8, 9, 5, 4, 3, 0, 0, 0, 0],
        "targets": [6, 7, 8, 9, 2, 4, 3, 2, 0, 0, 0, 0],
        "weights": [0, 0, 1, 1, 1, 0, 1, 1, 0, 0, 0, 0],
        "positions": [0, 1, 2, 3, 4, 0, 1, 2, 0, 0, 0, 0],
        "segments": [1, 1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0],
    }
    assert {name: value.dtype for name, value in fields(batch).items()} == {
        "tokens": np.int32,
        "targets": np.int32,
        "weights": np.float32,
        "positions": np.int32,
        "segments": np.int32,
    }


def traces_in(batch: Batch, lengths: Sequence[int]) -> list[int]:
    """Check each segment against the trace it claims to be (`make_dataset`); return the traces, row by row."""
    found = []
    for row in range(len(batch.tokens)):
        segments = batch.segments[row]
        assert np.all(np.diff(segments[segments > 0]) >= 0), "segments are runs"
        for segment in range(1, int(segments.max()) + 1):
            inside = segments == segment
            trace = int(batch.tokens[row][inside][0]) // 1000
            expected = 1000 * trace + np.arange(lengths[trace])
            assert np.array_equal(batch.tokens[row][inside], expected)
            assert np.array_equal(batch.targets[row][inside], expected + 1), "no target crosses a trace"
            assert np.array_equal(batch.positions[row][inside], np.arange(lengths[trace]))
            assert np.all(batch.weights[row][inside] == 1 + trace)
            found.append(trace)
        padding = segments == 0
        assert not np.any(padding[:-1] & ~padding[1:]), "padding comes last"
        assert all(not value[row][padding].any() for value in fields(batch).values())
    return found


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=25),
    row_length=st.integers(12, 40),
    rows=st.integers(1, 3),
    packing=st.booleans(),
    seed=st.integers(0, 3),
)
def test_each_trace_once_per_epoch_and_whole(
    make_dataset: MakeDataset, lengths: list[int], row_length: int, rows: int, packing: bool, seed: int
) -> None:
    order = BatchOrder(make_dataset(lengths), row_length, packing, rows, seed, num_epochs=3)
    assert order.num_steps is not None
    batches = [order.batch_at(step) for step in range(order.num_steps)]
    assert all(batch.tokens.shape == (rows, row_length) for batch in batches)
    seen = [trace for batch in batches for trace in traces_in(batch, lengths)]
    assert len(seen) == 3 * len(lengths)
    for epoch in range(3):
        part = seen[epoch * len(lengths) : (epoch + 1) * len(lengths)]
        assert sorted(part) == list(range(len(lengths))), "once per epoch, epochs one after the other"
    assert not order.batch_at(order.num_steps).segments.any(), "afterwards rows are empty"
    assert batches[-1].segments.any()


def test_packing_does_put_traces_together(make_dataset: MakeDataset) -> None:
    """Guard: without a row of several traces the properties above would hold for nothing."""
    order = BatchOrder(make_dataset(LENGTHS), 12, True, 4, 0, None)
    assert order.batch_at(0).segments.max() >= 2
    assert order.num_rows < len(LENGTHS)
    alone = BatchOrder(make_dataset(LENGTHS), 12, False, 4, 0, None)
    assert (alone.batch_at(0).segments.max(), alone.num_rows) == (1, len(LENGTHS))


def test_a_step_computed_alone_equals_iterating(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(LENGTHS)
    iterated = BatchOrder(dataset, 12, True, 1, 7, None)
    in_order = [iterated.batch_at(step) for step in range(20)]
    for step in (19, 0, 11, 4):
        alone = BatchOrder(dataset, 12, True, 1, 7, None).batch_at(step)
        again = iterated.batch_at(step)
        for name, value in fields(in_order[step]).items():
            assert np.array_equal(value, fields(alone)[name])
            assert np.array_equal(value, fields(again)[name])


def test_seed_and_epoch_shuffle(make_dataset: MakeDataset) -> None:
    dataset = make_dataset([4] * 30)

    def epochs(seed: int) -> list[list[str]]:
        order = BatchOrder(dataset, 8, True, 5, seed, None)
        assert order.steps_per_epoch == 3
        return [[name for step in range(3 * e, 3 * e + 3) for name in order.ids_at(step)] for e in range(3)]

    assert epochs(0) == epochs(0)
    different = [epoch for seed in (0, 1) for epoch in epochs(seed)]
    assert len({tuple(epoch) for epoch in different}) == 6
    assert all(sorted(epoch) == sorted(dataset.ids) for epoch in different)
    pairs = [{frozenset(epoch[i : i + 2]) for i in range(0, 30, 2)} for epoch in different]
    assert len(pairs[0] & pairs[1]) < 5, "traces of equal length change their neighbours"


@pytest.mark.parametrize(("row_length", "most"), [(208, 0.75), (300, 0.2), (512, 0.1)])
def test_rows_are_put_together_anew_in_each_epoch(make_dataset: MakeDataset, row_length: int, most: float) -> None:
    """Prevents: traces of unlike lengths that sit in a row with the same others in every epoch (86 of 86 rows)."""
    random = np.random.default_rng(row_length)
    lengths = random.permutation(np.arange(20, 200)).tolist()
    order = BatchOrder(make_dataset(lengths), row_length, True, 1, 3, None)
    epochs = [[tuple(order.ids_at(e * order.num_rows + row)) for row in range(order.num_rows)] for e in range(4)]
    for rows in epochs:
        assert sorted(name for row in rows for name in row) == sorted(f"t{trace}" for trace in range(len(lengths)))
    neighbours = [{frozenset(two) for row in rows for two in combinations(row, 2)} for rows in epochs]
    for one, other in combinations(neighbours, 2):
        assert len(one & other) < most * len(one), "the same traces sit together again"
    again = BatchOrder(make_dataset(lengths), row_length, True, 1, 3, None)
    assert again.ids_at(3 * order.num_rows) == list(epochs[3][0]), "a pure function of seed and step"


def test_the_first_epoch_is_packed_as_well_as_can_be_and_the_others_take_no_more_rows(
    make_dataset: MakeDataset,
) -> None:
    """Steps per epoch are known ahead, and none of them is wasted on empty rows."""
    lengths = [5, 5, 3, 7, 2, 8, 1, 9, 4, 6, 10]
    order = BatchOrder(make_dataset(lengths), 10, True, 1, 0, None)
    assert order.num_rows == sum(lengths) // 10
    for step in range(5 * order.num_rows):
        assert order.batch_at(step).segments.all(), "every row is full"


def test_ids_name_what_is_in_the_batch(make_dataset: MakeDataset) -> None:
    order = BatchOrder(make_dataset(LENGTHS), 12, True, 3, 0, None)
    for step in range(6):
        assert order.ids_at(step) == [f"t{trace}" for trace in traces_in(order.batch_at(step), LENGTHS)]


@pytest.mark.parametrize(
    ("num_epochs", "rows", "steps", "expected"),
    [(1.0, 4, 3, 10), (0.5, 4, 2, 5), (2.0, 4, 5, 20), (0.3, 1, 3, 3), (1.5, 7, 3, 15)],
)
def test_fractions_of_epochs(
    make_dataset: MakeDataset, num_epochs: float, rows: int, steps: int, expected: int
) -> None:
    order = BatchOrder(make_dataset([5] * 10), 5, True, rows, 0, num_epochs)
    assert order.num_steps == steps
    assert order.steps_per_epoch == 10 / rows
    seen = [name for step in range(steps) for name in order.ids_at(step)]
    assert len(seen) == expected
    assert max(Counter(seen).values()) == -(-expected // 10)


def test_no_trace_or_one_too_long_is_an_error(make_dataset: MakeDataset) -> None:
    with pytest.raises(DataError, match="the training split is empty"):
        BatchOrder(make_dataset([]), 8, True, 1, 0, None)
    with pytest.raises(ConfigError, match="row_length"):
        BatchOrder(make_dataset([9]), 8, True, 1, 0, None)


def test_evaluation_batches_hold_every_trace_once_in_one_order(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(LENGTHS)
    batches = list(sequential_batches(dataset, 12, True, rows=4))
    assert all(batch.tokens.shape == (4, 12) for batch in batches)
    seen = [trace for batch in batches for trace in traces_in(batch, LENGTHS)]
    assert sorted(seen) == list(range(len(LENGTHS)))
    again = [trace for batch in sequential_batches(dataset, 12, True, 4) for trace in traces_in(batch, LENGTHS)]
    assert again == seen
    assert list(sequential_batches(make_dataset([]), 12, True, 4)) == []
